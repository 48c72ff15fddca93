//! Message length (RFC 9112 section 6.3), which a head must state unambiguously.

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

/// Returns whether a head states at most one message length: one `Content-Length`, or `chunked` alone.
///
/// With both, hyper reads chunks and forwards the length. `Transfer-Encoding` is hop-by-hop, so the upstream would not
/// learn of any other coding.
pub fn has_unambiguous_length(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    match (
        codings.next(),
        codings.next(),
        lengths.next(),
        lengths.next(),
    ) {
        (None, _, None, _) => true,
        (None, _, Some(length), None) => length.as_bytes().iter().all(u8::is_ascii_digit),
        (Some(coding), None, None, _) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn accepts_at_most_one_message_length() {
        let head = |fields: &[(&'static str, &'static str)]| {
            let mut head = HeaderMap::new();
            for (name, value) in fields {
                head.append(*name, HeaderValue::from_static(value));
            }
            head
        };
        let (length, coding) = ("content-length", "transfer-encoding");
        for valid in [
            &[][..],
            &[(length, "4")],
            &[(coding, "chunked")],
            &[(coding, "Chunked")],
        ] {
            assert!(has_unambiguous_length(&head(valid)), "{valid:?}");
        }
        for invalid in [
            &[(length, "4"), (length, "4")][..],
            &[(length, "4, 4")],
            &[(length, "+4")],
            &[(length, "4"), (coding, "chunked")],
            &[(coding, "gzip, chunked")],
            &[(coding, "chunked"), (coding, "chunked")],
            &[(coding, "identity")],
        ] {
            assert!(!has_unambiguous_length(&head(invalid)), "{invalid:?}");
        }
    }
}
