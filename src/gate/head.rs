//! Checks of a request head before its path can mean anything (RFC 9110, RFC 9112).

use std::net::Ipv6Addr;

use http::header::{CONNECTION, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Version};

use super::byte_set::ByteSet;
use super::framing::has_unambiguous_length;
use super::inbound::Inbound;
use super::managed_headers::ManagedNames;
use super::refusal::Refusal;

/// Longest accepted request target (path and query), in bytes.
pub const MAX_TARGET_BYTES: usize = 8 * 1024;

/// Most header fields of a request. Over HTTP/2, the `Cookie` fields count as one.
pub const MAX_HEADER_FIELDS: usize = 100;

/// Bytes of a host label.
static LABEL: ByteSet = ByteSet::alphanumeric_and(b"-_");

/// Checks method, sizes, `Connection`, framing and `Host`.
pub(super) fn check(
    inbound: &Inbound,
    managed: &ManagedNames,
    max_header_bytes: usize,
) -> Result<(), Refusal> {
    let head = &inbound.head;
    let allow = match head.method {
        Method::CONNECT | Method::TRACE => Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        // RFC 9110 section 9.3.7: `*` stands for the whole server, which has no options.
        Method::OPTIONS if head.uri.path() == "*" => Some("GET, HEAD, POST, PUT, PATCH, DELETE"),
        _ => None,
    };
    if let Some(allow) = allow {
        return Err(Refusal::MethodNotAllowed(HeaderValue::from_static(allow)));
    }
    if target_bytes(head) > MAX_TARGET_BYTES {
        return Err(Refusal::TargetTooLong);
    }
    if head.headers.len() > MAX_HEADER_FIELDS || head_bytes(head) > max_header_bytes {
        return Err(Refusal::HeadersTooLarge);
    }
    check_connection(&head.headers, managed)?;
    if !has_unambiguous_length(&head.headers) {
        return Err(Refusal::RequestMalformed);
    }
    check_host(head)?;
    check_scheme(inbound)
}

fn target_bytes(head: &Parts) -> usize {
    head.uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len())
}

/// Size of a head on the wire, exact to a few bytes.
fn head_bytes(head: &Parts) -> usize {
    let fields = head.headers.iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    head.method.as_str().len()
        + target_bytes(head)
        + "  HTTP/1.1\r\n\r\n".len()
        + fields.sum::<usize>()
}

/// Rejects a `Connection` field that names a header the gate writes or the request needs: RFC 9110 section 7.6.1 makes
/// a proxy remove the fields it names.
fn check_connection(headers: &HeaderMap, managed: &ManagedNames) -> Result<(), Refusal> {
    for value in headers.get_all(CONNECTION) {
        let names = value.to_str().map_err(|_| Refusal::RequestMalformed)?;
        let mut names = names.split(',').map(str::trim);
        if names.any(|name| managed.must_not_be_dropped(name)) {
            return Err(Refusal::RequestMalformed);
        }
    }
    Ok(())
}

/// Requires exactly one valid `Host`, equal to the authority of an absolute target (RFC 9112 section 3.2). HTTP/1.0 does
/// not require it.
fn check_host(head: &Parts) -> Result<(), Refusal> {
    let malformed = Refusal::RequestMalformed;
    if head.version > Version::HTTP_11 || head.version < Version::HTTP_10 {
        return Err(malformed);
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Some(host.to_str().map_err(|_| malformed.clone())?),
        (None, _) if head.version == Version::HTTP_10 => None,
        _ => return Err(malformed),
    };
    let authority = head.uri.authority().map(Authority::as_str);
    match (host, authority) {
        (Some(host), Some(named)) if !named.eq_ignore_ascii_case(host) => Err(malformed),
        (Some(host), _) | (None, Some(host)) if !is_host(host) => Err(malformed),
        _ => Ok(()),
    }
}

/// Rejects a scheme that the connection does not have (RFC 9110 section 7.4). An HTTP/2 client always states one, and could
/// state any (RFC 9113 section 8.3.1). A proxy in front may have terminated TLS.
fn check_scheme(inbound: &Inbound) -> Result<(), Refusal> {
    match inbound.head.uri.scheme_str() {
        None => Ok(()),
        Some(stated) if stated == inbound.scheme.name() => Ok(()),
        Some("http" | "https") if inbound.from_trusted_proxy => Ok(()),
        Some("http" | "https") => Err(Refusal::Misdirected),
        Some(_) => Err(Refusal::RequestMalformed),
    }
}

/// Checks a host and its optional port (RFC 3986 sections 3.2.2 and 3.2.3).
///
/// RFC 3986 allows more characters in a name, and empty labels; no host uses them, and parsers disagree about them.
pub(super) fn is_host(text: &str) -> bool {
    let (is_valid, port) = match text.strip_prefix('[') {
        Some(literal) => {
            let (address, port) = literal.split_once(']').unwrap_or_default();
            (address.parse::<Ipv6Addr>().is_ok(), port)
        }
        None => {
            let colon = text.bytes().position(|byte| byte == b':');
            let (name, port) = text.split_at(colon.unwrap_or(text.len()));
            (is_name(name.as_bytes()), port)
        }
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_port = digits.is_empty() || (is_number && digits.parse::<u16>().is_ok());
    is_valid && is_port && (port.is_empty() || port.starts_with(':'))
}

/// Labels with a dot after each; the last dot is optional.
fn is_name(text: &[u8]) -> bool {
    let mut is_in_label = false;
    let is_valid = text.iter().all(|byte| {
        let was_in_label = is_in_label;
        is_in_label = LABEL.contains(*byte);
        is_in_label || (*byte == b'.' && was_in_label)
    });
    is_valid && !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_names_and_addresses_with_a_port() {
        for host in [
            "a",
            "a.",
            "a.b",
            "a_b-c",
            "a:",
            "a:0",
            "a:65535",
            "127.0.0.1:80",
            "[::1]",
            "[::1]:80",
        ] {
            assert!(is_host(host), "{host}");
        }
        for host in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            ":80",
            ":",
            "a:65536",
            "a:+1",
            "a:b:c",
            "::1",
            "[]",
            "[zz]",
            "[::1",
            "[::1]a",
            "[::1]80",
            "[1.2.3.4]",
            "[fe80::1%eth0]",
            "a b",
            "a@b",
            "é",
        ] {
            assert!(!is_host(host), "{host}");
        }
    }
}
