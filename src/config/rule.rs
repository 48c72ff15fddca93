//! `require` and `exempt` of a route: what a claim must say.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// `{ claim = "role", any = ["admin"] }`: a claim, or a field of the client's certificate, and exactly one demand on it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimRule {
    /// The claim, or a part of one as `a.b` or `/a/b`.
    #[serde(default)]
    pub claim: Option<String>,
    /// Instead of a claim, a field of the client's certificate.
    #[serde(default)]
    pub certificate: Option<CertificateField>,
    /// What must be in it: one of its words, or an element of it.
    #[serde(default)]
    pub has: Option<String>,
    /// Of which at least one must be in it.
    #[serde(default)]
    pub any: Option<Vec<String>>,
    /// What it must be.
    #[serde(default)]
    pub equals: Option<Scalar>,
}

/// What a certificate says about its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CertificateField {
    /// The subject, as text (RFC 4514).
    Subject,
    /// The DNS names.
    Dns,
    /// The URIs.
    Uri,
    /// The SHA-256 of all of it, as in `x5t#S256`.
    Thumbprint,
}

impl CertificateField {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Subject, Self::Dns, Self::Uri, Self::Thumbprint];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Dns => "dns",
            Self::Uri => "uri",
            Self::Thumbprint => "thumbprint",
        }
    }
}

impl fmt::Display for CertificateField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text, a number or a truth value.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// A truth value.
    Boolean(bool),
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a number, true or false")
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(text.to_owned()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Integer(number))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Scalar, E> {
        if number.is_finite() {
            Ok(Scalar::Float(number))
        } else {
            Err(E::custom("must be a finite number"))
        }
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Scalar, E> {
        Ok(Scalar::Boolean(truth))
    }
}
