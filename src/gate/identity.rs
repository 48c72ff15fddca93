//! What the upstream is told about the caller: claims as the values of header fields.

use http::HeaderValue;
use serde_json::Value;

use crate::config::CertificateField;

use super::certificate::ClientCertificate;
use super::claim_path::ClaimPath;
use super::claims::Claims;
use super::subject::{self, Subject};

/// What an identity header carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityClaim {
    /// The subject, whichever claim it came from.
    Subject,
    /// A claim, or a part of one.
    Named(ClaimPath),
    /// What the certificate of the connection says.
    Certificate(CertificateField),
}

impl IdentityClaim {
    /// The value that the token gives, if it can have one.
    pub(super) fn value(&self, subject: &Subject, claims: &Claims) -> Option<HeaderValue> {
        match self {
            Self::Subject => Some(subject.to_header_value()),
            Self::Named(path) => field_value(claims.find(path)?),
            Self::Certificate(_) => None,
        }
    }

    /// The value that the certificate gives, if it can have one.
    pub(super) fn certificate_value(&self, certificate: &ClientCertificate) -> Option<HeaderValue> {
        match self {
            Self::Subject | Self::Named(_) => None,
            // One text, which is no list though it has commas.
            Self::Certificate(CertificateField::Subject) => {
                subject::field_value(certificate.values(CertificateField::Subject).first()?)
            }
            Self::Certificate(field) => {
                let values = certificate.values(*field).iter();
                list(values.map(|value| is_list_item(value).then(|| value.clone())))
            }
        }
    }
}

/// A claim as a field value that an upstream can read in one way only, or nothing.
fn field_value(claim: &Value) -> Option<HeaderValue> {
    match claim {
        Value::String(text) => subject::field_value(text),
        Value::Number(_) | Value::Bool(_) => HeaderValue::from_str(&claim.to_string()).ok(),
        Value::Array(items) => list(items.iter().map(list_item)),
        Value::Null | Value::Object(_) => None,
    }
}

/// Every element, or nothing.
fn list(items: impl Iterator<Item = Option<String>>) -> Option<HeaderValue> {
    let items: Option<Vec<String>> = items.collect();
    let list = items.filter(|items| !items.is_empty())?;
    subject::field_value(&list.join(","))
}

fn list_item(item: &Value) -> Option<String> {
    match item {
        Value::String(text) => is_list_item(text).then(|| text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(item.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// RFC 9110 section 5.6.1: a comma is where an element ends, space around an element is not part of it, and an empty
/// element is none. An element that would read differently has no place in a list.
fn is_list_item(text: &str) -> bool {
    !text.is_empty() && text.trim() == text && !text.contains(',')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_a_header_that_reads_in_one_way_or_none() {
        for (claim, expected) in [
            (r#""a@example.com""#, Some("a@example.com")),
            (r#""Zoë 用户""#, Some("Zoë 用户")),
            (r#""a, b""#, Some("a, b")),
            (r#""""#, Some("")),
            ("7", Some("7")),
            ("-7.5", Some("-7.5")),
            ("18446744073709551615", Some("18446744073709551615")),
            ("true", Some("true")),
            ("false", Some("false")),
            (r#"["a","b c","Zoë",7,true]"#, Some("a,b c,Zoë,7,true")),
            (r#"["a"]"#, Some("a")),
            // A role named `a,admin` is not the role `admin`.
            (r#"["a,admin"]"#, None),
            (r#"["a",""]"#, None),
            (r#"["a"," b"]"#, None),
            (r#"["a","b\r\nX-User-Id: bob"]"#, None),
            (r#"["a\tb"]"#, None),
            (r#"["a\u0085b"]"#, None),
            (r#"["a",null]"#, None),
            (r#"["a",["b"]]"#, None),
            (r#"["a",{"b":"c"}]"#, None),
            ("[]", None),
            ("{}", None),
            ("null", None),
            (r#""a\r\nX-User-Id: bob""#, None),
            (r#""a\u0000b""#, None),
            (r#""a\u007f""#, None),
            (r#""a\u0085b""#, None),
            (r#""\tb""#, None),
            (r#"" a""#, None),
            (r#""a ""#, None),
        ] {
            let value = field_value(&serde_json::from_str(claim).unwrap());
            let expected = expected.map(str::as_bytes);
            assert_eq!(
                value.as_ref().map(HeaderValue::as_bytes),
                expected,
                "{claim}"
            );
        }
    }
}
