//! Where a message ends (RFC 9112 section 6.3): said in one way, or not accepted.

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

/// Whether a head says in at most one way where its body ends: one length, or `chunked` alone.
///
/// hyper goes by the chunks if there is a length too, and passes the length on. What another coding than `chunked` did
/// to the body would be lost on the way.
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
    fn a_message_has_one_end_or_none() {
        let head = |fields: &[(&'static str, &'static str)]| {
            let mut head = HeaderMap::new();
            for (name, value) in fields {
                head.append(*name, HeaderValue::from_static(value));
            }
            head
        };
        let (length, coding) = ("content-length", "transfer-encoding");
        for good in [
            &[][..],
            &[(length, "4")],
            &[(coding, "chunked")],
            &[(coding, "Chunked")],
        ] {
            assert!(has_unambiguous_length(&head(good)), "{good:?}");
        }
        for bad in [
            &[(length, "4"), (length, "4")][..],
            &[(length, "4, 4")],
            &[(length, "+4")],
            &[(length, "4"), (coding, "chunked")],
            &[(coding, "gzip, chunked")],
            &[(coding, "chunked"), (coding, "chunked")],
            &[(coding, "identity")],
        ] {
            assert!(!has_unambiguous_length(&head(bad)), "{bad:?}");
        }
    }
}
