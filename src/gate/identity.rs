//! Identity headers: claims and certificate fields as header values for the upstream.

use http::HeaderValue;
use serde_json::Value;

use crate::config::CertificateField;

use super::caller_kind::client_id;
use super::certificate::ClientCertificate;
use super::claim_path::ClaimPath;
use super::claims::Claims;
use super::subject::{self, Subject};

/// Content of an identity header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityClaim {
    /// Subject of the token.
    Subject,
    /// Client that the token was issued to.
    Client,
    /// A claim or a member of one.
    Named(ClaimPath),
    /// A field of the client certificate.
    Certificate(CertificateField),
}

impl IdentityClaim {
    /// Value from the token; `None` if the claim is missing or has no unambiguous header value.
    pub(super) fn value(&self, subject: &Subject, claims: &Claims) -> Option<HeaderValue> {
        match self {
            Self::Subject => Some(subject.to_header_value()),
            Self::Client => subject::field_value(client_id(claims)?),
            Self::Named(path) => field_value(claims.find(path)?),
            Self::Certificate(_) => None,
        }
    }

    /// Value from the certificate; `None` if the field is missing or has no unambiguous header value.
    pub(super) fn certificate_value(&self, certificate: &ClientCertificate) -> Option<HeaderValue> {
        match self {
            Self::Subject | Self::Client | Self::Named(_) => None,
            // A distinguished name is one value: its commas separate no list elements.
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

/// Header value of a claim; `None` if an upstream could read it in more than one way.
fn field_value(claim: &Value) -> Option<HeaderValue> {
    match claim {
        Value::String(text) => subject::field_value(text),
        Value::Number(_) | Value::Bool(_) => HeaderValue::from_str(&claim.to_string()).ok(),
        Value::Array(items) => list(items.iter().map(list_item)),
        Value::Null | Value::Object(_) => None,
    }
}

/// Joins the elements of a list; `None` if it is empty or any element has no header value.
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

/// Returns whether a text reads the same as a list element. RFC 9110 section 5.6.1: commas separate elements, and
/// recipients ignore empty elements and the space around an element.
fn is_list_item(text: &str) -> bool {
    !text.is_empty() && text.trim() == text && !text.contains(',')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_a_claim_only_if_its_header_has_one_reading() {
        for (claim, expected) in [
            (r#""a@example.com""#, Some("a@example.com")),
            (r#""Zoë 用户""#, Some("Zoë 用户")),
            (r#""a, b""#, Some("a, b")),
            (r#""""#, Some("")),
            ("7", Some("7")),
            ("-7.5", Some("-7.5")),
            ("18446744073709551615", Some("18446744073709551615")),
            // Exact digits, or no header: rounded, two account numbers could be one.
            ("18446744073709551617", None),
            ("123456789012345678901234567890", None),
            ("-9223372036854775809", None),
            ("1e3", Some("1000.0")),
            ("-0", Some("-0.0")),
            ("1.0", Some("1.0")),
            ("9007199254740993.0", None),
            ("0.10000000000000000001", None),
            ("[1,18446744073709551617]", None),
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
            let claims = Claims::parse(format!(r#"{{"a":{claim}}}"#).as_bytes()).unwrap();
            let value = field_value(claims.get("a").unwrap());
            let expected = expected.map(str::as_bytes);
            assert_eq!(
                value.as_ref().map(HeaderValue::as_bytes),
                expected,
                "{claim}"
            );
        }
    }
}
