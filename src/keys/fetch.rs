//! Fetches one document of an issuer. Each fetch resolves the host name again, is limited in time and size, and follows
//! no redirect.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, DATE, HOST, HeaderName, LOCATION};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::Full;

use crate::client::{self, CallError};
use crate::clock::UnixTime;
use crate::excerpt::excerpt;
use crate::files::Fingerprint;

use super::KeyError;

/// `Accept` header of every fetch.
const KEY_SET: HeaderValue = HeaderValue::from_static("application/jwk-set+json, application/json");

/// Header that Better Auth sends instead of `Retry-After` (RFC 9110 section 10.2.3).
const X_RETRY_AFTER: HeaderName = HeaderName::from_static("x-retry-after");

/// Settings for fetching documents of one issuer.
#[derive(Debug, Clone)]
pub struct Fetcher {
    pub tls: Arc<rustls::ClientConfig>,
    /// File with the certificate authorities that `tls` trusts; none for the authorities of the system.
    pub ca_file: Option<PathBuf>,
    /// Content of `ca_file` when `tls` was built.
    pub ca_fingerprint: Fingerprint,
    /// File with the bearer token for the issuer, read before every fetch.
    pub token_file: Option<PathBuf>,
    /// `Host` header; none for that of the URL.
    pub host: Option<HeaderValue>,
    /// Environment variable that names a proxy for the URL. The gate connects directly, and a failure names it.
    pub ignored_proxy: Option<&'static str>,
}

/// Document of an issuer.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) body: Bytes,
    /// Freshness lifetime (RFC 9111 section 5.2.2.1).
    pub(super) max_age: Option<Duration>,
    /// Time of the server (RFC 9110 section 6.6.1).
    pub(super) date: Option<UnixTime>,
}

/// Error of a fetch.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No response.
    #[error(transparent)]
    Call(#[from] CallError),
    /// No connection, although the environment names a proxy that may reach the issuer.
    #[error(
        "{source}; the gate ignores `{variable}` and connects directly: allow that, or use `jwks_file`"
    )]
    Unproxied {
        source: CallError,
        variable: &'static str,
    },
    /// Status other than 200. Redirects are not followed.
    #[error("status: {status}")]
    Status {
        status: StatusCode,
        /// Delay requested by the issuer.
        retry_after: Option<Duration>,
    },
    /// Redirect. Not followed, because another host may not be trusted.
    #[error("status: {status}: redirects are not followed; configure the URL{}", quoted(.location.as_deref()))]
    Redirect {
        status: StatusCode,
        location: Option<String>,
    },
    /// The key set that the discovery document names could not be fetched.
    #[error("key set {url}: {source}")]
    KeySet {
        url: Uri,
        #[source]
        source: Box<Self>,
    },
    /// The body has no usable key.
    #[error("body: {0}")]
    Keys(#[from] KeyError),
    /// The token file cannot be read, or its token is not a valid header value.
    #[error("token file: {0}")]
    TokenFile(std::io::Error),
    /// The discovery document is invalid.
    #[error("discovery: {0}")]
    Discovery(String),
}

impl FetchError {
    /// Delay requested by the issuer.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::KeySet { source, .. } => source.retry_after(),
            Self::Call(_)
            | Self::Unproxied { .. }
            | Self::Redirect { .. }
            | Self::Keys(_)
            | Self::TokenFile(_)
            | Self::Discovery(_) => None,
        }
    }
}

impl Fetcher {
    /// Compares the settings and the content of the CA file, from which `tls` is built. The token file is read before
    /// every fetch, so its content does not count.
    pub fn has_same_source(&self, other: &Self) -> bool {
        let Self {
            tls: _,
            ca_file,
            ca_fingerprint,
            token_file,
            host,
            ignored_proxy: _,
        } = self;
        *ca_file == other.ca_file
            && *ca_fingerprint == other.ca_fingerprint
            && *token_file == other.token_file
            && *host == other.host
    }

    pub(super) async fn get(&self, url: &Uri) -> Result<Document, FetchError> {
        let mut request = Request::new(Full::default());
        request.headers_mut().insert(ACCEPT, KEY_SET);
        if let Some(file) = &self.token_file {
            let token = std::fs::read_to_string(file).map_err(FetchError::TokenFile)?;
            let bearer = HeaderValue::try_from(format!(
                "Bearer {}",
                token.trim_start_matches('\u{feff}').trim()
            ));
            let mut bearer = bearer
                .map_err(|_| FetchError::TokenFile(std::io::ErrorKind::InvalidData.into()))?;
            bearer.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, bearer);
        }
        let (head, body) = self.call(request, url).await?.into_parts();
        if head.status != StatusCode::OK {
            return Err(FetchError::Status {
                status: head.status,
                retry_after: retry_after(&head.headers),
            });
        }
        Ok(Document {
            body,
            max_age: max_age(&head.headers),
            date: date(&head.headers),
        })
    }
}

impl Fetcher {
    /// Sends a request to the issuer. Returns a response of any status but a redirect, which is an error.
    pub(super) async fn call(
        &self,
        mut request: Request<Full<Bytes>>,
        url: &Uri,
    ) -> Result<Response<Bytes>, FetchError> {
        if let Some(host) = &self.host {
            request.headers_mut().insert(HOST, host.clone());
        }
        let response = client::call(request, url, &self.tls).await;
        let response = response.map_err(|error| self.explain(error))?;
        if response.status().is_redirection() {
            let location = response.headers().get(LOCATION);
            let location = location.and_then(|location| location.to_str().ok());
            return Err(FetchError::Redirect {
                status: response.status(),
                location: location.map(str::to_owned),
            });
        }
        Ok(response)
    }

    /// Adds the proxy to an error that it may have prevented.
    fn explain(&self, source: CallError) -> FetchError {
        match (self.ignored_proxy, source) {
            (
                Some(variable),
                source @ (CallError::Lookup { .. } | CallError::Connect(_) | CallError::TooSlow(_)),
            ) => FetchError::Unproxied { source, variable },
            (_, source) => source.into(),
        }
    }
}

/// Quoted text after a space, or nothing.
fn quoted(text: Option<&str>) -> String {
    text.map_or_else(String::new, |text| format!(" `{}`", excerpt(text)))
}

/// `Date` of the response.
fn date(headers: &HeaderMap) -> Option<UnixTime> {
    let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    let seconds = date.duration_since(UNIX_EPOCH).ok()?.as_secs();
    i64::try_from(seconds).ok().map(UnixTime)
}

/// Reads the delay in seconds. An HTTP date is ignored; the back-off applies instead.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    client::retry_after(headers).or_else(|| client::seconds(headers, X_RETRY_AFTER))
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
    fn reads_max_age_from_cache_control() {
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
    fn reads_both_retry_after_headers() {
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
