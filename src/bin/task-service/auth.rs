//! The calls under `/api/auth`. With another issuer in front, they stay unused.

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

use crate::api::{BodyRefusals, Detail, Good, JsonBody, Refusal, Service, StoreRefusals};
use crate::clock::Moment;
use crate::store::{NewUser, User};

pub(crate) use password::HashError;
pub(crate) use token::SecretTooShort;

/// RFC 5321 section 4.5.3.1.3 leaves no room for more.
const EMAIL_BYTES: usize = 254;
const NAME_CHARACTERS: usize = 200;

/// What signing up and in takes.
pub(crate) struct Auth {
    hasher: password::Hasher,
    tokens: token::Tokens,
}

/// Why signing up and in cannot work.
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

/// A user to be.
#[derive(Deserialize, ToSchema)]
struct SignUp {
    /// Whitespace around it and upper case do not count.
    #[schema(max_length = 254, example = "alice@example.com")]
    email: String,
    /// 8 characters to 72 bytes.
    #[schema(min_length = 8, max_length = 72, format = Password)]
    password: String,
    /// 1 to 200 characters, the whitespace around it not counted and not kept.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
}

/// A user who comes back.
#[derive(Deserialize, ToSchema)]
struct SignIn {
    #[schema(example = "alice@example.com")]
    email: String,
    #[schema(format = Password)]
    password: String,
}

/// A user, and the token that proves it.
#[derive(Serialize, ToSchema)]
struct SignedIn {
    /// HS256, with the claims sub, `user_id`, email, iat and exp.
    token: String,
    user: User,
}

/// The routes of the calls under `/api/auth`, with their description.
pub(crate) fn routes() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::new()
        .routes(routes!(sign_up))
        .routes(routes!(sign_in))
        .routes(routes!(sign_out))
        .routes(routes!(verify))
}

/// Become a user.
#[utoipa::path(
    post,
    path = "/api/auth/signup",
    tag = "auth",
    request_body = SignUp,
    responses(
        (status = 201, description = "The new user, signed in", body = SignedIn),
        (status = 409, description = "A user with this email exists", body = Detail),
        BodyRefusals,
        StoreRefusals,
    ),
)]
async fn sign_up(
    State(service): State<Arc<Service>>,
    JsonBody(asked): JsonBody<SignUp>,
) -> Result<(StatusCode, Json<SignedIn>), Refusal> {
    let email = check_email(&asked.email)?;
    let name = asked.name.as_deref().map(check_name).transpose()?;
    password::check(&asked.password)?;

    let Auth { hasher, tokens } = &service.auth;
    let new = NewUser {
        id: random_id()?,
        email,
        name,
        password_hash: hasher.hash(asked.password).await?,
    };
    let now = Moment::now();
    let Some(user) = service.store.create_user(&new, now).await? else {
        return Err(Refusal::EmailTaken);
    };
    let token = tokens.sign(&user, now)?;
    Ok((StatusCode::CREATED, Json(SignedIn { token, user })))
}

/// Come back.
#[utoipa::path(
    post,
    path = "/api/auth/signin",
    tag = "auth",
    request_body = SignIn,
    responses(
        (status = 200, description = "The user, signed in", body = SignedIn),
        (status = 401, description = "The email or the password is wrong", body = Detail),
        BodyRefusals,
        StoreRefusals,
    ),
)]
async fn sign_in(
    State(service): State<Arc<Service>>,
    JsonBody(asked): JsonBody<SignIn>,
) -> Result<Json<SignedIn>, Refusal> {
    // What cannot be an email is nobody's, and is answered as such.
    let known = match check_email(&asked.email) {
        Ok(email) => service.store.find_user_by_email(&email).await?,
        Err(_) => None,
    };
    let (user, hash) = known.map(|known| (known.user, known.password_hash)).unzip();

    // The same work and the same words whether or not there is a user, so that neither tells.
    let Auth { hasher, tokens } = &service.auth;
    let right = hasher.verify(asked.password, hash).await?;
    let Some(user) = user.filter(|_| right) else {
        return Err(Refusal::CredentialsWrong);
    };
    let token = tokens.sign(&user, Moment::now())?;
    Ok(Json(SignedIn { token, user }))
}

/// Leave. Nothing is kept here about who is signed in: the client forgets its token.
#[utoipa::path(
    post,
    path = "/api/auth/signout",
    tag = "auth",
    responses((status = 200, description = "The client may forget its token", body = Good)),
)]
async fn sign_out() -> Json<Good> {
    Json(Good::new())
}

/// Say whose token this is.
#[utoipa::path(
    get,
    path = "/api/auth/verify",
    tag = "auth",
    security(("token" = [])),
    responses(
        (status = 200, description = "The user of the token", body = User),
        (status = 401, description = "The token is missing or not good", body = Detail),
        StoreRefusals,
    ),
)]
async fn verify(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
) -> Result<Json<User>, Refusal> {
    let id = service.auth.tokens.subject(&headers)?;
    // PostgreSQL would take a NUL as a fault of ours; nobody's id has one.
    if id.contains('\0') {
        return Err(Refusal::TokenInvalid);
    }
    let user = service.store.find_user(&id).await?;
    user.map(Json).ok_or(Refusal::TokenInvalid)
}

/// The email as it is compared and kept: trimmed, in lower case.
fn check_email(written: &str) -> Result<String, Refusal> {
    let email = written.trim().to_lowercase();
    let Some((name, host)) = email.split_once('@') else {
        return Err(Refusal::EmailInvalid);
    };
    let broken = |character: char| character.is_whitespace() || character.is_control();
    if name.is_empty()
        || host.is_empty()
        || host.contains('@')
        || email.len() > EMAIL_BYTES
        || email.contains(broken)
    {
        return Err(Refusal::EmailInvalid);
    }
    Ok(email)
}

fn check_name(written: &str) -> Result<String, Refusal> {
    let name = written.trim();
    let length = name.chars().count();
    if length == 0 || length > NAME_CHARACTERS || name.contains('\0') {
        return Err(Refusal::NameInvalid);
    }
    Ok(name.to_owned())
}

/// 32 characters out of 32 different ones: 160 bits that fit a path as they are.
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
    fn an_email_is_trimmed_and_lowered() {
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
        for (written, email) in cases {
            let found = check_email(written).ok();
            assert_eq!(found.as_deref(), email, "{written:?}");
        }
        assert!(check_email(&format!("{}@b", "a".repeat(252))).is_ok());
        assert!(check_email(&format!("{}@b", "a".repeat(253))).is_err());
    }

    #[test]
    fn an_id_is_32_letters_and_digits_and_never_twice_the_same() {
        let (first, second) = (random_id().unwrap(), random_id().unwrap());
        assert_ne!(first, second);
        assert_eq!(first.len(), 32);
        let known = |byte: u8| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte);
        assert!(first.bytes().all(known), "{first}");
    }
}
