//! The WebSocket handshake (RFC 6455, RFC 8441): request and response, over HTTP/1.1 and HTTP/2.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, response};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;

use super::headers::hop_by_hop::named_by_connection;

/// Suffix that is hashed with the key to accept a handshake (RFC 6455 section 1.3).
const HANDSHAKE_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE_OPTION: HeaderValue = HeaderValue::from_static("upgrade");

/// Returns whether a request opens a WebSocket (RFC 6455 section 4.1). The gate switches to no other protocol.
pub fn is_opened_by(head: &Parts) -> bool {
    is_named_by(&head.headers)
        && head.method == Method::GET
        && head.version == Version::HTTP_11
        && named_by_connection(&head.headers).contains(&UPGRADE)
}

/// Returns whether `websocket` is the one protocol in `Upgrade`.
fn is_named_by(headers: &HeaderMap) -> bool {
    let mut upgrades = headers.get_all(UPGRADE).iter();
    let (Some(upgrade), None) = (upgrades.next(), upgrades.next()) else {
        return false;
    };
    upgrade.as_bytes().eq_ignore_ascii_case(b"websocket")
}

/// Writes the fields that ask for, or confirm, the switch to WebSocket.
pub(super) fn write_upgrade(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, UPGRADE_OPTION);
    headers.insert(UPGRADE, WEBSOCKET);
}

/// Turns the extended CONNECT of an HTTP/2 WebSocket (RFC 8441) into the HTTP/1.1 handshake that it stands for.
pub(super) fn from_extended_connect(head: &mut Parts) {
    let protocol = head.extensions.remove::<Protocol>();
    if protocol.is_some_and(|protocol| protocol.as_str() == "websocket")
        && head.method == Method::CONNECT
    {
        head.method = Method::GET;
        write_upgrade(&mut head.headers);
        head.headers.insert(SEC_WEBSOCKET_KEY, fresh_key());
    }
}

/// Sixteen random bytes in base64 (RFC 6455 section 4.1).
fn fresh_key() -> HeaderValue {
    let mut key = [0; 16];
    fastrand::fill(&mut key);
    HeaderValue::try_from(STANDARD.encode(key)).unwrap_or(HeaderValue::from_static(""))
}

/// A handshake sent to the upstream, with the client's half of it.
#[derive(Debug)]
pub(super) struct Handshake {
    client: OnUpgrade,
    /// Key of a handshake that an HTTP/2 client did not make itself and cannot check.
    key: Option<HeaderValue>,
    /// Subprotocol to select if the upstream selects none.
    subprotocol: Option<HeaderValue>,
}

impl Handshake {
    /// Takes the client's half out of a head that opens a WebSocket.
    pub(super) fn begin(
        mut head: Parts,
        is_http2: bool,
        subprotocol: Option<HeaderValue>,
    ) -> Option<Self> {
        let client = head.extensions.remove::<OnUpgrade>()?;
        let key = head.headers.get(SEC_WEBSOCKET_KEY);
        Some(Self {
            client,
            key: key.filter(|_| is_http2).cloned(),
            subprotocol,
        })
    }

    /// Returns whether a 101 of the upstream switches to WebSocket and accepts this handshake.
    pub(super) fn is_accepted_by(&self, headers: &HeaderMap) -> bool {
        let accepts = |key| {
            headers
                .get(SEC_WEBSOCKET_ACCEPT)
                .is_some_and(|accepted| accepted.as_bytes() == accept_value(key).as_bytes())
        };
        is_named_by(headers) && self.key.as_ref().is_none_or(accepts)
    }

    /// Writes the client's response: 101 over HTTP/1.1, 200 over HTTP/2 (RFC 8441 section 5). Returns the client's half.
    pub(super) fn complete(self, response: &mut response::Parts) -> OnUpgrade {
        if let Some(subprotocol) = self.subprotocol {
            let selected = response.headers.entry(SEC_WEBSOCKET_PROTOCOL);
            selected.or_insert(subprotocol);
        }
        if self.key.is_some() {
            response.headers.remove(SEC_WEBSOCKET_ACCEPT);
            response.status = StatusCode::OK;
        } else {
            write_upgrade(&mut response.headers);
        }
        self.client
    }
}

/// Value of `Sec-WebSocket-Accept` for a key (RFC 6455 section 4.2.2).
fn accept_value(key: &HeaderValue) -> String {
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(HANDSHAKE_GUID);
    STANDARD.encode(context.finish())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn computes_the_accept_value_of_rfc_6455() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept_value(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn converts_only_the_extended_connect_of_a_websocket() {
        let converted = |request: http::request::Builder| {
            let (mut head, ()) = request.body(()).unwrap().into_parts();
            from_extended_connect(&mut head);
            head
        };
        let connect = || {
            Request::builder()
                .method("CONNECT")
                .uri("https://a.example/live")
        };
        let head = converted(connect().extension(Protocol::from_static("websocket")));
        assert_eq!(head.method, Method::GET);
        assert!(is_opened_by(&head));
        let (one, other) = (fresh_key(), fresh_key());
        assert!(one.len() == 24 && one != other);

        let head = converted(connect().extension(Protocol::from_static("connect-udp")));
        assert_eq!(head.method, Method::CONNECT);
        assert_eq!(converted(connect()).method, Method::CONNECT);
    }
}
