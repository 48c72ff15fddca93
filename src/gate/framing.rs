//! Message length (RFC 9112 section 6.3), which a head must state unambiguously.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode};

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
        (None, _, Some(length), None) => parse_length(length).is_some(),
        (Some(coding), None, None, _) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    }
}

/// Replaces `Content-Length` by the number that it stands for: another parser could read `010` as octal.
pub fn write_parsed_length(headers: &mut HeaderMap) {
    let length = headers.get(CONTENT_LENGTH);
    if let Some([b'0', _, ..]) = length.map(HeaderValue::as_bytes)
        && let Some(parsed) = length.and_then(parse_length)
    {
        headers.insert(CONTENT_LENGTH, parsed.into());
    }
}

/// Removes the message length of a response that has no content and may state none (RFC 9110 section 8.6), and writes any
/// other as a plain number.
pub fn write_response_length(status: StatusCode, headers: &mut HeaderMap) {
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        headers.remove(CONTENT_LENGTH);
    } else {
        write_parsed_length(headers);
    }
}

/// Value of `Content-Length`: one or more digits, and nothing else.
pub fn parse_length(value: &HeaderValue) -> Option<u64> {
    let text = value.as_bytes();
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
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
            &[(length, "")],
            &[(length, "18446744073709551616")],
            &[(length, "4"), (coding, "chunked")],
            &[(coding, "gzip, chunked")],
            &[(coding, "chunked"), (coding, "chunked")],
            &[(coding, "identity")],
        ] {
            assert!(!has_unambiguous_length(&head(invalid)), "{invalid:?}");
        }
    }

    #[test]
    fn writes_the_number_without_leading_zeros() {
        let value = HeaderValue::from_static;
        for (received, written) in [
            ("010", "10"),
            ("00", "0"),
            ("0", "0"),
            ("10", "10"),
            (
                "00000000000000000000018446744073709551615",
                "18446744073709551615",
            ),
        ] {
            let mut headers = HeaderMap::from_iter([(CONTENT_LENGTH, value(received))]);
            write_parsed_length(&mut headers);
            assert_eq!(headers[CONTENT_LENGTH], written);
        }
    }

    #[test]
    fn removes_the_length_of_a_response_without_content() {
        let length = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            let value = HeaderValue::from_static("05");
            let mut headers = HeaderMap::from_iter([(CONTENT_LENGTH, value)]);
            write_response_length(status, &mut headers);
            headers
                .get(CONTENT_LENGTH)
                .map(|length| length.to_str().unwrap().to_owned())
        };
        for status in [100, 101, 103, 204] {
            assert_eq!(length(status), None, "{status}");
        }
        // RFC 9110 section 15.4.5: a 304 states the length of the 200.
        for status in [200, 205, 206, 304, 404] {
            assert_eq!(length(status).as_deref(), Some("5"), "{status}");
        }
    }
}
