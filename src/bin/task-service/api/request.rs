//! What a handler takes out of a request: the user, the task id, the body. Each checks once.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::Refusal;

/// The header that says who the user is. Whoever can reach this service is believed, which is why
/// it listens on loopback, behind a gate that sets the header.
const X_USER_ID: &str = "x-user-id";
/// Longer ones do not fit an index entry of every database.
const USER_ID_BYTES: usize = 255;

/// The user of a task call: named by the header, and the same in the path.
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

/// The task id of the path.
pub(crate) struct TaskId(pub(crate) i64);

impl<S: Send + Sync> FromRequestParts<S> for TaskId {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let written = path_parameter(parts, state, "id").await?;
        // `parse` alone would take a sign.
        if !written.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Refusal::TaskIdInvalid);
        }
        match written.parse() {
            Ok(id) if id > 0 => Ok(Self(id)),
            Ok(_) | Err(_) => Err(Refusal::TaskIdInvalid),
        }
    }
}

/// The percent-decoded parameter `name` of the path.
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
            "a route lacks a path parameter that its handler needs"
        );
        return Err(Refusal::Fault);
    };
    Ok(value.to_owned())
}

/// The body, read as JSON whatever its `Content-Type` says.
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
