//! Listeners: their configuration and their sockets.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::HeaderValue;
use tokio::net::{TcpListener, UnixListener};

use crate::config::Address;
use crate::proxy::transport::Wire;
use crate::tls::server::ServerTls;

/// One of the places where requests come in, and what is spoken there.
#[derive(Debug)]
pub struct ListenerConfig {
    /// Where it is.
    pub address: Address,
    /// Whether each connection begins with who the client is (the PROXY protocol).
    pub proxy_protocol: bool,
    /// The port of HTTPS to which every request is sent instead of being served.
    pub redirect_to_https: Option<u16>,
    /// How what is spoken there is encrypted, if it is.
    pub tls: Option<Arc<ServerTls>>,
    /// What browsers are told in every answer: to come back with TLS alone (RFC 6797).
    pub hsts: Option<HeaderValue>,
}

/// The socket of one worker at an entry.
#[derive(Debug)]
pub enum Listener {
    /// Over TCP.
    Tcp(TcpListener),
    /// Over a Unix socket.
    Unix(UnixListener),
}

impl Listener {
    pub(super) fn poll_accept(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(Wire, Option<IpAddr>)>> {
        Poll::Ready(Ok(match self {
            Self::Tcp(listener) => {
                let (stream, address) = ready!(listener.poll_accept(context))?;
                stream.set_nodelay(true)?;
                (stream.into(), Some(address.ip().to_canonical()))
            }
            Self::Unix(listener) => {
                let (stream, _) = ready!(listener.poll_accept(context))?;
                (stream.into(), None)
            }
        }))
    }
}
