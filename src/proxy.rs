//! The proxy: a request in; decide, then forward or refuse, then record.

pub mod body;
mod deadline_timer;
pub mod exchange;
mod from_http2;
pub mod headers;
pub mod inbound;
mod informational;
pub mod redis;
pub mod shared;
pub mod stream_deadlines;
mod stream_policy;
pub mod tasks;
pub mod transport;
pub mod tunnel;
pub mod upstream;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use http::header::{SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, STRICT_TRANSPORT_SECURITY};
use http::request::Parts;
use http::response;
use http::{Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::ext::on_informational;
use hyper::upgrade::OnUpgrade;
use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::clock::UnixTime;
use crate::gate::Decision;
use crate::gate::cache::TokenCache;
use crate::gate::framing::has_unambiguous_length;
use crate::gate::permit::Permit;
use crate::gate::rate_limit::{Rates, Uncounted};
use crate::gate::refusal::Refusal;
use crate::keys::refresh::RefreshOutcome;
use crate::observe::metrics::WorkerMetrics;

use body::{BodyKind, RequestBody, ResponseBody};
use exchange::{Exchange, Form};
use headers::Peer;
use inbound::connection::Connection;
use informational::{InformationalGuard, InformationalResponses};
use redis::Remote;
use shared::{Phase, Policy, Shared};
use stream_deadlines::StreamDeadlines;
use stream_policy::{StreamPolicy, within};
use upstream::{PooledConnection, Upstream, UpstreamError};

/// What serves the requests of one worker.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    metrics: Arc<WorkerMetrics>,
    snapshot: RefCell<Rc<Snapshot>>,
}

/// The policy as one worker has it, with its own connections to every upstream.
#[derive(Debug)]
struct Snapshot {
    policy: Arc<Policy>,
    /// The tokens that this policy has verified: another one starts with none.
    tokens: RefCell<TokenCache>,
    upstreams: Vec<Rc<Upstream>>,
    /// Where requests are counted together with other gates.
    remote: Option<Rc<Remote>>,
}

/// The answer of the gate or of the upstream. It is handed on many times, so that its exchange is in a box.
pub type ClientResponse = Response<ResponseBody<Box<Exchange>>>;

impl Proxy {
    /// What one worker needs.
    pub fn new(shared: Arc<Shared>, metrics: Arc<WorkerMetrics>) -> Self {
        let snapshot = Snapshot::new(shared.policy(), &[], None, &metrics);
        Self {
            shared,
            metrics,
            snapshot: RefCell::new(Rc::new(snapshot)),
        }
    }

    /// Answers one request, and sends the client away if the gate is about to stop.
    pub async fn handle(
        &self,
        request: Request<Incoming>,
        connection: &Rc<Connection>,
        peer: &Rc<Peer>,
    ) -> ClientResponse {
        let now = Instant::now();
        connection.begin_exchange(now);
        let (mut head, body) = request.into_parts();
        let form = Form {
            has_body: !body.is_end_stream(),
            accepts_informational: head.version == Version::HTTP_11,
        };
        if connection.is_http2() {
            from_http2::to_http1(&mut head, form.has_body);
        }
        let snapshot = self.snapshot();
        snapshot.policy.headers.note_peer(peer, &mut head);
        let mut exchange = Box::new(Exchange::begin(
            Arc::clone(&self.metrics),
            Rc::clone(connection),
            &head,
            Rc::clone(peer),
            Rc::clone(&snapshot),
            form,
            now,
        ));
        let (snapshot, decision) = self.judge(snapshot, &head, &mut exchange).await;
        let mut answer = match decision {
            Decision::Forward(permit) => {
                let stay = StreamPolicy::of(&permit, &head, &snapshot.policy);
                self.forward(&snapshot, head, body, permit, stay, exchange)
                    .await
            }
            Decision::Allow(preflight) => exchange.allow(preflight),
            Decision::Refuse(refused)
            | Decision::NeedsKeys {
                otherwise: refused, ..
            } => exchange.refuse(refused),
        };
        let switched = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        if self.shared.phase() != Phase::Serving && !switched {
            connection.close_connection(answer.headers_mut());
        }
        if let Some(hsts) = &connection.listener().hsts {
            let headers = answer.headers_mut();
            headers.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        answer
    }

    /// Asks the gate, and once more if it needs keys. Gives the policy that has decided with what it decided.
    async fn judge(
        &self,
        mut snapshot: Rc<Snapshot>,
        head: &Parts,
        exchange: &mut Exchange,
    ) -> (Rc<Snapshot>, Decision) {
        if let Some(refusal) = exchange.connection().refuses_all() {
            return (snapshot, Decision::Refuse(refusal.into()));
        }
        if let Some(port) = exchange.connection().listener().redirect_to_https {
            let refusal = snapshot.policy.gate.redirect(head, port);
            return (snapshot, Decision::Refuse(refusal.into()));
        }
        let rates = exchange.rates(&self.shared);
        let mut rates = rates.elsewhere(snapshot.remote.is_some());
        let mut decision = self.decide(&snapshot, head, &mut rates).await;
        let mut since = None;
        while let Decision::NeedsKeys { issuer, kid, .. } = &decision {
            // Keys that came while this was judged are not asked for once more.
            let newest = self.snapshot();
            let asked = if Rc::ptr_eq(&newest, &snapshot) {
                let policy = &snapshot.policy;
                policy.fetch_keys(*issuer, kid.as_deref(), &mut since).await
            } else {
                RefreshOutcome::Newer
            };
            // Newer keys are a newer policy: all of it is judged anew.
            snapshot = self.snapshot();
            decision = self.decide(&snapshot, head, &mut rates).await;
            if let (Decision::NeedsKeys { otherwise, .. }, RefreshOutcome::Undecided) =
                (&mut decision, asked)
            {
                otherwise.refusal = Refusal::KeysUnavailable;
            }
            if asked != RefreshOutcome::Newer {
                break;
            }
        }
        if rates.knows_the_client() {
            let policy = &snapshot.policy.headers;
            policy.note_hidden_clients(exchange.peer(), &head.headers);
        }
        exchange.counted(rates.into_field());
        self.metrics
            .tokens_looked_for(snapshot.tokens.borrow_mut().take_counted());
        (snapshot, decision)
    }

    /// Asks the gate, and has counted elsewhere what must be.
    async fn decide(&self, snapshot: &Snapshot, head: &Parts, rates: &mut Rates<'_>) -> Decision {
        loop {
            let uncounted = match snapshot.decide(head, self.shared.clock.now(), rates) {
                Ok(decision) => return decision,
                Err(uncounted) => uncounted,
            };
            match &snapshot.remote {
                // In a box, so that requests without a limit do not carry its size.
                Some(remote) => Box::pin(remote.count(&uncounted, rates)).await,
                None => rates.count_here(&uncounted),
            }
        }
    }

    /// Sends what was judged to the upstream, and its answer to the client. Without a permit, nothing is forwarded.
    async fn forward(
        &self,
        snapshot: &Snapshot,
        mut head: Parts,
        body: Incoming,
        permit: Permit,
        stay: StreamPolicy,
        mut exchange: Box<Exchange>,
    ) -> ClientResponse {
        let policy = &snapshot.policy;
        exchange.permitted(&permit);
        let limit = permit
            .route()
            .max_body_bytes
            .unwrap_or(policy.max_body_bytes);
        if limit > 0 && body.size_hint().lower() > limit {
            return exchange.fail(Refusal::BodyTooLarge);
        }
        let Some(upstream) = snapshot.upstreams.get(permit.route().upstream) else {
            return exchange.fail(Refusal::UpstreamUnreachable);
        };
        let websocket = headers::asks_for_websocket(&head);
        let client = head.extensions.remove::<OnUpgrade>().filter(|_| websocket);
        policy.headers.to_upstream(
            &mut head,
            permit.caller(),
            permit.route(),
            exchange.peer(),
            exchange.request_id(),
            websocket,
        );
        exchange.trace_call(&upstream.policy().name, &mut head.headers);
        let key = (websocket && exchange.is_http2())
            .then(|| head.headers.get(SEC_WEBSOCKET_KEY).cloned())
            .flatten();
        let subprotocol = policy.headers.kept_subprotocol(&permit);
        // The messages of a gRPC call come when they come.
        let patience = (!exchange.is_grpc()).then_some(policy.limits.timeouts.body);
        let body = RequestBody::new(body, limit, patience);
        exchange.sending(body.upload());
        // In a box: it is handed on from one future to the next, and each would have to have room for it.
        let mut request = Box::new(Request::from_parts(head, body));
        let until_answer = if upstream.policy().informational && exchange.accepts_informational() {
            Some(forward_informational(&mut request, snapshot, &exchange).await)
        } else {
            None
        };
        // Pinned here, so that it is not moved into what waits for it.
        let answering = pin!(upstream.exchange(permit, request));
        // The answer of a gRPC call may be a stream that has not begun.
        let is_stream = exchange.is_grpc();
        let expiry = is_stream.then(|| stay.expiry(&self.shared)).flatten();
        let answered = within(expiry, exchange.overdue(), answering).await;
        drop(until_answer);
        exchange.answered();
        let (response, lease) = match answered {
            Ok(Ok(answered)) => answered,
            Ok(Err(error)) => return exchange.upstream_failed(&error),
            Err(refusal) => return exchange.fail(refusal),
        };
        let (mut answer, incoming) = response.into_parts();
        if !has_unambiguous_length(&answer.headers) {
            return exchange.upstream_failed(&UpstreamError::AmbiguousLength {
                target: lease.address(),
            });
        }
        answer.version = Version::HTTP_11;
        let switched = answer.status == StatusCode::SWITCHING_PROTOCOLS;
        let client = client.filter(|_| headers::names_websocket(&answer.headers));
        policy
            .headers
            .to_client(&mut answer.headers, exchange.request_id(), switched);
        if let Some(route) = exchange.route() {
            route.response_headers.apply(&mut answer.headers);
        }
        exchange.show_to_page(&mut answer.headers);
        exchange.tell_rate(&mut answer.headers);
        if let (true, Some(subprotocol)) = (switched, subprotocol) {
            let chosen = answer.headers.entry(SEC_WEBSOCKET_PROTOCOL);
            chosen.or_insert(subprotocol);
        }
        let understood = match &key {
            Some(key) if switched => from_http2::from_switching(&mut answer, key),
            Some(_) | None => true,
        };
        match (switched, client.filter(|_| understood)) {
            (true, Some(client)) => {
                let idle = upstream.policy().idle_timeout;
                let lifetime = stay.websocket(&self.shared, idle, exchange.overdue());
                tunnel(answer, client, lease, lifetime, exchange)
            }
            (true, None) => exchange.upstream_failed(&UpstreamError::UnexpectedUpgrade {
                target: lease.address(),
            }),
            (false, _) => {
                if exchange.leaves_a_body() {
                    exchange.connection().close_connection(&mut answer.headers);
                }
                let kind = BodyKind::of(&answer.headers);
                let is_stream = kind != BodyKind::Plain || incoming.size_hint().exact().is_none();
                let idle = upstream.policy().idle_timeout;
                let overdue = exchange.overdue();
                let lifetime = if is_stream {
                    stay.stream(&self.shared, kind, idle, overdue)
                } else {
                    StreamDeadlines::new(idle, overdue)
                };
                let exchange = exchange.answering(answer.status, lease);
                let body = ResponseBody::upstream(incoming, kind, lifetime, exchange);
                Response::from_parts(answer, body)
            }
        }
    }

    /// Says what connections there are to the upstreams in force.
    pub fn note_pools(&self) {
        let snapshot = self.snapshot();
        let pools = snapshot.upstreams.iter();
        let pools = pools.map(|upstream| (upstream.policy().name.clone(), upstream.pool()));
        self.metrics.pools(pools.collect());
    }

    /// The newest policy, the same for all of one request.
    fn snapshot(&self) -> Rc<Snapshot> {
        let newest = self.shared.policy();
        let mut current = self.snapshot.borrow_mut();
        if !Arc::ptr_eq(&newest, &current.policy) {
            let (upstreams, remote) = (&current.upstreams, current.remote.as_ref());
            *current = Rc::new(Snapshot::new(newest, upstreams, remote, &self.metrics));
        }
        Rc::clone(&current)
    }
}

/// Has the interim answers to a request passed on, until what is given is dropped.
async fn forward_informational(
    request: &mut Request<RequestBody>,
    snapshot: &Snapshot,
    exchange: &Exchange,
) -> InformationalGuard {
    let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
    let interim = exchange.connection().informational();
    let (answers, until) = InformationalResponses::begin(interim, waker);
    let (policy, id) = (Arc::clone(&snapshot.policy), exchange.request_id().clone());
    on_informational(request, move |answer| {
        let mut headers = answer.headers().clone();
        policy.headers.to_client(&mut headers, &id, false);
        answers.pass(answer.status(), &headers);
    });
    until
}

/// Answers 101 and joins client and upstream.
fn tunnel(
    mut answer: response::Parts,
    client: OnUpgrade,
    lease: PooledConnection,
    lifetime: StreamDeadlines,
    exchange: Box<Exchange>,
) -> ClientResponse {
    let upstream = answer.extensions.remove::<OnUpgrade>();
    let mut exchange = exchange.switching(&lease);
    let upgraded = lease.detach();
    spawn_local(async move {
        if let Some(upstream) = upstream {
            let tunnelled = tunnel::join(client, upstream, lifetime).await;
            exchange.tunnelled(tunnelled);
            drop(upgraded);
        }
    });
    Response::from_parts(answer, ResponseBody::none())
}

impl Snapshot {
    fn decide(
        &self,
        head: &Parts,
        now: UnixTime,
        rates: &mut Rates<'_>,
    ) -> Result<Decision, Box<Uncounted>> {
        let tokens = &mut self.tokens.borrow_mut();
        self.policy.gate.decide_at_rate(head, now, tokens, rates)
    }

    /// Takes over the connections to every upstream that has not changed, and to the same Redis.
    fn new(
        policy: Arc<Policy>,
        before: &[Rc<Upstream>],
        remote: Option<&Rc<Remote>>,
        metrics: &Arc<WorkerMetrics>,
    ) -> Self {
        let pool = |wanted: &upstream::SharedUpstream| {
            let kept = before.iter().find(|upstream| upstream.can_serve(wanted));
            kept.map_or_else(|| Rc::new(Upstream::new(wanted.clone())), Rc::clone)
        };
        let upstreams = policy.upstreams.iter().map(pool).collect();
        let remote = policy.redis.as_ref().map(|redis| {
            let kept = remote.filter(|remote| remote.is_to(redis));
            kept.map_or_else(
                || Remote::new(Arc::clone(redis), Arc::clone(metrics)),
                Rc::clone,
            )
        });
        Self {
            policy,
            tokens: RefCell::default(),
            upstreams,
            remote,
        }
    }
}
