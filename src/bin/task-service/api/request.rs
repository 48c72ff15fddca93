//! Extractors of the user, the task ID and the body.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::Refusal;

/// Header with the user. The service trusts it, and therefore listens on loopback, behind a gate that sets the header.
const X_USER_ID: &str = "x-user-id";
/// Longer IDs exceed an index entry of some databases.
const USER_ID_BYTES: usize = 255;

/// User of a task operation, equal in the header and in the path.
pub(crate) struct Owner(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Owner {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let mut values = parts.headers.get_all(X_USER_ID).iter();
        let Some(value) = values.next() else {
            return Err(Refusal::UserMissing);
        };
        if values.next().is_some() {
            return Err(Refusal::UserRepeated);
        }
        if value.is_empty() || value.len() > USER_ID_BYTES {
            return Err(Refusal::UserUnusable);
        }
        let Ok(user) = std::str::from_utf8(value.as_bytes()) else {
            return Err(Refusal::UserUnusable);
        };
        let user = user.to_owned();
        if path_parameter(parts, state, "user_id").await? != user {
            return Err(Refusal::UserMismatch);
        }
        Ok(Self(user))
    }
}

/// Task ID in the path.
pub(crate) struct TaskId(pub(crate) i64);

impl<S: Send + Sync> FromRequestParts<S> for TaskId {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let text = path_parameter(parts, state, "id").await?;
        // `parse` alone accepts a sign.
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Refusal::TaskIdInvalid);
        }
        match text.parse() {
            Ok(id) if id > 0 => Ok(Self(id)),
            Ok(_) | Err(_) => Err(Refusal::TaskIdInvalid),
        }
    }
}

/// Percent-decoded path parameter `name`.
async fn path_parameter<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    name: &str,
) -> Result<String, Refusal> {
    let parameters = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|_| Refusal::PathNotText)?;
    let Some((_, value)) = parameters.iter().find(|(key, _)| *key == name) else {
        tracing::error!(
            name,
            "the route has no path parameter of this name, which its handler needs"
        );
        return Err(Refusal::Fault);
    };
    Ok(value.to_owned())
}

/// Request body, parsed as JSON regardless of `Content-Type`.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bytes =
            Bytes::from_request(request, state)
                .await
                .map_err(|rejection| match rejection.status() {
                    StatusCode::PAYLOAD_TOO_LARGE => Refusal::BodyTooLarge,
                    _ => Refusal::BodyUnreadable,
                })?;
        let Json(value) = Json::from_bytes(&bytes).map_err(|_| Refusal::BodyInvalid)?;
        Ok(Self(value))
    }
}
