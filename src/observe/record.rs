//! Record of one exchange.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{Method, StatusCode};

use crate::gate::permit::KnownCaller;
use crate::gate::refusal::Stage;
use crate::gate::routes::Route;

use super::traces::Trace;

/// Facts of one exchange, for the access log, the metrics, the spans and the last refusals. A reader copies what it keeps.
///
/// Every reader destructures it in full, so that a new field does not compile until each reader uses or ignores it.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    pub method: &'a Method,
    /// Request target of the decision.
    pub target: Option<&'a PathAndQuery>,
    pub route: Option<&'a Arc<Route>>,
    /// Status of the response; 499 if the client closed the request before.
    pub status: StatusCode,
    /// Reason of a refusal or an incomplete exchange.
    pub reason: Option<&'static str>,
    /// Stage of the refusal.
    pub stage: Option<Stage>,
    /// Error between gate and upstream, or the sub-cause of a refusal.
    pub cause: Option<&'a str>,
    /// True if the refusal is an authentication or authorization failure.
    pub is_auth_failure: bool,
    /// Caller of a verified token.
    pub caller: Option<&'a KnownCaller>,
    /// Client address; `None` on a Unix socket.
    pub client: Option<IpAddr>,
    pub request_id: &'a str,
    /// Time from the request head to the end of the response.
    pub elapsed: Duration,
    /// Time from the request head to the forwarded request, or to the end if the request was not forwarded.
    pub gate: Duration,
    /// Time from the forwarded request to the upstream's response head.
    pub upstream: Option<Duration>,
    /// Size of the request body.
    pub request_bytes: u64,
    /// Size of the response body.
    pub response_bytes: u64,
    /// True if the client received the response to its end.
    pub complete: bool,
    /// Span context, with `[tracing]` only.
    pub trace: Option<&'a Trace>,
}

#[cfg(test)]
mod tests {
    use super::*;

    impl<'a> Record<'a> {
        /// Record of a request without a route.
        pub(crate) fn of(request_id: &'a str, target: &'a PathAndQuery) -> Self {
            Self {
                method: &Method::GET,
                target: Some(target),
                route: None,
                status: StatusCode::NOT_FOUND,
                reason: Some("no_route"),
                stage: Some(Stage::Route),
                cause: None,
                is_auth_failure: false,
                caller: None,
                client: None,
                request_id,
                elapsed: Duration::ZERO,
                gate: Duration::ZERO,
                upstream: None,
                request_bytes: 0,
                response_bytes: 0,
                complete: true,
                trace: None,
            }
        }
    }
}
