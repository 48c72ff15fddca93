//! One requirement: an attribute of the caller and its expected value.

use std::fmt;

use serde_json::{Number, Value};

use crate::config::CertificateField;

use super::caller_kind::CallerKind;
use super::certificate::ClientCertificate;
use super::claim_path::ClaimPath;
use super::claims::Claims;

/// An attribute of the caller and its expected value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    pub attribute: Attribute,
    pub expected: Expected,
}

/// An attribute of the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// A claim of the token, or a part of one.
    Claim(ClaimPath),
    /// A field of the client certificate.
    Certificate(CertificateField),
    /// Kind of the caller, by its name.
    Kind,
}

/// Expected value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Contains this word or element.
    Has(String),
    /// Contains at least one of these words or elements.
    Any(Vec<String>),
    /// Equals this string, number or boolean.
    Equals(Value),
}

/// 2^53: below it every integer has its own `f64`.
pub const EXACT: f64 = 9_007_199_254_740_992.0;

/// Returns whether the text is one scope token (RFC 6749 section 3.3).
pub fn is_scope(text: &str) -> bool {
    let may_be_in_one = |byte| matches!(byte, b'!' | b'#'..=b'[' | b']'..=b'~');
    !text.is_empty() && text.bytes().all(may_be_in_one)
}

impl Requirement {
    /// Returns whether the caller satisfies the requirement. A missing claim or certificate never does.
    pub(super) fn holds(
        &self,
        claims: &Claims,
        certificate: Option<&ClientCertificate>,
        kind: CallerKind,
    ) -> bool {
        match &self.attribute {
            Attribute::Claim(path) => {
                let claim = claims.find(path);
                claim.is_some_and(|claim| self.expected.matches_claim(claim))
            }
            Attribute::Certificate(field) => certificate.is_some_and(|certificate| {
                self.expected.matches_values(certificate.values(*field))
            }),
            Attribute::Kind => self.expected.is_text(kind.name()),
        }
    }
}

impl Expected {
    fn matches_claim(&self, claim: &Value) -> bool {
        match self {
            Self::Has(wanted) => has(claim, wanted),
            Self::Any(wanted) => wanted.iter().any(|wanted| has(claim, wanted)),
            Self::Equals(wanted) => equals(claim, wanted),
        }
    }

    fn is_text(&self, text: &str) -> bool {
        matches!(self, Self::Equals(Value::String(wanted)) if wanted == text)
    }

    /// Compares whole values: the holder of a certificate could choose a name that contains other words.
    fn matches_values(&self, values: &[String]) -> bool {
        match self {
            Self::Has(wanted) => values.contains(wanted),
            Self::Any(wanted) => wanted.iter().any(|wanted| values.contains(wanted)),
            Self::Equals(wanted) => matches!(values, [only] if wanted == only),
        }
    }
}

/// Returns whether a text contains the word, or a list the element. Spaces (RFC 6749 section 3.3) and commas separate
/// words; elements of a list are compared whole. A list with an element that is not a string matches nothing.
fn has(claim: &Value, wanted: &str) -> bool {
    match claim {
        Value::String(words) => words.split([' ', ',']).any(|word| word == wanted),
        Value::Array(items) => {
            items.iter().all(Value::is_string) && items.iter().any(|item| item == wanted)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    }
}

fn equals(claim: &Value, wanted: &Value) -> bool {
    match (claim, wanted) {
        (Value::Number(claim), Value::Number(wanted)) => is_same_number(claim, wanted),
        _ => claim == wanted,
    }
}

/// Compares numbers by value: JSON has one number type, so `1.0` equals `1`. The claims hold exact numbers only.
fn is_same_number(one: &Number, other: &Number) -> bool {
    let exact = |number: &Number| number.as_f64().filter(|number| number.abs() < EXACT);
    one == other || (exact(one).is_some() && exact(one) == exact(other))
}

/// Words for the operator: the expected value, never the one found.
impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            attribute,
            expected,
        } = self;
        match attribute {
            Attribute::Claim(claim) => write!(f, "`{claim}`")?,
            Attribute::Certificate(field) => write!(f, "the certificate's `{field}`")?,
            Attribute::Kind => f.write_str("the caller's `kind`")?,
        }
        match expected {
            Expected::Has(wanted) => write!(f, " has `{wanted}`"),
            Expected::Any(wanted) => write!(f, " has any of `{}`", wanted.join("`, `")),
            Expected::Equals(Value::String(wanted)) => write!(f, " equals `{wanted}`"),
            Expected::Equals(wanted) => write!(f, " equals {wanted}"),
        }
    }
}

#[cfg(test)]
mod tests;

/// Requirements for tests.
#[cfg(test)]
pub(super) mod examples {
    use super::*;

    fn requirement(claim: &str, expected: Expected) -> Requirement {
        Requirement {
            attribute: Attribute::Claim(ClaimPath::parse(claim).unwrap()),
            expected,
        }
    }

    pub(crate) fn has(claim: &str, wanted: &str) -> Requirement {
        requirement(claim, Expected::Has(wanted.into()))
    }

    pub(crate) fn any(claim: &str, wanted: &[&str]) -> Requirement {
        let wanted = wanted.iter().map(|wanted| (*wanted).to_owned());
        requirement(claim, Expected::Any(wanted.collect()))
    }

    pub(crate) fn equals(claim: &str, wanted: Value) -> Requirement {
        requirement(claim, Expected::Equals(wanted))
    }
}
