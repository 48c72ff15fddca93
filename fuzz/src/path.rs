//! Canonical paths: every accepted path has one reading.

use percent_encoding::percent_decode_str;

use claimgate::gate::path::CanonicalPath;

/// Parses the input as a path. An accepted path is read alike by a parser that decodes once, one that decodes twice, and
/// one that resolves dot segments (RFC 3986 sections 5.2.4 and 6.2.2).
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(path) = CanonicalPath::parse(text) else {
        return;
    };
    assert_eq!(path.as_str(), text, "the path is not the one received");
    let segments: Vec<&str> = text
        .strip_prefix('/')
        .expect("no leading slash")
        .split('/')
        .collect();
    let (last, others) = segments.split_last().expect("no segment");
    assert!(
        others.iter().all(|segment| !segment.is_empty()),
        "empty segment: {text:?}"
    );
    for segment in others.iter().chain([last]) {
        let once = percent_decode_str(segment)
            .decode_utf8()
            .expect("not UTF-8");
        let twice = percent_decode_str(&once)
            .decode_utf8()
            .expect("not UTF-8 when decoded twice");
        assert_eq!(once, twice, "decodes twice: {text:?}");
        assert!(!once.contains(['/', '\\']), "hides a separator: {text:?}");
        assert!(
            !once.chars().any(char::is_control),
            "hides a control character: {text:?}"
        );
        let name = once.split(';').next().expect("split yields one part");
        assert!(name != "." && name != "..", "has a dot segment: {text:?}");
        for (at, _) in segment.match_indices('%') {
            let digits = segment.get(at + 1..at + 3).expect("truncated escape");
            let byte = u8::from_str_radix(digits, 16).expect("invalid escape");
            let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            assert!(!unreserved, "encodes an unreserved character: {text:?}");
        }
    }
    // RFC 3986 section 3.3: pchar and `/`. What the gate accepts, its URI type accepts and keeps.
    let uri: http::Uri = text.parse().expect("not a valid request target");
    assert_eq!(uri.path(), text, "the URI type changes the path");
    assert_eq!(uri.query(), None, "the path has a query: {text:?}");
}
