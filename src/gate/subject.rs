//! The name of a caller, once it is safe to compare, to log and to send.

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;

/// The longest subject, in bytes.
const MAX_SUBJECT_BYTES: usize = 256;

/// The subject of a verified token.
///
/// It is not empty, has no control characters and no space at its ends, so that it means the same as
/// the value of a header field (RFC 9110 section 5.5) as in the token. Text beyond ASCII is sent as UTF-8.
#[derive(Clone, PartialEq, Eq)]
pub struct Subject(HeaderValue, Arc<str>);

impl Subject {
    /// Takes the value of a claim, if it can be a subject.
    pub fn new(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > MAX_SUBJECT_BYTES {
            return None;
        }
        Some(Self(field_value(text)?, text.into()))
    }

    /// The subject as text.
    pub fn as_str(&self) -> &str {
        &self.1
    }

    /// The subject as the value of a header field.
    pub fn to_header_value(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// Text as a field value that arrives as it is, or nothing.
pub(super) fn field_value(text: &str) -> Option<HeaderValue> {
    let changes_on_the_way = text.contains(char::is_control) || text.trim() != text;
    if changes_on_the_way {
        return None;
    }
    HeaderValue::from_bytes(text.as_bytes()).ok()
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.1.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_what_a_header_can_carry_unchanged() {
        for good in [
            "alice",
            "alice@example.com",
            "Zoë",
            "用户",
            "a b",
            "a\"b,c;d",
            "x".repeat(256).as_str(),
        ] {
            assert!(Subject::new(good).is_some(), "{good:?}");
        }
        for bad in [
            "",
            " alice",
            "alice ",
            "\talice",
            "a\r\nb",
            "a\0b",
            "a\u{7f}",
            "a\u{85}b",
            "\u{a0}alice",
            "x".repeat(257).as_str(),
        ] {
            assert!(Subject::new(bad).is_none(), "{bad:?}");
        }
    }
}
