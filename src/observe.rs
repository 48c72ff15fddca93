//! What is remembered: the facts of one exchange, told once.

pub mod admin;
pub mod explanation;
pub mod log;
pub mod metrics;
pub mod refusals;
pub mod status;
pub mod traces;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode};

use crate::gate::routes::Route;
use crate::gate::subject::Subject;

use traces::Trace;

/// The facts of one exchange. Every reader takes it apart in full, so that a new fact asks each what to do with it.
#[derive(Debug, Clone)]
pub struct Record {
    /// The method of the request.
    pub method: Method,
    /// The target of the request, as judged.
    pub target: Option<PathAndQuery>,
    /// The route, if there is one.
    pub route: Option<Arc<Route>>,
    /// The status of the answer.
    pub status: StatusCode,
    /// Why the request was not served.
    pub reason: Option<&'static str>,
    /// What went wrong between gate and upstream, in words.
    pub cause: Option<String>,
    /// Whether the reason is about who the caller is.
    pub is_about_the_caller: bool,
    /// The subject of a good token.
    pub subject: Option<Subject>,
    /// The name of its issuer.
    pub issuer: Option<Arc<str>>,
    /// The address of the client.
    pub client: Option<IpAddr>,
    /// The name of the request.
    pub request_id: HeaderValue,
    /// From the head of the request to the end of the answer.
    pub elapsed: Duration,
    /// From the head of the request to the request sent, or to the end if it was not sent.
    pub gate: Duration,
    /// From the request sent to the head of the upstream's answer.
    pub upstream: Option<Duration>,
    /// The size of the request's body, in bytes.
    pub request_bytes: u64,
    /// The size of the answer's body, in bytes.
    pub response_bytes: u64,
    /// Whether the client got all of the answer.
    pub whole: bool,
    /// Its part in a trace, if there are traces.
    pub trace: Option<Box<Trace>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Record {
        /// One that was not served, for tests.
        pub(crate) fn of(request_id: &str, path: &str) -> Self {
            Self {
                method: Method::GET,
                target: path.parse().ok(),
                route: None,
                status: StatusCode::NOT_FOUND,
                reason: Some("no_route"),
                cause: None,
                is_about_the_caller: false,
                subject: None,
                issuer: None,
                client: None,
                request_id: HeaderValue::from_str(request_id).unwrap(),
                elapsed: Duration::ZERO,
                gate: Duration::ZERO,
                upstream: None,
                request_bytes: 0,
                response_bytes: 0,
                whole: true,
                trace: None,
            }
        }
    }
}
