//! HTTP API: router, shared state, health check.

mod document;
mod refusal;
mod request;
mod tasks;
mod unread_body;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::middleware;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{self, Auth};
use crate::chain;
use crate::store::Store;

pub(crate) use document::{BodyRefusals, StoreRefusals};
pub(crate) use refusal::{Detail, Refusal};
pub(crate) use request::JsonBody;

/// Maximum size of a request body; about six times the largest task.
const BODY_BYTES: usize = 64 * 1024;

/// State shared by all handlers.
pub(crate) struct Service {
    pub(crate) store: Store,
    pub(crate) auth: Auth,
}

/// The operation succeeded.
#[derive(Serialize, ToSchema)]
pub(crate) struct Status {
    #[schema(example = "ok")]
    status: &'static str,
}

impl Status {
    pub(crate) const fn new() -> Self {
        Self { status: "ok" }
    }
}

/// Router of all operations. The `OpenAPI` document is generated from the same routes, so it is always complete.
pub(crate) fn router(service: Service) -> Router {
    let (routes, document) = OpenApiRouter::with_openapi(document::Document::openapi())
        .merge(tasks::routes())
        .merge(auth::routes())
        .routes(routes!(health))
        .split_for_parts();
    let document = Json(document);
    routes
        .route("/openapi.json", get(async || document))
        .fallback(async || Refusal::PathUnknown)
        .method_not_allowed_fallback(async || Refusal::MethodNotAllowed)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(middleware::from_fn(unread_body::discard))
        .with_state(Arc::new(service))
}

/// Check the service and its database.
#[utoipa::path(
    get,
    path = "/health",
    tag = "service",
    responses(
        (status = 200, description = "The service and its database are available", body = Status),
        (status = 503, description = "The database is unavailable", body = Detail),
    ),
)]
async fn health(State(service): State<Arc<Service>>) -> Result<Json<Status>, Refusal> {
    match service.store.ping().await {
        Ok(()) => Ok(Json(Status::new())),
        Err(error) => {
            tracing::error!("unhealthy: {}", chain(&error));
            Err(Refusal::StoreUnavailable)
        }
    }
}
