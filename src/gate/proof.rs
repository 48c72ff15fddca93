//! Check of the `DPoP` proof of a request, and of its nonce.

use std::fmt;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::clock::UnixTime;
use crate::config::DpopMode;

use super::Gate;
use super::cache::CachedToken;
use super::dpop::{self, ExternalUrl, ProofContext, ProofPolicy, VerifiedProof};
use super::inbound::Inbound;
use super::path::CanonicalPath;
use super::proof_fault::{ProofFault, UrlFault};
use super::refusal::Refusal;
use super::single_value::{Repeated, single_value};
use super::token::{FoundToken, Scheme};

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// Bytes of a nonce.
const NONCE_BYTES: usize = 16;

/// Key of the nonces of this process (RFC 9449 section 9). A nonce is the code of a period, so none is stored.
#[derive(Clone)]
pub struct NonceKey(hmac::Key);

impl NonceKey {
    /// Creates the key from 32 random bytes.
    pub fn new(random: &[u8; 32]) -> Self {
        Self(hmac::Key::new(HMAC_SHA256, random))
    }

    /// Nonce of the period that contains `time`.
    fn at(&self, time: i64, lifetime: i64) -> String {
        let period = time.div_euclid(lifetime.max(1));
        let code = hmac::sign(
            &self.0,
            &[period.to_be_bytes(), lifetime.to_be_bytes()].concat(),
        );
        let code = code.as_ref().get(..NONCE_BYTES).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(code)
    }

    /// Returns whether a nonce is that of this period or of the one before.
    fn accepts(&self, nonce: &str, now: UnixTime, lifetime: i64) -> bool {
        nonce == self.at(now.0, lifetime) || nonce == self.at(now.0 - lifetime, lifetime)
    }
}

impl fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceKey(..)")
    }
}

impl Gate {
    /// Checks that a token is used as it is bound: with the proof of its key, or as a bearer token if it has no key. Returns
    /// the proof, which the caller must not accept twice.
    pub(super) fn check_proof(
        &self,
        found: &FoundToken<'_>,
        token: &CachedToken,
        route: Option<DpopMode>,
        inbound: &Inbound,
        now: UnixTime,
    ) -> Result<Option<Box<VerifiedProof>>, Refusal> {
        let issuer = self.issuers.get(token.issuer.0);
        let mode = route.or_else(|| issuer.map(|issuer| issuer.dpop));
        let mode = mode.unwrap_or(DpopMode::Off);
        let binding = token.binding.as_ref();
        let key = binding.and_then(|binding| Some((binding, binding.key()?)));
        match (found.scheme, key) {
            (Scheme::Bearer, None) if mode == DpopMode::Required => Err(Refusal::TokenUnbound),
            (Scheme::Bearer, None) => Ok(None),
            // RFC 9449 section 7.2: a bound token is no bearer token.
            (Scheme::Bearer, Some((binding, _))) => {
                if binding.is_required() || mode == DpopMode::Required {
                    Err(Refusal::TokenConfirmation)
                } else {
                    Ok(None)
                }
            }
            (Scheme::Dpop, None) => Err(Refusal::TokenUnbound),
            (Scheme::Dpop, Some(_)) if mode == DpopMode::Off => Err(Refusal::TokenConfirmation),
            (Scheme::Dpop, Some((_, thumbprint))) => {
                let url = ExternalParts::of(inbound)?;
                let context = ProofContext {
                    method: &inbound.head.method,
                    url: url.as_url(inbound),
                    token: found.token().expose(),
                    thumbprint,
                    now,
                };
                let proof = dpop::verify(&inbound.head.headers, &context, &ProofPolicy::default());
                let proof = proof.map_err(Refusal::ProofInvalid)?;
                if let Some(lifetime) = issuer.and_then(|issuer| issuer.nonce_lifetime) {
                    self.check_nonce(&proof, lifetime, now)?;
                }
                Ok(Some(Box::new(proof)))
            }
        }
    }

    fn check_nonce(
        &self,
        proof: &VerifiedProof,
        lifetime: i64,
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let Some(key) = &self.nonce_key else {
            return Err(Refusal::ProofsUnavailable);
        };
        if proof
            .nonce
            .as_ref()
            .is_some_and(|nonce| key.accepts(nonce, now, lifetime))
        {
            return Ok(());
        }
        let nonce = HeaderValue::try_from(key.at(now.0, lifetime));
        nonce.map_or(Err(Refusal::ProofsUnavailable), |nonce| {
            Err(Refusal::ProofNonce(nonce))
        })
    }
}

/// Host and path of the URL that the client used, in front of trusted proxies and of the gate's own path rewrite.
struct ExternalParts<'a> {
    authority: &'a str,
    /// Path, if a trusted proxy has removed a prefix.
    path: Option<String>,
}

impl<'a> ExternalParts<'a> {
    fn of(inbound: &'a Inbound) -> Result<Self, Refusal> {
        let headers = &inbound.head.headers;
        let (host, prefix) = if inbound.has_trusted_forwarding {
            let host = only(headers, &X_FORWARDED_HOST)?;
            (host, only(headers, &X_FORWARDED_PREFIX)?)
        } else {
            (None, None)
        };
        let host = match host {
            Some(host) => Some(host),
            None => match only(headers, &HOST)? {
                Some(host) => Some(host),
                None => inbound
                    .head
                    .uri
                    .authority()
                    .map(http::uri::Authority::as_str),
            },
        };
        let path = match prefix {
            None => None,
            Some(prefix) => {
                CanonicalPath::parse(prefix).map_err(|_| unknown_url())?;
                let prefix = prefix.trim_end_matches('/');
                Some(format!("{prefix}{}", inbound.head.uri.path()))
            }
        };
        Ok(Self {
            authority: host.ok_or_else(unknown_url)?,
            path,
        })
    }

    fn as_url(&'a self, inbound: &'a Inbound) -> ExternalUrl<'a> {
        ExternalUrl {
            scheme: inbound.scheme,
            authority: self.authority,
            path: self
                .path
                .as_deref()
                .unwrap_or_else(|| inbound.head.uri.path()),
        }
    }
}

/// Text of a field with a single value: with several, the URL of the client is not known.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let value = single_value(headers, name).map_err(|Repeated| unknown_url())?;
    let text = value.map(HeaderValue::to_str).transpose();
    let text = text.map_err(|_| unknown_url())?;
    match text {
        Some(text) if text.contains(',') => Err(unknown_url()),
        text => Ok(text),
    }
}

fn unknown_url() -> Refusal {
    Refusal::ProofInvalid(ProofFault::Url(UrlFault::Host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_accepted_for_its_period_and_the_next() {
        let key = NonceKey::new(&[7; 32]);
        let nonce = key.at(600, 300);
        for (now, is_accepted) in [
            (599, false),
            (600, true),
            (899, true),
            (900, true),
            (1199, true),
            (1200, false),
        ] {
            assert_eq!(
                key.accepts(&nonce, UnixTime(now), 300),
                is_accepted,
                "{now}"
            );
        }
        assert_ne!(nonce, NonceKey::new(&[8; 32]).at(600, 300));
        assert_ne!(nonce, key.at(600, 60));
        assert!(!key.accepts("", UnixTime(600), 300));
    }
}
