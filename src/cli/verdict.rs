//! What each issuer has to say about a token, in words that a person can act on.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::clock::UnixTime;
use crate::gate::certificate::{Binding, ClientCertificate};
use crate::gate::refusal::Refusal;
use crate::gate::token::BearerToken;
use crate::gate::verify::{self, Issuer, IssuerId, Unverified};
use crate::observe::log::printable;

/// What is to be said about a token.
#[derive(Debug)]
pub(super) struct Verdict {
    /// Why the gate refuses it, if it does.
    pub(super) refusal: Option<Refusal>,
    /// What the issuer that judges it says, in one sentence.
    pub(super) sentence: String,
    /// What the others would say.
    pub(super) others: Vec<String>,
}

/// Judges a token, shown with this certificate, as the gate does, and asks every other issuer as well.
pub(super) fn of(
    issuers: &[Issuer],
    token: &str,
    shown: Option<&ClientCertificate>,
    now: UnixTime,
) -> Verdict {
    let facts = Facts::of(token);
    let judged = match BearerToken::new(token) {
        Ok(token) => verify::verify(issuers, token, shown, now),
        Err(refusal) => Err(refusal.into()),
    };
    let judge = match &judged {
        Ok(verified) => Some(verified.issuer_id),
        Err(Unverified { issuer, .. }) => *issuer,
    };
    let others = issuers
        .iter()
        .enumerate()
        .filter(|(place, _)| Some(IssuerId(*place)) != judge);
    let others = others.map(|(_, issuer)| match one(issuer, token, shown, now) {
        Ok(subject) => format!(
            "the issuer `{}` would accept it as `{subject}`",
            issuer.name
        ),
        Err(refusal) => format!(
            "the issuer `{}`: {}",
            issuer.name,
            facts.explain(&refusal, issuer, now)
        ),
    });
    let others = if judged.is_ok() {
        Vec::new()
    } else {
        others.collect()
    };
    match (&judged, judge.and_then(|place| issuers.get(place.0))) {
        (Ok(verified), _) => Verdict {
            refusal: None,
            sentence: format!(
                "accepted: a token of the issuer `{}` about `{}`",
                verified.issuer,
                printable(verified.subject.as_str())
            ),
            others,
        },
        (Err(Unverified { refusal, .. }), Some(issuer)) => Verdict {
            refusal: Some(refusal.clone()),
            sentence: format!(
                "refused by the issuer `{}` ({}): {}",
                issuer.name,
                refusal.reason(),
                facts.explain(refusal, issuer, now)
            ),
            others,
        },
        (Err(Unverified { refusal, .. }), None) => Verdict {
            refusal: Some(refusal.clone()),
            sentence: format!("refused ({}): {}", refusal.reason(), facts.alone(refusal)),
            others: if *refusal == Refusal::TokenIssuer {
                others
            } else {
                Vec::new()
            },
        },
    }
}

fn one(
    issuer: &Issuer,
    token: &str,
    shown: Option<&ClientCertificate>,
    now: UnixTime,
) -> Result<String, Refusal> {
    let token = BearerToken::new(token)?;
    match verify::verify(std::slice::from_ref(issuer), token, shown, now) {
        Ok(verified) => Ok(printable(verified.subject.as_str()).into_owned()),
        Err(unverified) => Err(unverified.refusal),
    }
}

/// What a token says of itself, whether it is true or not.
struct Facts {
    parts: usize,
    header: Value,
    claims: Value,
}

impl Facts {
    fn of(token: &str) -> Self {
        let parts: Vec<&str> = token.split('.').collect();
        let json = |at: usize| {
            let bytes = parts
                .get(at)
                .and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
            bytes
                .and_then(|bytes| serde_json::from_slice(&bytes).ok())
                .unwrap_or(Value::Null)
        };
        Self {
            parts: parts.len(),
            header: json(0),
            claims: json(1),
        }
    }

    fn claim(&self, name: &str) -> String {
        shown(self.claims.get(name))
    }

    fn seconds(&self, name: &str) -> Option<i64> {
        self.claims.get(name)?.as_f64().map(|seconds| {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "only shown, and a cast of a float saturates"
            )]
            let whole = seconds as i64;
            whole
        })
    }

    /// Why a token is refused before any issuer is chosen.
    fn alone(&self, refusal: &Refusal) -> String {
        match (refusal, self.parts) {
            (Refusal::TokenIssuer, _) if self.claims.get("iss").is_none() => {
                "it has no `iss`, and every issuer of this configuration expects one".to_owned()
            }
            (Refusal::TokenIssuer, _) => {
                format!(
                    "no issuer of this configuration is called {}, as the token's `iss` is",
                    self.claim("iss")
                )
            }
            (Refusal::TokenMalformed, 5) => {
                "a token of five parts is encrypted (JWE), and the gate verifies signed tokens"
                    .to_owned()
            }
            (Refusal::TokenMalformed, 2) => "a signed JWT has three parts between dots, and this has two, like a \
                                             session token of Better Auth: exchange that at /api/auth/token"
                .to_owned(),
            (Refusal::TokenMalformed, parts) if parts != 3 => {
                format!("a signed JWT has three parts between dots, and this has {parts}")
            }
            (Refusal::TokenType, _) => format!("its `typ` is {}", shown(self.header.get("typ"))),
            _ => refusal.detail().to_owned(),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the rest has a text of its own"
    )]
    fn explain(&self, refusal: &Refusal, issuer: &Issuer, now: UnixTime) -> String {
        // "its key" for a token that names none.
        let kid = self
            .header
            .get("kid")
            .map(|kid| format!(" {}", shown(Some(kid))))
            .unwrap_or_default();
        match refusal {
            Refusal::TokenIssuer => format!(
                "expects the `iss` {}; the token says {}",
                list(issuer.accepted.iter().flatten()),
                self.claim("iss")
            ),
            Refusal::TokenAudience => {
                let audience = issuer.policy.audience.iter();
                let audience = audience.map(|names| ("the audience", names, "aud"));
                let party = issuer.policy.authorized_party.iter();
                let party = party.map(|names| ("the client (`azp`)", names, "azp"));
                let expected = audience.chain(party).map(|(what, names, claim)| {
                    let (names, said) = (list(names.iter()), self.claim(claim));
                    format!("expects {what} {names}; the token says {said}")
                });
                let expected: Vec<String> = expected.collect();
                format!("signed by its key{kid}, but {}", expected.join("; and "))
            }
            Refusal::TokenType => format!(
                "expects the `typ` {}; the token says {}",
                list(issuer.types.iter()),
                shown(self.header.get("typ"))
            ),
            Refusal::TokenKeyUnknown => format!("has no key{kid}; it has {}", keys(issuer)),
            Refusal::TokenAlgorithm => format!(
                "its key{kid} does not verify the algorithm {}; it has {}",
                shown(self.header.get("alg")),
                keys(issuer)
            ),
            Refusal::TokenSignature => format!(
                "the signature was not made with its key{kid}: another secret or key has signed, or the token was \
                 changed"
            ),
            Refusal::TokenExpired => match self.seconds("exp") {
                Some(expires) => format!(
                    "signed by its key{kid}, but expired {} ago",
                    span(now.0 - expires)
                ),
                None => refusal.detail().to_owned(),
            },
            Refusal::TokenNotYetValid => {
                let start = self
                    .seconds("nbf")
                    .max(self.seconds("iat"))
                    .unwrap_or(now.0);
                format!(
                    "signed by its key{kid}, but not valid for another {}",
                    span(start - now.0)
                )
            }
            Refusal::TokenLifetime => {
                format!(
                    "from `iat` {} to `exp` {} is longer than `max_lifetime`",
                    self.claim("iat"),
                    self.claim("exp")
                )
            }
            Refusal::TokenSubject => {
                let claims: Vec<String> = issuer
                    .policy
                    .subject
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                format!(
                    "signed by its key{kid}, but has no usable text in {}",
                    claims.join(" or ")
                )
            }
            Refusal::TokenConfirmation if issuer.policy.allow_bound => format!(
                "signed by its key{kid}, but bound to another certificate than the client shows"
            ),
            Refusal::TokenConfirmation => {
                match Binding::of(self.claims.get("cnf").unwrap_or(&Value::Null)) {
                    Some(certificate) => format!(
                        "signed by its key{kid}, and good only from a client that shows the certificate with the thumbprint {certificate}"
                    ),
                    None => format!(
                        "signed by its key{kid}, but bound (`cnf`) to something that is no certificate, which nobody checks here"
                    ),
                }
            }
            Refusal::KeysUnavailable => {
                "its keys could not be fetched, so nobody can tell".to_owned()
            }
            _ => self.alone(refusal),
        }
    }
}

fn keys(issuer: &Issuer) -> String {
    let keys = issuer.ring.keys().iter().map(|key| {
        format!(
            "{} for {}",
            printable(key.kid().unwrap_or("(without a name)")),
            key.algorithms()
        )
    });
    let keys: Vec<String> = keys.collect();
    if keys.is_empty() {
        "none".to_owned()
    } else {
        keys.join(", ")
    }
}

/// A value as JSON, fit for a terminal, or `none`.
fn shown(value: Option<&Value>) -> String {
    value.map_or_else(
        || "(none)".to_owned(),
        |value| printable(&value.to_string()).into_owned(),
    )
}

fn list<'a>(texts: impl Iterator<Item = &'a String>) -> String {
    let texts: Vec<String> = texts
        .map(|text| format!("\"{}\"", printable(text)))
        .collect();
    texts.join(" or ")
}

fn span(seconds: i64) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}
