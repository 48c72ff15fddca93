//! Traces: a server span for each exchange and a client span for its upstream request, exported over OTLP.

mod context;
pub mod export;
mod otlp;
mod queue;

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, StatusCode, Uri};
use rustls::ClientConfig;
use tokio::time::Instant;

use crate::gate::inbound::Scheme;
use crate::gate::routes::Route;
use crate::gate::subject::Subject;

use super::Record;
use super::log::{MAX_PATH_BYTES, method_label, truncate};

use context::Context;
pub use queue::{SpanOutcome, Spans};

/// Compiled `[tracing]` section.
#[derive(Debug, Clone)]
pub struct Tracing {
    /// OTLP/HTTP endpoint of the collector.
    pub url: Uri,
    /// TLS settings that authenticate the collector.
    pub tls: Arc<ClientConfig>,
    /// Value of the resource attribute `service.name`.
    pub service_name: String,
    /// Sampled share of the traces that begin here, 0 to 1.
    pub sample: f64,
    /// True if every request begins a new trace, whatever its `traceparent`.
    pub restart: bool,
}

/// Trace context of one exchange.
#[derive(Debug, Clone)]
pub struct Trace {
    span: Context,
    /// Span ID in the `traceparent` of the client.
    parent: Option<NonZeroU64>,
    upstream: Option<UpstreamSpan>,
    scheme: Scheme,
    is_http2: bool,
}

/// Client span of an exchange: its upstream request.
#[derive(Debug, Clone)]
struct UpstreamSpan {
    span: Context,
    name: String,
    /// Endpoint that sent a response: host and port, or the path of a Unix socket.
    server: Option<(String, Option<u16>)>,
}

/// Trace context fields of a request to an upstream.
#[derive(Debug)]
pub struct TraceFields {
    keeps_state: bool,
    parent: Option<String>,
}

impl TraceFields {
    /// Returns whether a received field is not forwarded.
    pub fn replace(&self, name: &HeaderName) -> bool {
        match name.as_str() {
            "tracestate" => !self.keeps_state,
            "traceparent" => self.parent.is_some(),
            _ => false,
        }
    }

    /// `traceparent` to write.
    pub fn parent(&self) -> Option<&str> {
        self.parent.as_deref()
    }
}

impl Trace {
    /// Continues the trace of a request head, or begins a new one.
    pub fn begin(tracing: &Tracing, headers: &HeaderMap, scheme: Scheme, is_http2: bool) -> Self {
        let parent = Context::of(headers).filter(|_| !tracing.restart);
        let span = match parent {
            Some(parent) => parent.child(),
            None => Context::root(fastrand::f64() < tracing.sample),
        };
        Self {
            span,
            parent: parent.map(|parent| parent.span),
            upstream: None,
            scheme,
            is_http2,
        }
    }

    /// Begins the client span. Returns the fields for the upstream; an unsampled context of the client stays unchanged.
    pub fn call(&mut self, upstream: &str, received: &HeaderMap) -> TraceFields {
        let keeps_state = self.parent.is_some() && context::is_tracestate(received);
        let parent = if self.span.is_sampled() {
            let span = self.span.child();
            self.upstream = Some(UpstreamSpan {
                span,
                name: upstream.to_owned(),
                server: None,
            });
            Some(span.text())
        } else {
            self.parent.is_none().then(|| self.span.text())
        };
        TraceFields {
            keeps_state,
            parent,
        }
    }

    /// Records the endpoint that sent a response: host and port, or the path of a Unix socket.
    pub fn response_from(&mut self, server: impl FnOnce() -> (String, Option<u16>)) {
        if let Some(upstream) = &mut self.upstream {
            upstream.server = Some(server());
        }
    }

    /// Trace ID in hexadecimal.
    pub fn id(&self) -> String {
        format!("{:032x}", self.span.trace)
    }

    pub fn is_sampled(&self) -> bool {
        self.span.is_sampled()
    }
}

/// Sampled exchange, with the data of its spans. Texts are copied: a reference would keep the buffer of the request head
/// in memory, with its token.
#[derive(Debug)]
struct SampledExchange {
    trace: Trace,
    ended: Instant,
    method: &'static str,
    path: Box<str>,
    route: Option<Arc<Route>>,
    status: StatusCode,
    reason: Option<&'static str>,
    subject: Option<Subject>,
    issuer: Option<Arc<str>>,
    client: Option<IpAddr>,
    request_id: Box<str>,
    elapsed: Duration,
    gate: Duration,
    upstream: Option<Duration>,
    request_bytes: u64,
    response_bytes: u64,
    complete: bool,
}

impl SampledExchange {
    /// Returns `None` if the exchange is not sampled.
    fn new(record: &Record<'_>) -> Option<Self> {
        let Record {
            method,
            target,
            route,
            status,
            reason,
            stage: _,
            cause: _,
            is_auth_failure: _,
            caller,
            client,
            request_id,
            elapsed,
            gate,
            upstream,
            request_bytes,
            response_bytes,
            complete,
            trace,
        } = *record;
        let trace = trace.filter(|trace| trace.is_sampled())?;
        let path = target.map_or("*", PathAndQuery::path);
        Some(Self {
            trace: trace.clone(),
            ended: Instant::now(),
            method: method_label(method),
            path: truncate(path, MAX_PATH_BYTES).into(),
            route: route.cloned(),
            status,
            reason,
            // Not the caller: the queue would keep its identity headers in memory.
            subject: caller.map(|caller| caller.subject.clone()),
            issuer: caller.map(|caller| Arc::clone(&caller.issuer)),
            client,
            request_id: request_id.into(),
            elapsed,
            gate,
            upstream,
            request_bytes,
            response_bytes,
            complete,
        })
    }

    fn span_count(&self) -> usize {
        1 + usize::from(self.upstream_span().is_some())
    }

    /// Span of the upstream request with its duration. Without a response head, it ends with the exchange.
    fn upstream_span(&self) -> Option<(&UpstreamSpan, Duration)> {
        let span = self.trace.upstream.as_ref()?;
        let until_end = self.elapsed.saturating_sub(self.gate);
        Some((span, self.upstream.unwrap_or(until_end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Trace {
        /// New sampled trace.
        pub(crate) fn sampled() -> Self {
            let tracing = Tracing {
                url: "http://127.0.0.1/v1/traces".parse().unwrap(),
                tls: crate::tls::client::client_config(None).unwrap(),
                service_name: String::new(),
                sample: 1.0,
                restart: false,
            };
            Self::begin(&tracing, &HeaderMap::new(), Scheme::Http, false)
        }
    }
}
