//! Checks of a request head before its path can mean anything (RFC 9110, RFC 9112).

use http::header::{CONNECTION, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Version};

use super::framing::has_unambiguous_length;
use super::managed_headers::ManagedNames;
use super::refusal::Refusal;

/// Longest accepted request target (path and query), in bytes.
pub const MAX_TARGET_BYTES: usize = 8 * 1024;

/// Checks method, sizes, `Connection`, framing and `Host`.
pub(super) fn check(
    head: &Parts,
    managed: &ManagedNames,
    max_header_bytes: usize,
) -> Result<(), Refusal> {
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
    if head_bytes(head) > max_header_bytes {
        return Err(Refusal::HeadersTooLarge);
    }
    check_connection(&head.headers, managed)?;
    if !has_unambiguous_length(&head.headers) {
        return Err(Refusal::RequestMalformed);
    }
    check_host(head)
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

/// Requires exactly one valid `Host`, equal to the authority of an absolute target (RFC 9112 section 3.2).
fn check_host(head: &Parts) -> Result<(), Refusal> {
    let malformed = Refusal::RequestMalformed;
    if head.version > Version::HTTP_11 || head.version < Version::HTTP_10 {
        return Err(malformed);
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(malformed);
    };
    let host = host.to_str().map_err(|_| malformed.clone())?;
    // RFC 3986 section 3.2.2 allows more characters in a name; no host uses them, and parsers disagree about them.
    let plain = host
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b".:-_[]".contains(&byte));
    let valid = plain
        && host.parse::<Authority>().is_ok_and(|parsed| {
            let name = parsed.host();
            !name.is_empty() && has_plain_port(host, name)
        });
    if !valid {
        return Err(malformed);
    }
    // RFC 9113 section 8.3.1: an HTTP/2 client states the scheme, and could state any.
    if !matches!(head.uri.scheme_str(), None | Some("http" | "https")) {
        return Err(malformed);
    }
    match head.uri.authority() {
        None => Ok(()),
        Some(named) if named.as_str().eq_ignore_ascii_case(host) => Ok(()),
        Some(_) => Err(malformed),
    }
}

/// Checks that the host name is followed by nothing, or by a colon and digits (RFC 3986 section 3.2.3).
fn has_plain_port(host: &str, name: &str) -> bool {
    let port = host.strip_prefix(name).unwrap_or(host);
    let digits = port.strip_prefix(':').unwrap_or(port);
    let is_number =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok();
    port.is_empty() || digits.is_empty() || (port != digits && is_number)
}
