//! Subjects that are safe to compare, log and send.

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;

/// Longest accepted subject, in bytes.
const MAX_SUBJECT_BYTES: usize = 256;

/// Subject of a verified token.
///
/// It is not empty and has no control characters and no space at its ends, so a header field carries it unchanged
/// (RFC 9110 section 5.5). Text beyond ASCII is sent as UTF-8.
#[derive(Clone, PartialEq, Eq)]
pub struct Subject(HeaderValue, Arc<str>);

impl Subject {
    /// Checks the value of a claim.
    pub fn new(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > MAX_SUBJECT_BYTES {
            return None;
        }
        Some(Self(field_value(text)?, text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.1
    }

    pub fn to_header_value(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// Header value of a text; `None` if a recipient could read another text.
pub(super) fn field_value(text: &str) -> Option<HeaderValue> {
    let would_change = text.contains(char::is_control) || text.trim() != text;
    if would_change {
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
    fn accepts_a_subject_that_a_header_carries_unchanged() {
        for valid in [
            "alice",
            "alice@example.com",
            "Zoë",
            "用户",
            "a b",
            "a\"b,c;d",
            "x".repeat(256).as_str(),
        ] {
            assert!(Subject::new(valid).is_some(), "{valid:?}");
        }
        for invalid in [
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
            assert!(Subject::new(invalid).is_none(), "{invalid:?}");
        }
    }
}
