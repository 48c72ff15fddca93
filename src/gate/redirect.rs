//! The same request over HTTPS.

use http::HeaderValue;
use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;

/// The port that a URL of HTTPS need not name.
const HTTPS: u16 = 443;

/// Where a request whose head was found good is served over HTTPS: on the same host, whatever port that had.
pub(super) fn location(head: &Parts, port: u16) -> Option<HeaderValue> {
    let host: Authority = head.headers.get(HOST)?.to_str().ok()?.parse().ok()?;
    let host = host.host();
    let target = head.uri.path_and_query()?;
    let location = match port {
        HTTPS => format!("https://{host}{target}"),
        port => format!("https://{host}:{port}{target}"),
    };
    HeaderValue::try_from(location).ok()
}
