//! Traces: a span for each exchange and one for its call of the upstream, for a collector that speaks OTLP.

mod context;
pub mod export;
mod otlp;
mod queue;

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode, Uri};
use rustls::ClientConfig;
use tokio::time::Instant;

use crate::gate::origin::Scheme;
use crate::gate::routes::Route;
use crate::gate::subject::Subject;

use super::Record;
use super::log::{MAX_PATH_BYTES, method_label, up_to};

use context::{Context, TRACESTATE};
pub use queue::{SpanOutcome, Spans};

/// `[tracing]`, compiled.
#[derive(Debug, Clone)]
pub struct Tracing {
    /// Where spans go.
    pub url: Uri,
    /// How the collector proves who it is.
    pub tls: Arc<ClientConfig>,
    /// How the gate is called in its spans.
    pub service_name: String,
    /// The share of the traces beginning here whose spans are sent.
    pub sample: f64,
    /// Whether every request begins a trace, whatever its head says.
    pub restart: bool,
}

/// The part that one exchange has in a trace.
#[derive(Debug, Clone)]
pub struct Trace {
    span: Context,
    /// The span of the client, if it has said one.
    parent: Option<NonZeroU64>,
    call: Option<Call>,
    scheme: Scheme,
    is_http2: bool,
}

/// The call of the upstream.
#[derive(Debug, Clone)]
struct Call {
    span: Context,
    upstream: String,
    /// Who has answered: the host and the port, or the path of a Unix socket.
    server: Option<(String, Option<u16>)>,
}

impl Trace {
    /// The trace that a head says, or a new one.
    pub fn begin(tracing: &Tracing, headers: &HeaderMap, scheme: Scheme, is_http2: bool) -> Self {
        let parent = Context::of(headers).filter(|_| !tracing.restart);
        let span = match parent {
            Some(parent) => parent.child(),
            None => Context::root(fastrand::f64() < tracing.sample),
        };
        Self {
            span,
            parent: parent.map(|parent| parent.span),
            call: None,
            scheme,
            is_http2,
        }
    }

    /// Tells the upstream which trace it is in. Where no spans are sent, what the client has said stays as it is.
    pub fn call(&mut self, upstream: &str, headers: &mut HeaderMap) {
        if self.parent.is_none() || !context::is_tracestate(headers) {
            headers.remove(TRACESTATE);
        }
        if self.span.is_sampled() {
            let span = self.span.child();
            span.write(headers);
            self.call = Some(Call {
                span,
                upstream: upstream.to_owned(),
                server: None,
            });
        } else if self.parent.is_none() {
            self.span.write(headers);
        }
    }

    /// The endpoint has answered that `server` gives: a host and a port, or the path of a Unix socket.
    pub fn answered(&mut self, server: impl FnOnce() -> (String, Option<u16>)) {
        if let Some(call) = &mut self.call {
            call.server = Some(server());
        }
    }

    /// The name of the trace, as it is written everywhere.
    pub fn id(&self) -> String {
        format!("{:032x}", self.span.trace)
    }

    /// Whether its spans are sent.
    pub fn is_sampled(&self) -> bool {
        self.span.is_sampled()
    }
}

/// An exchange that is over, for its spans. Every text is a copy, or it would keep the whole head that it was in, with its
/// token.
#[derive(Debug)]
struct Finished {
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

impl Finished {
    /// What spans say of an exchange; nothing if it has none that are sent.
    fn new(record: Record) -> Option<Self> {
        let Record {
            method,
            target,
            route,
            status,
            reason,
            cause: _,
            is_auth_failure: _,
            subject,
            issuer,
            client,
            request_id,
            elapsed,
            gate,
            upstream,
            request_bytes,
            response_bytes,
            complete,
            trace,
        } = record;
        let trace = trace.filter(|trace| trace.is_sampled())?;
        let path = target.as_ref().map_or("*", |target| target.path());
        Some(Self {
            trace: *trace,
            ended: Instant::now(),
            method: method_label(&method),
            path: up_to(path, MAX_PATH_BYTES).into(),
            route,
            status,
            reason,
            subject,
            issuer,
            client,
            request_id: request_id.to_str().unwrap_or_default().into(),
            elapsed,
            gate,
            upstream,
            request_bytes,
            response_bytes,
            complete,
        })
    }

    /// How many spans it has.
    fn spans(&self) -> usize {
        1 + usize::from(self.call().is_some())
    }

    /// The call of the upstream with its time, if there was one. It is over when the client has left, too.
    fn call(&self) -> Option<(&Call, Duration)> {
        let call = self.trace.call.as_ref()?;
        let until_end = self.elapsed.saturating_sub(self.gate);
        Some((call, self.upstream.unwrap_or(until_end)))
    }
}
