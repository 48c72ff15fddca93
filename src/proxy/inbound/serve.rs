//! One connection: what comes before HTTP, then HTTP/1.1 or HTTP/2, until it has ended.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::time::timeout_at;
use tracing::info;

use crate::gate::origin::Scheme;
use crate::observe::metrics::{RejectedHead, WorkerMetrics};

use super::connection::Connection;
use super::limits::ConnectionLimits;
use super::socket::Socket;
use crate::proxy::headers::Peer;
use crate::proxy::transport::{Stream, Wire};
use crate::proxy::{ClientResponse, Proxy};

use super::proxy_protocol::{self, ProxiedSource, ProxyHeaderError};

/// A connection just accepted and counted.
#[derive(Debug)]
pub(super) struct AcceptedConnection {
    pub(super) wire: Wire,
    /// The address at the other end; none for a Unix socket.
    pub(super) address: Option<IpAddr>,
    pub(super) connection: Rc<Connection>,
}

/// A connection on which HTTP can be spoken.
struct HttpConnection {
    socket: Box<Socket>,
    peer: Rc<Peer>,
    speaks_http2: bool,
}

/// What all connections of a worker are served with.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) proxy: Proxy,
    pub(super) metrics: Arc<WorkerMetrics>,
}

impl Server {
    /// What a connection that begins now is held to.
    pub(super) fn limits(&self) -> ConnectionLimits {
        self.proxy.shared.limits()
    }
}

impl AcceptedConnection {
    /// Serves the connection to its end.
    pub(super) async fn serve(self, server: Rc<Server>) {
        let address = self.address;
        let connection = Rc::clone(&self.connection);
        // In boxes what is over soon, and what few connections are: each would have to have room for it.
        let opening = Box::pin(self.open(Rc::clone(&server)));
        let serving = async {
            // Nobody has asked for anything before a head: a stop does not wait for that.
            let Some(opened) = unless_closing(&connection, opening).await else {
                return Ok(());
            };
            let HttpConnection {
                socket,
                peer,
                speaks_http2,
            } = opened?;
            let client = Client {
                server: Rc::clone(&server),
                connection: Rc::clone(&connection),
                peer,
            };
            if speaks_http2 {
                Box::pin(super::http2::serve(client, socket)).await
            } else {
                client.serve_http1(socket).await
            }
            .map_err(ServeError::Http)
        };
        let (fault, cause) = match serving.await {
            Err(ServeError::Http(error)) if error.is_parse_too_large() => {
                (RejectedHead::TooLarge, Some(error.to_string()))
            }
            Err(ServeError::Http(error)) if error.is_parse() => {
                (RejectedHead::Malformed, Some(error.to_string()))
            }
            Err(ServeError::Head(fault)) => (fault, None),
            Ok(()) | Err(_) if connection.head_was_late() => (RejectedHead::TooLate, None),
            Err(ServeError::Tls(error)) if !is_the_end(&error) => {
                (RejectedHead::Tls, Some(error.to_string()))
            }
            Ok(()) | Err(_) => return,
        };
        server.metrics.head_refused(fault);
        let client = address.map(tracing::field::display);
        let listener = &connection.listener().address;
        info!(client, %listener, reason = fault.reason(), cause, "rejected a request head");
    }

    /// What comes before HTTP. All of it and the first head have to be there in the time of a head.
    async fn open(self, server: Rc<Server>) -> Result<HttpConnection, ServeError> {
        let limits = server.limits();
        let Self {
            mut wire,
            address,
            connection,
        } = self;
        let mut peer = Peer::at(address);
        if connection.listener().proxy_protocol {
            let trusts = |peer| server.proxy.shared.policy().headers.trusts(peer);
            if address.is_some_and(|address| !trusts(address)) {
                return Err(ServeError::Head(RejectedHead::PeerNotTrusted));
            }
            let source = in_time(&connection, limits, proxy_protocol::read(&mut wire)).await?;
            peer = Peer::at(match source? {
                ProxiedSource::Proxy => address,
                ProxiedSource::Address(client) => Some(client),
                ProxiedSource::UnixSocket => None,
            });
        }
        let (socket, speaks_http2) = match &connection.listener().tls {
            None => {
                let stream = Stream::Plain(wire);
                let mut socket = Box::new(Socket::new(stream, &connection, limits.timeouts));
                let speaks_http2 = socket.speaks_http2().await?;
                (socket, speaks_http2)
            }
            Some(tls) => {
                let accepted = in_time(&connection, limits, tls.accept(wire)).await?;
                let (stream, certificate) = accepted.map_err(ServeError::Tls)?;
                peer.scheme = Scheme::Https;
                peer.certificate = certificate;
                // Over TLS, HTTP/2 is agreed on and never guessed (RFC 9113 section 3.3).
                let speaks_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let stream = Stream::Tls(Box::new(stream.into()));
                let socket = Box::new(Socket::new(stream, &connection, limits.timeouts));
                (socket, speaks_http2)
            }
        };
        Ok(HttpConnection {
            socket,
            peer: Rc::new(peer),
            speaks_http2,
        })
    }
}

/// Waits for something that comes before HTTP, as long as a head may take.
async fn in_time<F: Future>(
    connection: &Connection,
    limits: ConnectionLimits,
    waiting: F,
) -> Result<F::Output, ServeError> {
    let Some(deadline) = connection.deadline(limits.timeouts) else {
        return Ok(waiting.await);
    };
    timeout_at(deadline, waiting).await.map_err(|_| {
        connection.note_timeout();
        ServeError::Handshake
    })
}

/// Why a connection has ended otherwise than in order.
enum ServeError {
    /// Before HTTP was spoken.
    Handshake,
    /// With what came before HTTP.
    Head(RejectedHead),
    /// In the handshake of TLS.
    Tls(io::Error),
    /// In HTTP.
    Http(hyper::Error),
}

impl From<io::Error> for ServeError {
    fn from(_: io::Error) -> Self {
        Self::Handshake
    }
}

impl From<ProxyHeaderError> for ServeError {
    fn from(error: ProxyHeaderError) -> Self {
        match error {
            ProxyHeaderError::Malformed => Self::Head(RejectedHead::ProxyHeader),
            ProxyHeaderError::Nothing | ProxyHeaderError::Io(_) => Self::Handshake,
        }
    }
}

/// A client that leaves in the middle of a handshake has not failed in it: a probe of the port does so.
fn is_the_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

/// Who asks on a connection, and who answers.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) server: Rc<Server>,
    pub(super) connection: Rc<Connection>,
    pub(super) peer: Rc<Peer>,
}

impl Client {
    pub(super) fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = ClientResponse> {
        let proxy = &self.server.proxy;
        proxy.handle(request, &self.connection, &self.peer)
    }

    async fn serve_http1(self, socket: Box<Socket>) -> hyper::Result<()> {
        let connection = Rc::clone(&self.connection);
        let builder = http1_builder(self.server.limits());
        let service = service_fn(move |request| {
            let client = self.clone();
            async move { Ok::<_, Infallible>(client.answer(request).await) }
        });
        let serving = builder.serve_connection(TokioIo::new(socket), service);
        let mut serving = pin!(serving.with_upgrades());
        let mut told = false;
        poll_fn(|context| {
            loop {
                // What has arrived is read before an idle connection is closed, so that no request is lost.
                if let Poll::Ready(served) = serving.as_mut().poll(context) {
                    return Poll::Ready(served);
                }
                if told || !connection.is_closing(context) {
                    return Poll::Pending;
                }
                told = true;
                serving.as_mut().graceful_shutdown();
            }
        })
        .await
    }
}

fn http1_builder(limits: ConnectionLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // The socket keeps the deadlines.
    builder
        .writev(false)
        .header_read_timeout(None)
        .max_buf_size(limits.read_header_bytes());
    builder
}

/// What `opening` gives, unless the connection is asked to close first.
async fn unless_closing<F: Future>(
    connection: &Connection,
    mut opening: Pin<Box<F>>,
) -> Option<F::Output> {
    let poll = |context: &mut Context<'_>| match opening.as_mut().poll(context) {
        Poll::Ready(opened) => Poll::Ready(Some(opened)),
        Poll::Pending if connection.is_closing(context) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    };
    poll_fn(poll).await
}
