//! Upstream over HTTP/2 or TLS.

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

/// Server on loopback.
pub(crate) struct Http2Upstream {
    address: SocketAddr,
    scheme: &'static str,
    recorder: Arc<Recorder>,
    goaways: watch::Sender<usize>,
}

#[derive(Default)]
struct Recorder {
    connections: AtomicUsize,
    arrived: Mutex<Vec<http::request::Parts>>,
}

pub(crate) type ResponseFuture = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

type Responder = dyn Fn(Request<Incoming>) -> ResponseFuture + Send + Sync;

/// Protocol of the connections.
#[derive(Clone)]
enum Protocol {
    /// HTTP/2 in plaintext, with this limit of concurrent streams.
    Plain(u32),
    Tls(TlsAcceptor),
}

impl Http2Upstream {
    /// Starts an upstream that calls [`echo`] for every request.
    pub(crate) fn start() -> Self {
        Self::responding(100, |request| Box::pin(echo(request)))
    }

    /// Starts an upstream with a limit of concurrent streams per connection.
    pub(crate) fn responding(
        streams: u32,
        respond: impl Fn(Request<Incoming>) -> ResponseFuture + Send + Sync + 'static,
    ) -> Self {
        Self::serving(Protocol::Plain(streams), respond)
    }

    /// Starts an upstream over TLS, with HTTP/2 if negotiated, else HTTP/1.1.
    pub(crate) fn over_tls(
        config: ServerConfig,
        respond: impl Fn(Request<Incoming>) -> ResponseFuture + Send + Sync + 'static,
    ) -> Self {
        Self::serving(Protocol::Tls(TlsAcceptor::from(Arc::new(config))), respond)
    }

    fn serving(
        protocol: Protocol,
        respond: impl Fn(Request<Incoming>) -> ResponseFuture + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (goaways, goaway) = watch::channel(0);
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            scheme: match protocol {
                Protocol::Plain(_) => "h2c",
                Protocol::Tls(_) => "https",
            },
            recorder: Arc::default(),
            goaways,
        };
        let recorder = Arc::clone(&upstream.recorder);
        let respond: Arc<Responder> = Arc::new(respond);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let mut serving = JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    recorder.connections.fetch_add(1, Ordering::Relaxed);
                    let mut goaway = goaway.clone();
                    goaway.mark_unchanged();
                    let (recorder, respond) = (Arc::clone(&recorder), Arc::clone(&respond));
                    match protocol.clone() {
                        Protocol::Plain(streams) => {
                            serving.spawn(http2(stream, streams, recorder, respond, goaway));
                        }
                        Protocol::Tls(acceptor) => {
                            serving.spawn(async move {
                                let Ok(stream) = acceptor.accept(stream).await else {
                                    return;
                                };
                                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                                    http2(stream, 100, recorder, respond, goaway).await;
                                } else {
                                    http1(stream, recorder, respond).await;
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

    /// Number of connections accepted.
    pub(crate) fn connections(&self) -> usize {
        self.recorder.connections.load(Ordering::Relaxed)
    }

    /// Request heads received.
    pub(crate) fn arrived(&self) -> Vec<http::request::Parts> {
        self.recorder.arrived.lock().unwrap().clone()
    }

    /// Sends GOAWAY on every connection.
    pub(crate) fn go_away(&self) {
        self.goaways.send_modify(|goaway| *goaway += 1);
    }
}

impl Recorder {
    async fn respond(
        &self,
        respond: &Responder,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let (head, body) = request.into_parts();
        self.arrived.lock().unwrap().push(head.clone());
        Ok(respond(Request::from_parts(head, body)).await)
    }
}

async fn http2(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    streams: u32,
    recorder: Arc<Recorder>,
    respond: Arc<Responder>,
    mut goaway: watch::Receiver<usize>,
) {
    let service = service_fn(move |request| {
        let (recorder, respond) = (Arc::clone(&recorder), Arc::clone(&respond));
        async move { recorder.respond(&*respond, request).await }
    });
    let serving = Builder::new(TokioExecutor::new())
        .max_concurrent_streams(streams)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    tokio::select! {
        _ended = &mut serving => return,
        _told = goaway.changed() => serving.as_mut().graceful_shutdown(),
    }
    let _ended = serving.await;
}

async fn http1(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    recorder: Arc<Recorder>,
    respond: Arc<Responder>,
) {
    let service = service_fn(move |request| {
        let (recorder, respond) = (Arc::clone(&recorder), Arc::clone(&respond));
        async move { recorder.respond(&*respond, request).await }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let _ended = serving.await;
}

/// Reads the complete request and responds with its method, path, user and body.
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
