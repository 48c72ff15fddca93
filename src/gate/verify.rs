//! Verification of a token with its issuer's keys, at a given time.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::clock::UnixTime;
use crate::config::DpopMode;
use crate::keys::{Algorithm, KeyKind, KeyRing, VerificationKey};

use super::binding::{Binding, Possession};
use super::caller_kind::CallerKind;
use super::claims::{ClaimPolicy, Claims, Validity};
use super::issuer_id::IssuerId;
use super::jws::{CompactJws, is_same_type};
use super::refusal::Refusal;
use super::subject::Subject;
use super::token::{BearerToken, DEFAULT_MAX_TOKEN_BYTES};
use super::token_fault::TokenFault;

/// Longest accepted `kid`, in bytes.
const MAX_KID_BYTES: usize = 256;

/// Age of a key set, in seconds, after which an invalid signature causes a fetch. Some issuers replace a key and keep its
/// `kid`, or use none. At most one fetch in this time, whatever forged tokens arrive.
const REPLACED_KEY_AGE: i64 = 60;

/// A configured issuer of tokens.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// Name in the configuration.
    pub name: Arc<str>,
    /// Accepted `iss` values; `None` accepts any.
    pub accepted: Option<Vec<String>>,
    /// Accepted `typ` values; a token without `typ` counts as `JWT`.
    pub types: Vec<String>,
    /// Longest accepted token, in bytes.
    pub max_token_bytes: usize,
    /// True if tokens of machines are accepted.
    pub machines: bool,
    /// Checks of the claims.
    pub policy: ClaimPolicy,
    /// Further kinds of tokens.
    pub profiles: Vec<TokenProfile>,
    pub ring: Arc<KeyRing>,
    /// True if the issuer is asked whether a valid token has been revoked.
    pub is_introspected: bool,
    /// Handling of `DPoP` tokens.
    pub dpop: DpopMode,
    /// Lifetime of the nonces that proofs need, in seconds; `None` for no nonce.
    pub nonce_lifetime: Option<i64>,
}

/// A kind of token: its types together with the checks of its claims, and no other combination.
#[derive(Debug, Clone)]
pub struct TokenProfile {
    /// Accepted `typ` values.
    pub types: Vec<String>,
    pub policy: ClaimPolicy,
}

/// Contents of a verified token.
#[derive(Debug)]
pub struct Verified {
    pub subject: Subject,
    pub kind: CallerKind,
    /// Name of the issuer in the configuration.
    pub issuer: Arc<str>,
    pub issuer_id: IssuerId,
    pub claims: Claims,
    pub validity: Validity,
    /// Certificate that the connection must have proven, at every use of the token.
    pub binding: Option<Binding>,
}

/// Reason why a token is not valid, or cannot be verified yet.
#[derive(Debug, PartialEq, Eq)]
pub struct Unverified {
    /// Refusal, unless newer keys change the result.
    pub refusal: Refusal,
    /// Selected issuer, if one was selected.
    pub issuer: Option<IssuerId>,
    /// True if newer keys of that issuer could change the result.
    pub newer_keys_may_help: bool,
    /// Unknown key ID, if that is the reason.
    pub kid: Option<String>,
}

impl Unverified {
    /// Returns whether the key of the token is missing.
    pub(super) fn lacks_a_key(&self) -> bool {
        matches!(
            self.refusal,
            Refusal::TokenKeyUnknown | Refusal::KeysUnavailable
        )
    }
}

impl From<Refusal> for Unverified {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            issuer: None,
            newer_keys_may_help: false,
            kid: None,
        }
    }
}

/// A token taken apart (RFC 7515 section 7.1), not yet verified.
struct Jws<'a> {
    header: Header,
    claims: Claims,
    signing_input: &'a str,
    signature: &'a str,
}

/// JOSE header. `jku`, `x5u`, `x5c` and `jwk` are ignored: keys never come from a token.
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
}

/// Largest limit of the issuers for the length of a token, in bytes.
pub fn max_token_bytes(issuers: &[Issuer]) -> usize {
    let limits = issuers.iter().map(|issuer| issuer.max_token_bytes);
    limits.max().unwrap_or(DEFAULT_MAX_TOKEN_BYTES)
}

/// Verifies a token with the issuer that its `iss` selects. A sender-constrained token needs its certificate, or the scheme
/// `DPoP`, with a proof that is checked after this.
pub fn verify<'a>(
    issuers: &[Issuer],
    token: BearerToken<'_>,
    shown: impl Into<Possession<'a>>,
    now: UnixTime,
) -> Result<Verified, Unverified> {
    let jws = Jws::parse(token.expose())?;
    let iss = jws.claims.text("iss");
    let accepts = |issuer: &Issuer| issuer.accepts(iss);
    let all = || issuers.iter().enumerate();
    // An issuer that names this `iss` comes before one that accepts any.
    let named = || all().find(|(_, issuer)| issuer.accepted.is_some() && accepts(issuer));
    let Some((index, issuer)) = named().or_else(|| all().find(|(_, issuer)| accepts(issuer)))
    else {
        return Err(Refusal::TokenIssuer.into());
    };
    let issuer_id = IssuerId(index);
    let unverified = |refusal, newer_keys_may_help| Unverified {
        refusal,
        issuer: Some(issuer_id),
        newer_keys_may_help,
        kid: None,
    };
    if token.length() > issuer.max_token_bytes {
        let fault = TokenFault::TooLong(issuer.max_token_bytes);
        return Err(unverified(Refusal::TokenMalformed(fault), false));
    }
    let mut policies = issuer.policies(jws.header.typ.as_deref()).peekable();
    if policies.peek().is_none() {
        return Err(unverified(Refusal::TokenType, false));
    }
    if !issuer.ring.is_usable(now) {
        return Err(unverified(Refusal::KeysUnavailable, true));
    }
    check_signature(&jws, &issuer.ring).map_err(|refusal| {
        let unknown = refusal == Refusal::TokenKeyUnknown && issuer.ring.can_grow();
        let algorithm = Algorithm::named(&jws.header.alg);
        let may_be_replaced = refusal != Refusal::TokenKeyUnknown
            && algorithm.is_some_and(|algorithm| algorithm.kind() != KeyKind::Secret)
            && issuer.may_replace_key(now);
        // While the key set cannot be fetched, an unknown key may be a new one: not the fault of the token.
        let is_undecidable = unknown && !issuer.ring.is_current();
        let refusal = if is_undecidable {
            Refusal::KeysUnavailable
        } else {
            refusal
        };
        Unverified {
            kid: jws.header.kid.clone().filter(|_| unknown),
            ..unverified(refusal, unknown || may_be_replaced)
        }
    })?;
    let mut checked = Err(Refusal::TokenType);
    for policy in policies {
        checked = jws.claims.check(policy, now);
        // Another kind of token with this type can have another audience.
        if checked.as_ref().err() != Some(&Refusal::TokenAudience) {
            break;
        }
    }
    let checked = checked.map_err(|refusal| unverified(refusal, false))?;
    if let Some(binding) = &checked.binding {
        let confirmed = binding.check(shown.into());
        confirmed.map_err(|refusal| unverified(refusal, false))?;
    }
    let kind = CallerKind::of(&jws.claims);
    if kind == CallerKind::Machine && !issuer.machines {
        return Err(unverified(Refusal::TokenMachine, false));
    }
    Ok(Verified {
        subject: checked.subject,
        kind,
        issuer: Arc::clone(&issuer.name),
        issuer_id,
        claims: jws.claims,
        validity: checked.validity,
        binding: checked.binding,
    })
}

impl Issuer {
    /// Returns whether the issuer accepts this `iss`.
    pub(super) fn accepts(&self, iss: Option<&str>) -> bool {
        match &self.accepted {
            None => true,
            Some(accepted) => {
                iss.is_some_and(|iss| accepted.iter().any(|accepted| accepted == iss))
            }
        }
    }

    /// Reports whether the keys are old enough that the issuer may have replaced one. False while the issuer is
    /// unreachable: a forged token must not wait for it.
    fn may_replace_key(&self, now: UnixTime) -> bool {
        let fetched_at = self.ring.fetched_at();
        let is_old = fetched_at.is_some_and(|fetched| now.0 - fetched.0 >= REPLACED_KEY_AGE);
        is_old && self.ring.is_current()
    }

    /// Checks for the claims of a token of this type.
    fn policies<'a>(&'a self, typ: Option<&'a str>) -> impl Iterator<Item = &'a ClaimPolicy> {
        let main = accepts_type(&self.types, typ).then_some(&self.policy);
        let profiles = self.profiles.iter();
        let profiles = profiles.filter(move |profile| accepts_type(&profile.types, typ));
        main.into_iter()
            .chain(profiles.map(|profile| &profile.policy))
    }
}

/// Compares `typ` as a media type (RFC 7515 section 4.1.9). A token without `typ` counts as `JWT`.
fn accepts_type(types: &[String], typ: Option<&str>) -> bool {
    let typ = typ.unwrap_or("JWT");
    let mut accepted = types.iter();
    accepted.any(|accepted| is_same_type(accepted, typ))
}

/// Key of this issuer that verifies the signature of a token. Checks nothing else.
pub fn signing_key<'a>(issuer: &'a Issuer, token: BearerToken<'_>) -> Option<&'a VerificationKey> {
    let jws = Jws::parse(token.expose()).ok()?;
    check_signature(&jws, &issuer.ring).ok()
}

/// Finds the key that verifies the signature.
fn check_signature<'a>(jws: &Jws<'_>, ring: &'a KeyRing) -> Result<&'a VerificationKey, Refusal> {
    let mut keys = ring.keys_for(jws.header.kid.as_deref()).peekable();
    if keys.peek().is_none() {
        return Err(Refusal::TokenKeyUnknown);
    }
    // The key determines the algorithm; the token only has to agree.
    let Some(algorithm) = Algorithm::named(&jws.header.alg) else {
        return Err(Refusal::TokenAlgorithm);
    };
    let mut fitting = keys.filter(|key| key.is_for(algorithm)).peekable();
    if fitting.peek().is_none() {
        return Err(Refusal::TokenAlgorithm);
    }
    let signed = jws.signing_input.as_bytes();
    fitting
        .find(|key| key.verifies(algorithm, signed, jws.signature))
        .ok_or(Refusal::TokenSignature)
}

impl<'a> Jws<'a> {
    fn parse(token: &'a str) -> Result<Self, Refusal> {
        let jws = CompactJws::parse(token);
        let jws = jws.map_err(|fault| Refusal::TokenMalformed(fault.into()))?;
        Ok(Self {
            header: Header::of(&jws)?,
            claims: jws.claims,
            signing_input: jws.signing_input,
            signature: jws.signature,
        })
    }
}

impl Header {
    fn of(jws: &CompactJws<'_>) -> Result<Self, Refusal> {
        let malformed = Refusal::TokenMalformed;
        if let Some(name) = jws.extension() {
            return Err(malformed(TokenFault::Extension(name)));
        }
        let text = |name| match jws.header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(malformed(TokenFault::HeaderMember(name))),
        };
        let (alg, kid) = (text("alg")?, text("kid")?);
        let alg = alg.ok_or_else(|| malformed(TokenFault::NoAlgorithm))?;
        if kid.is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
            return Err(malformed(TokenFault::KeyIdTooLong));
        }
        let is_jwt = |typ: &str| typ.eq_ignore_ascii_case("JWT");
        let (typ, cty) = (text("typ")?, text("cty")?);
        // RFC 7519 section 5.2: `cty` of `JWT` marks a nested token. RFC 7515 section 4.1.10:
        // `application/jwt` is the same.
        let is_nested = cty.is_some_and(|cty| cty.rsplit('/').next().is_some_and(is_jwt));
        if is_nested {
            return Err(Refusal::TokenType);
        }
        Ok(Self {
            alg: alg.to_owned(),
            kid: kid.map(str::to_owned),
            typ: typ.map(str::to_owned),
        })
    }
}

impl fmt::Debug for Jws<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Jws(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(types: &[&str], typ: Option<&str>) -> bool {
        let types: Vec<String> = types.iter().map(|typ| (*typ).to_owned()).collect();
        accepts_type(&types, typ)
    }

    #[test]
    fn compares_types_as_media_types_and_a_missing_one_as_jwt() {
        for (types, typ, expected) in [
            (&["JWT"][..], None, true),
            (&["JWT"], Some("JWT"), true),
            (&["JWT"], Some("jwt"), true),
            (&["JWT"], Some("application/jwt"), true),
            (&["JWT"], Some("APPLICATION/JWT"), true),
            (&["application/JWT"], Some("jwt"), true),
            (&["application/JWT"], None, true),
            (&["JWT"], Some("at+jwt"), false),
            (&["JWT"], Some(""), false),
            (&["JWT"], Some(" JWT"), false),
            (&["JWT"], Some("text/jwt"), false),
            (&["JWT"], Some("application/application/jwt"), false),
            (&["JWT", "at+jwt"], None, true),
            (&["JWT", "at+jwt"], Some("application/at+jwt"), true),
            (&["JWT", "at+jwt"], Some("AT+JWT"), true),
            (&["JWT", "at+jwt"], Some("logout+jwt"), false),
            // An ID token has no type and must not pass for an access token.
            (&["at+jwt"], None, false),
            (&["at+jwt"], Some("JWT"), false),
            (&["at+jwt"], Some("at+jwt"), true),
        ] {
            assert_eq!(accepts(types, typ), expected, "{types:?} {typ:?}");
        }
    }
}
