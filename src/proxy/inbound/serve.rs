//! One client connection: PROXY header, TLS handshake, HTTP/1.1 or HTTP/2.

use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::time::timeout_at;
use tracing::info;

use crate::gate::inbound::Scheme;
use crate::gate::refusal::Refusal;
use crate::observe::metrics::{ConnectionLimit, RejectedHead};
use crate::proxy::headers::Peer;
use crate::proxy::transport::{Stream, Wire};

use super::connection::Connection;
use super::limits::ConnectionLimits;
use super::proxy_protocol::{self, ProxiedSource, ProxyHeaderError};
use super::service::{ConnectionService, Server};
use super::socket::Socket;
use super::{http1, http2};

/// Accepted and registered connection.
#[derive(Debug)]
pub(super) struct AcceptedConnection {
    pub(super) wire: Wire,
    /// Peer address; none for a Unix socket.
    pub(super) address: Option<IpAddr>,
    pub(super) connection: Rc<Connection>,
}

/// Connection ready for HTTP.
struct HttpConnection {
    socket: Box<Socket>,
    peer: Rc<Peer>,
    is_http2: bool,
}

impl AcceptedConnection {
    /// Serves the connection to its end.
    pub(super) async fn serve(self, server: Rc<Server>) {
        let address = self.address;
        let connection = Rc::clone(&self.connection);
        // Boxed, as is `http2::serve`: inline, the short handshake would enlarge the future of every connection.
        let opening = Box::pin(self.open(Rc::clone(&server)));
        let serving = async {
            // Without a request head, there is no request for a shutdown to wait for.
            let Some(opened) = unless_closing(&connection, opening).await else {
                return Ok(());
            };
            let HttpConnection {
                socket,
                peer,
                is_http2,
            } = opened?;
            let service = ConnectionService {
                server: Rc::clone(&server),
                connection: Rc::clone(&connection),
                peer,
            };
            if is_http2 {
                Box::pin(http2::serve(service, socket)).await
            } else {
                http1::serve(service, socket).await
            }
            .map_err(ServeError::Http)
        };
        let (reason, cause) = match serving.await {
            Err(ServeError::Http(error)) if error.is_parse_too_large() => {
                (RejectedHead::TooLarge, Some(error.to_string()))
            }
            Err(ServeError::Http(error)) if error.is_parse() => {
                (RejectedHead::Malformed, Some(error.to_string()))
            }
            Err(ServeError::Head(reason)) => (reason, None),
            Ok(()) | Err(_) if connection.head_timed_out() => (RejectedHead::TimedOut, None),
            Err(ServeError::Tls(error)) if !is_disconnect(&error) => {
                (RejectedHead::Tls, Some(error.to_string()))
            }
            Ok(()) | Err(_) => return,
        };
        server.metrics.head_rejected(reason);
        let client = address.map(tracing::field::display);
        let listener = &connection.listener().address;
        info!(client, %listener, reason = reason.reason(), cause, "rejected a request head");
    }

    /// Reads everything that precedes HTTP. The header timeout covers it together with the first request head.
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
            let read = Box::pin(proxy_protocol::read(&mut wire));
            let source = in_time(&connection, limits, read).await?;
            peer = Peer::at(match source? {
                ProxiedSource::Proxy => address,
                ProxiedSource::Address(client) => {
                    limit_client(&server, &connection, client)?;
                    Some(client)
                }
                ProxiedSource::UnixSocket => None,
            });
            peer.is_proxied = true;
        }
        let (socket, is_http2) = match &connection.listener().tls {
            None => {
                let stream = Stream::Plain(wire);
                let mut socket = Box::new(Socket::new(stream, &connection, limits.timeouts));
                let is_http2 = socket.begins_with_http2_preface().await?;
                (socket, is_http2)
            }
            Some(tls) => {
                // Boxed: without TLS, the connection would carry its size.
                let accepting = Box::pin(tls.accept(wire));
                let accepted = in_time(&connection, limits, accepting).await?;
                let (stream, certificate) = accepted.map_err(ServeError::Tls)?;
                peer.scheme = Scheme::Https;
                peer.certificate = certificate;
                // Over TLS, HTTP/2 is negotiated with ALPN only (RFC 9113 section 3.3).
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let stream = Stream::Tls(Box::new(stream.into()));
                let socket = Box::new(Socket::new(stream, &connection, limits.timeouts));
                (socket, is_http2)
            }
        };
        Ok(HttpConnection {
            socket,
            peer: Rc::new(peer),
            is_http2,
        })
    }
}

/// Counts a connection for the client that the proxy names. Above its limit, the connection is rejected or closed.
fn limit_client(
    server: &Server,
    connection: &Connection,
    client: IpAddr,
) -> Result<(), ServeError> {
    let shared = &server.proxy.shared;
    let Some((slot, above)) = shared.enter_client(client) else {
        return Ok(());
    };
    if above > 0 {
        server
            .metrics
            .connection_rejected(ConnectionLimit::PerClient);
        connection.refuse_all(Refusal::Overloaded);
    }
    if above > shared.max_rejected() {
        return Err(ServeError::Handshake);
    }
    connection.set_client(slot);
    Ok(())
}

/// Bounds a step before HTTP by the deadline of the first request head.
async fn in_time<F: Future>(
    connection: &Connection,
    limits: ConnectionLimits,
    step: F,
) -> Result<F::Output, ServeError> {
    let Some(deadline) = connection.deadline(limits.timeouts) else {
        return Ok(step.await);
    };
    timeout_at(deadline, step).await.map_err(|_| {
        connection.note_timeout();
        ServeError::Handshake
    })
}

/// Abnormal end of a connection.
enum ServeError {
    /// Timeout or I/O error before HTTP.
    Handshake,
    /// Rejected before HTTP.
    Head(RejectedHead),
    Tls(io::Error),
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
            ProxyHeaderError::Empty | ProxyHeaderError::Io(_) => Self::Handshake,
        }
    }
}

/// Returns true if the client disconnected during the handshake, as a TCP port probe does: no handshake failure.
fn is_disconnect(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

/// Output of `opening`; none if the connection is closed first.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, F: Future>(_: impl FnOnce(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// Every open connection takes this memory, also an idle one.
    #[test]
    fn the_future_of_a_connection_stays_small() {
        let connection = size_of_future(AcceptedConnection::serve);
        let opening = size_of_future(AcceptedConnection::open);
        let http1 = size_of_future(http1::serve);
        let http2 = size_of_future(http2::serve);
        assert!(connection <= 512, "{connection} bytes");
        assert!(opening <= 1024, "{opening} bytes before HTTP");
        assert!(http1 <= 192, "{http1} bytes of an idle HTTP/1.1 connection");
        assert!(http2 <= 2048, "{http2} bytes of an HTTP/2 connection");
    }
}
