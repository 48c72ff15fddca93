//! An upstream that speaks HTTP/2, or TLS.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// A server on this machine.
pub(crate) struct Http2Upstream {
    address: SocketAddr,
    scheme: &'static str,
    kept: Arc<Kept>,
    rounds: watch::Sender<usize>,
}

#[derive(Default)]
struct Kept {
    connections: AtomicUsize,
    arrived: Mutex<Vec<http::request::Parts>>,
}

pub(crate) type Answered = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

type Answering = dyn Fn(Request<Incoming>) -> Answered + Send + Sync;

/// How it is spoken to.
#[derive(Clone)]
enum Manner {
    /// In HTTP/2, with so many streams at once.
    Plain(u32),
    Tls(TlsAcceptor),
}

impl Http2Upstream {
    /// One that answers every request with its target.
    pub(crate) fn start() -> Self {
        Self::answering(100, |request| Box::pin(echo(request)))
    }

    /// One that takes so many streams at once over a connection, and does this with each.
    pub(crate) fn answering(
        streams: u32,
        answer: impl Fn(Request<Incoming>) -> Answered + Send + Sync + 'static,
    ) -> Self {
        Self::serving(Manner::Plain(streams), answer)
    }

    /// One that speaks TLS, and HTTP/2 if that is agreed on, else HTTP/1.1.
    pub(crate) fn over_tls(
        config: ServerConfig,
        answer: impl Fn(Request<Incoming>) -> Answered + Send + Sync + 'static,
    ) -> Self {
        Self::serving(Manner::Tls(TlsAcceptor::from(Arc::new(config))), answer)
    }

    fn serving(
        manner: Manner,
        answer: impl Fn(Request<Incoming>) -> Answered + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (rounds, round) = watch::channel(0);
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            scheme: match manner {
                Manner::Plain(_) => "h2c",
                Manner::Tls(_) => "https",
            },
            kept: Arc::default(),
            rounds,
        };
        let kept = Arc::clone(&upstream.kept);
        let answer: Arc<Answering> = Arc::new(answer);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let mut serving = JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    kept.connections.fetch_add(1, Ordering::Relaxed);
                    let mut round = round.clone();
                    round.mark_unchanged();
                    let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                    match manner.clone() {
                        Manner::Plain(streams) => {
                            serving.spawn(http2(stream, streams, kept, answer, round));
                        }
                        Manner::Tls(acceptor) => {
                            serving.spawn(async move {
                                let Ok(stream) = acceptor.accept(stream).await else {
                                    return;
                                };
                                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                                    http2(stream, 100, kept, answer, round).await;
                                } else {
                                    http1(stream, kept, answer).await;
                                }
                            });
                        }
                    }
                }
            });
        });
        upstream
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// How many connections there have been.
    pub(crate) fn connections(&self) -> usize {
        self.kept.connections.load(Ordering::Relaxed)
    }

    /// The heads that have arrived.
    pub(crate) fn arrived(&self) -> Vec<http::request::Parts> {
        self.kept.arrived.lock().unwrap().clone()
    }

    /// Tells every connection to take no more streams (GOAWAY).
    pub(crate) fn go_away(&self) {
        self.rounds.send_modify(|round| *round += 1);
    }
}

impl Kept {
    async fn answer(
        &self,
        answer: &Answering,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let (head, body) = request.into_parts();
        self.arrived.lock().unwrap().push(head.clone());
        Ok(answer(Request::from_parts(head, body)).await)
    }
}

async fn http2(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    streams: u32,
    kept: Arc<Kept>,
    answer: Arc<Answering>,
    mut round: watch::Receiver<usize>,
) {
    let service = service_fn(move |request| {
        let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
        async move { kept.answer(&*answer, request).await }
    });
    let serving = Builder::new(TokioExecutor::new())
        .max_concurrent_streams(streams)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    tokio::select! {
        _ended = &mut serving => return,
        _told = round.changed() => serving.as_mut().graceful_shutdown(),
    }
    let _ended = serving.await;
}

async fn http1(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    kept: Arc<Kept>,
    answer: Arc<Answering>,
) {
    let service = service_fn(move |request| {
        let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
        async move { kept.answer(&*answer, request).await }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let _ended = serving.await;
}

/// Reads the request to its end and answers with its target, its user and its body.
pub(crate) async fn echo(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return Response::new(Full::default());
    };
    let user = head.headers.get("x-user-id");
    let user = user.map_or("", |user| user.to_str().unwrap());
    let body = body.to_bytes();
    let text = format!(
        "{} {} {user} {}",
        head.method,
        head.uri.path(),
        String::from_utf8_lossy(&body)
    );
    Response::new(Full::from(text))
}
