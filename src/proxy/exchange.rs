//! One exchange from its head to the end of its answer, and the record of it.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use tokio::time::Instant;

use crate::gate::cors::CorsRequest;
use crate::gate::permit::{Caller, Permit};
use crate::gate::rate_limit::Rates;
use crate::gate::refusal::{Mismatch, Refusal};
use crate::gate::routes::Route;
use crate::gate::subject::Subject;
use crate::gate::{Preflight, Refused};
use crate::observe::metrics::WorkerMetrics;
use crate::observe::traces::Trace;
use crate::observe::{self, Record};

use super::body::{BodyObserver, ResponseBody, Upload};
use super::headers::{self, Peer};
use super::inbound::connection::Connection;
use super::shared::Shared;
use super::tunnel::Tunnelled;
use super::upstream::{PooledConnection, Target, UpstreamError};
use super::{ClientResponse, Snapshot};

/// The name of the protection space in a challenge (RFC 9110 section 11.5).
const REALM: &str = "claimgate";

/// In the log, the status of a client that left before its answer: the custom of nginx. It is never sent.
const CLIENT_GONE: u16 = 499;

/// What is known about one exchange. However it ends, it is recorded once.
#[derive(Debug)]
pub struct Exchange {
    metrics: Arc<WorkerMetrics>,
    connection: Rc<Connection>,
    /// The policy that it began with.
    snapshot: Rc<Snapshot>,
    peer: Rc<Peer>,
    client: Option<IpAddr>,
    method: Method,
    target: Option<PathAndQuery>,
    request_id: HeaderValue,
    page: Option<CorsRequest>,
    started: Instant,
    route: Option<Arc<Route>>,
    subject: Option<Subject>,
    issuer: Option<Arc<str>>,
    /// How the client stands with the limits of the route.
    rate: Option<HeaderValue>,
    form: Form,
    is_grpc: bool,
    upload: Option<Rc<Upload>>,
    sent: Option<Instant>,
    upstream: Option<Duration>,
    lease: Option<PooledConnection>,
    outcome: Outcome,
    cause: Option<String>,
    is_permitted: bool,
    /// In a box, because most gates have no traces.
    trace: Option<Box<Trace>>,
    /// When it ended, if it has. By then it is recorded.
    ended: Option<Instant>,
}

/// In which form a request came.
#[derive(Debug, Clone, Copy)]
pub struct Form {
    /// With a body.
    pub has_body: bool,
    /// From a client that can be given interim answers.
    pub accepts_informational: bool,
}

/// How an exchange has gone so far.
#[derive(Debug)]
enum Outcome {
    /// No answer yet.
    Pending,
    /// The upstream's answer has this status.
    Answered(StatusCode),
    /// The gate has answered.
    Refused(Refusal),
    /// The upstream's answer has this status, and the gate has ended it.
    Cut(StatusCode, Refusal),
}

impl Exchange {
    /// Begins with a head just read.
    pub(super) fn begin(
        metrics: Arc<WorkerMetrics>,
        connection: Rc<Connection>,
        head: &Parts,
        peer: Rc<Peer>,
        snapshot: Rc<Snapshot>,
        form: Form,
        now: Instant,
    ) -> Self {
        let trace = snapshot.policy.tracing.as_ref().map(|tracing| {
            let scheme = head.extensions.get().copied().unwrap_or_default();
            let is_http2 = connection.is_http2();
            Box::new(Trace::begin(tracing, &head.headers, scheme, is_http2))
        });
        Self {
            metrics,
            connection,
            page: snapshot.policy.gate.page(head),
            client: snapshot.policy.headers.client_address(&peer, &head.headers),
            snapshot,
            peer,
            method: head.method.clone(),
            target: head.uri.path_and_query().cloned(),
            request_id: headers::request_id(&head.headers),
            started: now,
            route: None,
            subject: None,
            issuer: None,
            rate: None,
            is_grpc: headers::is_grpc(&head.headers),
            form,
            upload: None,
            sent: None,
            upstream: None,
            lease: None,
            outcome: Outcome::Pending,
            cause: None,
            is_permitted: false,
            trace,
            ended: None,
        }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The route, once it is known.
    pub(super) fn route(&self) -> Option<&Route> {
        self.route.as_deref()
    }

    pub(super) fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    pub(super) fn accepts_informational(&self) -> bool {
        self.form.accepts_informational
    }

    /// Whether it is over HTTP/2, where one connection has many exchanges.
    pub(super) fn is_http2(&self) -> bool {
        self.connection.is_http2()
    }

    /// Whether it is a call of gRPC, whose refusals are no pages.
    pub(super) fn is_grpc(&self) -> bool {
        self.is_grpc
    }

    /// When it must be over, if its route says so.
    pub(super) fn overdue(&self) -> Option<Instant> {
        let limit = self.route.as_ref()?.request_timeout?;
        Some(self.started + limit)
    }

    /// Whether a part of the body has not been read and stands before the next request. hyper closes such a connection,
    /// and a client that was not told would lose its next request.
    pub(super) fn leaves_a_body(&self) -> bool {
        let is_over = self
            .upload
            .as_ref()
            .is_some_and(|upload| upload.over_since().is_some());
        !self.is_http2() && self.form.has_body && !is_over
    }

    /// Whether what is left of the request, or of the gate, is not fit for another request on the same connection. Over
    /// HTTP/2 the end of a stream says where the next begins.
    fn ends_the_connection(&self, refusal: &Refusal) -> bool {
        let is_turned_away = matches!(refusal, Refusal::Overloaded | Refusal::Draining);
        let is_unclear = matches!(
            refusal,
            Refusal::RequestMalformed
                | Refusal::RequestTimeout
                | Refusal::BodyTooLarge
                | Refusal::HeadersTooLarge
                | Refusal::TargetTooLong
        );
        is_turned_away || (is_unclear && !self.is_http2()) || self.leaves_a_body()
    }

    /// What the limits of its route are asked with.
    pub(super) fn rates<'a>(&self, shared: &'a Shared) -> Rates<'a> {
        Rates::new(&shared.rate_limits, self.client, shared.ticks(self.started))
    }

    /// It was counted, or not, if its route has no limit.
    pub(super) fn counted(&mut self, rate: Option<HeaderValue>) {
        self.rate = rate;
    }

    /// Tells the client how it stands with the limits of the route.
    pub(super) fn tell_rate(&self, headers: &mut HeaderMap) {
        if let Some(route) = &self.route {
            route.limits.tell(self.rate.as_ref(), headers);
        }
    }

    /// The gate has let the request through.
    pub(super) fn permitted(&mut self, permit: &Permit) {
        self.is_permitted = true;
        self.route = Some(Arc::clone(permit.route()));
        if let Caller::Known(caller) = permit.caller() {
            self.subject = Some(caller.subject.clone());
            self.issuer = Some(Arc::clone(&caller.issuer));
        }
    }

    /// Tells the upstream in which trace it is called.
    pub(super) fn trace_call(&mut self, upstream: &str, headers: &mut HeaderMap) {
        if let Some(trace) = &mut self.trace {
            trace.call(upstream, headers);
        }
    }

    /// The upstream at this place has given an answer that can be passed on.
    fn trace_answer(&mut self, lease: &PooledConnection) {
        if let Some(trace) = &mut self.trace {
            trace.answered(|| match &lease.address().target {
                Target::Tcp(host, port) => (host.clone(), Some(*port)),
                Target::Unix(path) => (path.display().to_string(), None),
            });
        }
    }

    /// The request is on its way to the upstream.
    pub(super) fn sending(&mut self, upload: Rc<Upload>) {
        self.upload = Some(upload);
        self.sent = Some(Instant::now());
    }

    /// The head of the upstream's answer is there, or will not come.
    pub(super) fn answered(&mut self) {
        self.upstream = self.sent.map(|sent| sent.elapsed());
    }

    /// The body of the upstream's answer goes out next.
    pub(super) fn answering(
        mut self: Box<Self>,
        status: StatusCode,
        lease: PooledConnection,
    ) -> Box<Self> {
        self.outcome = Outcome::Answered(status);
        self.trace_answer(&lease);
        self.lease = Some(lease);
        self
    }

    /// The connection becomes a tunnel.
    pub(super) fn switching(mut self: Box<Self>, lease: &PooledConnection) -> Box<Self> {
        self.trace_answer(lease);
        self.outcome = Outcome::Answered(StatusCode::SWITCHING_PROTOCOLS);
        self
    }

    /// The tunnel has ended.
    pub(super) fn tunnelled(&mut self, tunnelled: Tunnelled) {
        let Tunnelled {
            from_client,
            to_client,
            whole,
            cut,
        } = tunnelled;
        if let Some(refusal) = cut {
            self.outcome = Outcome::Cut(StatusCode::SWITCHING_PROTOCOLS, refusal);
        }
        self.record(Some(from_client), to_client, whole);
    }

    /// Answers with what the gate decided.
    pub(super) fn refuse(mut self: Box<Self>, refused: Refused) -> ClientResponse {
        let Refused {
            refusal,
            route,
            subject,
            issuer,
        } = refused;
        self.route = route;
        self.subject = subject;
        self.issuer = issuer;
        self.fail(refusal)
    }

    /// Answers a browser that asks what a page may send.
    pub(super) fn allow(mut self: Box<Self>, preflight: Preflight) -> ClientResponse {
        let Preflight { route, mut headers } = preflight;
        self.route = Some(route);
        headers.insert(headers::X_REQUEST_ID, self.request_id.clone());
        if self.leaves_a_body() {
            self.connection.close_connection(&mut headers);
        }
        let status = StatusCode::NO_CONTENT;
        self.outcome = Outcome::Answered(status);
        answer(status, headers, Bytes::new(), self)
    }

    /// Lets the page that has sent the request read its answer, if it may.
    pub(super) fn show_to_page(&self, headers: &mut HeaderMap) {
        if let Some(page) = &self.page
            && let Some(cors) = self.snapshot.policy.gate.cors(self.route())
        {
            cors.answer(page, headers);
        }
    }

    /// Answers because the upstream gave none, or because the client's body did not come whole.
    pub(super) fn upstream_failed(mut self: Box<Self>, error: &UpstreamError) -> ClientResponse {
        if let Some(fault) = self.upload.as_ref().and_then(|upload| upload.fault()) {
            return self.fail(fault.into());
        }
        self.cause = Some(match std::error::Error::source(error) {
            Some(source) => format!("failed to {error}: {source}"),
            None => format!("failed to {error}"),
        });
        self.fail(match error {
            UpstreamError::QueueFull { .. } => Refusal::Overloaded,
            UpstreamError::Connect { .. } => Refusal::UpstreamUnreachable,
            UpstreamError::ConnectTimeout { .. } | UpstreamError::ResponseTimeout { .. } => {
                Refusal::UpstreamTimeout
            }
            UpstreamError::InvalidResponse { .. }
            | UpstreamError::ConnectionClosed { .. }
            | UpstreamError::AmbiguousLength { .. }
            | UpstreamError::UnexpectedUpgrade { .. }
            | UpstreamError::WebSocketOverHttp2 { .. } => Refusal::UpstreamInvalidResponse,
        })
    }

    /// Answers with a refusal of its own.
    pub(super) fn fail(mut self: Box<Self>, refusal: Refusal) -> ClientResponse {
        let (status, mut headers, body) = if self.is_grpc {
            let (status, headers) = refusal.grpc_answer(REALM);
            (status, headers, Bytes::new())
        } else {
            refusal.answer(REALM)
        };
        headers.insert(headers::X_REQUEST_ID, self.request_id.clone());
        self.show_to_page(&mut headers);
        // A path that does not exist has no limit.
        if refusal != Refusal::SubjectMismatch(Mismatch::NotFound) {
            self.tell_rate(&mut headers);
        }
        if self.ends_the_connection(&refusal) {
            self.connection.close_connection(&mut headers);
        }
        self.outcome = Outcome::Refused(refusal);
        answer(status, headers, body, self)
    }

    fn record(&mut self, request_bytes: Option<u64>, response_bytes: u64, whole: bool) {
        if self.ended.is_some() {
            return;
        }
        let now = *self.ended.insert(Instant::now());
        let (status, reason, is_about_the_caller) = match &self.outcome {
            Outcome::Pending => {
                let status = StatusCode::from_u16(CLIENT_GONE).unwrap_or(StatusCode::BAD_REQUEST);
                (status, Some(observe::log::CLIENT_GONE), false)
            }
            Outcome::Answered(status) => (*status, None, false),
            Outcome::Cut(status, refusal) => (*status, Some(refusal.reason()), false),
            Outcome::Refused(refusal) => (
                refusal.status(),
                Some(refusal.reason()),
                refusal.is_about_the_caller(),
            ),
        };
        let elapsed = now - self.started;
        let uploaded = || self.upload.as_ref().map_or(0, |upload| upload.bytes());
        let record = Record {
            method: self.method.clone(),
            target: self.target.take(),
            route: self.route.take(),
            status,
            reason,
            cause: self.cause.take(),
            is_about_the_caller,
            subject: self.subject.take(),
            issuer: self.issuer.take(),
            client: self.client,
            request_id: self.request_id.clone(),
            elapsed,
            gate: self.sent.map_or(elapsed, |sent| sent - self.started),
            upstream: self.upstream,
            request_bytes: request_bytes.unwrap_or_else(uploaded),
            response_bytes,
            whole,
            trace: self.trace.take(),
        };
        self.metrics.count(&record);
        observe::log::write(&record, self.snapshot.policy.log_sample);
        if let Outcome::Refused(refusal) | Outcome::Cut(_, refusal) = &self.outcome {
            let issuers = self.snapshot.policy.gate.issuers();
            let refusals = &self.metrics.refusals;
            refusals.keep(&record, refusal, self.is_permitted, issuers);
        }
        if record.trace.is_some() {
            self.metrics.spans.keep(record);
        }
    }
}

impl BodyObserver for Box<Exchange> {
    fn ended(mut self, bytes: u64, whole: bool) {
        let upload_is_over = self
            .upload
            .as_ref()
            .is_none_or(|upload| upload.over_since().is_some());
        if let Some(lease) = self.lease.take()
            && whole
            && upload_is_over
        {
            lease.release();
        }
        self.record(None, bytes, whole);
    }

    fn cut(mut self, bytes: u64, refusal: &Refusal) {
        if let Outcome::Answered(status) = self.outcome {
            self.outcome = Outcome::Cut(status, refusal.clone());
        }
        self.record(None, bytes, false);
    }

    fn clean(&self, trailers: &mut HeaderMap) {
        self.snapshot.policy.headers.clean_trailers(trailers);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.record(None, 0, false);
        let now = self.ended.unwrap_or_else(Instant::now);
        self.connection.end_exchange(now);
    }
}

fn answer(
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    exchange: Box<Exchange>,
) -> ClientResponse {
    let mut response = Response::new(ResponseBody::own(body, exchange));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
