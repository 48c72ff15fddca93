//! Listeners: configuration and sockets.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::HeaderValue;
use tokio::net::{TcpListener, UnixListener};

use crate::config::Address;
use crate::proxy::transport::Wire;
use crate::tls::server::ServerTls;

/// Address and protocol of one listener.
#[derive(Debug)]
pub struct ListenerConfig {
    pub address: Address,
    /// Requires a PROXY protocol header at the start of each connection.
    pub proxy_protocol: bool,
    /// HTTPS port to which every request is redirected instead of being served.
    pub redirect_to_https: Option<u16>,
    /// TLS settings; none for plain HTTP.
    pub tls: Option<Arc<ServerTls>>,
    /// `Strict-Transport-Security` value of every response (RFC 6797).
    pub hsts: Option<HeaderValue>,
}

/// Listening socket of one worker.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
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
                (stream.into(), Some(address.ip().to_canonical()))
            }
            Self::Unix(listener) => {
                let (stream, _) = ready!(listener.poll_accept(context))?;
                (stream.into(), None)
            }
        }))
    }
}
