//! hyper client and server for HTTP/1.1 and HTTP/2.

use std::convert::Infallible;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::TIMEOUT;

/// Versions of both sides.
pub(crate) const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

/// Body of any kind.
pub(crate) type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

type Responder = dyn Fn(Request<Incoming>) -> Pin<Box<dyn Future<Output = Response<AnyBody>> + Send>>
    + Send
    + Sync;

/// Body of this text.
pub(crate) fn text(text: impl Into<Bytes>) -> AnyBody {
    Full::new(text.into()).boxed_unsync()
}

/// Single-threaded runtime.
pub(crate) fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// Runs a future with a timeout that fits thousands of requests.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let bounded = async { tokio::time::timeout(5 * TIMEOUT, future).await };
    runtime().block_on(bounded).expect("timed out")
}

/// Starts a server for both versions that calls `respond` for every request.
pub(crate) fn serve<F>(
    respond: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static,
) -> SocketAddr
where
    F: Future<Output = Response<AnyBody>> + Send + 'static,
{
    let respond: Arc<Responder> = Arc::new(move |request| Box::pin(respond(request)));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        runtime().block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let respond = Arc::clone(&respond);
                serving.spawn(async move {
                    let service = service_fn(move |request| {
                        let response = respond(request);
                        async move { Ok::<_, Infallible>(response.await) }
                    });
                    let builder = Builder::new(TokioExecutor::new());
                    let _gone = builder
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
    });
    address
}

/// Keys of `[upstreams.tasks]` for an upstream of this version. A busy machine may connect slowly.
pub(crate) fn tasks(version: Version, address: SocketAddr) -> String {
    let scheme = if version == Version::HTTP_2 {
        "h2c"
    } else {
        "http"
    };
    format!("url = \"{scheme}://{address}\"\nconnect_timeout = \"20s\"")
}

/// Connection to the gate, closed when every client that shares it is dropped.
pub(crate) struct HyperClient {
    sender: Sender,
    connection: Arc<JoinSet<()>>,
}

enum Sender {
    Http1(http1::SendRequest<AnyBody>),
    Http2(http2::SendRequest<AnyBody>),
}

/// Response with its complete body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CompleteResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

impl HyperClient {
    pub(crate) async fn connect(gate: SocketAddr, version: Version) -> Self {
        let stream = TcpStream::connect(gate).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let io = TokioIo::new(stream);
        let mut connection = JoinSet::new();
        let sender = if version == Version::HTTP_2 {
            let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            connection.spawn(async { drop(driver.await) });
            Sender::Http2(sender)
        } else {
            let (sender, driver) = http1::handshake(io).await.unwrap();
            connection.spawn(async { drop(driver.await) });
            Sender::Http1(sender)
        };
        Self {
            sender,
            connection: Arc::new(connection),
        }
    }

    /// Returns another client of the same connection; `None` with HTTP/1.1.
    pub(crate) fn share_connection(&self) -> Option<Self> {
        let Sender::Http2(sender) = &self.sender else {
            return None;
        };
        Some(Self {
            sender: Sender::Http2(sender.clone()),
            connection: Arc::clone(&self.connection),
        })
    }

    /// Sends a request and returns after the response head.
    pub(crate) async fn send(
        &mut self,
        mut request: Request<AnyBody>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                let host = http::HeaderValue::from_static("gate.test");
                request.headers_mut().insert("host", host);
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                let target = request.uri().path_and_query().unwrap();
                let uri = format!("http://gate.test{target}").parse().unwrap();
                *request.uri_mut() = uri;
                sender.send_request(request).await
            }
        }
    }

    /// Sends a request and reads the complete response.
    pub(crate) async fn call(
        &mut self,
        request: Request<AnyBody>,
    ) -> Result<CompleteResponse, hyper::Error> {
        let (head, body) = self.send(request).await?.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        Ok(CompleteResponse {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
            trailers,
        })
    }
}
