//! HTTP client for servers other than upstreams: key set endpoints, span collectors, and servers of OpenAPI documents.
//!
//! Resolves the host name for each request, limits time and response size, and follows no redirects.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, AsHeaderName, CONTENT_ENCODING, HOST, RETRY_AFTER, TRANSFER_ENCODING,
    USER_AGENT,
};
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

use crate::excerpt::excerpt;
use crate::happy_eyeballs;

/// Maximum size of a response body, in bytes, unless the caller expects more.
const MAX_BYTES: usize = 256 * 1024;

/// Timeout for opening the TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Timeout for the whole exchange.
const TIMEOUT: Duration = Duration::from_secs(5);

const PRODUCT: HeaderValue =
    HeaderValue::from_static(concat!("claimgate/", env!("CARGO_PKG_VERSION")));

/// Only accepted content coding (RFC 9110 section 12.5.3). Some servers compress for a client that names none.
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// Failure of a request.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The host name did not resolve.
    #[error("DNS: {host}: {source}")]
    Lookup {
        /// Host name.
        host: String,
        /// Cause.
        source: io::Error,
    },
    /// The TCP connection failed.
    #[error("connect: {0}")]
    Connect(io::Error),
    /// The TLS handshake failed.
    #[error("TLS: {0}")]
    Tls(io::Error),
    /// The response was not valid HTTP.
    #[error("HTTP: {0}")]
    Http(hyper::Error),
    /// The body was too large, or could not be read.
    #[error("body: {0}")]
    Body(Box<dyn Error + Send + Sync>),
    /// The connection ended before the end of the body, or without a TLS `close_notify` where only that marks the end
    /// (RFC 9112 section 9.8).
    #[error("body: truncated: the server closed the connection before the end of the body")]
    Truncated,
    /// The body has a content coding or a transfer coding that the request does not accept.
    #[error("body: encoded as `{}`, but the request accepts only `identity`", excerpt(.0))]
    Encoded(String),
    /// The exchange exceeded its timeout.
    #[error("timeout after {0:?}")]
    TooSlow(Duration),
    /// The URL has no valid host.
    #[error("the URL must have a valid host name or IP address")]
    Url,
}

/// Sends a request to this URL, with its host unless the request has a `Host`. Reads the response body only if the status is 2xx; it is empty otherwise.
pub async fn call(
    request: Request<Full<Bytes>>,
    url: &Uri,
    tls: &Arc<ClientConfig>,
) -> Result<Response<Bytes>, CallError> {
    call_up_to(MAX_BYTES, request, url, tls).await
}

/// Like [`call`], for a response body of up to `max_bytes`.
pub async fn call_up_to(
    max_bytes: usize,
    mut request: Request<Full<Bytes>>,
    url: &Uri,
    tls: &Arc<ClientConfig>,
) -> Result<Response<Bytes>, CallError> {
    let authority = url.authority().ok_or(CallError::Url)?.as_str();
    let host = HeaderValue::try_from(authority).map_err(|_| CallError::Url)?;
    let headers = request.headers_mut();
    // The host of a virtual server can differ from the name that resolves.
    headers.entry(HOST).or_insert(host);
    headers.insert(USER_AGENT, PRODUCT);
    headers.insert(ACCEPT_ENCODING, IDENTITY);
    let target = url.path_and_query().cloned();
    *request.uri_mut() = target.map_or_else(|| Uri::from_static("/"), Uri::from);
    let called = timeout(TIMEOUT, connect_and_send(max_bytes, request, url, tls)).await;
    called.unwrap_or(Err(CallError::TooSlow(TIMEOUT)))
}

/// `Retry-After` in seconds (RFC 9110 section 10.2.3). A date is ignored.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    seconds(headers, RETRY_AFTER)
}

/// Header value as a number of seconds.
pub fn seconds(headers: &HeaderMap, name: impl AsHeaderName) -> Option<Duration> {
    let text = headers.get(name)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

async fn connect_and_send(
    max_bytes: usize,
    request: Request<Full<Bytes>>,
    url: &Uri,
    tls: &Arc<ClientConfig>,
) -> Result<Response<Bytes>, CallError> {
    let secure = url.scheme_str() == Some("https");
    let host = url.host().ok_or(CallError::Url)?.trim_matches(['[', ']']);
    let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let tcp = connect(host, port).await?;
    if !secure {
        return exchange(max_bytes, request, tcp).await;
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|_| CallError::Url)?;
    let tls = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await;
    exchange(max_bytes, request, tls.map_err(CallError::Tls)?).await
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, CallError> {
    let addresses = lookup_host((host, port))
        .await
        .map_err(|source| CallError::Lookup {
            host: host.to_owned(),
            source,
        })?;
    let addresses: Vec<_> = addresses.collect();
    let connected = timeout(CONNECT_TIMEOUT, happy_eyeballs::connect(&addresses)).await;
    connected
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(CallError::Connect)
}

async fn exchange(
    max_bytes: usize,
    request: Request<Full<Bytes>>,
    stream: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<Response<Bytes>, CallError> {
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(CallError::Http)?;
    let exchange = async {
        let response = sender.send_request(request).await;
        let (head, body) = response.map_err(CallError::Http)?.into_parts();
        let body = if head.status.is_success() {
            if let Some(coding) = coding(&head.headers) {
                return Err(CallError::Encoded(coding));
            }
            let body = Limited::new(body, max_bytes).collect().await;
            body.map_err(body_error)?.to_bytes()
        } else {
            Bytes::new()
        };
        Ok(Response::from_parts(head, body))
    };
    tokio::pin!(exchange);
    tokio::select! {
        response = &mut exchange => response,
        // The end of the connection does not decide: a response that is complete by its length is valid, even if the
        // server closed without a TLS `close_notify` (RFC 9112 section 9.8). Without a response, it is the cause.
        closed = connection => match (exchange.await, closed) {
            (Err(CallError::Http(_)), Err(cause)) => Err(CallError::Http(cause)),
            (response, _) => response,
        },
    }
}

/// First coding of the body other than `identity` and `chunked`.
fn coding(headers: &HeaderMap) -> Option<String> {
    let fields = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .chain(headers.get_all(TRANSFER_ENCODING));
    let texts: Vec<_> = fields
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    let mut codings = texts
        .iter()
        .flat_map(|text| text.split(','))
        .map(|coding| coding.trim().to_ascii_lowercase());
    codings.find(|coding| !matches!(coding.as_str(), "" | "identity" | "chunked"))
}

/// Distinguishes a truncated body from the other errors.
fn body_error(error: Box<dyn Error + Send + Sync>) -> CallError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&*error);
    while let Some(error) = cause {
        let is_incomplete = error
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_incomplete_message);
        let is_cut_off = error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof);
        if is_incomplete || is_cut_off {
            return CallError::Truncated;
        }
        cause = error.source();
    }
    CallError::Body(error)
}

#[cfg(test)]
mod tests;
