//! Lines of a head or of trailers: the search for their end, and their fields.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use httparse::Header;

use crate::proxy::upstream::send::MAX_RESPONSE_HEAD_BYTES;

use super::response_fault::ResponseFault;

/// Fields that the gate may add to a head without another allocation.
const SPARE_FIELDS: usize = 2;

/// Search for the empty line that ends a section. A section that arrives byte by byte is parsed at its start and at its
/// end, not once a byte.
#[derive(Debug, Default)]
pub(super) struct EndSearch {
    /// Bytes of the buffer without the end of the section; zero before the first attempt.
    searched: usize,
}

impl EndSearch {
    /// Returns true if the new bytes of the buffer cannot complete the section.
    pub(super) fn is_without_end(&self, buffer: &[u8]) -> bool {
        // The end is `\n\r\n`, or an invalid `\n\n`; two of its bytes may be old ones.
        let overlap = self.searched.saturating_sub(2);
        let new = buffer.get(overlap..).unwrap_or_default();
        self.searched > 0 && !new.windows(2).any(|it| matches!(it, b"\n\r" | b"\n\n"))
    }

    /// Waits for more bytes.
    pub(super) fn postpone<T>(&mut self, buffer: &BytesMut) -> Result<Option<T>, ResponseFault> {
        if buffer.len() >= MAX_RESPONSE_HEAD_BYTES {
            return Err(ResponseFault::TooLong);
        }
        self.searched = buffer.len();
        Ok(None)
    }
}

/// Copies the fields that httparse found in a complete section. Every line of the section must end with CRLF: httparse
/// accepts a bare LF.
pub(super) fn copy_fields(
    section: &[u8],
    fields: &[Header<'_>],
    mut inspect: impl FnMut(&str, &[u8]),
) -> Result<HeaderMap, ResponseFault> {
    if !section.ends_with(b"\r\n\r\n") {
        return Err(ResponseFault::BareLineFeed);
    }
    // One copy for all values: it leaves the buffer of the connection free for the next read.
    let shared = Bytes::copy_from_slice(section);
    let offset = |part: &[u8]| part.as_ptr().addr().wrapping_sub(section.as_ptr().addr());
    let mut headers = HeaderMap::with_capacity(fields.len() + SPARE_FIELDS);
    for Header { name, value } in fields {
        let start = offset(name.as_bytes());
        let before = section.get(..start).unwrap_or_default();
        if start > 0 && !before.ends_with(b"\r\n") {
            return Err(ResponseFault::BareLineFeed);
        }
        inspect(name, value);
        let start = offset(value);
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_maybe_shared(shared.slice(start..start + value.len()));
        headers.append(
            name.map_err(|_invalid| ResponseFault::FieldName)?,
            value.map_err(|_invalid| ResponseFault::FieldValue)?,
        );
    }
    Ok(headers)
}
