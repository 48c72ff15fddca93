//! Redirects of plaintext requests to HTTPS.

use http::HeaderValue;
use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;

use super::request_target::RequestTarget;

/// Default port of HTTPS, which a URL omits.
const HTTPS_PORT: u16 = 443;

/// `Location` of a request over HTTPS, on the same host and another port. The head must be valid.
pub(super) fn location(head: &Parts, target: &RequestTarget, port: u16) -> Option<HeaderValue> {
    let host: Authority = head.headers.get(HOST)?.to_str().ok()?.parse().ok()?;
    let host = host.host();
    let target = target.as_str();
    let location = match port {
        HTTPS_PORT => format!("https://{host}{target}"),
        port => format!("https://{host}:{port}{target}"),
    };
    HeaderValue::try_from(location).ok()
}
