//! Table of error responses: status and detail. No error text of a library reaches a client.

use axum::Json;
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::HashError;
use crate::chain;
use crate::store::StoreError;

/// Body of every error response.
#[derive(Serialize, ToSchema)]
pub(crate) struct Detail {
    /// Cause of the error.
    #[schema(example = "task not found")]
    pub(crate) detail: &'static str,
}

/// Reason for an error response.
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
    fn response(self) -> (StatusCode, &'static str) {
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
                "the user in the path differs from the X-User-Id header",
            ),
            Self::PathNotText => (Status::BAD_REQUEST, "the path must be valid UTF-8"),
            Self::TaskIdInvalid => (
                Status::BAD_REQUEST,
                "the task ID must be a positive integer",
            ),
            Self::TaskUnknown => (Status::NOT_FOUND, "task not found"),
            Self::BodyUnreadable => (Status::BAD_REQUEST, "the body is incomplete"),
            Self::BodyInvalid => (
                Status::BAD_REQUEST,
                "the body must be a JSON object with the fields of this operation",
            ),
            Self::BodyTooLarge => (Status::PAYLOAD_TOO_LARGE, "the body must be at most 64 KiB"),
            Self::TitleInvalid => (
                Status::BAD_REQUEST,
                "the title must have 1 to 200 characters and no NUL",
            ),
            Self::DescriptionInvalid => (
                Status::BAD_REQUEST,
                "the description must have at most 1000 characters and no NUL",
            ),
            Self::EmailInvalid => (
                Status::BAD_REQUEST,
                "the email must have the form name@host and at most 254 bytes",
            ),
            Self::NameInvalid => (
                Status::BAD_REQUEST,
                "the name must have 1 to 200 characters and no NUL",
            ),
            Self::PasswordTooShort => (
                Status::BAD_REQUEST,
                "the password must have at least 8 characters",
            ),
            Self::PasswordTooLong => (
                Status::BAD_REQUEST,
                "the password must have at most 72 bytes",
            ),
            Self::PasswordHasNul => (Status::BAD_REQUEST, "the password must not contain NUL"),
            Self::EmailTaken => (Status::CONFLICT, "a user with this email already exists"),
            Self::CredentialsWrong => (Status::UNAUTHORIZED, "the email or the password is wrong"),
            Self::TokenMissing => (
                Status::UNAUTHORIZED,
                "the Authorization header must contain exactly one bearer token",
            ),
            Self::TokenInvalid => (
                Status::UNAUTHORIZED,
                "the token is invalid or expired, or its user does not exist",
            ),
            Self::PathUnknown => (Status::NOT_FOUND, "path not found"),
            Self::MethodNotAllowed => (
                Status::METHOD_NOT_ALLOWED,
                "the method is not allowed at this path",
            ),
            Self::StoreUnavailable => (
                Status::SERVICE_UNAVAILABLE,
                "the database is unavailable; retry later",
            ),
            Self::Fault => (Status::INTERNAL_SERVER_ERROR, "internal error"),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, detail) = self.response();
        let mut response = (status, Json(Detail { detail })).into_response();
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110 section 15.5.2: a 401 response has a challenge.
            response
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::error!("request failed: {}", chain(&error));
        match error {
            StoreError::Unavailable(_) => Self::StoreUnavailable,
            StoreError::Failed(_) => Self::Fault,
        }
    }
}

impl From<HashError> for Refusal {
    fn from(cause: HashError) -> Self {
        tracing::error!(%cause, "failed to hash a password");
        Self::Fault
    }
}
