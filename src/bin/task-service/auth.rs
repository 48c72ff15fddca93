//! Operations under `/api/auth`, unused with another issuer.

mod password;
mod token;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::{BodyRefusals, Detail, JsonBody, Refusal, Service, Status, StoreRefusals};
use crate::clock::Moment;
use crate::store::{NewUser, User};

pub(crate) use password::HashError;
pub(crate) use token::SecretTooShort;

/// Maximum length of an address by RFC 5321 section 4.5.3.1.3.
const EMAIL_BYTES: usize = 254;
const NAME_CHARACTERS: usize = 200;

/// Password hasher and token issuer.
pub(crate) struct Auth {
    hasher: password::Hasher,
    tokens: token::Tokens,
}

/// Failure to set up [`Auth`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthError {
    #[error(transparent)]
    Secret(#[from] SecretTooShort),
    #[error(transparent)]
    Hash(#[from] HashError),
}

impl Auth {
    pub(crate) fn new(secret: &[u8], days: u16, cost: u32) -> Result<Self, AuthError> {
        Ok(Self {
            tokens: token::Tokens::new(secret, days)?,
            hasher: password::Hasher::new(cost)?,
        })
    }
}

/// New user.
#[derive(Deserialize, ToSchema)]
struct SignUp {
    /// Trimmed and converted to lower case.
    #[schema(max_length = 254, example = "alice@example.com")]
    email: String,
    /// 8 characters to 72 bytes.
    #[schema(min_length = 8, max_length = 72, format = Password)]
    password: String,
    /// 1 to 200 characters after trimming whitespace.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
}

/// Credentials of a user.
#[derive(Deserialize, ToSchema)]
struct SignIn {
    #[schema(example = "alice@example.com")]
    email: String,
    #[schema(format = Password)]
    password: String,
}

/// User with a token.
#[derive(Serialize, ToSchema)]
struct SignedIn {
    /// HS256 token with the claims `sub`, `user_id`, `email`, `iat` and `exp`.
    token: String,
    user: User,
}

/// Routes of the operations under `/api/auth`, with their `OpenAPI` description.
pub(crate) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(sign_up))
        .routes(routes!(sign_in))
        .routes(routes!(sign_out))
        .routes(routes!(verify))
}

/// Sign up.
#[utoipa::path(
    post,
    path = "/api/auth/signup",
    tag = "auth",
    request_body = SignUp,
    responses(
        (status = 201, description = "The new user with a token", body = SignedIn),
        (status = 409, description = "A user with this email already exists", body = Detail),
        BodyRefusals,
        StoreRefusals,
    ),
)]
async fn sign_up(
    State(service): State<Arc<Service>>,
    JsonBody(body): JsonBody<SignUp>,
) -> Result<(StatusCode, Json<SignedIn>), Refusal> {
    let email = check_email(&body.email)?;
    let name = body.name.as_deref().map(check_name).transpose()?;
    password::check(&body.password)?;

    let Auth { hasher, tokens } = &service.auth;
    let new = NewUser {
        id: random_id()?,
        email,
        name,
        password_hash: hasher.hash(body.password).await?,
    };
    let now = Moment::now();
    let Some(user) = service.store.create_user(&new, now).await? else {
        return Err(Refusal::EmailTaken);
    };
    let token = tokens.sign(&user, now)?;
    Ok((StatusCode::CREATED, Json(SignedIn { token, user })))
}

/// Sign in.
#[utoipa::path(
    post,
    path = "/api/auth/signin",
    tag = "auth",
    request_body = SignIn,
    responses(
        (status = 200, description = "The user with a token", body = SignedIn),
        (status = 401, description = "The email or the password is wrong", body = Detail),
        BodyRefusals,
        StoreRefusals,
    ),
)]
async fn sign_in(
    State(service): State<Arc<Service>>,
    JsonBody(body): JsonBody<SignIn>,
) -> Result<Json<SignedIn>, Refusal> {
    // An invalid email gets the same response as an unknown one.
    let known = match check_email(&body.email) {
        Ok(email) => service.store.find_user_by_email(&email).await?,
        Err(_) => None,
    };
    let (user, hash) = known.map(|known| (known.user, known.password_hash)).unzip();

    // Equal work and equal text with and without a user, so that the response does not reveal whether the user exists.
    let Auth { hasher, tokens } = &service.auth;
    let is_valid = hasher.verify(body.password, hash).await?;
    let Some(user) = user.filter(|_| is_valid) else {
        return Err(Refusal::CredentialsWrong);
    };
    let token = tokens.sign(&user, Moment::now())?;
    Ok(Json(SignedIn { token, user }))
}

/// Sign out. The service keeps no sessions: the client discards its token.
#[utoipa::path(
    post,
    path = "/api/auth/signout",
    tag = "auth",
    responses((status = 200, description = "The client can discard its token", body = Status)),
)]
async fn sign_out() -> Json<Status> {
    Json(Status::new())
}

/// Get the user of a token.
#[utoipa::path(
    get,
    path = "/api/auth/verify",
    tag = "auth",
    security(("token" = [])),
    responses(
        (status = 200, description = "The user of the token", body = User),
        (status = 401, description = "The token is missing or invalid", body = Detail),
        StoreRefusals,
    ),
)]
async fn verify(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
) -> Result<Json<User>, Refusal> {
    let id = service.auth.tokens.subject(&headers)?;
    // PostgreSQL fails on NUL in text, and no user ID contains one.
    if id.contains('\0') {
        return Err(Refusal::TokenInvalid);
    }
    let user = service.store.find_user(&id).await?;
    user.map(Json).ok_or(Refusal::TokenInvalid)
}

/// Normalizes an email for comparison and storage: trimmed, in lower case.
fn check_email(email: &str) -> Result<String, Refusal> {
    let email = email.trim().to_lowercase();
    let Some((name, host)) = email.split_once('@') else {
        return Err(Refusal::EmailInvalid);
    };
    let is_invalid = |character: char| character.is_whitespace() || character.is_control();
    if name.is_empty()
        || host.is_empty()
        || host.contains('@')
        || email.len() > EMAIL_BYTES
        || email.contains(is_invalid)
    {
        return Err(Refusal::EmailInvalid);
    }
    Ok(email)
}

fn check_name(name: &str) -> Result<String, Refusal> {
    let name = name.trim();
    let length = name.chars().count();
    if length == 0 || length > NAME_CHARACTERS || name.contains('\0') {
        return Err(Refusal::NameInvalid);
    }
    Ok(name.to_owned())
}

/// Random ID of 32 base32 characters: 160 bits, valid in a path without encoding.
fn random_id() -> Result<String, Refusal> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(HashError::from)?;
    let character = |byte: u8| match byte % 32 {
        letter @ 0..26 => char::from(b'a' + letter),
        digit => char::from(b'2' + digit - 26),
    };
    Ok(bytes.map(character).iter().collect())
}

#[cfg(test)]
mod tests {
    use super::{check_email, random_id};

    #[test]
    fn trims_and_lowercases_an_email() {
        let cases = [
            ("a@b", Some("a@b")),
            (" Alice@Example.COM\n", Some("alice@example.com")),
            ("", None),
            ("alice", None),
            ("@example.com", None),
            ("alice@", None),
            ("alice@@example.com", None),
            ("a lice@example.com", None),
            ("a\0@example.com", None),
        ];
        for (text, email) in cases {
            let found = check_email(text).ok();
            assert_eq!(found.as_deref(), email, "{text:?}");
        }
        assert!(check_email(&format!("{}@b", "a".repeat(252))).is_ok());
        assert!(check_email(&format!("{}@b", "a".repeat(253))).is_err());
    }

    #[test]
    fn generates_unique_ids_of_32_letters_and_digits() {
        let (first, second) = (random_id().unwrap(), random_id().unwrap());
        assert_ne!(first, second);
        assert_eq!(first.len(), 32);
        let is_base32 = |byte: u8| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte);
        assert!(first.bytes().all(is_base32), "{first}");
    }
}
