//! The head of a request in the form of HTTP/2.

use http::header::{CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri, Version};

/// Who is asked if the request does not say.
const NOBODY: &str = "localhost";

const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// RFC 9113 section 8.2.2 and 8.3.1: the host is a part of the target, and nothing is about the connection.
pub(super) fn to_http2(mut head: Parts, scheme: &Scheme) -> Parts {
    let host = head.headers.remove(HOST);
    let named = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut target = std::mem::take(&mut head.uri).into_parts();
    target.scheme = Some(scheme.clone());
    target.authority = target.authority.or(named).or_else(|| NOBODY.parse().ok());
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

    fn translated(target: &str, headers: &[(&'static str, &'static str)]) -> Parts {
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
    fn the_host_becomes_a_part_of_the_target_and_the_path_stays_as_it_is() {
        for (host, target, whole) in [
            ("gate.test", "/a%41b?x=%20", "http://gate.test/a%41b?x=%20"),
            ("gate.test:8080", "/", "http://gate.test:8080/"),
            ("[::1]:8080", "/a", "http://[::1]:8080/a"),
        ] {
            let head = translated(target, &[("host", host)]);
            assert_eq!(head.uri.to_string(), whole);
            assert!(!head.headers.contains_key(HOST));
            assert_eq!(head.version, Version::HTTP_2);
        }
    }

    #[test]
    fn without_a_host_somebody_is_named() {
        assert_eq!(translated("/a", &[]).uri.to_string(), "http://localhost/a");
    }

    #[test]
    fn what_concerns_a_connection_of_http_1_is_left_out() {
        let head = translated(
            "/",
            &[
                ("connection", "upgrade"),
                ("upgrade", "websocket"),
                ("transfer-encoding", "chunked"),
                ("te", "gzip"),
                ("x-kept", "yes"),
            ],
        );
        let left: Vec<_> = head.headers.keys().map(http::HeaderName::as_str).collect();
        assert_eq!(left, ["x-kept"]);
    }

    #[test]
    fn that_trailers_are_understood_goes_on() {
        let head = translated("/", &[("te", "trailers")]);
        assert_eq!(head.headers.get(TE), Some(&TRAILERS));
    }
}
