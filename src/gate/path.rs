//! Canonical paths: paths with exactly one reading.
//!
//! The gate decodes, merges and resolves nothing on the way to the upstream. It rejects a path that two parsers could
//! read differently, and forwards every other path as received.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Path of a request target (RFC 3986 section 3.3) that every parser reads alike.
///
/// It starts with `/`, has only characters that RFC 3986 allows in a path, and no empty segment except the last. No
/// segment is `.` or `..`, alone or before a `;`. No unreserved character (letters, digits, `-._~`) is percent-encoded.
/// Nothing decodes to `/`, `\`, a control character, invalid UTF-8 or another percent-encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CanonicalPath<'a>(&'a str);

/// Error of a path with more than one reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotCanonical;

impl<'a> CanonicalPath<'a> {
    /// Checks a path without its query.
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

    /// Path as received, byte for byte.
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

/// Segment of a [`CanonicalPath`] that is bound to a path parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundSegment<'a>(&'a str);

impl<'a> BoundSegment<'a> {
    /// Binds a segment. Rejects a `;`, plain or encoded: some parsers end the segment there.
    pub(super) fn new(segment: &'a str) -> Result<Self, NotCanonical> {
        if decoded(segment)?.contains(';') {
            return Err(NotCanonical);
        }
        Ok(Self(segment))
    }

    /// Compares the segment, percent-decoded once as UTF-8, with a subject byte for byte.
    pub fn names(self, subject: &str) -> bool {
        decoded(self.0).is_ok_and(|name| name == subject)
    }
}

fn check_segment(segment: &str) -> Result<(), NotCanonical> {
    if !segment.contains(['%', '.']) {
        return Ok(());
    }
    // RFC 3986 section 6.2.2.2: an encoded letter equals the letter. The upstream could match another route.
    let mut bytes = percent_encoded(segment);
    if bytes.any(|byte| byte.is_none_or(is_unreserved)) {
        return Err(NotCanonical);
    }
    let text = decoded(segment)?;
    let mut escapes = text.split('%').skip(1);
    let ambiguous = text.contains(|c: char| c == '/' || c == '\\' || c.is_control())
        // `%252e` decodes to `%2e`, which a second decoder decodes again.
        || escapes.any(starts_with_two_hex_digits)
        || is_dot_segment(&text);
    if ambiguous {
        return Err(NotCanonical);
    }
    Ok(())
}

/// Percent-encoded bytes of a segment; `None` for an invalid escape.
fn percent_encoded(segment: &str) -> impl Iterator<Item = Option<u8>> {
    let escapes = segment.split('%').skip(1);
    escapes.map(|escape| u8::from_str_radix(escape.get(..2)?, 16).ok())
}

/// Unreserved characters (RFC 3986 section 2.3).
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn is_dot_segment(text: &str) -> bool {
    let name = text.split(';').next().unwrap_or_default();
    name == "." || name == ".."
}

fn decoded(segment: &str) -> Result<Cow<'_, str>, NotCanonical> {
    if !segment.contains('%') {
        return Ok(Cow::Borrowed(segment));
    }
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

/// `pchar` and `/` (RFC 3986 section 3.3).
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_paths_with_one_reading() {
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
    fn rejects_paths_with_two_readings() {
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
    fn decodes_a_bound_segment_once_and_compares_bytes() {
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
    fn rejects_a_parameter_in_a_bound_segment() {
        for segment in ["alice;x=1", "alice;", ";alice", "alice%3Bx"] {
            assert_eq!(BoundSegment::new(segment), Err(NotCanonical), "{segment}");
        }
    }
}
