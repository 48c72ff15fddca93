//! The HTTP calls: what is served where, and what all calls share.

mod document;
mod refusal;
mod request;
mod tasks;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
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

/// The longest body that is read; a task of the greatest size fits six times over.
const BODY_BYTES: usize = 64 * 1024;

/// What every call can use.
pub(crate) struct Service {
    pub(crate) store: Store,
    pub(crate) auth: Auth,
}

/// All is well.
#[derive(Serialize, ToSchema)]
pub(crate) struct Good {
    #[schema(example = "ok")]
    status: &'static str,
}

impl Good {
    pub(crate) const fn new() -> Self {
        Self { status: "ok" }
    }
}

/// All calls. The description is made from the same routes, so neither can miss one of the other.
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
        .with_state(Arc::new(service))
}

/// Say whether the service and its database answer.
#[utoipa::path(
    get,
    path = "/health",
    tag = "service",
    responses(
        (status = 200, description = "Both answer", body = Good),
        (status = 503, description = "The database does not answer", body = Detail),
    ),
)]
async fn health(State(service): State<Arc<Service>>) -> Result<Json<Good>, Refusal> {
    match service.store.ping().await {
        Ok(()) => Ok(Json(Good::new())),
        Err(error) => {
            tracing::error!("unhealthy: {}", chain(&error));
            Err(Refusal::StoreUnavailable)
        }
    }
}
