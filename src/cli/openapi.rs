//! `--openapi` of commands: an OpenAPI document in a file or at a URL.

use std::convert::Infallible;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use bytes::Bytes;
use http::header::{ACCEPT, LOCATION};
use http::{HeaderValue, Request, Uri};
use http_body_util::Full;
use tokio::runtime::Builder;

use crate::client;
use crate::excerpt::excerpt;
use crate::openapi::{Document, MAX_DOCUMENT_BYTES, Operation};
use crate::tls;

use super::Failure;
use super::spinner::Spinner;

/// Media types of a document.
const MEDIA_TYPES: HeaderValue =
    HeaderValue::from_static("application/json, application/yaml;q=0.9, */*;q=0.1");

/// Place of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    File(PathBuf),
    Url(String),
}

impl FromStr for Source {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let is_url = text.starts_with("http://") || text.starts_with("https://");
        Ok(if is_url {
            Self::Url(text.to_owned())
        } else {
            Self::File(PathBuf::from(text))
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.write_str(&excerpt(&path.display().to_string())),
            Self::Url(url) => f.write_str(&excerpt(url)),
        }
    }
}

impl Source {
    /// Reads the document, and its operations.
    pub(super) fn operations(&self, allow_http: bool) -> Result<Vec<Operation>, Failure> {
        let text = match self {
            Self::File(path) => read(path).map_err(|error| error.to_string()),
            Self::Url(url) => fetch(url, allow_http),
        };
        let failed = |error: String| {
            Failure::other(format_args!("read the OpenAPI document {self}: {error}"))
        };
        let text = text.map_err(failed)?;
        let operations = Document::parse(&text).and_then(|document| document.operations());
        operations.map_err(|error| failed(error.to_string()))
    }

    /// Origin of a URL on this machine: where the API is.
    pub(super) fn local_origin(&self) -> Option<String> {
        let Self::Url(url) = self else {
            return None;
        };
        let url: Uri = url.parse().ok()?;
        let authority = url.authority().filter(|_| is_this_machine(&url))?;
        Some(format!("{}://{authority}", url.scheme_str()?))
    }
}

/// Reads a file up to a byte more than the limit, so that the parser reports the limit.
fn read(path: &PathBuf) -> std::io::Result<String> {
    let limit = u64::try_from(MAX_DOCUMENT_BYTES).unwrap_or(u64::MAX);
    let mut text = String::new();
    File::open(path)?
        .take(limit.saturating_add(1))
        .read_to_string(&mut text)?;
    Ok(text)
}

fn fetch(url: &str, allow_http: bool) -> Result<String, String> {
    let url: Uri = url
        .parse()
        .map_err(|_| "it is not a valid URL".to_owned())?;
    if url
        .authority()
        .is_none_or(|authority| authority.as_str().contains('@'))
    {
        return Err("the URL must have a host, and no user name or password".to_owned());
    }
    if url.scheme_str() == Some("http") && !allow_http && !is_this_machine(&url) {
        return Err(
            "without TLS, another machine could change the document and make routes public; use \
             `https://`, or `--allow-http`"
                .to_owned(),
        );
    }
    let tls = tls::client::client_config(None).map_err(|error| error.to_string())?;
    let mut request = Request::new(Full::<Bytes>::default());
    request.headers_mut().insert(ACCEPT, MEDIA_TYPES);
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let _spinner = Spinner::start(format_args!("fetching {url}"));
    let called = runtime.block_on(client::call_up_to(MAX_DOCUMENT_BYTES, request, &url, &tls));
    let response = called.map_err(|error| error.to_string())?;
    let status = response.status();
    if let Some(location) = response.headers().get(LOCATION)
        && status.is_redirection()
    {
        let location = String::from_utf8_lossy(location.as_bytes());
        return Err(format!(
            "the response is {status} to {}; use that URL",
            excerpt(&location)
        ));
    }
    if !status.is_success() {
        return Err(format!("the response is {status}"));
    }
    String::from_utf8(response.into_body().into()).map_err(|_| "it is not UTF-8".to_owned())
}

/// True if the host of a URL is a loopback address or `localhost`.
fn is_this_machine(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let address = host.parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
