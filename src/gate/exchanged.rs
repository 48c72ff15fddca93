//! Verification of credentials by the response of their issuer.

use std::sync::Arc;

use crate::clock::UnixTime;
use crate::keys::credential::{Credential, CredentialForm, Exchanged, Outcome};

use super::cache::{CachedToken, TokenCache};
use super::caller_kind::CallerKind;
use super::claims::{ClaimPolicy, Claims};
use super::issuer_id::IssuerId;
use super::refusal::Refusal;
use super::token::BearerToken;
use super::verify::{self, Issuer, Unverified, Verified};
use super::{Gate, Presented};

/// Longest validity of a session without a JWT, in seconds: that of a JWT of Better Auth. It ends streams.
const SESSION_LIFETIME: i64 = 15 * 60;

/// Reason why the caller of a request is not known, or not known yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unidentified {
    Unverified(Unverified),
    /// The issuer must be asked about a credential.
    NeedsExchange {
        issuer: IssuerId,
        credential: Credential,
    },
}

impl Unidentified {
    /// Returns whether the token is invalid, whatever newer keys arrive.
    pub(super) fn is_invalid(&self) -> bool {
        matches!(self, Self::Unverified(unverified) if !unverified.newer_keys_may_help)
    }
}

impl From<Unverified> for Unidentified {
    fn from(unverified: Unverified) -> Self {
        Self::Unverified(unverified)
    }
}

impl From<Refusal> for Unidentified {
    fn from(refusal: Refusal) -> Self {
        Self::Unverified(refusal.into())
    }
}

/// Refusal of a credential that no exchange is possible for.
pub(super) fn not_asked() -> Refusal {
    unavailable(1, "the issuer was not asked")
}

fn unavailable(retry_after: u64, cause: &str) -> Refusal {
    Refusal::ExchangeUnavailable {
        retry_after,
        cause: cause.into(),
    }
}

impl Gate {
    /// Verifies a credential by the response of its issuer, or finds it in the cache.
    pub(super) fn identify_by_exchange(
        &self,
        issuer: IssuerId,
        credential: Credential,
        request: &Presented<'_>,
        cache: &mut TokenCache,
    ) -> Result<CachedToken, Unidentified> {
        let digest = *credential.digest();
        // Two issuers can have sessions with the same cookie name.
        if let Some(known) = self.known(&digest, request, cache)?
            && known.issuer == issuer
        {
            return Ok(known);
        }
        let Some(exchanged) = self.response_about(issuer, &credential, request) else {
            return Err(Unidentified::NeedsExchange { issuer, credential });
        };
        let verified = match &exchanged.outcome {
            Outcome::Jwt(token) => self.verify_exchanged(token, issuer, request, cache)?,
            Outcome::Claims(json) => {
                self.check_response(json, issuer, credential.form(), exchanged.at, request)?
            }
            Outcome::Rejected => return Err(rejected(credential.form()).into()),
            Outcome::Unavailable { retry_after, cause } => {
                return Err(unavailable(*retry_after, cause).into());
            }
        };
        let fresh_until = exchanged.fresh_until.min(verified.validity.until());
        let known = self.remember(verified, Some(fresh_until));
        cache.insert(digest, known.clone());
        Ok(known)
    }

    /// Checks that the issuer has not revoked a verified token, if it introspects. Returns the end of the time for which
    /// that is known.
    pub(super) fn check_active(
        &self,
        verified: &Verified,
        token: BearerToken<'_>,
        request: &Presented<'_>,
    ) -> Result<Option<UnixTime>, Unidentified> {
        let issuer = verified.issuer_id;
        if !self.issuer(issuer).is_some_and(|it| it.is_introspected) {
            return Ok(None);
        }
        let credential = Credential::new(CredentialForm::AccessToken, token.expose());
        let Some(exchanged) = self.response_about(issuer, &credential, request) else {
            return Err(Unidentified::NeedsExchange { issuer, credential });
        };
        match &exchanged.outcome {
            Outcome::Claims(_) => Ok(Some(exchanged.fresh_until)),
            Outcome::Rejected => Err(Refusal::TokenInactive.into()),
            Outcome::Unavailable { retry_after, cause } => {
                Err(unavailable(*retry_after, cause).into())
            }
            Outcome::Jwt(_) => Err(unavailable(1, "the issuer sent a JWT").into()),
        }
    }

    /// Response that the request has waited for, if it is about this credential and from this issuer.
    fn response_about<'a>(
        &self,
        issuer: IssuerId,
        credential: &Credential,
        request: &Presented<'a>,
    ) -> Option<&'a Exchanged> {
        let issuer = self.issuer(issuer)?;
        request
            .exchanged
            .filter(|it| it.credential == *credential.digest() && it.issuer == issuer.name)
    }

    /// Verifies the JWT of an exchange. A JWT of the asked issuer that is not valid here is a fault of the configuration,
    /// not of the client.
    fn verify_exchanged(
        &self,
        token: &str,
        issuer: IssuerId,
        request: &Presented<'_>,
        cache: &mut TokenCache,
    ) -> Result<Verified, Unidentified> {
        let unusable = |refusal: &Refusal| {
            let cause = format!(
                "the JWT of the exchange is not valid here: {}: {}",
                refusal.reason(),
                refusal.row().hint
            );
            Unidentified::from(unavailable(1, &cause))
        };
        let token = BearerToken::new(token, self.max_token_bytes);
        let token = token.map_err(|refusal| unusable(&refusal))?;
        let verified = verify::verify(&self.issuers, token, request.shown, request.now);
        cache.count(&verified);
        match verified {
            Ok(verified) if verified.issuer_id == issuer => Ok(verified),
            Ok(_) => Err(unusable(&Refusal::TokenIssuer)),
            Err(mut unverified) if unverified.newer_keys_may_help => {
                unverified.refusal = Refusal::KeysUnavailable;
                Err(unverified.into())
            }
            Err(unverified) => Err(unusable(&unverified.refusal)),
        }
    }

    /// Checks the claims of a response. Their source is the issuer itself, so they have no signature.
    fn check_response(
        &self,
        json: &[u8],
        id: IssuerId,
        form: &CredentialForm,
        at: UnixTime,
        request: &Presented<'_>,
    ) -> Result<Verified, Unidentified> {
        let unusable = |cause: &str| Unidentified::from(unavailable(1, cause));
        let issuer = self
            .issuer(id)
            .ok_or_else(|| unusable("the issuer was removed"))?;
        let claims = Claims::parse(json);
        let claims =
            claims.map_err(|_| unusable("the response is not an object with unique names"))?;
        let mut checked = if *form == CredentialForm::AccessToken {
            // Without configured values, the source of the response is enough.
            let is_checked = issuer.accepted.as_ref().is_some_and(|all| !all.is_empty());
            if let Some(iss) = claims.text("iss")
                && is_checked
                && !issuer.accepts(Some(iss))
            {
                return Err(Refusal::TokenIssuer.into());
            }
            claims.check(&issuer.policy, request.now)?
        } else {
            claims.check(&session_policy(&issuer.policy), request.now)?
        };
        if *form != CredentialForm::AccessToken {
            let longest = UnixTime(at.0.saturating_add(SESSION_LIFETIME));
            checked.validity = checked.validity.limited_to(longest);
        }
        if let Some(binding) = &checked.binding {
            binding.check(request.shown)?;
        }
        let kind = CallerKind::of(&claims);
        if kind == CallerKind::Machine && !issuer.machines {
            return Err(Refusal::TokenMachine.into());
        }
        Ok(Verified {
            kind,
            subject: checked.subject,
            issuer: Arc::clone(&issuer.name),
            issuer_id: id,
            claims,
            validity: checked.validity,
            binding: checked.binding,
        })
    }

    fn issuer(&self, id: IssuerId) -> Option<&Issuer> {
        self.issuers.get(id.0)
    }
}

fn rejected(form: &CredentialForm) -> Refusal {
    match form {
        CredentialForm::SessionCookie(_) | CredentialForm::SessionToken => Refusal::SessionInvalid,
        CredentialForm::AccessToken => Refusal::TokenInactive,
    }
}

/// Checks of the claims of a session: it has no audience and no lifetime of a token.
fn session_policy(policy: &ClaimPolicy) -> ClaimPolicy {
    ClaimPolicy {
        audience: None,
        authorized_party: None,
        max_lifetime: None,
        ..policy.clone()
    }
}
