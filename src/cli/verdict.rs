//! Explanation of a token's verification: the result of each issuer, with its cause.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::clock::UnixTime;
use crate::gate::binding::{Binding, BindingKind};
use crate::gate::caller_kind::MachineMark;
use crate::gate::certificate::ClientCertificate;
use crate::gate::claims::Claims;
use crate::gate::issuer_id::IssuerId;
use crate::gate::refusal::Refusal;
use crate::gate::token::BearerToken;
use crate::gate::token_fault::TokenFault;
use crate::gate::verify::{self, Issuer, Unverified};
use crate::observe::log::printable;

/// Result of verifying a token.
#[derive(Debug)]
pub(super) struct Verdict {
    /// Refusal of the gate, if it rejects the token.
    pub(super) refusal: Option<Refusal>,
    /// Issuer that accepts or rejects the token, if one is responsible.
    pub(super) issuer: Option<IssuerId>,
    /// Result of the responsible issuer, in one line.
    pub(super) sentence: String,
    /// Results of the other issuers, one line each.
    pub(super) others: Vec<String>,
}

/// Verifies a token as the gate does, and with every other issuer. `certificate` is the client certificate of the
/// connection.
pub(super) fn of(
    issuers: &[Issuer],
    token: &str,
    certificate: Option<&ClientCertificate>,
    now: UnixTime,
) -> Verdict {
    let decoded = DecodedToken::decode(token);
    let result = match BearerToken::new(token, verify::max_token_bytes(issuers)) {
        Ok(token) => verify::verify(issuers, token, certificate, now),
        Err(refusal) => Err(refusal.into()),
    };
    let responsible = match &result {
        Ok(verified) => Some(verified.issuer_id),
        Err(Unverified { issuer, .. }) => *issuer,
    };
    let others = issuers
        .iter()
        .enumerate()
        .filter(|(index, _)| Some(IssuerId(*index)) != responsible);
    let others = others.map(
        |(_, issuer)| match verify_with(issuer, token, certificate, now) {
            Ok(subject) => format!("issuer `{}` accepts it as subject `{subject}`", issuer.name),
            Err(refusal) => format!(
                "issuer `{}`: {}",
                issuer.name,
                decoded.explain(&refusal, issuer, now)
            ),
        },
    );
    let others = if result.is_ok() {
        Vec::new()
    } else {
        others.collect()
    };
    match (&result, responsible.and_then(|index| issuers.get(index.0))) {
        (Ok(verified), _) => Verdict {
            refusal: None,
            issuer: responsible,
            sentence: format!(
                "accepted: issuer `{}`, subject `{}`",
                verified.issuer,
                printable(verified.subject.as_str())
            ),
            others,
        },
        (Err(Unverified { refusal, .. }), Some(issuer)) => Verdict {
            refusal: Some(refusal.clone()),
            issuer: responsible,
            sentence: format!(
                "rejected by issuer `{}` ({}): {}",
                issuer.name,
                refusal.reason(),
                decoded.explain(refusal, issuer, now)
            ),
            others,
        },
        (Err(Unverified { refusal, .. }), None) => Verdict {
            refusal: Some(refusal.clone()),
            issuer: responsible,
            sentence: format!(
                "rejected ({}): {}",
                refusal.reason(),
                decoded.explain_without_issuer(refusal)
            ),
            others: if *refusal == Refusal::TokenIssuer {
                others
            } else {
                Vec::new()
            },
        },
    }
}

/// Verifies the token with one issuer, and returns its subject.
fn verify_with(
    issuer: &Issuer,
    token: &str,
    certificate: Option<&ClientCertificate>,
    now: UnixTime,
) -> Result<String, Refusal> {
    let token = BearerToken::new(token, issuer.max_token_bytes)?;
    match verify::verify(std::slice::from_ref(issuer), token, certificate, now) {
        Ok(verified) => Ok(printable(verified.subject.as_str()).into_owned()),
        Err(unverified) => Err(unverified.refusal),
    }
}

/// `iss` of a token, unverified.
pub(super) fn claimed_issuer(token: &str) -> Option<String> {
    let decoded = DecodedToken::decode(token);
    decoded.claims.get("iss")?.as_str().map(str::to_owned)
}

/// Header and claims of a token, unverified.
struct DecodedToken {
    header: Value,
    claims: Value,
}

impl DecodedToken {
    fn decode(token: &str) -> Self {
        let parts: Vec<&str> = token.split('.').collect();
        let json = |index: usize| {
            let bytes = parts
                .get(index)
                .and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
            bytes
                .and_then(|bytes| serde_json::from_slice(&bytes).ok())
                .unwrap_or(Value::Null)
        };
        Self {
            header: json(0),
            claims: json(1),
        }
    }

    fn claim(&self, name: &str) -> String {
        json(self.claims.get(name))
    }

    fn seconds(&self, name: &str) -> Option<i64> {
        self.claims.get(name)?.as_f64().map(|seconds| {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "for display only, and a cast of a float saturates"
            )]
            let whole = seconds as i64;
            whole
        })
    }

    /// Cause of a refusal without a responsible issuer.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other refusals need no claim"
    )]
    fn explain_without_issuer(&self, refusal: &Refusal) -> String {
        match refusal {
            Refusal::TokenIssuer if self.claims.get("iss").is_none() => {
                "no `iss` claim, and every issuer of the configuration requires one".to_owned()
            }
            Refusal::TokenIssuer => {
                format!(
                    "no issuer of the configuration has the `iss` {}",
                    self.claim("iss")
                )
            }
            Refusal::TokenMalformed(TokenFault::Time(claim, _)) => {
                format!("{} Got {}.", refusal.detail(), self.claim(claim))
            }
            Refusal::TokenType => format!("unsupported `typ` {}", json(self.header.get("typ"))),
            _ => refusal.detail().into_owned(),
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other refusals do not depend on the issuer"
    )]
    /// Cause of a refusal by this issuer.
    fn explain(&self, refusal: &Refusal, issuer: &Issuer, now: UnixTime) -> String {
        let kid = self.header.get("kid").map(|kid| json(Some(kid)));
        // Only the issuer's own keys are named: any client can write a `kid`.
        let known = kid.as_ref().filter(|_| {
            let kid = self.header.get("kid").and_then(Value::as_str);
            kid.is_some_and(|kid| issuer.ring.has(kid))
        });
        let (key, signed) = match known {
            Some(kid) => (
                format!("key {kid}"),
                format!("signature valid with key {kid}"),
            ),
            None => ("the key".to_owned(), "signature valid".to_owned()),
        };
        match refusal {
            Refusal::TokenIssuer => format!(
                "`iss` must be {}, got {}",
                list(issuer.accepted.iter().flatten()),
                self.claim("iss")
            ),
            Refusal::TokenAudience => {
                let audience = issuer.policy.audience.iter();
                let audience = audience.map(|names| ("aud", "contain", names));
                let party = issuer.policy.authorized_party.iter();
                let party = party.map(|names| ("azp", "be", names));
                let expected = audience.chain(party).map(|(claim, must, names)| {
                    let (names, value) = (list(names.iter()), self.claim(claim));
                    format!("`{claim}` must {must} {names}, got {value}")
                });
                let expected: Vec<String> = expected.collect();
                format!("{signed}, but {}", expected.join("; and "))
            }
            Refusal::TokenType => format!(
                "`typ` must be {}, got {}",
                list(issuer.types.iter()),
                json(self.header.get("typ"))
            ),
            Refusal::TokenKeyUnknown => match &kid {
                Some(kid) => format!("no key {kid} in the key set; available: {}", keys(issuer)),
                None => format!(
                    "no key for a token without `kid`; available: {}",
                    keys(issuer)
                ),
            },
            Refusal::TokenAlgorithm => format!(
                "{key} does not support the algorithm {}; available: {}",
                json(self.header.get("alg")),
                keys(issuer)
            ),
            Refusal::TokenSignature => format!(
                "the signature does not match {key}: the token was signed with another secret or key, or changed after \
                 signing"
            ),
            Refusal::TokenExpired => match self.seconds("exp") {
                Some(expires) => format!(
                    "{signed}, but expired {} ago",
                    duration(now.0.saturating_sub(expires))
                ),
                None => refusal.detail().into_owned(),
            },
            Refusal::TokenNotYetValid => {
                let start = self
                    .seconds("nbf")
                    .max(self.seconds("iat"))
                    .unwrap_or(now.0);
                format!(
                    "{signed}, but not valid for another {}",
                    duration(start - now.0)
                )
            }
            Refusal::TokenLifetime => {
                format!(
                    "the time from `iat` {} to `exp` {} exceeds `max_lifetime`",
                    self.claim("iat"),
                    self.claim("exp")
                )
            }
            Refusal::TokenSubject => {
                let all = self.claims.as_object();
                let mut paths = issuer.policy.subject.iter();
                let claim = all.and_then(|all| paths.find_map(|path| path.find(all)));
                let foreign = claim
                    .and_then(Value::as_str)
                    .filter(|subject| issuer.policy.namespace.is_foreign(subject));
                if let Some(subject) = foreign {
                    return format!(
                        "{signed}, but the subject `{}` would start with the `subject_prefix` of another issuer",
                        printable(subject)
                    );
                }
                let claims: Vec<String> = issuer
                    .policy
                    .subject
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                format!("{signed}, but no usable string in {}", claims.join(" or "))
            }
            Refusal::TokenConfirmation if issuer.policy.allow_bound => {
                format!("{signed}, but bound to another client certificate")
            }
            Refusal::TokenConfirmation => {
                match Binding::of(self.claims.get("cnf").unwrap_or(&Value::Null)) {
                    Some(binding) if binding.kind() == BindingKind::Key => format!(
                        "{signed}, but bound to the key with the thumbprint {binding}: send it in the scheme `DPoP` with a proof"
                    ),
                    Some(certificate) => format!(
                        "{signed}, but bound to the client certificate with the thumbprint {certificate}"
                    ),
                    None => format!(
                        "{signed}, but `cnf` binds it to a proof other than one certificate or one key, which the gate does not verify"
                    ),
                }
            }
            Refusal::TokenMachine => {
                let claims = Claims::parse(self.claims.to_string().as_bytes());
                let mark = claims.ok().and_then(|claims| MachineMark::find(&claims));
                let mark = mark.map_or_else(String::new, |mark| format!(" ({mark})"));
                format!(
                    "{signed}, but the token is that of a machine{mark}, and the issuer has no `machines = true`"
                )
            }
            Refusal::KeysUnavailable => {
                "the key set is unavailable, so the token cannot be verified".to_owned()
            }
            _ => self.explain_without_issuer(refusal),
        }
    }
}

/// Key IDs of the issuer with their algorithms.
fn keys(issuer: &Issuer) -> String {
    let keys = issuer.ring.keys().iter().map(|key| {
        format!(
            "{} for {}",
            printable(key.kid().unwrap_or("(no `kid`)")),
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

/// Value as JSON, escaped for a terminal; `(none)` if absent.
fn json(value: Option<&Value>) -> String {
    value.map_or_else(
        || "(none)".to_owned(),
        |value| printable(&value.to_string()).into_owned(),
    )
}

/// Quoted texts, separated by `or`.
fn list<'a>(texts: impl Iterator<Item = &'a String>) -> String {
    let texts: Vec<String> = texts
        .map(|text| format!("\"{}\"", printable(text)))
        .collect();
    texts.join(" or ")
}

fn duration(seconds: i64) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}
