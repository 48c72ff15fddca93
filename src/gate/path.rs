//! Canonical paths: paths with exactly one reading.
//!
//! The gate decodes, merges and resolves nothing on the way to the upstream. It rejects a path that two parsers could
//! read differently, and forwards every other path as received.

mod fault;

use std::borrow::Cow;
use std::iter;

use percent_encoding::percent_decode_str;

use super::byte_set::ByteSet;

pub use fault::{PathFault, PathFaultKind};

/// `pchar` and `/` (RFC 3986 section 3.3).
static PATH: ByteSet = ByteSet::alphanumeric_and(b"/-._~!$&'()*+,;=:@%");

/// Bytes of [`PATH`] that mean the same wherever they are in a segment.
static PLAIN: ByteSet = ByteSet::alphanumeric_and(b"/-_~!$&'()*+,=:@");

/// Path of a request target (RFC 3986 section 3.3) that every parser reads alike.
///
/// It starts with `/`, has only characters that RFC 3986 allows in a path, and no empty segment except the last. No
/// segment is `.` or `..`, alone or before a `;`, and none starts with `;`. No unreserved character (letters, digits,
/// `-._~`) is percent-encoded. Nothing decodes to `/`, `\`, a control character, invalid UTF-8 or another
/// percent-encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CanonicalPath<'a> {
    text: &'a str,
    has_escapes: bool,
}

impl<'a> CanonicalPath<'a> {
    /// Checks a path without its query.
    pub fn parse(path: &'a str) -> Result<Self, PathFault> {
        let is_plain = is_plain(path.as_bytes());
        if !is_plain {
            check(path)?;
        }
        Ok(Self {
            text: path,
            has_escapes: !is_plain && path.contains('%'),
        })
    }

    /// Path as received, byte for byte.
    pub fn as_str(self) -> &'a str {
        self.text
    }

    pub(super) fn has_escapes(self) -> bool {
        self.has_escapes
    }

    /// Path with every segment percent-decoded once. Its segments are those of the path: none decodes to a `/`.
    pub(super) fn decoded(self) -> Cow<'a, str> {
        // Infallible: the parser decoded every segment.
        decode(self.text).unwrap_or(Cow::Borrowed(self.text))
    }

    /// Segments as received, with the offset of each.
    pub(super) fn segments(self) -> impl Iterator<Item = (usize, &'a str)> {
        let mut start = 1;
        iter::from_fn(move || {
            let at = start;
            let rest = self.text.get(at..)?;
            // `split` costs more: it prepares a search for every segment.
            let length = rest.bytes().position(|byte| byte == b'/');
            let segment = rest.get(..length.unwrap_or(rest.len()))?;
            start += segment.len() + 1;
            Some((at, segment))
        })
    }
}

/// Segment of a [`CanonicalPath`] that is bound to a path parameter, percent-decoded once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundSegment<'a>(Cow<'a, str>);

impl<'a> BoundSegment<'a> {
    /// Binds a segment at this offset of its path. Rejects a `;`, plain or encoded: some parsers end the segment there.
    pub(super) fn new(segment: &'a str, at: usize) -> Result<Self, PathFault> {
        let name = decode(segment).ok_or_else(|| PathFaultKind::InvalidUtf8.at(at))?;
        match name.bytes().position(|byte| byte == b';') {
            Some(found) => Err(PathFaultKind::Parameter.at(at + received(segment, found))),
            None => Ok(Self(name)),
        }
    }

    /// Compares the decoded segment with a subject byte for byte.
    pub fn names(&self, subject: &str) -> bool {
        self.0 == subject
    }
}

/// Returns whether a path is canonical and has no `%`, `.` or `;`. Most paths need no other check.
fn is_plain(path: &[u8]) -> bool {
    let mut follows_slash = false;
    path.starts_with(b"/")
        && path.iter().all(|byte| {
            let is_slash = *byte == b'/';
            let is_empty = follows_slash && is_slash;
            follows_slash = is_slash;
            !is_empty && PLAIN.contains(*byte)
        })
}

/// Checks a path of any form.
fn check(path: &str) -> Result<(), PathFault> {
    let Some(segments) = path.strip_prefix('/') else {
        return Err(PathFaultKind::NoSlash.at(0));
    };
    if let Some(at) = path.bytes().position(|byte| !is_path_byte(byte)) {
        let character = path.get(at..).and_then(|rest| rest.chars().next());
        return Err(PathFaultKind::Character(character.unwrap_or_default()).at(at));
    }
    let (mut rest, mut at) = (segments, 1);
    while let Some((segment, after)) = rest.split_once('/') {
        if segment.is_empty() {
            return Err(PathFaultKind::EmptySegment.at(at));
        }
        check_segment(segment, at)?;
        rest = after;
        at += segment.len() + 1;
    }
    check_segment(rest, at)
}

/// Checks a segment at this offset of its path.
fn check_segment(segment: &str, at: usize) -> Result<(), PathFault> {
    if !segment
        .bytes()
        .any(|byte| matches!(byte, b'%' | b'.' | b';'))
    {
        return Ok(());
    }
    for (escape, _) in segment.match_indices('%') {
        check_escape(segment, escape).map_err(|kind| kind.at(at + escape))?;
    }
    let text = match decode_bytes(segment) {
        Cow::Borrowed(_) => Cow::Borrowed(segment),
        // Overlong forms are not UTF-8 (RFC 3629 section 3).
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            PathFaultKind::InvalidUtf8.at(at + received(segment, valid))
        })?),
    };
    // The control characters U+0080 to U+009F have escapes of two bytes.
    if let Some(found) = text.find(char::is_control) {
        return Err(PathFaultKind::Control.at(at + received(segment, found)));
    }
    // `%252e` decodes to `%2e`, which a second decoder decodes again.
    let mut escapes = text.match_indices('%');
    if let Some((found, _)) = escapes.find(|(found, _)| hex_byte(&text, *found).is_some()) {
        return Err(PathFaultKind::NestedEscape.at(at + received(segment, found)));
    }
    match text.split(';').next() {
        Some("." | "..") => Err(PathFaultKind::DotSegment.at(at)),
        Some("") if !text.is_empty() => Err(PathFaultKind::EmptyName.at(at)),
        Some(_) | None => Ok(()),
    }
}

/// Checks the escape that starts at this offset of a segment.
fn check_escape(segment: &str, at: usize) -> Result<(), PathFaultKind> {
    match hex_byte(segment, at) {
        None => Err(PathFaultKind::IncompleteEscape),
        // RFC 3986 section 6.2.2.2: an encoded letter equals the letter. The upstream could match another route.
        Some(byte) if is_unreserved(byte) => Err(PathFaultKind::NeedlessEscape(byte)),
        Some(byte @ (b'/' | b'\\')) => Err(PathFaultKind::EncodedSlash(byte)),
        Some(0..=0x1f | 0x7f) => Err(PathFaultKind::Control),
        Some(_) => Ok(()),
    }
}

/// Byte of the escape `%XX` that starts at this offset.
pub(super) fn hex_byte(text: &str, at: usize) -> Option<u8> {
    let digits = text.get(at + 1..at + 3)?;
    let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex
        .then(|| u8::from_str_radix(digits, 16).ok())
        .flatten()
}

/// Offset in a segment as received, from an offset in its decoded form.
fn received(segment: &str, decoded: usize) -> usize {
    let mut at = 0;
    for _ in 0..decoded {
        at += if hex_byte(segment, at).is_some() && segment.as_bytes().get(at) == Some(&b'%') {
            3
        } else {
            1
        };
    }
    at
}

/// Unreserved characters (RFC 3986 section 2.3).
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Percent-decodes a text once; `None` if the result is not UTF-8.
pub(super) fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.as_bytes().contains(&b'%') {
        return Some(Cow::Borrowed(text));
    }
    percent_decode_str(text).decode_utf8().ok()
}

fn decode_bytes(text: &str) -> Cow<'_, [u8]> {
    percent_decode_str(text).into()
}

/// Returns whether a path may have this byte without an escape.
pub(super) fn is_path_byte(byte: u8) -> bool {
    PATH.contains(byte)
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
            "/;",
            "/;/a",
            "/a/;x=1/b",
            "/a/%3B/b",
            "/a/%3bx",
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
            assert!(CanonicalPath::parse(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn the_check_of_plain_paths_accepts_no_other_path() {
        const BYTES: &[u8] = b"/a.%2;|\xc3";
        let mut plain = 0;
        for length in 0..=5_u32 {
            for number in 0..BYTES.len().pow(length) {
                let byte = |place| BYTES[number / BYTES.len().pow(place) % BYTES.len()];
                let path: Vec<u8> = (0..length).map(byte).collect();
                if is_plain(&path) {
                    let path = str::from_utf8(&path).unwrap();
                    assert_eq!(check(path), Ok(()), "{path}");
                    assert!(!path.contains(['%', '.', ';']), "{path}");
                    plain += 1;
                }
            }
        }
        assert!(plain > 50, "{plain}");
    }

    #[test]
    fn lists_the_segments_with_their_offsets() {
        let segments = |path| {
            let path = CanonicalPath::parse(path).unwrap();
            path.segments().collect::<Vec<_>>()
        };
        assert_eq!(segments("/"), [(1, "")]);
        assert_eq!(segments("/a"), [(1, "a")]);
        assert_eq!(segments("/a/"), [(1, "a"), (3, "")]);
        assert_eq!(
            segments("/ab/%C3%AB/c"),
            [(1, "ab"), (4, "%C3%AB"), (11, "c")]
        );
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
            let bound = BoundSegment::new(segment, 1).unwrap();
            assert_eq!(bound.names(subject), same, "{segment} and {subject}");
        }
    }

    #[test]
    fn rejects_a_parameter_in_a_bound_segment() {
        for (segment, position) in [
            ("alice;x=1", 10),
            ("alice;", 10),
            (";alice", 5),
            ("alice%3Bx", 10),
            ("%C3%A9;", 11),
        ] {
            let fault = BoundSegment::new(segment, 4).unwrap_err();
            assert_eq!(fault.kind, PathFaultKind::Parameter, "{segment}");
            assert_eq!(fault.position, position, "{segment}");
        }
    }

    #[test]
    fn names_the_fault_its_position_and_the_fix() {
        for (path, expected) in [
            ("*", "The path must start with `/`."),
            (
                "/a//b",
                "The path has an empty segment at character 4: write one `/`.",
            ),
            (
                "/api/../b",
                "The path has a dot segment at character 6: resolve `.` and `..` before sending it.",
            ),
            (
                "/api/%2E%2E/b",
                "Character 6 of the path, `%2E`, must be sent as `.`: it needs no percent-encoding.",
            ),
            (
                "/a/..;x/b",
                "The path has a dot segment at character 4: resolve `.` and `..` before sending it.",
            ),
            (
                "/a/;x/b",
                "The segment at character 4 of the path starts with `;`: write a name before it.",
            ),
            (
                "/v1/tasks|1",
                "Character 10 of the path, `|`, must be percent-encoded: `%7C`.",
            ),
            (
                "/Zo\u{eb}",
                "Character 4 of the path, `\\u{eb}`, must be percent-encoded: `%C3%AB`.",
            ),
            (
                "/a\\b",
                "Character 3 of the path, `\\`, is not allowed: separate segments with `/`.",
            ),
            (
                "/a-b/c%2dd",
                "Character 7 of the path, `%2D`, must be sent as `-`: it needs no percent-encoding.",
            ),
            (
                "/a%2fb",
                "Character 3 of the path, `%2F`, is an encoded `/`: a segment cannot contain it.",
            ),
            (
                "/a%5Cb",
                "Character 3 of the path, `%5C`, is an encoded `\\`: a segment cannot contain it.",
            ),
            (
                "/a/b%0a",
                "The path has a percent-encoded control character at character 5.",
            ),
            (
                "/a/%C3%AB%C2%85",
                "The path has a percent-encoded control character at character 10.",
            ),
            (
                "/100%",
                "Character 5 of the path, `%`, does not start a percent-encoding: write `%25`.",
            ),
            (
                "/a%+f",
                "Character 3 of the path, `%`, does not start a percent-encoding: write `%25`.",
            ),
            (
                "/%C3%AB%ff",
                "The percent-encoding at character 8 of the path is not UTF-8.",
            ),
            (
                "/a%252e",
                "The path is percent-encoded twice at character 3: encode each segment once.",
            ),
        ] {
            let fault = CanonicalPath::parse(path).unwrap_err();
            assert_eq!(fault.to_string(), expected, "{path}");
        }
    }

    #[test]
    fn the_text_of_a_fault_is_short_whatever_the_path() {
        for start in [
            "/",
            "/%41",
            "/;",
            "/a|",
            "/%",
            "/%252e",
            "/..",
            "/\u{10ffff}",
        ] {
            let path = format!("/{}{start}{}", "a".repeat(4000), "x".repeat(4000));
            let text = CanonicalPath::parse(&path).map_err(|fault| fault.to_string());
            assert!(text.err().is_none_or(|text| text.len() < 120), "{start}");
        }
    }
}
