//! Hop-by-hop headers: fields that concern one connection and are never forwarded (RFC 9110 section 7.6.1).

use http::header::{CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName};

use crate::gate::managed_headers::alike;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Fields that state the length of a message or the host of a request, which CGI and WSGI read under one variable each.
const FRAMING: [&str; 4] = ["content-length", "transfer-encoding", "host", "connection"];

/// Returns whether a field concerns this connection alone, or looks like one that does to a server that folds names.
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    // `Proxy-Authorization` and `Proxy-Authenticate` address this proxy, which uses neither.
    let text = name.as_str();
    match text.as_bytes().first() {
        Some(b'c') => *name == CONNECTION || is_respelled(text, "content-length"),
        Some(b'k') => *name == KEEP_ALIVE,
        Some(b'p') => {
            *name == PROXY_CONNECTION
                || text == "proxy-authorization"
                || text == "proxy-authenticate"
        }
        Some(b't') => {
            *name == TE
                || *name == TRAILER
                || *name == TRANSFER_ENCODING
                || is_respelled(text, "transfer-encoding")
        }
        Some(b'u') => *name == UPGRADE,
        Some(b'h') => {
            *name == HTTP2_SETTINGS || FRAMING.iter().any(|framing| is_respelled(text, framing))
        }
        _ => false,
    }
}

/// Returns whether a name is another spelling of a framing field: `Content_Length`, `HTTP_TRANSFER_ENCODING`. An upstream
/// that reads it as the framing of the message would split the connection elsewhere (RFC 9112 section 11.2).
fn is_respelled(name: &str, framing: &str) -> bool {
    // The name itself is in almost every request, and needs no folding.
    name != framing && alike(name, framing)
}

/// Names in every `Connection` field; `HeaderMap::get` would return the first field alone. Without `keep-alive`, which
/// most responses name and which is hop-by-hop anyway, and without a lone `close`.
pub(crate) fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter();
    // The usual values, of almost every message, need no parsing.
    let values = values.filter(|value| {
        let usual = [&b"keep-alive"[..], b"close"];
        !usual
            .iter()
            .any(|usual| value.as_bytes().eq_ignore_ascii_case(usual))
    });
    let names = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(',').map(str::trim))
        .filter(|name| !name.eq_ignore_ascii_case("keep-alive"));
    names.filter_map(|name| name.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 3875 section 4.1.18: CGI, and WSGI, PHP and Rack after it, write header names with `_` for every separator.
    #[test]
    fn removes_other_spellings_of_framing_fields() {
        for name in [
            "content_length",
            "content.length",
            "content~length",
            "transfer_encoding",
            "transfer.encoding",
            "http_content_length",
            "http-content-length",
            "http_transfer_encoding",
            "http_host",
            "http_connection",
        ] {
            assert!(is_hop_by_hop(&HeaderName::from_static(name)), "{name}");
        }
        for name in [
            "content-length",
            "content-type",
            "content-lengths",
            "content_type",
            "host",
            "transfer",
            "traceparent",
            "http",
            "http-",
            "cookie",
        ] {
            assert!(!is_hop_by_hop(&HeaderName::from_static(name)), "{name}");
        }
    }
}
