//! Proofs of possession (`DPoP`, RFC 9449): the client of a bound token proves, for each request, that it holds the
//! token's key.
//!
//! A proof is verified from the request alone. Its caller verifies the token, rejects a replay, and checks the nonce.

mod proof_key;
mod url;

use std::fmt;

use aws_lc_rs::digest::{self, SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, Method};
use serde_json::Value;

use crate::clock::UnixTime;
use crate::keys::{Algorithm, KeyKind};

use super::claims::Claims;
use super::jws::{CompactJws, JwsFault, is_same_type};
use super::proof_fault::{MAX_ID_CHARACTERS, MAX_PROOF_BYTES, ProofFault};
use super::single_value::{Repeated, single_value};

pub use url::ExternalUrl;

use proof_key::ProofKey;

/// Request header with the proof.
pub const DPOP: HeaderName = HeaderName::from_static("dpop");

/// Accepted algorithms and times of proofs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofPolicy {
    /// Accepted signature algorithms. A shared secret proves nothing, so `HS256` and its like are never accepted.
    pub algorithms: Vec<Algorithm>,
    /// Longest accepted time since `iat`, in seconds.
    pub max_age: i64,
    /// Longest accepted time until `iat` or `nbf`, in seconds: tolerates a client clock that is ahead.
    pub max_future: i64,
}

/// Request that a proof must be for.
#[derive(Clone, Copy)]
pub struct ProofContext<'a> {
    pub method: &'a Method,
    pub url: ExternalUrl<'a>,
    /// Token of the request, without its scheme.
    pub token: &'a str,
    /// `cnf.jkt` of the token: SHA-256 thumbprint of its key (RFC 9449 section 6.1).
    pub thumbprint: &'a str,
    pub now: UnixTime,
}

/// A valid proof. The caller still has to reject a replay, and to check the nonce if it demands one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedProof {
    /// SHA-256 of key, method, URL and `jti`. A proof with the same one is a replay (RFC 9449 section 11.1).
    pub replay_key: [u8; 32],
    /// First second at which no gate accepts the proof any more, even if its clock is behind by `max_future`.
    pub until: UnixTime,
    /// Nonce in the proof (RFC 9449 section 9).
    pub nonce: Option<String>,
}

impl From<JwsFault> for ProofFault {
    fn from(fault: JwsFault) -> Self {
        match fault {
            JwsFault::Parts(parts) => Self::Parts(parts),
            JwsFault::Part(part, fault) => Self::Part(part, fault),
        }
    }
}

impl Default for ProofPolicy {
    /// Accepts every asymmetric algorithm, up to five minutes old and five seconds in the future.
    fn default() -> Self {
        let is_asymmetric = |algorithm: &Algorithm| algorithm.kind() != KeyKind::Secret;
        Self {
            algorithms: Algorithm::ALL.into_iter().filter(is_asymmetric).collect(),
            max_age: 300,
            max_future: 5,
        }
    }
}

/// Verifies the proof of a request (RFC 9449 section 4.3).
pub fn verify(
    headers: &HeaderMap,
    context: &ProofContext<'_>,
    policy: &ProofPolicy,
) -> Result<VerifiedProof, ProofFault> {
    let proof = CompactJws::parse(proof_text(headers)?)?;
    if let Some(name) = proof.extension() {
        return Err(ProofFault::Extension(name));
    }
    let typ = proof.header.text("typ");
    if !typ.is_some_and(|typ| is_same_type(typ, "dpop+jwt")) {
        return Err(ProofFault::Type);
    }
    let algorithm = policy.algorithm(&proof.header)?;
    let key = ProofKey::read(&proof.header, algorithm)?;
    if !is_equal(&key.thumbprint, context.thumbprint) {
        return Err(ProofFault::Thumbprint);
    }
    if !key.verifies(algorithm, &proof) {
        return Err(ProofFault::Signature);
    }
    check_claims(&proof.claims, context, policy)
}

/// Text of the only `DPoP` header.
fn proof_text(headers: &HeaderMap) -> Result<&str, ProofFault> {
    let value = single_value(headers, &DPOP).map_err(|Repeated| ProofFault::Repeated)?;
    let value = value.ok_or(ProofFault::Missing)?;
    if value.len() > MAX_PROOF_BYTES {
        return Err(ProofFault::TooLong);
    }
    let text = value.to_str().map_err(|_| ProofFault::NotAscii)?;
    // A proxy may join two headers into one (RFC 9110 section 5.3).
    if text.contains(',') {
        return Err(ProofFault::Repeated);
    }
    Ok(text)
}

impl ProofPolicy {
    /// Algorithm in the header of a proof, if it is accepted.
    fn algorithm(&self, header: &Claims) -> Result<Algorithm, ProofFault> {
        let named = header.text("alg").and_then(Algorithm::named);
        let is_accepted = |algorithm: &Algorithm| {
            algorithm.kind() != KeyKind::Secret && self.algorithms.contains(algorithm)
        };
        named.filter(is_accepted).ok_or(ProofFault::Algorithm)
    }
}

/// Checks the claims of a proof with a valid signature.
fn check_claims(
    claims: &Claims,
    context: &ProofContext<'_>,
    policy: &ProofPolicy,
) -> Result<VerifiedProof, ProofFault> {
    let method = context.method.as_str();
    // RFC 9110 section 9.1: methods are case-sensitive.
    if required_text(claims, "htm")? != method {
        return Err(ProofFault::Method);
    }
    let url = context.url.check(required_text(claims, "htu")?);
    let url = url.map_err(ProofFault::Url)?;
    let until = check_times(claims, context.now, policy)?;
    let id = required_text(claims, "jti")?;
    if !(1..=MAX_ID_CHARACTERS).contains(&id.chars().count()) {
        return Err(ProofFault::IdLength);
    }
    let token_hash = URL_SAFE_NO_PAD.encode(digest::digest(&SHA256, context.token.as_bytes()));
    if !is_equal(required_text(claims, "ath")?, &token_hash) {
        return Err(ProofFault::TokenHash);
    }
    Ok(VerifiedProof {
        // Only `jti` can contain a line break: the other parts are equal to those of the token and the request.
        replay_key: sha256(&[context.thumbprint, method, &url, id].join("\n")),
        until,
        nonce: text(claims, "nonce")?.map(str::to_owned),
    })
}

/// Checks `iat`, `exp` and `nbf`. Returns the end of the time in which the proof is accepted.
fn check_times(
    claims: &Claims,
    now: UnixTime,
    policy: &ProofPolicy,
) -> Result<UnixTime, ProofFault> {
    let time = |name: &'static str| {
        let time = claims.numeric_date(name);
        time.map_err(|fault| ProofFault::Time(name, fault))
    };
    let issued = time("iat")?.ok_or(ProofFault::NoClaim("iat"))?;
    let latest = now.0.saturating_add(policy.max_future);
    if issued.first_second() > latest {
        return Err(ProofFault::IssuedInFuture);
    }
    if issued.second < now.0.saturating_sub(policy.max_age) {
        return Err(ProofFault::TooOld);
    }
    if time("exp")?.is_some_and(|expires| now.0 >= expires.second) {
        return Err(ProofFault::Expired);
    }
    if time("nbf")?.is_some_and(|starts| starts.first_second() > latest) {
        return Err(ProofFault::NotYetValid);
    }
    let last = issued.second.saturating_add(policy.max_age);
    Ok(UnixTime(
        last.saturating_add(policy.max_future).saturating_add(1),
    ))
}

/// Text of a claim; `None` if it is absent.
fn text<'a>(claims: &'a Claims, name: &'static str) -> Result<Option<&'a str>, ProofFault> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(ProofFault::NotText(name)),
    }
}

fn required_text<'a>(claims: &'a Claims, name: &'static str) -> Result<&'a str, ProofFault> {
    text(claims, name)?.ok_or(ProofFault::NoClaim(name))
}

/// Compares two texts of the same length in constant time.
fn is_equal(one: &str, other: &str) -> bool {
    let compared =
        aws_lc_rs::constant_time::verify_slices_are_equal(one.as_bytes(), other.as_bytes());
    compared.is_ok()
}

fn sha256(text: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&SHA256, text.as_bytes()).as_ref());
    hash
}

/// Prints no token.
impl fmt::Debug for ProofContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProofContext(..)")
    }
}

#[cfg(test)]
mod tests;
