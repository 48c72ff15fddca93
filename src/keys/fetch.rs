//! One document from an issuer: looked up anew, limited in time and size, never redirected.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, HeaderName};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::Full;

use crate::client::{self, CallError};
use crate::files::Fingerprint;

use super::KeyError;

/// What is wanted of an issuer.
const KEY_SET: HeaderValue = HeaderValue::from_static("application/jwk-set+json, application/json");

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
    /// There was no answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Not 200. A redirect is not followed.
    #[error("status: {status}")]
    Status {
        /// What it was.
        status: StatusCode,
        /// How long the issuer wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// Nothing in it can be used.
    #[error("body: {0}")]
    Keys(#[from] KeyError),
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
        let mut request = Request::new(Full::default());
        request.headers_mut().insert(ACCEPT, KEY_SET);
        if let Some(file) = &self.token_file {
            let token = std::fs::read_to_string(file).map_err(FetchError::TokenFile)?;
            let bearer = HeaderValue::try_from(format!("Bearer {}", token.trim()));
            let mut bearer = bearer
                .map_err(|_| FetchError::TokenFile(std::io::ErrorKind::InvalidData.into()))?;
            bearer.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, bearer);
        }
        let (head, body) = client::call(request, url, &self.tls).await?.into_parts();
        if head.status != StatusCode::OK {
            return Err(FetchError::Status {
                status: head.status,
                retry_after: retry_after(&head.headers),
            });
        }
        Ok(Document {
            body,
            max_age: max_age(&head.headers),
        })
    }
}

/// A date is not understood, and the back-off holds instead.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
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
