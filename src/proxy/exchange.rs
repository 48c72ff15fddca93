//! One exchange, from the request head to the end of the response, and its record.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CACHE_CONTROL, SET_COOKIE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use crate::config::DpopMode;
use crate::gate::caller_kind::{CallerKind, OWNS_NO_PATH};
use crate::gate::cors::CorsRequest;
use crate::gate::inbound::Inbound;
use crate::gate::permit::{Caller, KnownCaller, Permit};
use crate::gate::rate_limit::RequestLimits;
use crate::gate::refusal::{self, GrpcProtocol, Refusal};
use crate::gate::resource::ResourceChallenge;
use crate::gate::routes::Route;
use crate::gate::stop::Refused;
use crate::observe::metrics::WorkerMetrics;
use crate::observe::traces::{Trace, TraceFields};
use crate::observe::{self, Record};

use super::headers::{self, Peer};
use super::inbound::connection::Connection;
use super::request_body::Upload;
use super::response_body::BodyObserver;
use super::snapshot::Snapshot;
use super::tunnel::TunnelSummary;
use super::upstream::{EndpointAddress, Target, UpstreamError};

/// Logged status if the client closed the connection before the response, as in nginx. Never sent.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Facts of one exchange, recorded once at its end.
#[derive(Debug)]
pub struct Exchange {
    metrics: Arc<WorkerMetrics>,
    connection: Rc<Connection>,
    /// Snapshot that the exchange began with.
    snapshot: Rc<Snapshot>,
    peer: Rc<Peer>,
    client: Option<IpAddr>,
    method: Method,
    target: Option<PathAndQuery>,
    request_id: HeaderValue,
    cors: Option<CorsRequest>,
    started: Instant,
    route: Option<Arc<Route>>,
    caller: Option<Arc<KnownCaller>>,
    limits: RequestLimits,
    form: RequestForm,
    grpc: Option<GrpcProtocol>,
    /// End of the route's `request_timeout`.
    deadline: Option<Instant>,
    upload: Option<Rc<Upload>>,
    sent: Option<Instant>,
    upstream: Option<Duration>,
    outcome: Outcome,
    cause: Option<String>,
    is_permitted: bool,
    /// Boxed: most gates have no traces.
    trace: Option<Box<Trace>>,
    /// True if the request uses the scheme `DPoP`. Known only of a rejected request.
    uses_dpop: bool,
    /// Renewed session cookie for the client.
    set_cookie: Option<Box<HeaderValue>>,
    /// End of the exchange, set when it is recorded.
    ended: Option<Instant>,
}

/// Properties of a request that its head does not show after the conversion from HTTP/2.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestForm {
    /// A body follows the head.
    pub(super) has_body: bool,
    /// The body is chunked, with an unknown size on the wire.
    pub(super) is_chunked: bool,
    /// The client can read informational (1xx) responses.
    pub(super) accepts_informational: bool,
}

/// Outcome of an exchange so far.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// No response yet.
    Pending,
    /// A response of the upstream, to a preflight, or with metadata.
    Responded(StatusCode),
    Refused(Refusal),
    /// A response of the upstream that the gate aborted.
    Aborted(StatusCode, Refusal),
}

impl Outcome {
    /// Sub-cause of a refusal.
    fn cause(&self, caller: Option<&KnownCaller>) -> Option<String> {
        match self {
            Self::Refused(Refusal::SubjectMismatch(_)) => caller
                .filter(|caller| caller.kind == CallerKind::Machine)
                .map(|_| OWNS_NO_PATH.to_owned()),
            Self::Refused(refusal) | Self::Aborted(_, refusal) => refusal.cause(),
            Self::Pending | Self::Responded(_) => None,
        }
    }
}

impl Exchange {
    /// Begins with a request as received.
    pub(super) fn begin(
        metrics: Arc<WorkerMetrics>,
        connection: Rc<Connection>,
        peer: Rc<Peer>,
        snapshot: Rc<Snapshot>,
        inbound: &Inbound,
        form: RequestForm,
        now: Instant,
    ) -> Self {
        let head = &inbound.head;
        let is_http2 = connection.is_http2();
        let trace = snapshot.policy.tracing.as_ref().map(|tracing| {
            Box::new(Trace::begin(
                tracing,
                &head.headers,
                inbound.scheme,
                is_http2,
            ))
        });
        Self {
            metrics,
            connection,
            cors: snapshot.policy.gate.cors_request(head),
            client: inbound.client,
            snapshot,
            peer,
            method: head.method.clone(),
            target: head.uri.path_and_query().cloned(),
            request_id: headers::request_id(&head.headers),
            started: now,
            route: None,
            caller: None,
            limits: RequestLimits::default(),
            form,
            grpc: GrpcProtocol::of(&head.headers),
            deadline: None,
            upload: None,
            sent: None,
            upstream: None,
            outcome: Outcome::Pending,
            cause: None,
            is_permitted: false,
            trace,
            uses_dpop: false,
            set_cookie: None,
            ended: None,
        }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Request ID for a log line.
    pub(super) fn request_id_text(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }

    pub(super) fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    pub(super) fn accepts_informational(&self) -> bool {
        self.form.accepts_informational
    }

    /// Returns whether the connection carries several exchanges at once.
    pub(super) fn is_http2(&self) -> bool {
        self.connection.is_http2()
    }

    /// Returns whether this is a gRPC call. Its refusals are sent as trailers.
    pub(super) fn is_grpc(&self) -> bool {
        self.grpc.is_some()
    }

    /// Protocol of a gRPC call.
    pub(super) fn grpc(&self) -> Option<GrpcProtocol> {
        self.grpc
    }

    /// Returns whether the connection as a whole becomes a WebSocket tunnel; over HTTP/2, only its stream does.
    pub(super) fn is_upgraded(&self) -> bool {
        let switched = Outcome::Responded(StatusCode::SWITCHING_PROTOCOLS);
        self.outcome == switched && !self.is_http2()
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Deadline of the whole exchange, if its route has one.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) fn limits(&mut self) -> &mut RequestLimits {
        &mut self.limits
    }

    /// Refusal in the response of this exchange.
    pub(super) fn refusal(&self) -> Option<&Refusal> {
        match &self.outcome {
            Outcome::Refused(refusal) => Some(refusal),
            Outcome::Pending | Outcome::Responded(_) | Outcome::Aborted(..) => None,
        }
    }

    /// Returns whether part of the body is unread and precedes the next request. hyper closes such a connection, and a
    /// client without `Connection: close` loses its next request.
    pub(super) fn leaves_body_unread(&self) -> bool {
        let is_read = self
            .upload
            .as_ref()
            .is_some_and(|upload| upload.finished_at().is_some());
        !self.is_http2() && self.form.has_body && !is_read
    }

    /// Writes the rate limit fields of the route.
    pub(super) fn write_limits(&self, headers: &mut HeaderMap) {
        if let Some(route) = &self.route {
            route.access.limits.write_headers(&self.limits, headers);
        }
    }

    /// Passes a renewed session cookie to the client.
    pub(super) fn set_cookie(&mut self, cookie: HeaderValue) {
        self.set_cookie = Some(Box::new(cookie));
    }

    /// Writes the renewed session cookie. A shared cache must not store such a response (RFC 9111 section 7.3).
    pub(super) fn write_cookie(&self, headers: &mut HeaderMap) {
        if let Some(cookie) = &self.set_cookie {
            headers.append(SET_COOKIE, HeaderValue::clone(cookie));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
    }

    /// Writes the CORS fields for the page that sent the request.
    pub(super) fn write_cors(&self, headers: &mut HeaderMap) {
        if let Some(request) = &self.cors
            && let Some(cors) = self.snapshot.policy.gate.cors(self.route.as_deref())
        {
            cors.write_headers(request, headers);
        }
    }

    /// Records the permit. `request_timeout` is the route's.
    pub(super) fn permitted(&mut self, permit: &Permit, request_timeout: Option<Duration>) {
        self.is_permitted = true;
        self.route = Some(Arc::clone(permit.route()));
        self.deadline = request_timeout.map(|limit| self.started + limit);
        if let Caller::Known(caller) = permit.caller() {
            self.caller = Some(Arc::clone(caller));
        }
    }

    /// Trace context of the call to the upstream; `None` without tracing.
    pub(super) fn trace_call(
        &mut self,
        upstream: &str,
        received: &HeaderMap,
    ) -> Option<TraceFields> {
        let trace = self.trace.as_mut()?;
        Some(trace.call(upstream, received))
    }

    fn trace_response(&mut self, address: &EndpointAddress) {
        if let Some(trace) = &mut self.trace {
            trace.response_from(|| match &address.target {
                Target::Tcp(host, port) => (host.clone(), Some(*port)),
                Target::Unix(path) => (path.display().to_string(), None),
            });
        }
    }

    /// Notes that the request is on its way to the upstream.
    pub(super) fn sending(&mut self, upload: Option<Rc<Upload>>) {
        self.upload = upload;
        self.sent = Some(Instant::now());
    }

    /// Notes the end of the wait for the upstream's response head.
    pub(super) fn head_received(&mut self) {
        self.upstream = self.sent.map(|sent| sent.elapsed());
    }

    /// Notes that the body of the upstream's response follows.
    pub(super) fn responding(
        mut self: Box<Self>,
        status: StatusCode,
        address: &EndpointAddress,
    ) -> Box<Self> {
        self.outcome = Outcome::Responded(status);
        self.trace_response(address);
        self
    }

    /// Notes that the connection becomes a WebSocket tunnel.
    pub(super) fn switching(mut self: Box<Self>, address: &EndpointAddress) -> Box<Self> {
        self.trace_response(address);
        self.outcome = Outcome::Responded(StatusCode::SWITCHING_PROTOCOLS);
        self
    }

    /// Records the end of a WebSocket tunnel.
    pub(super) fn tunnel_ended(&mut self, summary: TunnelSummary) {
        let TunnelSummary {
            from_client,
            to_client,
            complete,
            closed_by_gate,
        } = summary;
        if let Some(refusal) = closed_by_gate {
            self.outcome = Outcome::Aborted(StatusCode::SWITCHING_PROTOCOLS, refusal);
        }
        self.record(Some(from_client), to_client, complete);
    }

    /// Notes a refusal of the gate and the facts established before it.
    pub(super) fn stopped(&mut self, refused: Refused) -> Refusal {
        let Refused {
            refusal,
            route,
            caller,
        } = refused;
        self.route = route;
        self.caller = caller;
        refusal
    }

    /// Notes a preflight that the gate allows for this route, or for a path or method without one.
    pub(super) fn preflight_allowed(&mut self, route: Option<Arc<Route>>, status: StatusCode) {
        self.route = route;
        self.outcome = Outcome::Responded(status);
    }

    /// Notes a response of the gate itself, without a route.
    pub(super) fn responded(&mut self, status: StatusCode) {
        self.outcome = Outcome::Responded(status);
    }

    /// Parameters of the challenges, on a route of the protected resource.
    pub(super) fn resource_challenge(&self) -> Option<&ResourceChallenge> {
        self.route.as_ref()?.access.resource.as_deref()
    }

    /// Notes that the request uses the scheme `DPoP`.
    pub(super) fn note_dpop(&mut self, headers: &HeaderMap) {
        let tokens = self.route.as_ref().map(|route| &route.access.tokens);
        self.uses_dpop = tokens.is_some_and(|tokens| tokens.uses_dpop(headers));
    }

    /// Writes the challenges of the scheme `DPoP`.
    pub(super) fn write_dpop_challenge(&self, headers: &mut HeaderMap) {
        let requires = |route: &Arc<Route>| route.access.tokens.dpop == DpopMode::Required;
        if self.uses_dpop || self.route.as_ref().is_some_and(requires) {
            refusal::write_dpop_challenge(headers, self.uses_dpop);
        }
    }

    pub(super) fn refused(&mut self, refusal: Refusal) {
        self.outcome = Outcome::Refused(refusal);
    }

    /// Notes a failed call to the upstream. A fault of the client's body takes precedence as the refusal.
    pub(super) fn upstream_failed(&mut self, error: &UpstreamError) -> Refusal {
        if let Some(fault) = self.upload.as_ref().and_then(|upload| upload.fault()) {
            return fault.into();
        }
        self.cause = Some(match std::error::Error::source(error) {
            Some(source) => format!("failed to {error}: {source}"),
            None => format!("failed to {error}"),
        });
        error.refusal()
    }

    fn record(&mut self, request_bytes: Option<u64>, response_bytes: u64, complete: bool) {
        if self.ended.is_some() {
            return;
        }
        let now = *self.ended.insert(Instant::now());
        let (status, reason, is_auth_failure) = match &self.outcome {
            Outcome::Pending => {
                let status = StatusCode::from_u16(CLIENT_CLOSED_REQUEST);
                let status = status.unwrap_or(StatusCode::BAD_REQUEST);
                (status, Some(observe::log::CLIENT_CLOSED_REQUEST), false)
            }
            Outcome::Responded(status) => (*status, None, false),
            Outcome::Aborted(status, refusal) => (*status, Some(refusal.reason()), false),
            Outcome::Refused(refusal) => (
                refusal.status(),
                Some(refusal.reason()),
                refusal.is_auth_failure(),
            ),
        };
        let stage = match &self.outcome {
            Outcome::Refused(refusal) | Outcome::Aborted(_, refusal) => {
                Some(refusal.stage(self.is_permitted, self.caller.is_some()))
            }
            Outcome::Pending | Outcome::Responded(_) => None,
        };
        let elapsed = now - self.started;
        let uploaded = || self.upload.as_ref().map_or(0, |upload| upload.bytes());
        let cause = self.cause.take();
        let cause = cause.or_else(|| self.outcome.cause(self.caller.as_deref()));
        let record = Record {
            method: &self.method,
            target: self.target.as_ref(),
            route: self.route.as_ref(),
            status,
            reason,
            stage,
            cause: cause.as_deref(),
            is_auth_failure,
            caller: self.caller.as_deref(),
            client: self.client,
            request_id: self.request_id_text(),
            elapsed,
            gate: self.sent.map_or(elapsed, |sent| sent - self.started),
            upstream: self.upstream,
            request_bytes: request_bytes.unwrap_or_else(uploaded),
            response_bytes,
            complete,
            trace: self.trace.as_deref(),
        };
        self.metrics.count(&record);
        observe::log::write(&record, self.snapshot.policy.log_sample);
        if let Outcome::Refused(refusal) | Outcome::Aborted(_, refusal) = &self.outcome {
            let issuers = self.snapshot.policy.gate.issuers();
            let refusals = &self.metrics.refusals;
            refusals.push(&record, refusal, self.is_permitted, issuers);
        }
        if record.trace.is_some() {
            self.metrics.spans.push(&record);
        }
    }
}

impl BodyObserver for Box<Exchange> {
    fn ended(mut self, bytes: u64, complete: bool) {
        self.record(None, bytes, complete);
    }

    fn aborted(mut self, bytes: u64, refusal: &Refusal) {
        if let Outcome::Responded(status) = self.outcome {
            self.outcome = Outcome::Aborted(status, refusal.clone());
        }
        self.record(None, bytes, false);
    }

    fn filter_trailers(&self, trailers: &mut HeaderMap) {
        self.snapshot.policy.headers.filter_trailers(trailers);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.record(None, 0, false);
        let now = self.ended.unwrap_or_else(Instant::now);
        if self.form.has_body && !self.is_http2() {
            let bytes = self.upload.as_ref().map_or(0, |upload| upload.bytes());
            self.connection
                .note_body((!self.form.is_chunked).then_some(bytes));
        }
        if self.leaves_body_unread() {
            self.connection.leave_body_unread();
        }
        self.connection.end_exchange(now);
    }
}
