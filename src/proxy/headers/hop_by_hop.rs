//! Hop-by-hop headers: fields that concern one connection and are never forwarded (RFC 9110 section 7.6.1).

use http::header::{CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    // `Proxy-Authorization` and `Proxy-Authenticate` address this proxy, which uses neither.
    let text = name.as_str();
    match text.as_bytes().first() {
        Some(b'c') => *name == CONNECTION,
        Some(b'k') => *name == KEEP_ALIVE,
        Some(b'p') => {
            *name == PROXY_CONNECTION
                || text == "proxy-authorization"
                || text == "proxy-authenticate"
        }
        Some(b't') => *name == TE || *name == TRAILER || *name == TRANSFER_ENCODING,
        Some(b'u') => *name == UPGRADE,
        Some(b'h') => *name == HTTP2_SETTINGS,
        _ => false,
    }
}

/// Names in every `Connection` field; `HeaderMap::get` would return the first field alone. Without `keep-alive`, which
/// most responses name and which is hop-by-hop anyway.
pub(crate) fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter();
    let names = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(',').map(str::trim))
        .filter(|name| !name.eq_ignore_ascii_case("keep-alive"));
    names.filter_map(|name| name.parse().ok()).collect()
}
