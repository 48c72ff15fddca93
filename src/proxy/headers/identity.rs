//! Identity headers: `X-User-Id` and the headers of `[identity]`, written from the verified caller.

use http::HeaderMap;

use crate::gate::permit::KnownCaller;

/// Writes the identity headers. Copies from the client were removed before, in every spelling.
pub(super) fn write(headers: &mut HeaderMap, caller: &KnownCaller) {
    for (name, value) in caller.headers.iter() {
        headers.insert(name, value.clone());
    }
}
