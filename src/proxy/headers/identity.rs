//! Identity headers: `X-User-Id` and the headers of `[identity]`, written from the verified caller.

use crate::gate::permit::KnownCaller;
use crate::proxy::request_head::RequestHeadWriter;

/// Writes the identity headers. Copies from the client are not forwarded, in any spelling.
pub(super) fn write(head: &mut RequestHeadWriter, caller: &KnownCaller) {
    for (name, value) in caller.headers.iter() {
        head.field(name, value.as_bytes());
    }
}
