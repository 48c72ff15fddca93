//! HTTP/2 request heads as HTTP/1.1 heads, so that every later part sees one form.

use http::header::{CONTENT_LENGTH, COOKIE, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Version};

use crate::gate::MAX_HEADER_FIELDS;

use super::headers::CHUNKED;
use super::websocket;

/// Rewrites a head received over HTTP/2 (RFC 9113 section 8.3.1): copies the authority to `Host`, joins `Cookie` fields,
/// marks a body without a length as chunked, and turns the extended CONNECT of a WebSocket into an upgrade.
///
/// An existing `Host` stays: the gate refuses a head in which it differs from the authority.
pub(super) fn to_http1(head: &mut Parts, has_body: bool) {
    head.version = Version::HTTP_11;
    // The gate refuses such a head. A field added to a full `HeaderMap` would panic.
    if has_too_many_fields(&head.headers) {
        return;
    }
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
    websocket::from_extended_connect(head);
}

/// Returns whether a head has more fields than the gate accepts. The `Cookie` fields will be joined.
fn has_too_many_fields(headers: &HeaderMap) -> bool {
    headers.len() > MAX_HEADER_FIELDS
        && headers.len() - headers.get_all(COOKIE).iter().count() > MAX_HEADER_FIELDS
}

/// Joins `Cookie` fields, which an HTTP/2 client may split (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut fields = headers.get_all(COOKIE).iter();
    if let (Some(_), Some(_)) = (fields.next(), fields.next()) {
        let fields: Vec<&[u8]> = headers
            .get_all(COOKIE)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        if let Ok(joined) = HeaderValue::from_bytes(&fields.join(&b"; "[..])) {
            headers.insert(COOKIE, joined);
        }
    }
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
    fn writes_the_authority_as_host() {
        let head = converted(Request::get("https://api.example:8443/a?b"));
        assert_eq!(head.headers[HOST], "api.example:8443");
        assert_eq!(head.uri.path_and_query().unwrap(), "/a?b");
    }

    #[test]
    fn keeps_a_host_field_for_the_gate_to_compare() {
        let head = converted(Request::get("https://api.example/").header(HOST, "other.example"));
        assert_eq!(head.headers.get_all(HOST).iter().count(), 1);
        assert_eq!(head.headers[HOST], "other.example");
    }

    #[test]
    fn joins_split_cookie_fields() {
        let request = Request::get("https://a.example/")
            .header(COOKIE, "a=1")
            .header(COOKIE, "b=2; c=3");
        let head = converted(request);
        assert_eq!(head.headers.get_all(COOKIE).iter().count(), 1);
        assert_eq!(head.headers[COOKIE], "a=1; b=2; c=3");
    }
}
