//! `OpenAPI` document, and responses shared by several operations.

use utoipa::{IntoResponses, OpenApi};

use super::Detail;

/// Root of the `OpenAPI` document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "task-service",
        description = "Tasks of users, behind a gate that verifies tokens and sets X-User-Id. The service trusts \
                       this header, so only the gate may be able to reach it."
    ),
    tags(
        (name = "tasks", description = "Tasks of one user"),
        (name = "auth", description = "Sign-up and sign-in; unused with another issuer"),
        (name = "service", description = "Health of the service"),
    ),
    modifiers(&BearerToken),
)]
pub(crate) struct Document;

/// Security scheme of `GET /api/auth/verify`.
struct BearerToken;

impl utoipa::Modify for BearerToken {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("token", scheme);
    }
}

/// Error responses of every task operation.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "used only by the OpenAPI document")]
pub(super) enum OwnerRefusals {
    /// The X-User-Id header is missing, empty, repeated, too long or not UTF-8.
    #[response(status = 401)]
    User(Detail),
    /// The user in the path differs from the X-User-Id header.
    #[response(status = 403)]
    Mismatch(Detail),
    /// Internal error.
    #[response(status = 500)]
    Fault(Detail),
    /// The database is unavailable.
    #[response(status = 503)]
    Store(Detail),
}

/// Error responses of every operation with a request body.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "used only by the OpenAPI document")]
pub(crate) enum BodyRefusals {
    /// The body or the path is invalid.
    #[response(status = 400)]
    Invalid(Detail),
    /// The body is larger than 64 KiB.
    #[response(status = 413)]
    TooLarge(Detail),
}

/// Error responses of every operation that uses the database.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "used only by the OpenAPI document")]
pub(crate) enum StoreRefusals {
    /// Internal error.
    #[response(status = 500)]
    Fault(Detail),
    /// The database is unavailable.
    #[response(status = 503)]
    Store(Detail),
}

/// The user has no task with this id.
#[derive(IntoResponses)]
#[response(status = 404)]
#[expect(dead_code, reason = "used only by the OpenAPI document")]
pub(super) struct TaskUnknown(Detail);
