//! The proxy: receives a request, calls the gate, forwards the request or responds, and records the exchange.

mod deadline_timer;
mod decide;
pub mod exchange;
pub mod forwarding;
mod from_http2;
pub mod headers;
pub mod inbound;
pub mod informational;
mod rate_floor;
pub mod redis;
pub mod replays;
pub mod request_body;
pub mod request_head;
pub mod respond;
pub mod response_body;
pub mod shared;
pub mod snapshot;
pub mod stream_deadlines;
mod stream_policy;
pub mod tasks;
pub mod transport;
pub mod tunnel;
pub mod upstream;
pub mod websocket;

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use http::header::TRANSFER_ENCODING;
use http::{Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use tokio::task::spawn_local;
use tokio::time::Instant;
use tracing::{Level, debug, enabled};

use crate::gate::framing::has_unambiguous_length;
use crate::gate::inbound::{Inbound, Scheme};
use crate::gate::permit::Permit;
use crate::gate::refusal::Refusal;
use crate::gate::stop::Stop;
use crate::observe::metrics::WorkerMetrics;

use exchange::{Exchange, RequestForm};
use forwarding::Forwarding;
use headers::{Peer, is_grpc_call};
use inbound::connection::Connection;
use informational::InformationalForwarder;
use request_body::RequestBody;
use request_head::wire_size;
use response_body::{BodyKind, ResponseBody};
use shared::{PolicyCache, Shared};
use snapshot::Snapshot;
use stream_deadlines::StreamDeadlines;
use stream_policy::{StreamPolicy, within};
use upstream::{
    MAX_READ, MAX_READ_UNBUFFERED, MAX_RESPONSE_FIELDS, Upstream, UpstreamBody, UpstreamError,
    UpstreamRequest,
};
use websocket::Handshake;

/// Serves the requests of one worker.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    metrics: Arc<WorkerMetrics>,
    policy: RefCell<PolicyCache>,
    snapshot: RefCell<Rc<Snapshot>>,
}

/// Response of the gate or of the upstream. The exchange is boxed because the response is moved many times.
pub type ClientResponse = Response<ResponseBody<Box<Exchange>>>;

/// Request to an upstream, ready to send.
struct Call {
    request: UpstreamRequest,
    handshake: Option<Handshake>,
}

/// Response of the upstream, with the state needed to deliver it.
struct Delivery<'a> {
    snapshot: &'a Snapshot,
    forwarding: &'a Forwarding,
    upstream: &'a Upstream,
    streams: StreamPolicy,
    response: Response<UpstreamBody>,
}

impl Proxy {
    pub fn new(shared: Arc<Shared>, metrics: Arc<WorkerMetrics>) -> Self {
        let snapshot = Snapshot::first(shared.policy(), &metrics);
        Self {
            policy: RefCell::new(shared.policy_cache()),
            shared,
            metrics,
            snapshot: RefCell::new(Rc::new(snapshot)),
        }
    }

    /// Serves one request.
    pub async fn handle(
        &self,
        request: Request<Incoming>,
        connection: &Rc<Connection>,
        peer: &Rc<Peer>,
    ) -> ClientResponse {
        let now = Instant::now();
        connection.begin_exchange(now);
        let (mut head, body) = request.into_parts();
        let form = RequestForm {
            has_body: !body.is_end_stream(),
            is_chunked: head.headers.contains_key(TRANSFER_ENCODING),
            accepts_informational: head.version == Version::HTTP_11,
        };
        if connection.is_http2() {
            from_http2::to_http1(&mut head, form.has_body);
        } else {
            connection.note_head(wire_size(&head));
        }
        let snapshot = self.snapshot();
        let inbound = snapshot.policy.headers.inbound(peer, head);
        let mut exchange = Box::new(Exchange::begin(
            Arc::clone(&self.metrics),
            Rc::clone(connection),
            Rc::clone(peer),
            Rc::clone(&snapshot),
            &inbound,
            form,
            now,
        ));
        let (snapshot, decision) = self.decide(snapshot, &inbound, &mut exchange).await;
        let refused = match decision {
            Ok(permit) => {
                return self
                    .forward(&snapshot, inbound, body, permit, exchange)
                    .await;
            }
            Err(Stop::Preflight(preflight)) => return self.allow(exchange, *preflight),
            Err(Stop::Metadata(metadata)) => return self.send_metadata(exchange, *metadata),
            Err(Stop::Refuse(refused)) => refused,
            Err(Stop::NeedsKeys(needs)) => needs.otherwise,
            Err(Stop::NeedsExchange(needs)) => needs.otherwise,
        };
        let stage = refused.refusal.stage(false, refused.caller.is_some());
        let refusal = exchange.stopped(refused);
        exchange.note_dpop(&inbound.head.headers);
        // Takes time for every route, so only for a line that is written.
        let is_explained = enabled!(target: decide::TARGET, Level::DEBUG);
        let near_routes = (is_explained && refusal == Refusal::NoRoute).then(|| {
            let routes = snapshot.policy.gate.routes();
            routes.near(inbound.head.uri.path()).join(", ")
        });
        debug!(
            target: decide::TARGET,
            request_id = exchange.request_id_text(),
            stage = stage.name(),
            reason = refusal.reason(),
            near_routes,
            "request rejected"
        );
        self.refuse(exchange, refusal)
    }

    /// Sends a permitted request to its upstream and delivers the response.
    async fn forward(
        &self,
        snapshot: &Snapshot,
        inbound: Inbound,
        body: Incoming,
        permit: Permit,
        mut exchange: Box<Exchange>,
    ) -> ClientResponse {
        let forwarding = snapshot.policy.forwarding(permit.route());
        exchange.permitted(&permit, forwarding.request_timeout);
        let policy = &snapshot.policy;
        let streams = StreamPolicy::new(&permit, forwarding.streams, &inbound, policy);
        let upstream = snapshot.upstream(forwarding.upstream);
        let call = match prepare(snapshot, forwarding, inbound, body, &permit, &mut exchange) {
            Ok(call) => call,
            Err(refusal) => return self.refuse(exchange, refusal),
        };
        let Call { request, handshake } = call;
        // The response to a gRPC call may be a stream that has not started.
        let expiry = exchange.is_grpc().then(|| streams.expiry(&self.shared));
        let sent = send(snapshot, upstream, request, permit, forwarding, &exchange);
        // Pinned here: otherwise it would be moved into the timeout.
        let sent = within(expiry.flatten(), exchange.deadline(), pin!(sent)).await;
        exchange.head_received();
        let response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return self.fail(exchange, &error),
            Err(refusal) => return self.refuse(exchange, refusal),
        };
        let delivery = Delivery {
            snapshot,
            forwarding,
            upstream,
            streams,
            response,
        };
        self.deliver(delivery, handshake, exchange)
    }

    /// Responds to a failed call.
    fn fail(&self, mut exchange: Box<Exchange>, error: &UpstreamError) -> ClientResponse {
        let refusal = exchange.upstream_failed(error);
        self.refuse(exchange, refusal)
    }

    /// Delivers the upstream's response to the client.
    fn deliver(
        &self,
        delivery: Delivery<'_>,
        handshake: Option<Handshake>,
        exchange: Box<Exchange>,
    ) -> ClientResponse {
        let response = &delivery.response;
        let target = || Arc::clone(response.body().address());
        let is_parsed = response.body().is_http1();
        if !is_parsed && !has_unambiguous_length(response.headers()) {
            let target = target();
            return self.fail(exchange, &UpstreamError::AmbiguousLength { target });
        }
        let fields = response.headers().len();
        if fields > MAX_RESPONSE_FIELDS {
            let target = target();
            return self.fail(exchange, &UpstreamError::TooManyFields { target, fields });
        }
        // RFC 8441 section 5: to the client's extended CONNECT, any 2xx would mean that the WebSocket is open.
        if exchange.is_http2() && handshake.is_some() && response.status().is_success() {
            let (target, status) = (target(), response.status());
            return self.fail(exchange, &UpstreamError::NotSwitched { target, status });
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return match handshake.filter(|it| it.is_accepted_by(response.headers())) {
                Some(handshake) => self.switch(delivery, handshake, exchange),
                None => {
                    let target = target();
                    self.fail(exchange, &UpstreamError::UnexpectedUpgrade { target })
                }
            };
        }
        let (mut head, body) = delivery.response.into_parts();
        self.finish_upstream(delivery.snapshot, delivery.forwarding, &exchange, &mut head);
        let kind = BodyKind::of(&head.headers);
        let is_stream = kind != BodyKind::Plain || body.size_hint().exact().is_none();
        let idle_timeout = delivery.upstream.policy().idle_timeout;
        let deadline = exchange.deadline();
        let deadlines = if is_stream {
            let streams = delivery.streams;
            streams.response(&self.shared, kind, idle_timeout, deadline)
        } else {
            StreamDeadlines::new(idle_timeout, deadline)
        };
        let exchange = exchange.responding(head.status, body.address());
        let body = ResponseBody::upstream(body, kind, deadlines, exchange);
        Response::from_parts(head, body)
    }

    /// Delivers a 101 and joins client and upstream in a WebSocket tunnel.
    fn switch(
        &self,
        delivery: Delivery<'_>,
        handshake: Handshake,
        exchange: Box<Exchange>,
    ) -> ClientResponse {
        let (mut head, body) = delivery.response.into_parts();
        let mut exchange = exchange.switching(body.address());
        self.finish_upstream(delivery.snapshot, delivery.forwarding, &exchange, &mut head);
        let client = handshake.complete(&mut head);
        let idle_timeout = delivery.upstream.policy().idle_timeout;
        let deadline = exchange.deadline();
        let streams = delivery.streams;
        let deadlines = streams.websocket(&self.shared, idle_timeout, deadline);
        if let Some(upstream) = body.into_upgraded() {
            spawn_local(async move {
                let summary = tunnel::join(client, upstream, deadlines).await;
                exchange.tunnel_ended(summary);
            });
        }
        Response::from_parts(head, ResponseBody::none())
    }

    /// Updates the connection pool metrics.
    pub fn note_pools(&self) {
        let snapshot = self.snapshot();
        let pools = snapshot.upstreams().iter();
        let pools = pools.map(|upstream| (upstream.policy().name.clone(), upstream.pool()));
        self.metrics.set_pools(pools.collect());
    }

    /// Snapshot of the newest policy.
    fn snapshot(&self) -> Rc<Snapshot> {
        let mut policy = self.policy.borrow_mut();
        let newest = policy.load();
        let mut current = self.snapshot.borrow_mut();
        if !Arc::ptr_eq(newest, &current.policy) {
            *current = Rc::new(current.next(Arc::clone(newest), &self.metrics));
        }
        Rc::clone(&current)
    }
}

/// Builds the request to the upstream: rewrites the head, and counts and limits the body.
fn prepare(
    snapshot: &Snapshot,
    forwarding: &Forwarding,
    inbound: Inbound,
    body: Incoming,
    permit: &Permit,
    exchange: &mut Exchange,
) -> Result<Call, Refusal> {
    let policy = &snapshot.policy;
    let limit = forwarding.max_body_bytes.unwrap_or(policy.max_body_bytes);
    if limit > 0 && body.size_hint().lower() > limit {
        return Err(Refusal::BodyTooLarge);
    }
    let received = &inbound.head.headers;
    let upstream = snapshot.upstream(forwarding.upstream);
    let trace = exchange.trace_call(&upstream.policy().name, received);
    let head = policy.headers.to_upstream(
        &inbound,
        permit,
        forwarding,
        exchange.peer(),
        exchange.request_id(),
        trace.as_ref(),
    );
    // Any client can name the media type, and a silent upload holds a connection to the upstream: the route must be
    // declared as gRPC, which needs HTTP/2.
    let may_pause = forwarding.grpc && exchange.is_http2() && is_grpc_call(received);
    let timeout = (!may_pause).then_some(policy.limits.timeouts.body);
    let body = RequestBody::new(body, limit, timeout);
    exchange.sending(body.upload());
    let handshake = if inbound.opens_websocket {
        let subprotocol = policy.headers.stripped_subprotocol(permit, received);
        Handshake::begin(inbound.head, exchange.is_http2(), subprotocol)
    } else {
        None
    };
    let is_unbuffered = !exchange.is_http2() && exchange.peer().scheme == Scheme::Http;
    let max_read = if is_unbuffered {
        MAX_READ_UNBUFFERED
    } else {
        MAX_READ
    };
    let request = UpstreamRequest {
        head,
        body,
        informational: None,
        max_read,
    };
    Ok(Call { request, handshake })
}

/// Sends a call and waits for the response head. Informational responses are forwarded meanwhile. Without a permit,
/// nothing is sent.
async fn send(
    snapshot: &Snapshot,
    upstream: &Upstream,
    mut request: UpstreamRequest,
    permit: Permit,
    forwarding: &Forwarding,
    exchange: &Exchange,
) -> Result<Response<UpstreamBody>, UpstreamError> {
    let mut _until_response = None;
    if upstream.policy().informational && exchange.accepts_informational() {
        let policy = Arc::clone(&snapshot.policy);
        let (id, queue) = (exchange.request_id(), exchange.connection().informational());
        let (forwarder, guard) = InformationalForwarder::begin(policy, id.clone(), queue).await;
        request.informational = Some(forwarder);
        _until_response = Some(guard);
    }
    upstream.exchange(permit, request, forwarding.timeout).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, D, F: Future>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// Every busy connection takes this memory, once for each of its requests.
    #[test]
    fn the_future_of_a_request_stays_small() {
        let handle = size_of_future(Proxy::handle);
        let exchange = size_of::<Exchange>();
        assert!(handle <= 4096, "{handle} bytes");
        assert!(exchange <= 512, "{exchange} bytes");
    }
}
