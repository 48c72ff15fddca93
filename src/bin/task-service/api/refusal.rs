//! The one table of refusals: status and text. No text of a library goes to a client.

use axum::Json;
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::HashError;
use crate::chain;
use crate::store::StoreError;

/// The body of every refusal.
#[derive(Serialize, ToSchema)]
pub(crate) struct Detail {
    /// Why, in words.
    #[schema(example = "there is no such task")]
    pub(crate) detail: &'static str,
}

/// Why a call was not answered as asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    UserMissing,
    UserRepeated,
    UserUnusable,
    UserMismatch,
    PathNotText,
    TaskIdInvalid,
    TaskUnknown,
    BodyUnreadable,
    BodyInvalid,
    BodyTooLarge,
    TitleInvalid,
    DescriptionInvalid,
    EmailInvalid,
    NameInvalid,
    PasswordTooShort,
    PasswordTooLong,
    PasswordHasNul,
    EmailTaken,
    CredentialsWrong,
    TokenMissing,
    TokenInvalid,
    PathUnknown,
    MethodNotAllowed,
    StoreUnavailable,
    Fault,
}

impl Refusal {
    fn answer(self) -> (StatusCode, &'static str) {
        use StatusCode as Status;
        match self {
            Self::UserMissing => (Status::UNAUTHORIZED, "the X-User-Id header is missing"),
            Self::UserRepeated => (Status::UNAUTHORIZED, "the X-User-Id header is repeated"),
            Self::UserUnusable => (
                Status::UNAUTHORIZED,
                "the X-User-Id header must be 1 to 255 bytes of UTF-8 text",
            ),
            Self::UserMismatch => (
                Status::FORBIDDEN,
                "the user of the path is not the user of the X-User-Id header",
            ),
            Self::PathNotText => (Status::BAD_REQUEST, "the path is not UTF-8 text"),
            Self::TaskIdInvalid => (
                Status::BAD_REQUEST,
                "the id of a task must be a positive integer",
            ),
            Self::TaskUnknown => (Status::NOT_FOUND, "there is no such task"),
            Self::BodyUnreadable => (Status::BAD_REQUEST, "the body could not be read"),
            Self::BodyInvalid => (
                Status::BAD_REQUEST,
                "the body is not a JSON object with the fields of this call",
            ),
            Self::BodyTooLarge => (
                Status::PAYLOAD_TOO_LARGE,
                "the body is larger than 64 kibibytes",
            ),
            Self::TitleInvalid => (
                Status::BAD_REQUEST,
                "the title must have 1 to 200 characters, NUL not among them",
            ),
            Self::DescriptionInvalid => (
                Status::BAD_REQUEST,
                "the description must have at most 1000 characters, NUL not among them",
            ),
            Self::EmailInvalid => (
                Status::BAD_REQUEST,
                "the email must look like name@host and have at most 254 bytes",
            ),
            Self::NameInvalid => (
                Status::BAD_REQUEST,
                "the name must have 1 to 200 characters, NUL not among them",
            ),
            Self::PasswordTooShort => (
                Status::BAD_REQUEST,
                "the password must have at least 8 characters",
            ),
            Self::PasswordTooLong => (
                Status::BAD_REQUEST,
                "the password must have at most 72 bytes",
            ),
            Self::PasswordHasNul => (
                Status::BAD_REQUEST,
                "the password must not contain the NUL character",
            ),
            Self::EmailTaken => (Status::CONFLICT, "a user with this email exists"),
            Self::CredentialsWrong => (Status::UNAUTHORIZED, "the email or the password is wrong"),
            Self::TokenMissing => (
                Status::UNAUTHORIZED,
                "exactly one bearer token is needed in the Authorization header",
            ),
            Self::TokenInvalid => (
                Status::UNAUTHORIZED,
                "the token is invalid, expired, or of a user who does not exist",
            ),
            Self::PathUnknown => (Status::NOT_FOUND, "there is nothing at this path"),
            Self::MethodNotAllowed => (
                Status::METHOD_NOT_ALLOWED,
                "the method is not allowed at this path",
            ),
            Self::StoreUnavailable => (
                Status::SERVICE_UNAVAILABLE,
                "the database is unavailable, try again later",
            ),
            Self::Fault => (Status::INTERNAL_SERVER_ERROR, "something failed here"),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, detail) = self.answer();
        let mut response = (status, Json(Detail { detail })).into_response();
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 section 15.5.2: a 401 names a challenge.
            response
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::error!("a call failed: {}", chain(&error));
        match error {
            StoreError::Unavailable(_) => Self::StoreUnavailable,
            StoreError::Failed(_) => Self::Fault,
        }
    }
}

impl From<HashError> for Refusal {
    fn from(cause: HashError) -> Self {
        tracing::error!(%cause, "a password could not be hashed");
        Self::Fault
    }
}
