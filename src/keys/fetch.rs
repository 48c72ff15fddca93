//! One document from an issuer: looked up anew, limited in time and size, never redirected.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, HOST, HeaderName, RETRY_AFTER, USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::files::Fingerprint;

use super::KeyError;

/// The largest document, in bytes.
const MAX_BYTES: usize = 256 * 1024;

/// How long a connection to the issuer may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a whole fetch may take.
pub(super) const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// How Better Auth says what RFC 9110 section 10.2.3 calls `Retry-After`.
const X_RETRY_AFTER: HeaderName = HeaderName::from_static("x-retry-after");

/// How documents of an issuer are fetched.
#[derive(Debug, Clone)]
pub struct Fetcher {
    /// How the issuer proves who it is.
    pub tls: Arc<rustls::ClientConfig>,
    /// What that was made of: a file with authorities, if it was named, and its content.
    pub read: (Option<PathBuf>, Fingerprint),
    /// A file with a bearer token for the issuer, read for every fetch.
    pub token_file: Option<PathBuf>,
}

impl PartialEq for Fetcher {
    /// Both are made of the same.
    fn eq(&self, other: &Self) -> bool {
        self.read == other.read && self.token_file == other.token_file
    }
}

/// A document that an issuer gave.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) body: Bytes,
    /// How long the issuer says it is fresh (RFC 9111 section 5.2.2.1).
    pub(super) max_age: Option<Duration>,
}

/// Why a document could not be had, or is of no use.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The name has no address.
    #[error("DNS: {host}: {source}")]
    Lookup {
        /// The name.
        host: String,
        /// Why not.
        source: std::io::Error,
    },
    /// No connection.
    #[error("connect: {0}")]
    Connect(std::io::Error),
    /// No secure connection.
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    /// No answer that is HTTP.
    #[error("HTTP: {0}")]
    Http(hyper::Error),
    /// Not 200. A redirect is not followed.
    #[error("status: {status}")]
    Status {
        /// What it was.
        status: StatusCode,
        /// How long the issuer wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The body broke off or is too large.
    #[error("body: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// Nothing in it can be used.
    #[error("body: {0}")]
    Keys(#[from] KeyError),
    /// It took too long.
    #[error("it took longer than {0:?}")]
    TooSlow(Duration),
    /// The URL is not one that can be fetched.
    #[error("the URL is not one that can be fetched")]
    Url,
    /// The file with the token for the issuer.
    #[error("token file: {0}")]
    TokenFile(std::io::Error),
    /// What the issuer says of itself does not fit.
    #[error("discovery: {0}")]
    Discovery(String),
}

impl FetchError {
    /// How long the issuer wants to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        if let Self::Status { retry_after, .. } = self {
            return *retry_after;
        }
        None
    }
}

impl Fetcher {
    /// Fetches a document.
    pub(super) async fn get(&self, url: &Uri) -> Result<Document, FetchError> {
        let fetched = timeout(FETCH_TIMEOUT, self.connect_and_get(url)).await;
        fetched.unwrap_or(Err(FetchError::TooSlow(FETCH_TIMEOUT)))
    }

    async fn connect_and_get(&self, url: &Uri) -> Result<Document, FetchError> {
        let secure = url.scheme_str() == Some("https");
        let host = url.host().ok_or(FetchError::Url)?.trim_matches(['[', ']']);
        let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let request = self.request(url)?;
        let tcp = connect(host, port).await?;
        if !secure {
            return exchange(request, tcp).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| FetchError::Url)?;
        let tls = TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, tcp)
            .await;
        exchange(request, tls.map_err(FetchError::Tls)?).await
    }

    fn request(&self, url: &Uri) -> Result<Request<Empty<Bytes>>, FetchError> {
        let target = url.path_and_query().map_or("/", |target| target.as_str());
        let host = url.authority().map_or("", |authority| authority.as_str());
        let mut request = Request::get(target)
            .header(HOST, host)
            .header(ACCEPT, "application/jwk-set+json, application/json")
            .header(USER_AGENT, concat!("claimgate/", env!("CARGO_PKG_VERSION")));
        if let Some(file) = &self.token_file {
            let token = std::fs::read_to_string(file).map_err(FetchError::TokenFile)?;
            let bearer = HeaderValue::try_from(format!("Bearer {}", token.trim()));
            let mut bearer = bearer
                .map_err(|_| FetchError::TokenFile(std::io::ErrorKind::InvalidData.into()))?;
            bearer.set_sensitive(true);
            request = request.header(AUTHORIZATION, bearer);
        }
        request.body(Empty::new()).map_err(|_| FetchError::Url)
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, FetchError> {
    let addresses = lookup_host((host, port))
        .await
        .map_err(|source| FetchError::Lookup {
            host: host.to_owned(),
            source,
        })?;
    let addresses: Vec<_> = addresses.collect();
    let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(addresses.as_slice())).await;
    connected
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        .map_err(FetchError::Connect)
}

async fn exchange(
    request: Request<Empty<Bytes>>,
    stream: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<Document, FetchError> {
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(FetchError::Http)?;
    let exchange = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(FetchError::Http)?;
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            return Err(FetchError::Status {
                status: head.status,
                retry_after: retry_after(&head.headers),
            });
        }
        let body = Limited::new(body, MAX_BYTES).collect().await;
        Ok(Document {
            body: body.map_err(FetchError::Body)?.to_bytes(),
            max_age: max_age(&head.headers),
        })
    };
    tokio::pin!(exchange);
    tokio::select! {
        fetched = &mut exchange => fetched,
        ended = connection => {
            ended.map_err(FetchError::Http)?;
            exchange.await
        }
    }
}

/// Seconds; a date is not understood, and the back-off holds instead.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers
        .get(RETRY_AFTER)
        .or_else(|| headers.get(X_RETRY_AFTER))?;
    value
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
        .map(Duration::from_secs)
}

fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut directives = values.flat_map(|value| value.split(','));
    let seconds = directives.find_map(|directive| {
        let (name, seconds) = directive.trim().split_once('=')?;
        name.eq_ignore_ascii_case("max-age")
            .then(|| seconds.trim_matches('"').parse().ok())?
    });
    seconds.map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn freshness_is_read_from_cache_control() {
        for (value, seconds) in [
            ("max-age=60", Some(60)),
            ("public, Max-Age=3600, must-revalidate", Some(3600)),
            ("max-age=\"60\"", Some(60)),
            ("no-store", None),
            ("s-maxage=60", None),
            ("max-age=soon", None),
        ] {
            let found = max_age(&headers(&[("cache-control", value)]));
            assert_eq!(found, seconds.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn both_ways_to_ask_for_patience_are_understood() {
        let seconds = |fields| retry_after(&headers(fields)).map(|wait| wait.as_secs());
        assert_eq!(seconds(&[("retry-after", "7")]), Some(7));
        assert_eq!(seconds(&[("x-retry-after", "8")]), Some(8));
        assert_eq!(
            seconds(&[("retry-after", "Fri, 20 Nov 2026 08:00:00 GMT")]),
            None
        );
        assert_eq!(seconds(&[]), None);
    }
}
