//! The description of the service, and the answers that many calls share.

use utoipa::{IntoResponses, OpenApi};

use super::Detail;

/// What the description says of the service as a whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "task-service",
        description = "Tasks of users. Stands behind a gate that verifies tokens and sets X-User-Id; \
                       the header is believed, so only the gate may reach this service."
    ),
    tags(
        (name = "tasks", description = "The tasks of one user"),
        (name = "auth", description = "Sign-up and sign-in; unused with another issuer in front"),
        (name = "service", description = "The service itself"),
    ),
    modifiers(&BearerToken),
)]
pub(crate) struct Document;

/// Declares the token that `GET /api/auth/verify` reads.
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

/// What every call for the tasks of a user may be refused with.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "read by the description alone")]
pub(super) enum OwnerRefusals {
    /// The X-User-Id header is missing, empty, repeated, too long or not UTF-8.
    #[response(status = 401)]
    User(Detail),
    /// The user of the path is not the user of the X-User-Id header.
    #[response(status = 403)]
    Mismatch(Detail),
    /// Something failed here.
    #[response(status = 500)]
    Fault(Detail),
    /// The database is unavailable.
    #[response(status = 503)]
    Store(Detail),
}

/// What every call with a body may be refused with.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "read by the description alone")]
pub(crate) enum BodyRefusals {
    /// The body, or the path, is not what this call takes.
    #[response(status = 400)]
    Invalid(Detail),
    /// The body is larger than 64 kibibytes.
    #[response(status = 413)]
    TooLarge(Detail),
}

/// What every call may be refused with that asks the database.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "read by the description alone")]
pub(crate) enum StoreRefusals {
    /// Something failed here.
    #[response(status = 500)]
    Fault(Detail),
    /// The database is unavailable.
    #[response(status = 503)]
    Store(Detail),
}

/// The user has no task with this id.
#[derive(IntoResponses)]
#[response(status = 404)]
#[expect(dead_code, reason = "read by the description alone")]
pub(super) struct TaskUnknown(Detail);
