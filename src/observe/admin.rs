//! The admin listener: probes, metrics, the drain, and to this machine alone, what was not served.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::spawn_local;
use tokio::time::{Instant, interval};
use tracing::{info, warn};

use crate::clock::UnixTime;

use super::metrics::Metrics;
use super::status::{self, RouteLine};

/// How long a probe may take to send its request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an event loop may stand still before the process is no longer alive.
const STILL: Duration = Duration::from_secs(10);

/// How often the event loops are looked at.
const LIVENESS_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What begins the path of a question about a request.
const WHY: &str = "/why/";

/// What begins the path of a probe that is for the upstream.
const UPSTREAM: &str = "/upstream";

/// The status of an upstream's answer, when it comes; nothing if none does.
pub type Probe = Pin<Box<dyn Future<Output = Option<StatusCode>>>>;

/// What the admin listener asks of the rest.
pub trait Status {
    /// What is still awaited before requests should come, in words; nothing if it is ready.
    fn awaits(&self) -> Vec<String>;

    /// The routes in force.
    fn routes(&self) -> Vec<RouteLine>;

    /// The time of day.
    fn now(&self) -> UnixTime;

    /// Writes down what is found only by looking.
    fn note(&self, metrics: &Metrics);

    /// Begins to drain.
    fn drain(&self);

    /// Asks the upstreams whose health check has this path. Nothing, if there is none.
    fn probe(&self, path: &str) -> Option<Probe>;
}

/// The admin side of the process.
#[derive(Debug)]
pub struct Admin<S> {
    status: S,
    metrics: Arc<Metrics>,
    turns: AtomicBool,
}

impl<S: Status + 'static> Admin<S> {
    /// Answers for `status`.
    pub fn new(status: S, metrics: Arc<Metrics>) -> Self {
        Self {
            status,
            metrics,
            turns: AtomicBool::new(true),
        }
    }

    /// Serves for as long as the process lives.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        spawn_local(Arc::clone(&self).watch_loops());
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!("failed to accept an admin connection: {error}");
                    tokio::time::sleep(LIVENESS_POLL_INTERVAL).await;
                    continue;
                }
            };
            let admin = Arc::clone(&self);
            let service = service_fn(move |request| {
                let admin = Arc::clone(&admin);
                async move {
                    let answer = match admin.probe(&request) {
                        Some(probe) => probe.await,
                        None => admin.answer(&request, peer.ip().to_canonical()),
                    };
                    Ok::<_, Infallible>(answer)
                }
            });
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT);
            let serving = builder.serve_connection(TokioIo::new(stream), service);
            spawn_local(async move {
                // A probe that breaks off is nobody's concern.
                let _ended = serving.await;
            });
        }
    }

    /// Every worker counts; one that does not go on counting stands still.
    async fn watch_loops(self: Arc<Self>) {
        let mut seen: Vec<(u64, Instant)> = vec![(0, Instant::now()); self.metrics.workers.len()];
        let mut look = interval(LIVENESS_POLL_INTERVAL);
        loop {
            look.tick().await;
            let mut all_turn = true;
            for (worker, (beats, since)) in self.metrics.workers.iter().zip(&mut seen) {
                if worker.heartbeats() != *beats {
                    (*beats, *since) = (worker.heartbeats(), Instant::now());
                }
                all_turn &= since.elapsed() < STILL;
            }
            self.turns.store(all_turn, Ordering::Relaxed);
        }
    }

    /// The answer to a probe that is for the upstream. Nothing of the request is passed on: its target has only to be
    /// that of a health check, byte for byte.
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
                // What is no answer yet is none.
                Some(status) if !status.is_informational() => {
                    let mut response = Response::new(Full::default());
                    *response.status_mut() = status;
                    response
                }
                Some(_) | None => text(StatusCode::BAD_GATEWAY, "no answer\n"),
            }
        })
    }

    fn answer(&self, request: &Request<Incoming>, peer: IpAddr) -> Response<Full<Bytes>> {
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
            path if path.starts_with(WHY) && !is_get => not_allowed("GET, HEAD"),
            path => match path.strip_prefix(WHY) {
                Some(request_id) => self.why(request_id, request, peer),
                None => text(
                    StatusCode::NOT_FOUND,
                    "there are /, /status.json, /startupz, /readyz, /livez, /metrics, and /upstream with the path of a health check\n",
                ),
            },
        }
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        let awaits = self.status.awaits();
        if awaits.is_empty() {
            return text(StatusCode::OK, "ready\n");
        }
        text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {}\n", awaits.join("; ")),
        )
    }

    fn liveness(&self) -> Response<Full<Bytes>> {
        if self.turns.load(Ordering::Relaxed) {
            return text(StatusCode::OK, "alive\n");
        }
        text(
            StatusCode::SERVICE_UNAVAILABLE,
            "an event loop stands still\n",
        )
    }

    fn exposition(&self) -> Response<Full<Bytes>> {
        self.status.note(&self.metrics);
        let Ok(exposition) = self.metrics.exposition() else {
            return text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the metrics could not be written\n",
            );
        };
        let mut response = Response::new(Full::from(exposition));
        let format =
            HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, format);
        response
    }

    fn status(&self, request: &Request<Incoming>, peer: IpAddr) -> Response<Full<Bytes>> {
        self.status.note(&self.metrics);
        let is_told_all = is_local(request, peer) && is_called_by_address(request);
        let (awaits, routes) = (self.status.awaits(), self.status.routes());
        let now = self.status.now();
        let status = status::json(&self.metrics, &awaits, &routes, now, is_told_all);
        page(status.to_string(), "application/json")
    }

    /// Why a request was not served: who asked for what is told to nobody but this machine.
    fn why(
        &self,
        request_id: &str,
        request: &Request<Incoming>,
        peer: IpAddr,
    ) -> Response<Full<Bytes>> {
        if !is_local(request, peer) || !is_called_by_address(request) {
            return text(
                StatusCode::FORBIDDEN,
                "only `claimgate why` on this machine may ask that\n",
            );
        }
        let workers = self.metrics.workers.iter();
        let mut found: Vec<_> = workers
            .flat_map(|worker| worker.refusals.find(request_id))
            .collect();
        if found.is_empty() {
            return text(
                StatusCode::NOT_FOUND,
                "no such request is remembered: it was served, or it was too long ago\n",
            );
        }
        found.sort_by_key(|refusal| refusal.at);
        let now = self.status.now();
        let explained = found.iter().map(|refusal| refusal.explain(now));
        text(StatusCode::OK, explained.collect::<Vec<_>>().join("\n"))
    }

    /// Only from this machine, and not from a page that a browser on it shows.
    fn drain(&self, request: &Request<Incoming>, peer: IpAddr) -> Response<Full<Bytes>> {
        if !is_local(request, peer) {
            return text(
                StatusCode::FORBIDDEN,
                "only `claimgate drain` on this machine may do that\n",
            );
        }
        info!("draining: not ready any more, still serving");
        self.status.drain();
        text(StatusCode::OK, "draining\n")
    }
}

/// Whether somebody on this machine asks, and no page of another origin that a browser on it shows.
fn is_local(request: &Request<Incoming>, peer: IpAddr) -> bool {
    peer.is_loopback() && !request.headers().contains_key(ORIGIN)
}

/// Whether the listener is called by its address. A page whose own name stands for this address in the DNS (rebinding)
/// may read what it asks for, but has to call it by that name.
fn is_called_by_address(request: &Request<Incoming>) -> bool {
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

fn page(body: impl Into<Bytes>, kind: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.headers_mut() = status::headers(kind);
    response
}

fn not_allowed(methods: &'static str) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "not with this method\n");
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(methods));
    response
}
