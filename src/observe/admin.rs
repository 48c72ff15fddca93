//! Admin listener: probes, metrics, status page; drain and refused requests for local clients only.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, spawn_local, yield_now};
use tokio::time::{Instant, interval, sleep};
use tracing::{info, warn};

use crate::clock::UnixTime;

use super::metrics::{HISTORY_INTERVAL, Metrics};
use super::status::{self, RouteLine};

const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time without a heartbeat after which an event loop counts as blocked.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(10);

/// Interval between liveness checks of the event loops.
const LIVENESS_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Pause after an accept error, such as a lack of file descriptors.
const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(50);

/// Path prefix of the explanation of a request, by its ID.
const WHY: &str = "/why/";

/// Path of the explanation of the last refusal.
const LAST: &str = "/why";

/// Path prefix of a probe of an upstream.
const UPSTREAM: &str = "/upstream";

/// Status of an upstream's response to a health check; `None` without a response.
pub type Probe = Pin<Box<dyn Future<Output = Option<StatusCode>>>>;

/// Interface of the admin listener to the rest of the process.
pub trait Status {
    /// Reasons why the gate is not ready; empty if it is ready.
    fn not_ready(&self) -> Vec<String>;

    /// Routes in force.
    fn routes(&self) -> Vec<RouteLine>;

    fn now(&self) -> UnixTime;

    /// Updates the gauges that are read on demand.
    fn update_gauges(&self, metrics: &Metrics);

    /// Starts the drain.
    fn drain(&self);

    /// Sends the health checks with this path to their upstreams. Returns `None` if there is none.
    fn probe(&self, path: &str) -> Option<Probe>;
}

/// Service of the admin listener.
#[derive(Debug)]
pub struct Admin<S> {
    status: S,
    metrics: Arc<Metrics>,
    is_alive: AtomicBool,
}

impl<S: Status + 'static> Admin<S> {
    pub fn new(status: S, metrics: Arc<Metrics>) -> Self {
        Self {
            status,
            metrics,
            is_alive: AtomicBool::new(true),
        }
    }

    /// Serves until the process ends. Above `max_connections`, the oldest connection is closed: probes are short, and must
    /// not wait for clients that send nothing or do not read.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, max_connections: usize) {
        spawn_local(Arc::clone(&self).watch_heartbeats());
        spawn_local(Arc::clone(&self).keep_history());
        let mut connections = VecDeque::<JoinHandle<()>>::new();
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!("failed to accept an admin connection: {error}");
                    sleep(ACCEPT_ERROR_PAUSE).await;
                    continue;
                }
            };
            let admin = Arc::clone(&self);
            let service = service_fn(move |request| {
                let admin = Arc::clone(&admin);
                async move {
                    let response = match admin.probe(&request) {
                        Some(probe) => probe.await,
                        None => admin.respond(&request, peer.ip().to_canonical()),
                    };
                    Ok::<_, Infallible>(response)
                }
            });
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT);
            let serving = builder.serve_connection(TokioIo::new(stream), service);
            connections.retain(|connection| !connection.is_finished());
            if connections.len() >= max_connections
                && let Some(oldest) = connections.pop_front()
            {
                oldest.abort();
                // The task runs, and frees its descriptor.
                yield_now().await;
            }
            connections.push_back(spawn_local(async move {
                // A client that closes its connection early is not an error.
                let _ended = serving.await;
            }));
        }
    }

    /// Adds the points of the history.
    async fn keep_history(self: Arc<Self>) {
        let mut points = interval(HISTORY_INTERVAL);
        loop {
            points.tick().await;
            self.metrics.add_history_point();
        }
    }

    /// Checks that the heartbeats of all workers continue.
    async fn watch_heartbeats(self: Arc<Self>) {
        let mut seen: Vec<(u64, Instant)> = vec![(0, Instant::now()); self.metrics.workers.len()];
        let mut checks = interval(LIVENESS_POLL_INTERVAL);
        loop {
            checks.tick().await;
            let mut all_alive = true;
            for (worker, (heartbeats, since)) in self.metrics.workers.iter().zip(&mut seen) {
                if worker.heartbeats() != *heartbeats {
                    (*heartbeats, *since) = (worker.heartbeats(), Instant::now());
                }
                all_alive &= since.elapsed() < HEARTBEAT_TIMEOUT;
            }
            self.is_alive.store(all_alive, Ordering::Relaxed);
        }
    }

    /// Response to a probe of an upstream. Nothing of the request is forwarded: its target only has to equal the path of a
    /// health check, byte for byte.
    fn probe(
        &self,
        request: &Request<Incoming>,
    ) -> Option<impl Future<Output = Response<Full<Bytes>>> + use<S>> {
        let target = request.uri().path_and_query()?.as_str();
        let probe = self.status.probe(target.strip_prefix(UPSTREAM)?)?;
        let is_get = request.method() == Method::GET;
        Some(async move {
            if !is_get {
                return not_allowed("GET");
            }
            match probe.await {
                // An informational response is not final.
                Some(status) if !status.is_informational() => {
                    let mut response = Response::new(Full::default());
                    *response.status_mut() = status;
                    response
                }
                Some(_) | None => text(StatusCode::BAD_GATEWAY, "no response\n"),
            }
        })
    }

    fn respond(&self, request: &Request<Incoming>, peer: IpAddr) -> Response<Full<Bytes>> {
        let is_get = matches!(*request.method(), Method::GET | Method::HEAD);
        match request.uri().path() {
            "/startupz" if is_get => text(StatusCode::OK, "started\n"),
            "/readyz" if is_get => self.readiness(),
            "/livez" if is_get => self.liveness(),
            "/metrics" if is_get => self.exposition(),
            "/" if is_get => page(status::PAGE, "text/html; charset=utf-8"),
            "/status.json" if is_get => self.status(request, peer),
            "/drain" if request.method() == Method::POST => self.drain(request, peer),
            "/" | "/status.json" | "/startupz" | "/readyz" | "/livez" | "/metrics" => {
                not_allowed("GET, HEAD")
            }
            "/drain" => not_allowed("POST"),
            LAST if is_get => self.why(None, request, peer),
            path if path.starts_with(WHY) && !is_get => not_allowed("GET, HEAD"),
            path => match path.strip_prefix(WHY) {
                Some(request_id) => self.why(Some(request_id), request, peer),
                None => text(
                    StatusCode::NOT_FOUND,
                    "paths: /, /status.json, /startupz, /readyz, /livez, /metrics, and /upstream plus the path of a health check\n",
                ),
            },
        }
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        let reasons = self.status.not_ready();
        if reasons.is_empty() {
            return text(StatusCode::OK, "ready\n");
        }
        text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {}\n", reasons.join("; ")),
        )
    }

    fn liveness(&self) -> Response<Full<Bytes>> {
        if self.is_alive.load(Ordering::Relaxed) {
            return text(StatusCode::OK, "alive\n");
        }
        text(
            StatusCode::SERVICE_UNAVAILABLE,
            "an event loop is blocked\n",
        )
    }

    fn exposition(&self) -> Response<Full<Bytes>> {
        self.status.update_gauges(&self.metrics);
        let Ok(exposition) = self.metrics.exposition() else {
            return text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "failed to encode the metrics\n",
            );
        };
        let mut response = Response::new(Full::from(exposition));
        let format =
            HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, format);
        response
    }

    fn status(&self, request: &Request<Incoming>, peer: IpAddr) -> Response<Full<Bytes>> {
        self.status.update_gauges(&self.metrics);
        let is_local = is_local(request, peer) && has_address_as_host(request);
        let (not_ready, routes) = (self.status.not_ready(), self.status.routes());
        let now = self.status.now();
        let status = status::json(&self.metrics, &not_ready, &routes, now, is_local);
        page(status.to_string(), "application/json")
    }

    /// Explains a refused request. Local clients only: an explanation has the subject and the path of the request.
    /// Without a request ID, explains the last refusal. Responds with JSON if the client accepts it.
    fn why(
        &self,
        request_id: Option<&str>,
        request: &Request<Incoming>,
        peer: IpAddr,
    ) -> Response<Full<Bytes>> {
        if !is_local(request, peer) || !has_address_as_host(request) {
            return text(
                StatusCode::FORBIDDEN,
                "only `claimgate why` on the same machine may request an explanation\n",
            );
        }
        let workers = self.metrics.workers.iter();
        let mut found: Vec<_> = workers
            .flat_map(|worker| match request_id {
                Some(request_id) => worker.refusals.find(request_id),
                None => worker.refusals.last(1),
            })
            .collect();
        found.sort_by_key(|refusal| refusal.at);
        if request_id.is_none() {
            found = found.pop().into_iter().collect();
        }
        if found.is_empty() && request_id.is_none() {
            return text(StatusCode::NOT_FOUND, "no request was refused yet\n");
        }
        if found.is_empty() {
            return text(
                StatusCode::NOT_FOUND,
                "no refusal with this request ID: the request was served, or the refusal is too old\n",
            );
        }
        let now = self.status.now();
        let accepts = request.headers().get(ACCEPT);
        if accepts.is_some_and(|accepts| accepts == "application/json") {
            let refusals: Value = found.iter().map(|refusal| refusal.summary(now)).collect();
            return page(refusals.to_string(), "application/json");
        }
        let explained = found.iter().map(|refusal| refusal.explain(now));
        text(StatusCode::OK, explained.collect::<Vec<_>>().join("\n"))
    }

    /// Starts the drain. Local clients only.
    fn drain(&self, request: &Request<Incoming>, peer: IpAddr) -> Response<Full<Bytes>> {
        if !is_local(request, peer) {
            return text(
                StatusCode::FORBIDDEN,
                "only `claimgate drain` on the same machine may start the drain\n",
            );
        }
        info!("draining: not ready, still serving requests");
        self.status.drain();
        text(StatusCode::OK, "draining\n")
    }
}

/// Returns true for a client on this machine that is not a web page: a browser sends `Origin` with cross-origin requests.
fn is_local(request: &Request<Incoming>, peer: IpAddr) -> bool {
    peer.is_loopback() && !request.headers().contains_key(ORIGIN)
}

/// Returns true if `Host` is an IP address or `localhost`. Prevents DNS rebinding: a page with a host name that resolves to
/// this address could read the response, but sends that name in `Host`.
fn has_address_as_host(request: &Request<Incoming>) -> bool {
    let host = request.headers().get(HOST);
    let host: Option<Authority> = host.and_then(|host| host.as_bytes().try_into().ok());
    host.is_some_and(|host| {
        let host = host.host().trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok()
    })
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

fn page(body: impl Into<Bytes>, content_type: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.headers_mut() = status::headers(content_type);
    response
}

fn not_allowed(methods: &'static str) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(methods));
    response
}
