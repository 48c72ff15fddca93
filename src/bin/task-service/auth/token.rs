//! HS256 tokens, signed with one secret. The only file that uses `jsonwebtoken`.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::api::Refusal;
use crate::clock::Moment;
use crate::store::User;

const SECRET_BYTES: usize = 32;
const SECONDS_OF_DAY: i64 = 24 * 60 * 60;

/// The secret is too short.
#[derive(Debug, thiserror::Error)]
#[error("the secret must have at least {SECRET_BYTES} bytes, got {found}")]
pub(crate) struct SecretTooShort {
    found: usize,
}

/// Claims of a token.
#[derive(Debug, Deserialize, Serialize)]
struct Claims {
    sub: String,
    /// Copy of the subject, for consumers of this claim.
    user_id: String,
    email: String,
    iat: i64,
    exp: i64,
}

/// Signs and verifies tokens.
pub(super) struct Tokens {
    signing: EncodingKey,
    verifying: DecodingKey,
    validation: Validation,
    seconds: i64,
}

impl Tokens {
    pub(super) fn new(secret: &[u8], days: u16) -> Result<Self, SecretTooShort> {
        if secret.len() < SECRET_BYTES {
            return Err(SecretTooShort {
                found: secret.len(),
            });
        }
        Ok(Self {
            signing: EncodingKey::from_secret(secret),
            verifying: DecodingKey::from_secret(secret),
            validation: validation(),
            seconds: i64::from(days) * SECONDS_OF_DAY,
        })
    }

    /// Signs a token of `user`, valid from `now`.
    pub(super) fn sign(&self, user: &User, now: Moment) -> Result<String, Refusal> {
        let iat = now.unix_seconds();
        let claims = Claims {
            sub: user.id.clone(),
            user_id: user.id.clone(),
            email: user.email.clone(),
            iat,
            exp: iat.saturating_add(self.seconds),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing).map_err(
            |cause| {
                tracing::error!(%cause, "failed to sign a token");
                Refusal::Fault
            },
        )
    }

    /// Subject of the only bearer token in `headers`, if the token is valid.
    pub(super) fn subject(&self, headers: &HeaderMap) -> Result<String, Refusal> {
        let token = bearer_token(headers).ok_or(Refusal::TokenMissing)?;
        let token = jsonwebtoken::decode::<Claims>(token, &self.verifying, &self.validation)
            .map_err(|_| Refusal::TokenInvalid)?;
        Ok(token.claims.sub)
    }
}

/// Accepts only HS256, without leeway after `exp`.
fn validation() -> Validation {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.leeway = 0;
    validation.validate_exp = true;
    validation.validate_nbf = true;
    validation.set_required_spec_claims(&["exp", "sub"]);
    validation
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    // RFC 9110 section 11.1: scheme names are case-insensitive.
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}
