//! A path that has one reading, or a refusal.
//!
//! Nothing is ever decoded, merged or resolved on the way to the upstream: a path that two parsers
//! could read in two ways is refused, and every other is sent as it came.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The path of a request target (RFC 3986 section 3.3) that every parser reads the same way.
///
/// It starts with `/`; it has only the characters that RFC 3986 allows in a path; no segment is empty
/// but the last; no segment is `.` or `..`, plain or before a `;`; nothing is percent-encoded that need not be
/// (letters, digits and `-._~`); nothing in it decodes to `/`, `\`, a control character, text that is not UTF-8, or another percent-encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CanonicalPath<'a>(&'a str);

/// A path that has more than one reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotCanonical;

impl<'a> CanonicalPath<'a> {
    /// Checks a path, without its query.
    pub fn parse(path: &'a str) -> Result<Self, NotCanonical> {
        let segments = path.strip_prefix('/').ok_or(NotCanonical)?;
        if !path.bytes().all(is_path_byte) {
            return Err(NotCanonical);
        }
        let mut rest = segments;
        while let Some((segment, after)) = rest.split_once('/') {
            if segment.is_empty() {
                return Err(NotCanonical);
            }
            check_segment(segment)?;
            rest = after;
        }
        check_segment(rest)?;
        Ok(Self(path))
    }

    /// The text, byte for byte as it came.
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

/// One segment of a [`CanonicalPath`] that stands for a parameter of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundSegment<'a>(&'a str);

impl<'a> BoundSegment<'a> {
    /// Takes a segment. Refuses a `;`, plain or encoded: some parsers end the segment there.
    pub(super) fn new(segment: &'a str) -> Result<Self, NotCanonical> {
        if decoded(segment)?.contains(';') {
            return Err(NotCanonical);
        }
        Ok(Self(segment))
    }

    /// Whether the segment, percent-decoded once as UTF-8, is this subject, byte for byte.
    pub fn names(self, subject: &str) -> bool {
        decoded(self.0).is_ok_and(|name| name == subject)
    }
}

fn check_segment(segment: &str) -> Result<(), NotCanonical> {
    if !segment.contains(['%', '.']) {
        return Ok(());
    }
    // RFC 3986 section 6.2.2.2: an encoded letter is the letter. An upstream would find another route than the gate.
    let mut bytes = percent_encoded(segment);
    if bytes.any(|byte| byte.is_none_or(is_unreserved)) {
        return Err(NotCanonical);
    }
    let text = decoded(segment)?;
    let mut escapes = text.split('%').skip(1);
    let ambiguous = text.contains(|c: char| c == '/' || c == '\\' || c.is_control())
        // `%252e` decodes to `%2e`, and a second decoder would go on.
        || escapes.any(starts_with_two_hex_digits)
        || is_dot_segment(&text);
    if ambiguous {
        return Err(NotCanonical);
    }
    Ok(())
}

/// Every byte that is written in percent-encoding; none for one that is not written right.
fn percent_encoded(segment: &str) -> impl Iterator<Item = Option<u8>> {
    let escapes = segment.split('%').skip(1);
    escapes.map(|escape| u8::from_str_radix(escape.get(..2)?, 16).ok())
}

/// RFC 3986 section 2.3: what never needs percent-encoding.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn is_dot_segment(text: &str) -> bool {
    let name = text.split(';').next().unwrap_or_default();
    name == "." || name == ".."
}

fn decoded(segment: &str) -> Result<Cow<'_, str>, NotCanonical> {
    let mut escapes = segment.split('%').skip(1);
    if !escapes.all(starts_with_two_hex_digits) {
        return Err(NotCanonical);
    }
    // Overlong forms are not UTF-8 (RFC 3629 section 3).
    let text = percent_decode_str(segment).decode_utf8();
    text.map_err(|_| NotCanonical)
}

fn starts_with_two_hex_digits(text: &str) -> bool {
    let mut bytes = text.bytes();
    let mut hex = || bytes.next().is_some_and(|byte| byte.is_ascii_hexdigit());
    hex() && hex()
}

/// RFC 3986 section 3.3: `pchar` and `/`.
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_one_reading_pass_as_they_are() {
        for path in [
            "/",
            "/a",
            "/api/alice/tasks",
            "/api/alice/tasks/",
            "/api/alice%40example.com/tasks",
            "/api/Zo%C3%AB/tasks",
            "/a/b;c=d/e",
            "/a...b/.hidden/..x/x..",
            "/100%25",
            "/a:b@c!$&'()*+,=~_-",
        ] {
            assert_eq!(
                CanonicalPath::parse(path).map(CanonicalPath::as_str),
                Ok(path)
            );
        }
    }

    #[test]
    fn paths_with_two_readings_are_refused() {
        for path in [
            "",
            "a",
            "*",
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/.",
            "/..",
            "/a/.",
            "/a/..",
            "/a/./b",
            "/a/../b",
            "/%61",
            "/%7Ea",
            "/%2e",
            "/%2E%2e",
            "/.%2e/a",
            "/%2e./a",
            "/a/..;/b",
            "/a/..;x=1/b",
            "/a/%2e%2e%3b/b",
            "/a/.;/b",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/%00",
            "/a%0d%0ab",
            "/%7f",
            "/%1b",
            "/%09",
            "/a%C2%85",
            "/%",
            "/%2",
            "/%zz",
            "/%u002e",
            "/a%c0%af",
            "/%c0%ae%c0%ae",
            "/%ff",
            "/%ed%a0%80",
            "/%252e%252e/a",
            "/%252f",
            "/a%25%32%66",
            "/a#b",
            "/a?b",
            "/a b",
            "/a\tb",
            "/a\"b",
            "/a<b>",
            "/a^b",
            "/a`b",
            "/a{b}",
            "/a|b",
            "/[a]",
            "/é",
        ] {
            assert_eq!(CanonicalPath::parse(path), Err(NotCanonical), "{path:?}");
        }
    }

    #[test]
    fn a_bound_segment_is_decoded_once_and_compared_byte_for_byte() {
        let cases = [
            ("alice", "alice", true),
            ("alice%40example.com", "alice@example.com", true),
            ("Zo%C3%AB", "Zoë", true),
            ("Alice", "alice", false),
            ("Zoe%CC%88", "Zoë", false),
            ("alice%20", "alice", false),
            ("", "", true),
        ];
        for (segment, subject, same) in cases {
            let bound = BoundSegment::new(segment).unwrap();
            assert_eq!(bound.names(subject), same, "{segment} and {subject}");
        }
    }

    #[test]
    fn a_parameter_in_a_bound_segment_is_refused() {
        for segment in ["alice;x=1", "alice;", ";alice", "alice%3Bx"] {
            assert_eq!(BoundSegment::new(segment), Err(NotCanonical), "{segment}");
        }
    }
}
