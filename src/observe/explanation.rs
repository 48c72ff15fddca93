//! Explanations of decisions: the stages of the gate in order, with the result of each.

use std::fmt;

use serde_json::{Value, json};

use crate::gate::access::{Requirements, Rule};
use crate::gate::caller_kind::{CallerKind, OWNS_NO_PATH};
use crate::gate::permit::KnownCaller;
use crate::gate::rate_limit::RateLimit;
use crate::gate::refusal::Refusal;
use crate::gate::routes::Route;
use crate::gate::verify::Issuer;

use super::log::printable;

pub use crate::gate::refusal::Stage;

/// Rejected request and the facts known at its rejection.
#[derive(Debug)]
pub struct StoppedRequest<'a> {
    pub refusal: &'a Refusal,
    /// True if the gate had permitted the request before.
    pub is_permitted: bool,
    /// Error between gate and upstream, or the sub-cause of a refusal.
    pub cause: Option<&'a str>,
    pub route: Option<&'a Route>,
    /// Caller of a verified token.
    pub caller: Option<&'a KnownCaller>,
}

/// Result of one stage. Displays as one line, and a second one for the detail of a failure.
#[derive(Debug)]
pub struct StageResult {
    stage: Stage,
    mark: &'static str,
    text: String,
    detail: Option<String>,
}

impl StageResult {
    /// `ok`, `-` or `FAIL`.
    pub fn mark(&self) -> &'static str {
        self.mark
    }

    /// The result for programs.
    pub fn to_json(&self) -> Value {
        json!({
            "stage": self.stage.name(),
            "result": match self.mark {
                "ok" => "passed",
                "FAIL" => "failed",
                _ => "skipped",
            },
            "text": self.text,
            "detail": self.detail,
        })
    }

    pub fn passed(stage: Stage, text: impl fmt::Display) -> Self {
        Self {
            stage,
            mark: "ok",
            text: text.to_string(),
            detail: None,
        }
    }

    /// Result of a stage that does not apply to the request.
    pub fn skipped(stage: Stage, reason: &str) -> Self {
        Self {
            mark: "-",
            ..Self::passed(stage, reason)
        }
    }

    fn failed(stage: Stage, reason: &str, detail: Option<String>) -> Self {
        Self {
            mark: "FAIL",
            detail,
            ..Self::passed(stage, reason)
        }
    }

    /// Result of a verification that accepted the token.
    pub fn verified(caller: &KnownCaller) -> Self {
        let subject = printable(caller.subject.as_str());
        let kind = match caller.kind {
            CallerKind::User => "",
            CallerKind::Machine => ", a machine",
        };
        let text = format_args!("subject `{subject}`, issuer `{}`{kind}", caller.issuer);
        Self::passed(Stage::Verification, text)
    }

    /// Result of a rate limit stage that the request passed.
    pub fn within(stage: Stage, limits: &[RateLimit]) -> Self {
        if limits.is_empty() {
            Self::skipped(stage, "no limit")
        } else {
            Self::passed(stage, "")
        }
    }
}

impl fmt::Display for StageResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            stage,
            mark,
            text,
            detail,
        } = self;
        let line = format!("  {mark:<5} {:<19} {text}", stage.name());
        f.write_str(line.trim_end())?;
        match detail {
            Some(detail) => write!(f, "\n{:28}{detail}", ""),
            None => Ok(()),
        }
    }
}

/// Results of all stages of the gate for a rejected request, and of the upstream if the request was permitted.
pub fn stages(stopped: &StoppedRequest<'_>, issuers: &[Issuer]) -> Vec<StageResult> {
    let StoppedRequest {
        refusal,
        is_permitted,
        cause,
        route,
        caller,
    } = stopped;
    let failed = refusal.stage(*is_permitted, caller.is_some());
    let is_public = route.is_some_and(|route| route.access.rule == Rule::Public);
    let result = |stage| match (stage, route, caller) {
        (stage, ..) if stage > failed => StageResult::skipped(stage, "not reached"),
        (stage, ..) if stage == failed => {
            StageResult::failed(stage, refusal.reason(), detail(stopped))
        }
        (Stage::Route, Some(route), ..) => {
            StageResult::passed(stage, describe_route(route, issuers))
        }
        (Stage::ClientRateLimit, Some(route), ..) => {
            StageResult::within(stage, route.access.limits.by_client())
        }
        (stage, ..) if is_public && stage > Stage::ClientRateLimit => {
            StageResult::skipped(stage, "the route is public")
        }
        (Stage::SubjectRateLimit, Some(route), ..) => {
            StageResult::within(stage, route.access.limits.by_subject())
        }
        (Stage::Verification, _, Some(caller)) => StageResult::verified(caller),
        _ => StageResult::passed(stage, ""),
    };
    let mut results: Vec<StageResult> = Stage::GATE.into_iter().map(result).collect();
    if failed == Stage::Upstream {
        let cause = cause.map(|cause| printable(cause).into_owned());
        results.push(StageResult::failed(failed, refusal.reason(), cause));
    }
    results
}

/// Detail of a refusal for the operator: the unmet requirement, never the value of a claim.
fn detail(stopped: &StoppedRequest<'_>) -> Option<String> {
    match (stopped.refusal, stopped.caller) {
        (
            Refusal::ClaimDenied { requirement, .. } | Refusal::CertificateDenied { requirement },
            _,
        ) => Some(format!("not met: {requirement}")),
        (Refusal::PathNotCanonical(fault), _) => fault
            .other_route()
            .map(|route| format!("another spelling of a path of route `{route}`")),
        (Refusal::TokenIssuer, Some(caller)) => Some(format!(
            "the route does not accept the issuer `{}`",
            caller.issuer
        )),
        (Refusal::SubjectMismatch(_), Some(caller)) if caller.kind == CallerKind::Machine => {
            Some(OWNS_NO_PATH.to_owned())
        }
        (Refusal::ExchangeUnavailable { cause, .. }, _) => Some(printable(cause).into_owned()),
        _ => None,
    }
}

/// Path pattern, access rule and requirements of a route, in one line.
pub fn describe_route(route: &Route, issuers: &[Issuer]) -> String {
    let Requirements {
        issuers: accepted,
        require,
        exempt,
    } = &route.access.requirements;
    let mut text = format!("`{}`, ", route.pattern);
    match &route.access.rule {
        Rule::Public => text.push_str("public"),
        Rule::Authenticated => text.push_str("authenticated"),
        Rule::Owner { parameter, .. } => {
            text.extend(["for the owner `{", parameter, "}`"]);
        }
    }
    if let Some(exempt) = exempt {
        text.extend([", exempt if ", &exempt.to_string()]);
    }
    for requirement in require {
        text.extend([", requires ", &requirement.to_string()]);
    }
    if let Some(accepted) = accepted {
        let names = accepted.iter().filter_map(|issuer| issuers.get(issuer.0));
        let names: Vec<&str> = names.map(|issuer| issuer.name.as_ref()).collect();
        text.extend([", from `", &names.join("`, `"), "`"]);
    }
    if route.access.resource.is_some() {
        text.push_str(", of the protected resource");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fails_at_the_stage_of_the_refusal() {
        let refusals = Refusal::examples();
        assert!(refusals.len() > 40);
        for refusal in refusals {
            for is_permitted in [false, true] {
                let stopped = StoppedRequest {
                    refusal: &refusal,
                    is_permitted,
                    cause: None,
                    route: None,
                    caller: None,
                };
                let results = stages(&stopped, &[]);
                let failed = results.iter().filter(|result| result.mark == "FAIL");
                let failed: Vec<Stage> = failed.map(|result| result.stage).collect();
                if refusal.stage(false, false) == Stage::Upstream && !is_permitted {
                    // Refused by the proxy before the permit.
                    continue;
                }
                assert_eq!(failed, [refusal.stage(is_permitted, false)], "{refusal:?}");
            }
        }
    }
}
