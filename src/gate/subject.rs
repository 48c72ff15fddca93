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

/// Namespace of an issuer's subjects: a prefix, which makes them differ from those of other issuers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespace {
    prefix: Box<str>,
    /// Prefixes of other issuers that start with this one.
    narrower: Vec<Box<str>>,
}

impl Namespace {
    /// Namespace with this prefix, possibly empty, beside those of `others`.
    pub fn new<'a>(prefix: &str, others: impl IntoIterator<Item = &'a str>) -> Self {
        let others = others.into_iter();
        let narrower =
            others.filter(|other| other.len() > prefix.len() && other.starts_with(prefix));
        Self {
            prefix: prefix.into(),
            narrower: narrower.map(Into::into).collect(),
        }
    }

    /// Returns whether the value of a claim would name a subject in the namespace of another issuer.
    pub fn is_foreign(&self, claim: &str) -> bool {
        Subject::new(claim).is_some() && self.subject(claim).is_none()
    }

    /// Subject with the value of a claim. A subject that would be in the namespace of another issuer is invalid.
    pub(super) fn subject(&self, claim: &str) -> Option<Subject> {
        let subject = Subject::new(claim)?;
        if self.prefix.is_empty() && self.narrower.is_empty() {
            return Some(subject);
        }
        let text = format!("{}{claim}", self.prefix);
        let mut narrower = self.narrower.iter();
        if narrower.any(|other| text.starts_with(&**other)) {
            return None;
        }
        Some(Subject(field_value(&text)?, text.into()))
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
    fn prefixes_a_subject_and_keeps_out_of_other_namespaces() {
        let all = ["", "okta:", "okta:eu:"];
        let subject = |prefix: &str, claim: &str| {
            let subject = Namespace::new(prefix, all).subject(claim)?;
            assert_eq!(
                subject.to_header_value().as_bytes(),
                subject.as_str().as_bytes()
            );
            Some(subject.as_str().to_owned())
        };
        for (prefix, claim, expected) in [
            ("", "alice", Some("alice")),
            ("", "okta", Some("okta")),
            ("", "okta:alice", None),
            ("", "okta:", None),
            ("okta:", "alice", Some("okta:alice")),
            ("okta:", "okta:alice", Some("okta:okta:alice")),
            ("okta:", "eu:alice", None),
            ("okta:eu:", "alice", Some("okta:eu:alice")),
            ("okta:", "", None),
            ("okta:", " alice", None),
            ("okta:", "a\nb", None),
        ] {
            assert_eq!(
                subject(prefix, claim).as_deref(),
                expected,
                "{prefix} {claim}"
            );
            let is_foreign = expected.is_none() && Subject::new(claim).is_some();
            let namespace = Namespace::new(prefix, all);
            assert_eq!(namespace.is_foreign(claim), is_foreign, "{prefix} {claim}");
        }
        let longest = "x".repeat(256);
        assert_eq!(subject("okta:", &longest), Some(format!("okta:{longest}")));
        assert_eq!(subject("okta:", &"x".repeat(257)), None);
    }

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
