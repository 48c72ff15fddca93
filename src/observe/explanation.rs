//! The checks of the gate in their order, and what each has said of a request, in words.

use std::fmt;

use crate::gate::access::{Requirements, Rule};
use crate::gate::refusal::Refusal;
use crate::gate::routes::Route;
use crate::gate::subject::Subject;
use crate::gate::verify::Issuer;

use super::log::printable;

/// A check, with the refusals that it may end in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// Whether the head is one that can be judged.
    Head,
    /// Whether the path has one reading.
    Path,
    /// Whether there is a route.
    Route,
    /// Whether exactly one token came.
    Token,
    /// Whether it is good.
    Verification,
    /// Whether the route lets its subject through.
    Rule,
    /// No check any more: what may fail after the gate has let a request through.
    Forwarding,
}

impl Check {
    /// Those of the gate.
    pub const ALL: [Self; 6] = [
        Self::Head,
        Self::Path,
        Self::Route,
        Self::Token,
        Self::Verification,
        Self::Rule,
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Head => "request head",
            Self::Path => "canonical path",
            Self::Route => "route",
            Self::Token => "one token",
            Self::Verification => "verification",
            Self::Rule => "rule",
            Self::Forwarding => "forwarding",
        }
    }

    /// The check that gives this refusal, if the gate gives it. `is_known` is whether the token was good by then.
    fn of(refusal: &Refusal, is_known: bool) -> Self {
        match refusal {
            // Addresses are counted before a token is looked at, subjects after.
            Refusal::RateLimited { .. } | Refusal::RateLimitUnavailable { .. } if is_known => {
                Self::Rule
            }
            Refusal::PathNotCanonical => Self::Path,
            Refusal::RateLimited { .. }
            | Refusal::RateLimitUnavailable { .. }
            | Refusal::NoRoute
            | Refusal::MethodNotAllowed(_)
            | Refusal::PreflightOrigin
            | Refusal::PreflightMethod
            | Refusal::PreflightHeaders => Self::Route,
            Refusal::TokenMissing | Refusal::TokenRepeated | Refusal::OriginNotAllowed => {
                Self::Token
            }
            Refusal::TokenMalformed
            | Refusal::TokenOpaque
            | Refusal::TokenSignature
            | Refusal::TokenAlgorithm
            | Refusal::TokenKeyUnknown
            | Refusal::TokenExpired
            | Refusal::TokenNotYetValid
            | Refusal::TokenLifetime
            | Refusal::TokenIssuer
            | Refusal::TokenAudience
            | Refusal::TokenSubject
            | Refusal::TokenType
            | Refusal::TokenConfirmation
            | Refusal::KeysUnavailable => Self::Verification,
            Refusal::SubjectMismatch(_)
            | Refusal::ClaimDenied { .. }
            | Refusal::CertificateDenied { .. } => Self::Rule,
            Refusal::RequestMalformed
            | Refusal::HttpsRequired(_)
            | Refusal::RequestTimeout
            | Refusal::BodyTooLarge
            | Refusal::TargetTooLong
            | Refusal::HeadersTooLarge
            | Refusal::Overloaded
            | Refusal::Draining
            | Refusal::UpstreamUnreachable
            | Refusal::UpstreamInvalidResponse
            | Refusal::UpstreamTimeout => Self::Head,
        }
    }
}

/// A request that was not served, as far as it came.
#[derive(Debug)]
pub struct StoppedRequest<'a> {
    /// Why.
    pub refusal: &'a Refusal,
    /// Whether the gate had let it through before.
    pub is_permitted: bool,
    /// What went wrong between gate and upstream, in words.
    pub cause: Option<&'a str>,
    /// The route, if there is one.
    pub route: Option<&'a Route>,
    /// The subject, if the token was good.
    pub subject: Option<&'a Subject>,
    /// The issuer's name, if the token was good.
    pub issuer: Option<&'a str>,
}

/// What one check has said: a line, or two.
#[derive(Debug)]
pub struct CheckResult {
    check: Check,
    mark: &'static str,
    text: String,
    why: Option<String>,
}

impl CheckResult {
    /// It holds.
    pub fn passed(check: Check, text: impl fmt::Display) -> Self {
        Self {
            check,
            mark: "ok",
            text: text.to_string(),
            why: None,
        }
    }

    /// It was not asked.
    pub fn skipped(check: Check, why: &str) -> Self {
        Self {
            mark: "-",
            ..Self::passed(check, why)
        }
    }

    /// It does not hold.
    fn failed(check: Check, reason: &str, why: Option<String>) -> Self {
        Self {
            mark: "FAIL",
            why,
            ..Self::passed(check, reason)
        }
    }

    /// Whose token it is.
    pub fn verified(subject: &Subject, issuer: &str) -> Self {
        let subject = printable(subject.as_str());
        let text = format_args!("subject `{subject}`, issuer `{issuer}`");
        Self::passed(Check::Verification, text)
    }
}

impl fmt::Display for CheckResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            check,
            mark,
            text,
            why,
        } = self;
        let line = format!("  {mark:<5} {:<15} {text}", check.name());
        f.write_str(line.trim_end())?;
        match why {
            Some(why) => write!(f, "\n{:24}{why}", ""),
            None => Ok(()),
        }
    }
}

/// What each check has said of a request that was not served.
pub fn said(stopped: &StoppedRequest<'_>, issuers: &[Issuer]) -> Vec<CheckResult> {
    let StoppedRequest {
        refusal,
        is_permitted,
        cause,
        route,
        subject,
        issuer,
    } = stopped;
    let failed = if *is_permitted {
        Check::Forwarding
    } else {
        Check::of(refusal, subject.is_some())
    };
    let is_public = route.is_some_and(|route| route.access.rule == Rule::Public);
    let of_one = |check| match (check, route, subject, issuer) {
        (check, ..) if check > failed => CheckResult::skipped(check, "not reached"),
        (check, ..) if check == failed => {
            CheckResult::failed(check, refusal.reason(), why(stopped))
        }
        (Check::Route, Some(route), ..) => CheckResult::passed(check, rule(route, issuers)),
        (Check::Token | Check::Verification | Check::Rule, ..) if is_public => {
            CheckResult::skipped(check, "the route is public")
        }
        (Check::Verification, _, Some(subject), Some(issuer)) => {
            CheckResult::verified(subject, issuer)
        }
        _ => CheckResult::passed(check, ""),
    };
    let mut said: Vec<CheckResult> = Check::ALL.into_iter().map(of_one).collect();
    if *is_permitted {
        let cause = cause.map(|cause| printable(cause).into_owned());
        said.push(CheckResult::failed(failed, refusal.reason(), cause));
    }
    said
}

/// What the operator is told beyond what the client is: which demand was not met, and nothing of what a claim says.
fn why(stopped: &StoppedRequest<'_>) -> Option<String> {
    match (stopped.refusal, stopped.issuer) {
        (
            Refusal::ClaimDenied { requirement, .. } | Refusal::CertificateDenied { requirement },
            _,
        ) => Some(format!("not met: {requirement}")),
        // The token is good, or nobody would know whose it is.
        (Refusal::TokenIssuer, Some(issuer)) => {
            Some(format!("the route does not accept the issuer `{issuer}`"))
        }
        _ => None,
    }
}

/// What a route demands.
pub fn rule(route: &Route, issuers: &[Issuer]) -> String {
    let Requirements {
        issuers: accepted,
        require,
        exempt,
    } = &route.access.requirements;
    let mut text = format!("`{}`, ", route.pattern);
    match &route.access.rule {
        Rule::Public => text.push_str("public"),
        Rule::Authenticated => text.push_str("for everybody with a token"),
        Rule::Owner { parameter, .. } => {
            text.extend(["for the owner `{", parameter, "}`"]);
        }
    }
    if let Some(exempt) = exempt {
        text.extend([", and for whom ", &exempt.to_string()]);
    }
    for requirement in require {
        text.extend([", if ", &requirement.to_string()]);
    }
    if let Some(accepted) = accepted {
        let names = accepted.iter().filter_map(|place| issuers.get(place.0));
        let names: Vec<&str> = names.map(|issuer| issuer.name.as_ref()).collect();
        text.extend([", of `", &names.join("`, `"), "`"]);
    }
    text
}
