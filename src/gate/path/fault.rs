//! Faults of paths that are not canonical: the fault, its position and the fix, for the client's developer.

use std::fmt;
use std::sync::Arc;

/// Fault that gives a path more than one reading. Displays as a sentence of bounded length, which repeats at most one
/// character of the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathFault {
    pub kind: PathFaultKind,
    /// Position of the fault in the path, in bytes from 1.
    pub position: usize,
}

/// Kind of a [`PathFault`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathFaultKind {
    NoSlash,
    EmptySegment,
    /// `.` or `..`, alone or before a `;`.
    DotSegment,
    /// A `;` at the start of a segment: some parsers read an empty segment.
    EmptyName,
    /// A character that RFC 3986 does not allow in a path.
    Character(char),
    /// A percent-encoded character that may stand for itself here.
    NeedlessEscape(u8),
    /// A percent-encoded `/` or `\`.
    EncodedSlash(u8),
    Control,
    IncompleteEscape,
    InvalidUtf8,
    NestedEscape,
    /// A `;` in a segment that names an owner.
    Parameter,
    /// Another spelling of a path of this route; the text is empty if there is none.
    Spelling(Arc<str>),
}

impl PathFaultKind {
    /// The fault at this offset of a path.
    pub(in crate::gate) fn at(self, offset: usize) -> PathFault {
        PathFault {
            kind: self,
            position: offset + 1,
        }
    }
}

impl PathFault {
    /// Configured path of the route that the path leads to in another spelling.
    pub fn other_route(&self) -> Option<&str> {
        if let PathFaultKind::Spelling(route) = &self.kind {
            return Some(route.as_ref()).filter(|route| !route.is_empty());
        }
        None
    }
}

impl fmt::Display for PathFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.position;
        match &self.kind {
            PathFaultKind::NoSlash => f.write_str("The path must start with `/`."),
            PathFaultKind::EmptySegment => write!(
                f,
                "The path has an empty segment at character {at}: write one `/`."
            ),
            PathFaultKind::DotSegment => write!(
                f,
                "The path has a dot segment at character {at}: resolve `.` and `..` before sending it."
            ),
            PathFaultKind::EmptyName => write!(
                f,
                "The segment at character {at} of the path starts with `;`: write a name before it."
            ),
            PathFaultKind::Character('\\') => write!(
                f,
                "Character {at} of the path, `\\`, is not allowed: separate segments with `/`."
            ),
            PathFaultKind::Character(character) => {
                write!(f, "Character {at} of the path, `")?;
                if character.is_ascii_graphic() {
                    write!(f, "{character}")?;
                } else {
                    write!(f, "{}", character.escape_unicode())?;
                }
                f.write_str("`, must be percent-encoded: `")?;
                for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                    write!(f, "%{byte:02X}")?;
                }
                f.write_str("`.")
            }
            PathFaultKind::NeedlessEscape(byte) => write!(
                f,
                "Character {at} of the path, `%{byte:02X}`, must be sent as `{}`: it needs no percent-encoding.",
                char::from(*byte)
            ),
            PathFaultKind::EncodedSlash(byte) => write!(
                f,
                "Character {at} of the path, `%{byte:02X}`, is an encoded `{}`: a segment cannot contain it.",
                char::from(*byte)
            ),
            PathFaultKind::Control => write!(
                f,
                "The path has a percent-encoded control character at character {at}."
            ),
            PathFaultKind::IncompleteEscape => write!(
                f,
                "Character {at} of the path, `%`, does not start a percent-encoding: write `%25`."
            ),
            PathFaultKind::InvalidUtf8 => write!(
                f,
                "The percent-encoding at character {at} of the path is not UTF-8."
            ),
            PathFaultKind::NestedEscape => write!(
                f,
                "The path is percent-encoded twice at character {at}: encode each segment once."
            ),
            PathFaultKind::Parameter => write!(
                f,
                "Character {at} of the path, `;`, is not allowed in this segment."
            ),
            PathFaultKind::Spelling(_) => write!(
                f,
                "From character {at} on, the path can be read as another one: check case, leading zeros, `;` and the \
                 last `/`."
            ),
        }
    }
}
