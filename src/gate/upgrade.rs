//! What a head says about changing to another protocol.

use http::header::{CONNECTION, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Version};

/// Whether a request asks for a WebSocket (RFC 6455 section 4.1). No other protocol is switched to.
pub fn asks_for_websocket(head: &Parts) -> bool {
    names_websocket(&head.headers)
        && head.method == Method::GET
        && head.version == Version::HTTP_11
        && named_by_connection(&head.headers).contains(&UPGRADE)
}

/// Whether the one protocol that `Upgrade` names is WebSocket.
pub fn names_websocket(headers: &HeaderMap) -> bool {
    let mut upgrades = headers.get_all(UPGRADE).iter();
    let (Some(upgrade), None) = (upgrades.next(), upgrades.next()) else {
        return false;
    };
    upgrade.as_bytes().eq_ignore_ascii_case(b"websocket")
}

/// The names in every `Connection` field: `HeaderMap::get` would see the first alone. Without `keep-alive`, which most
/// answers name, and which concerns a connection alone whether it is named or not.
pub(crate) fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter();
    let names = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(',').map(str::trim))
        .filter(|name| !name.eq_ignore_ascii_case("keep-alive"));
    names.filter_map(|name| name.parse().ok()).collect()
}
