//! What a route demands of its caller.

use std::fmt;
use std::sync::Arc;

use serde_json::{Number, Value};

use crate::config::CertificateField;

use super::certificate::ClientCertificate;
use super::claim_path::ClaimPath;
use super::claims::Claims;
use super::path::BoundSegment;
use super::refusal::{Mismatch, Refusal, UnmetRequirement};
use super::subject::Subject;

/// Who may use a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// Everybody; no token is looked at.
    Public,
    /// Everybody with a good token.
    Authenticated,
    /// Only the subject that the parameter names.
    Owner {
        /// The parameter of the path that names the owner.
        parameter: String,
        /// What anybody else is told.
        mismatch: Mismatch,
    },
}

/// What a route demands of a token beside that it is good. Nothing, most often.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requirements {
    /// The issuers it may come from, by their places; any if none.
    pub issuers: Option<Vec<usize>>,
    /// What its claims must say, all of it.
    pub require: Vec<Arc<Requirement>>,
    /// Who may act for every owner.
    pub exempt: Option<Requirement>,
}

/// A fact about the caller and what it must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The fact.
    pub attribute: Attribute,
    /// What it must say.
    pub expected: Expected,
}

/// A fact about the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// A claim of the token, or a part of one.
    Claim(ClaimPath),
    /// A field of the certificate of the connection.
    Certificate(CertificateField),
}

/// What a fact must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// This, among other things.
    Has(String),
    /// At least one of these, among other things.
    Any(Vec<String>),
    /// This text, number or truth value and nothing else.
    Equals(Value),
}

/// Who asks, as far as rules go.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestContext<'a> {
    pub(super) subject: &'a Subject,
    pub(super) claims: &'a Claims,
    /// What the client has shown on this connection.
    pub(super) certificate: Option<&'a ClientCertificate>,
    /// The issuer, by its place.
    pub(super) issuer: usize,
}

/// Above it, not every whole number has a floating-point number of its own.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Rule {
    /// Admits a verified subject to a path whose owner, if the rule has one, is `owner`.
    fn admit(&self, subject: &Subject, owner: Option<BoundSegment<'_>>) -> Result<(), Refusal> {
        match self {
            Self::Public | Self::Authenticated => Ok(()),
            Self::Owner { mismatch, .. } => {
                let same = owner.is_some_and(|owner| owner.names(subject.as_str()));
                if same {
                    Ok(())
                } else {
                    Err(Refusal::SubjectMismatch(*mismatch))
                }
            }
        }
    }
}

impl Requirements {
    /// Admits a caller whose token is good to a path whose owner, if the rule has one, is `owner`: whose token it is
    /// comes before whose path it is, and that before what the token grants.
    pub(super) fn admit(
        &self,
        rule: &Rule,
        context: RequestContext<'_>,
        owner: Option<BoundSegment<'_>>,
    ) -> Result<(), Refusal> {
        let issuers = self.issuers.as_ref();
        if issuers.is_some_and(|accepted| !accepted.contains(&context.issuer)) {
            return Err(Refusal::TokenIssuer);
        }
        if let Err(mismatch) = rule.admit(context.subject, owner) {
            let exempt = self.exempt.as_ref();
            if !exempt.is_some_and(|exempt| exempt.holds(context)) {
                return Err(mismatch);
            }
        }
        let mut required = self.require.iter();
        match required.find(|requirement| !requirement.holds(context)) {
            None => Ok(()),
            Some(unmet) => Err(match &unmet.attribute {
                Attribute::Claim(claim) => Refusal::ClaimDenied(UnmetRequirement {
                    requirement: Arc::clone(unmet),
                    scope: claim.is("scope").then(|| self.scope()).flatten(),
                }),
                Attribute::Certificate(_) => Refusal::CertificateDenied(Arc::clone(unmet)),
            }),
        }
    }

    /// The claims that are asked for.
    pub(super) fn claims(&self) -> impl Iterator<Item = &str> {
        let required = self.require.iter().map(AsRef::as_ref);
        let all = required.chain(&self.exempt);
        all.filter_map(|requirement| match &requirement.attribute {
            Attribute::Claim(claim) => Some(claim.first()),
            Attribute::Certificate(_) => None,
        })
    }

    /// RFC 6750 section 3: the scope that is enough for the path, so that a client asks for all of it at once.
    fn scope(&self) -> Option<Arc<str>> {
        let scopes = self.require.iter().filter_map(|requirement| {
            let is_scope =
                matches!(&requirement.attribute, Attribute::Claim(claim) if claim.is("scope"));
            match &requirement.expected {
                Expected::Has(scope) | Expected::Equals(Value::String(scope)) if is_scope => {
                    Some(scope.as_str())
                }
                // One of them is enough, and the first is the one that was thought of first.
                Expected::Any(scopes) if is_scope => scopes.first().map(String::as_str),
                Expected::Has(_) | Expected::Any(_) | Expected::Equals(_) => None,
            }
        });
        let mut all: Vec<&str> = Vec::new();
        for scope in scopes.flat_map(|scopes| scopes.split(' ')) {
            if !all.contains(&scope) {
                all.push(scope);
            }
        }
        let can_be_sent = !all.is_empty() && all.iter().all(|scope| is_scope(scope));
        can_be_sent.then(|| all.join(" ").into())
    }
}

/// RFC 6749 section 3.3: what one scope may look like.
pub fn is_scope(text: &str) -> bool {
    let may_be_in_one = |byte| matches!(byte, b'!' | b'#'..=b'[' | b']'..=b'~');
    !text.is_empty() && text.bytes().all(may_be_in_one)
}

impl Requirement {
    /// Whether it is so. A claim that is missing says nothing, and so does a certificate.
    pub(super) fn holds(&self, context: RequestContext<'_>) -> bool {
        match &self.attribute {
            Attribute::Claim(claim) => {
                let claim = claim.find(context.claims);
                claim.is_some_and(|claim| self.expected.is_said_by(claim))
            }
            Attribute::Certificate(field) => {
                let certificate = context.certificate;
                certificate.is_some_and(|shown| self.expected.is_among(shown.values(*field)))
            }
        }
    }
}

impl Expected {
    /// Whether a claim says it.
    fn is_said_by(&self, claim: &Value) -> bool {
        match self {
            Self::Has(wanted) => has(claim, wanted),
            Self::Any(wanted) => wanted.iter().any(|wanted| has(claim, wanted)),
            Self::Equals(wanted) => equals(claim, wanted),
        }
    }

    /// Whether it is among the values of a certificate. Each is whole: who may choose a name could put words into it.
    fn is_among(&self, values: &[String]) -> bool {
        match self {
            Self::Has(wanted) => values.contains(wanted),
            Self::Any(wanted) => wanted.iter().any(|wanted| values.contains(wanted)),
            Self::Equals(wanted) => matches!(values, [only] if wanted == only),
        }
    }
}

/// Whether a text has this word, or a list this element. Spaces (RFC 6749 section 3.3) and commas are between words;
/// an element of a list is whole. A list with anything but text is none of texts.
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

/// JSON has one kind of number: `1.0` is `1`.
fn is_same_number(one: &Number, other: &Number) -> bool {
    let exact = |number: &Number| number.as_f64().filter(|number| number.abs() < EXACT);
    one == other || (exact(one).is_some() && exact(one) == exact(other))
}

/// In words, for the operator: what is expected and never what was found.
impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            attribute,
            expected,
        } = self;
        match attribute {
            Attribute::Claim(claim) => write!(f, "`{claim}`")?,
            Attribute::Certificate(field) => write!(f, "the certificate's `{field}`")?,
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
