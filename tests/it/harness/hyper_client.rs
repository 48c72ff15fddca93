//! An upstream and a client that speak HTTP/1.1 or HTTP/2, as hyper does both.

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

use super::PATIENCE;

/// The versions that either side may speak.
pub(crate) const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

/// A body of any kind.
pub(crate) type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

type Answering = dyn Fn(Request<Incoming>) -> Pin<Box<dyn Future<Output = Response<AnyBody>> + Send>>
    + Send
    + Sync;

/// A text as a body.
pub(crate) fn text(text: impl Into<Bytes>) -> AnyBody {
    Full::new(text.into()).boxed_unsync()
}

/// One event loop.
pub(crate) fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// Runs what talks to the gate, for as long as it may take: some of it are thousands of requests.
pub(crate) fn run<T>(talk: impl Future<Output = T>) -> T {
    let bounded = async { tokio::time::timeout(5 * PATIENCE, talk).await };
    runtime().block_on(bounded).expect("nothing moves")
}

/// Starts a server that does this with every request, in whichever version it comes.
pub(crate) fn serve<F>(
    answer: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static,
) -> SocketAddr
where
    F: Future<Output = Response<AnyBody>> + Send + 'static,
{
    let answer: Arc<Answering> = Arc::new(move |request| Box::pin(answer(request)));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        runtime().block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let answer = Arc::clone(&answer);
                serving.spawn(async move {
                    let service = service_fn(move |request| {
                        let answered = answer(request);
                        async move { Ok::<_, Infallible>(answered.await) }
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

/// The table of an upstream that is spoken to in this version. A machine with much else to do may connect slowly.
pub(crate) fn tasks(version: Version, address: SocketAddr) -> String {
    let scheme = if version == Version::HTTP_2 {
        "h2c"
    } else {
        "http"
    };
    format!("url = \"{scheme}://{address}\"\nconnect_timeout = \"20s\"")
}

/// A connection to the gate. It ends when all that share it are dropped.
pub(crate) struct Either {
    sender: Sender,
    connection: Arc<JoinSet<()>>,
}

enum Sender {
    Http1(http1::SendRequest<AnyBody>),
    Http2(http2::SendRequest<AnyBody>),
}

/// An answer, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

impl Either {
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

    /// Another that sends over the same connection, which HTTP/1.1 cannot.
    pub(crate) fn sharing(&self) -> Option<Self> {
        let Sender::Http2(sender) = &self.sender else {
            return None;
        };
        Some(Self {
            sender: Sender::Http2(sender.clone()),
            connection: Arc::clone(&self.connection),
        })
    }

    /// Sends a request, and gives the answer as soon as its head is there.
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

    /// Sends a request and reads its answer to the end.
    pub(crate) async fn ask(&mut self, request: Request<AnyBody>) -> Result<Seen, hyper::Error> {
        let (head, body) = self.send(request).await?.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        Ok(Seen {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
            trailers,
        })
    }
}
