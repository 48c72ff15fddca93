//! Opens connections: TCP or Unix socket, plain or TLS, HTTP/1.1 or HTTP/2.

use std::io;
use std::sync::Arc;

use http::uri::Scheme;
use tokio::net::{UnixStream, lookup_host};
use tokio_rustls::TlsConnector;

use crate::happy_eyeballs;
use crate::proxy::transport::{Stream, Wire};

use super::address::{EndpointAddress, Target};
use super::http2::Http2;
use super::protocol::{HTTP2, Protocol, Tls};

/// New connection.
#[derive(Debug)]
pub(super) enum Opened {
    Http1(Stream),
    Http2(Http2),
}

/// Opens a connection. An `upgrade` gets HTTP/1.1 if TLS negotiates the version.
pub(super) async fn open(
    address: &EndpointAddress,
    protocol: &Protocol,
    upgrade: bool,
) -> io::Result<Opened> {
    let wire = connect(address).await?;
    match protocol {
        Protocol::Http1 => Ok(Opened::Http1(Stream::Plain(wire))),
        Protocol::Http2 => {
            let http2 = Http2::open(Stream::Plain(wire), Scheme::HTTP).await?;
            Ok(Opened::Http2(http2))
        }
        Protocol::Tls(tls) => handshake(wire, address, tls, upgrade).await,
    }
}

async fn connect(address: &EndpointAddress) -> io::Result<Wire> {
    let stream = match &address.target {
        Target::Unix(path) => return Ok(UnixStream::connect(path).await?.into()),
        Target::Tcp(..) if !address.addresses.is_empty() => {
            happy_eyeballs::connect(&address.addresses).await?
        }
        Target::Tcp(host, port) => {
            let addresses = lookup_host((host.as_str(), *port)).await?;
            happy_eyeballs::connect(&addresses.collect::<Vec<_>>()).await?
        }
    };
    stream.set_nodelay(true)?;
    Ok(stream.into())
}

async fn handshake(
    wire: Wire,
    address: &EndpointAddress,
    tls: &Tls,
    upgrade: bool,
) -> io::Result<Opened> {
    let name = match &tls.settings.server_name {
        Some(name) => name.clone(),
        None => address.target.server_name()?,
    };
    let config = if upgrade { &tls.http1 } else { &tls.either };
    let connector = TlsConnector::from(Arc::clone(config));
    let stream = connector.connect(name, wire).await?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
    let stream = Stream::Tls(Box::new(stream.into()));
    if is_http2 {
        Ok(Opened::Http2(Http2::open(stream, Scheme::HTTPS).await?))
    } else {
        Ok(Opened::Http1(stream))
    }
}
