//! Access to a route: its rule, the requirements of its callers, and the parts that the gate applies before them.

use std::sync::Arc;

use serde_json::Value;

use crate::config::DpopMode;

use super::caller_kind::CallerKind;
use super::certificate::ClientCertificate;
use super::claims::Claims;
use super::cors::Cors;
use super::issuer_id::IssuerId;
use super::path::BoundSegment;
use super::rate_limit::RouteLimits;
use super::refusal::{Mismatch, Refusal};
use super::requirement::{Attribute, Expected, Requirement, is_scope};
use super::resource::ResourceChallenge;
use super::subject::Subject;
use super::token::TokenSources;

/// Everything the gate needs to know of a route.
#[derive(Debug, PartialEq)]
pub struct Access {
    pub rule: Rule,
    pub requirements: Requirements,
    pub tokens: TokenSources,
    /// Handling of `DPoP` tokens, instead of that of the issuer.
    pub dpop: Option<DpopMode>,
    pub limits: RouteLimits,
    /// CORS policy; `None` leaves CORS to the upstream.
    pub cors: Option<Cors>,
    /// Parameters of the challenges, on a route of the protected resource.
    pub resource: Option<Arc<ResourceChallenge>>,
}

/// Callers that a route serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// Everyone; no token is read.
    Public,
    /// Every caller with a valid token.
    Authenticated,
    /// The subject that a path parameter names.
    Owner {
        /// Path parameter that names the owner.
        parameter: String,
        /// Response to other subjects.
        mismatch: Mismatch,
    },
}

/// Requirements of a route beyond a valid token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requirements {
    /// Accepted issuers; `None` accepts every issuer.
    pub issuers: Option<Vec<IssuerId>>,
    /// Requirements that must all hold.
    pub require: Vec<Arc<Requirement>>,
    /// Callers that may act for every owner.
    pub exempt: Option<Requirement>,
}

/// Caller of a request, as requirements see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestContext<'a> {
    pub(super) subject: &'a Subject,
    pub(super) claims: &'a Claims,
    /// Client certificate of this connection.
    pub(super) certificate: Option<&'a ClientCertificate>,
    pub(super) issuer: IssuerId,
    pub(super) kind: CallerKind,
}

impl Access {
    /// Access without requirements beyond its rule.
    pub fn new(rule: Rule) -> Self {
        Self {
            rule,
            requirements: Requirements::default(),
            tokens: TokenSources::default(),
            dpop: None,
            limits: RouteLimits::default(),
            cors: None,
            resource: None,
        }
    }

    /// Admits a caller with a valid token. `owner` is the path segment of an owner rule. The order of the checks is
    /// issuer, owner, requirements.
    pub(super) fn admit(
        &self,
        context: RequestContext<'_>,
        owner: Option<&BoundSegment<'_>>,
    ) -> Result<(), Refusal> {
        let Requirements {
            issuers,
            require,
            exempt,
        } = &self.requirements;
        let holds = |requirement: &Requirement| {
            requirement.holds(context.claims, context.certificate, context.kind)
        };
        if issuers
            .as_ref()
            .is_some_and(|accepted| !accepted.contains(&context.issuer))
        {
            return Err(Refusal::TokenIssuer);
        }
        if let Err(mismatch) = self.rule.admit(context, owner)
            && !exempt.as_ref().is_some_and(holds)
        {
            return Err(mismatch);
        }
        match require.iter().find(|requirement| !holds(requirement)) {
            None => Ok(()),
            Some(unmet) => Err(self.requirements.denial(unmet)),
        }
    }
}

impl Rule {
    /// Admits a verified subject. `owner` is the path segment of an owner rule. The names of machines and of users are
    /// not one namespace: a machine owns no path, also if its name is that of a user.
    fn admit(
        &self,
        context: RequestContext<'_>,
        owner: Option<&BoundSegment<'_>>,
    ) -> Result<(), Refusal> {
        match self {
            Self::Public | Self::Authenticated => Ok(()),
            Self::Owner { mismatch, .. } => {
                let same = owner.is_some_and(|owner| owner.names(context.subject.as_str()));
                if same && context.kind == CallerKind::User {
                    Ok(())
                } else {
                    Err(Refusal::SubjectMismatch(*mismatch))
                }
            }
        }
    }
}

impl Requirements {
    fn denial(&self, unmet: &Requirement) -> Refusal {
        let requirement = unmet.to_string().into();
        match &unmet.attribute {
            Attribute::Claim(claim) => Refusal::ClaimDenied {
                requirement,
                scope: claim.is("scope").then(|| self.scope()).flatten(),
            },
            Attribute::Certificate(_) => Refusal::CertificateDenied { requirement },
            Attribute::Kind => Refusal::ClaimDenied {
                requirement,
                scope: None,
            },
        }
    }

    /// Names of the claims that the requirements read.
    pub(super) fn claims(&self) -> impl Iterator<Item = &str> {
        let required = self.require.iter().map(AsRef::as_ref);
        let all = required.chain(&self.exempt);
        all.filter_map(|requirement| match &requirement.attribute {
            Attribute::Claim(claim) => Some(claim.first()),
            Attribute::Certificate(_) | Attribute::Kind => None,
        })
    }

    /// Scope that satisfies the route, for the challenge (RFC 6750 section 3): a client can request all of it at once.
    pub fn scope(&self) -> Option<Arc<str>> {
        let scopes = self.require.iter().filter_map(|requirement| {
            let is_scope =
                matches!(&requirement.attribute, Attribute::Claim(claim) if claim.is("scope"));
            match &requirement.expected {
                Expected::Has(scope) | Expected::Equals(Value::String(scope)) if is_scope => {
                    Some(scope.as_str())
                }
                // Any one of them is enough; the first listed is the likeliest.
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
        let is_valid = !all.is_empty() && all.iter().all(|scope| is_scope(scope));
        is_valid.then(|| all.join(" ").into())
    }
}

#[cfg(test)]
mod tests;
