//! Converts request heads to HTTP/2.

use http::header::{CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri, Version};

/// `:authority` of a request without a host.
const DEFAULT_AUTHORITY: &str = "localhost";

const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// Moves the host into the request target and removes connection-specific headers (RFC 9113 sections 8.3.1 and 8.2.2).
pub(super) fn to_http2(mut head: Parts, scheme: &Scheme) -> Parts {
    let host = head.headers.remove(HOST);
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut target = std::mem::take(&mut head.uri).into_parts();
    target.scheme = Some(scheme.clone());
    target.authority = target
        .authority
        .or(authority)
        .or_else(|| DEFAULT_AUTHORITY.parse().ok());
    head.uri = Uri::from_parts(target).unwrap_or_default();
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        head.headers.remove(name);
    }
    if head.headers.get(TE).is_some_and(|te| te != TRAILERS) {
        head.headers.remove(TE);
    }
    head.version = Version::HTTP_2;
    head
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn converted(target: &str, headers: &[(&'static str, &'static str)]) -> Parts {
        let mut request = Request::new(());
        *request.uri_mut() = target.parse().unwrap();
        for (name, value) in headers {
            request
                .headers_mut()
                .append(*name, HeaderValue::from_static(value));
        }
        to_http2(request.into_parts().0, &Scheme::HTTP)
    }

    #[test]
    fn moves_the_host_into_the_target_and_keeps_the_path() {
        for (host, target, absolute) in [
            ("gate.test", "/a%41b?x=%20", "http://gate.test/a%41b?x=%20"),
            ("gate.test:8080", "/", "http://gate.test:8080/"),
            ("[::1]:8080", "/a", "http://[::1]:8080/a"),
        ] {
            let head = converted(target, &[("host", host)]);
            assert_eq!(head.uri.to_string(), absolute);
            assert!(!head.headers.contains_key(HOST));
            assert_eq!(head.version, Version::HTTP_2);
        }
    }

    #[test]
    fn defaults_to_localhost_without_a_host() {
        assert_eq!(converted("/a", &[]).uri.to_string(), "http://localhost/a");
    }

    #[test]
    fn removes_connection_specific_headers() {
        let head = converted(
            "/",
            &[
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("transfer-encoding", "chunked"),
                ("te", "gzip"),
                ("x-kept", "yes"),
            ],
        );
        let remaining: Vec<_> = head.headers.keys().map(http::HeaderName::as_str).collect();
        assert_eq!(remaining, ["x-kept"]);
    }

    #[test]
    fn keeps_te_trailers() {
        let head = converted("/", &[("te", "trailers")]);
        assert_eq!(head.headers.get(TE), Some(&TRAILERS));
    }
}
