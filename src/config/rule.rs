//! `require` and `exempt` of a route.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

/// `{ claim = "role", any = ["admin"] }`: a claim or a certificate field, and exactly one condition; or
/// `{ kind = "machine" }`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ClaimRule {
    /// Claim path: `a.b` or `/a/b`.
    #[serde(default)]
    pub claim: Option<String>,
    /// Field of the client certificate, instead of a claim.
    #[serde(default)]
    pub certificate: Option<CertificateField>,
    /// Kind of the caller, instead of a claim and its condition.
    #[serde(default)]
    pub kind: Option<CallerKind>,
    /// Required element of an array, or word of a space-separated string.
    #[serde(default)]
    pub has: Option<String>,
    /// Elements or words, at least one of which is required.
    #[serde(default)]
    pub any: Option<Vec<String>>,
    /// Required value.
    #[serde(default)]
    pub equals: Option<Scalar>,
}

/// Kind of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum CallerKind {
    /// A user, or a client on behalf of one.
    User,
    /// A client on its own behalf (client credentials grant, RFC 6749 section 4.4).
    Machine,
}

impl CallerKind {
    /// Name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Machine => "machine",
        }
    }
}

/// Field of a client certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum CertificateField {
    /// Subject as a string (RFC 4514).
    Subject,
    /// DNS names in the subject alternative name.
    Dns,
    /// URIs in the subject alternative name.
    Uri,
    /// SHA-256 of the certificate in the form of `x5t#S256`.
    Thumbprint,
}

impl CertificateField {
    /// All fields.
    pub const ALL: [Self; 4] = [Self::Subject, Self::Dns, Self::Uri, Self::Thumbprint];

    /// Name in the configuration.
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

/// String, number or boolean.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(ScalarVisitor)
    }
}

impl Serialize for Scalar {
    fn serialize<S: Serializer>(&self, sink: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => sink.serialize_str(text),
            Self::Integer(number) => sink.serialize_i64(*number),
            Self::Float(number) => sink.serialize_f64(*number),
            Self::Boolean(truth) => sink.serialize_bool(*truth),
        }
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
