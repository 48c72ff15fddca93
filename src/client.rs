//! One request to a server that is no upstream: an issuer of keys, a collector of spans. Its name is looked up anew, what
//! it takes and what it gives is limited, and it is never redirected.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AsHeaderName, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// The largest answer, in bytes.
const MAX_BYTES: usize = 256 * 1024;

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the whole may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How the gate names itself.
const CLAIMGATE: HeaderValue =
    HeaderValue::from_static(concat!("claimgate/", env!("CARGO_PKG_VERSION")));

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The name has no address.
    #[error("DNS: {host}: {source}")]
    Lookup {
        /// The name.
        host: String,
        /// Why not.
        source: io::Error,
    },
    /// No connection.
    #[error("connect: {0}")]
    Connect(io::Error),
    /// No secure connection.
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// No answer that is HTTP.
    #[error("HTTP: {0}")]
    Http(hyper::Error),
    /// The body broke off or is too large.
    #[error("body: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// It took too long.
    #[error("it took longer than {0:?}")]
    TooSlow(Duration),
    /// The URL is not one that can be asked.
    #[error("the URL is not one that can be fetched")]
    Url,
}

/// Sends a request to the server of this URL. The body of an answer is read if the status is a success.
pub async fn call(
    mut request: Request<Full<Bytes>>,
    url: &Uri,
    tls: &Arc<ClientConfig>,
) -> Result<Response<Bytes>, CallError> {
    let authority = url.authority().ok_or(CallError::Url)?.as_str();
    let host = HeaderValue::try_from(authority).map_err(|_| CallError::Url)?;
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    headers.insert(USER_AGENT, CLAIMGATE);
    let target = url.path_and_query().cloned();
    *request.uri_mut() = target.map_or_else(|| Uri::from_static("/"), Uri::from);
    let called = timeout(TIMEOUT, connect_and_send(request, url, tls)).await;
    called.unwrap_or(Err(CallError::TooSlow(TIMEOUT)))
}

/// How long a server wants to be left alone, in seconds (RFC 9110 section 10.2.3). A date is not understood.
pub fn patience(headers: &HeaderMap) -> Option<Duration> {
    seconds(headers, RETRY_AFTER)
}

/// A number of seconds in a header.
pub fn seconds(headers: &HeaderMap, name: impl AsHeaderName) -> Option<Duration> {
    let text = headers.get(name)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

async fn connect_and_send(
    request: Request<Full<Bytes>>,
    url: &Uri,
    tls: &Arc<ClientConfig>,
) -> Result<Response<Bytes>, CallError> {
    let secure = url.scheme_str() == Some("https");
    let host = url.host().ok_or(CallError::Url)?.trim_matches(['[', ']']);
    let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let tcp = connect(host, port).await?;
    if !secure {
        return exchange(request, tcp).await;
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|_| CallError::Url)?;
    let tls = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await;
    exchange(request, tls.map_err(CallError::Tls)?).await
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, CallError> {
    let addresses = lookup_host((host, port))
        .await
        .map_err(|source| CallError::Lookup {
            host: host.to_owned(),
            source,
        })?;
    let addresses: Vec<_> = addresses.collect();
    let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(addresses.as_slice())).await;
    connected
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(CallError::Connect)
}

async fn exchange(
    request: Request<Full<Bytes>>,
    stream: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<Response<Bytes>, CallError> {
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(CallError::Http)?;
    let exchange = async {
        let response = sender.send_request(request).await;
        let (head, body) = response.map_err(CallError::Http)?.into_parts();
        let body = if head.status.is_success() {
            let body = Limited::new(body, MAX_BYTES).collect().await;
            body.map_err(CallError::Body)?.to_bytes()
        } else {
            Bytes::new()
        };
        Ok(Response::from_parts(head, body))
    };
    tokio::pin!(exchange);
    tokio::select! {
        answered = &mut exchange => answered,
        ended = connection => {
            ended.map_err(CallError::Http)?;
            exchange.await
        }
    }
}
