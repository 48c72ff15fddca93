//! A request over HTTP/2 as the same request over HTTP/1.1, so that everything behind sees one form.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, response};
use hyper::ext::Protocol;

use super::headers::{CHUNKED, UPGRADE_TOKEN, WEBSOCKET};

/// RFC 6455 section 1.3.
const HANDSHAKE_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Rewrites a head that came over HTTP/2 (RFC 9113 section 8.3.1): the authority is said in `Host` too, the crumbs of a
/// cookie are one field again, a body without a length is chunked, and the extended CONNECT of a WebSocket (RFC 8441) is the upgrade that it stands for.
///
/// A `Host` that is there stays as it is: the gate refuses a head in which it differs from the authority.
pub(super) fn to_http1(head: &mut Parts, has_body: bool) {
    head.version = Version::HTTP_11;
    if !head.headers.contains_key(HOST)
        && let Some(authority) = head.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        head.headers.insert(HOST, host);
    }
    join_cookies(&mut head.headers);
    if has_body && !head.headers.contains_key(CONTENT_LENGTH) {
        head.headers.insert(TRANSFER_ENCODING, CHUNKED);
    }
    let protocol = head.extensions.remove::<Protocol>();
    if protocol.is_some_and(|protocol| protocol.as_str() == "websocket")
        && head.method == Method::CONNECT
    {
        head.method = Method::GET;
        head.headers.insert(CONNECTION, UPGRADE_TOKEN);
        head.headers.insert(UPGRADE, WEBSOCKET);
        head.headers.insert(SEC_WEBSOCKET_KEY, fresh_key());
    }
}

/// RFC 9113 section 8.2.3: a client may send every pair in a field of its own.
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    if let (Some(_), Some(_)) = (crumbs.next(), crumbs.next()) {
        let crumbs: Vec<&[u8]> = headers
            .get_all(COOKIE)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
            headers.insert(COOKIE, whole);
        }
    }
}

/// Turns the 101 of the upstream into the 200 that an extended CONNECT is answered with (RFC 8441 section 5). Tells
/// whether the upstream has understood the handshake, which the client cannot check.
pub(super) fn from_switching(answer: &mut response::Parts, key: &HeaderValue) -> bool {
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(HANDSHAKE_GUID);
    let expected = STANDARD.encode(context.finish());
    let accepted = answer.headers.remove(SEC_WEBSOCKET_ACCEPT);
    answer.headers.remove(CONNECTION);
    answer.headers.remove(UPGRADE);
    answer.status = StatusCode::OK;
    accepted.is_some_and(|accepted| accepted.as_bytes() == expected.as_bytes())
}

/// RFC 6455 section 4.1: sixteen bytes that were not used before.
fn fresh_key() -> HeaderValue {
    let mut key = [0; 16];
    fastrand::fill(&mut key);
    HeaderValue::try_from(STANDARD.encode(key)).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn converted(request: http::request::Builder) -> Parts {
        let (mut head, ()) = request
            .version(Version::HTTP_2)
            .body(())
            .unwrap()
            .into_parts();
        to_http1(&mut head, false);
        assert_eq!(head.version, Version::HTTP_11);
        head
    }

    #[test]
    fn the_authority_becomes_the_host() {
        let head = converted(Request::get("https://api.example:8443/a?b"));
        assert_eq!(head.headers[HOST], "api.example:8443");
        assert_eq!(head.uri.path_and_query().unwrap(), "/a?b");
    }

    #[test]
    fn a_host_that_came_is_left_for_the_gate_to_compare() {
        let head = converted(Request::get("https://api.example/").header(HOST, "other.example"));
        assert_eq!(head.headers.get_all(HOST).iter().count(), 1);
        assert_eq!(head.headers[HOST], "other.example");
    }

    #[test]
    fn crumbs_of_a_cookie_become_one_field() {
        let request = Request::get("https://a.example/")
            .header(COOKIE, "a=1")
            .header(COOKIE, "b=2; c=3");
        let head = converted(request);
        assert_eq!(head.headers.get_all(COOKIE).iter().count(), 1);
        assert_eq!(head.headers[COOKIE], "a=1; b=2; c=3");
    }

    #[test]
    fn a_handshake_is_accepted_by_its_key_alone() {
        // RFC 6455 section 1.3.
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        for (accept, accepted) in [("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", true), ("s3pPLMBi", false)] {
            let switching = http::Response::builder()
                .status(101)
                .header(CONNECTION, "upgrade")
                .header(UPGRADE, "websocket")
                .header(SEC_WEBSOCKET_ACCEPT, accept);
            let (mut answer, ()) = switching.body(()).unwrap().into_parts();
            assert_eq!(from_switching(&mut answer, &key), accepted);
            assert_eq!(answer.status, 200);
            assert!(answer.headers.is_empty(), "{:?}", answer.headers);
        }
    }

    #[test]
    fn only_the_extended_connect_of_a_websocket_becomes_an_upgrade() {
        let connect = || {
            Request::builder()
                .method("CONNECT")
                .uri("https://a.example/live")
        };
        let head = converted(connect().extension(Protocol::from_static("websocket")));
        assert_eq!(head.method, Method::GET);
        assert!(crate::gate::upgrade::asks_for_websocket(&head));
        let (one, other) = (fresh_key(), fresh_key());
        assert!(one.len() == 24 && one != other);

        let head = converted(connect().extension(Protocol::from_static("connect-udp")));
        assert_eq!(head.method, Method::CONNECT);
        assert_eq!(converted(connect()).method, Method::CONNECT);
        let head = converted(
            Request::get("https://a.example/").extension(Protocol::from_static("websocket")),
        );
        assert!(!head.headers.contains_key(UPGRADE));
    }
}
