//! Web origins, and the check that an allowed page sent a cookie (CSRF).
//!
//! A browser attaches cookies to the requests of every page. Only the headers that the browser adds identify the page.

use std::fmt;

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method};

use super::inbound::{Inbound, Scheme};
use super::refusal::Refusal;
use super::single_value::{Repeated, single_value};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Web origin, serialized as browsers do (RFC 6454 section 6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// Parses an origin in the form that browsers send: scheme and host in lowercase, and the port unless it is the
    /// default.
    pub fn new(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let mut letters = scheme.bytes();
        let is_scheme = letters.next().is_some_and(|byte| byte.is_ascii_lowercase())
            && letters.all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte)
            });
        let plain = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:[]".contains(&byte)
        };
        if !is_scheme || !authority.bytes().all(plain) {
            return None;
        }
        let parsed: Authority = authority.parse().ok()?;
        let port = authority.strip_prefix(parsed.host())?;
        let is_port = |port: &str| {
            let number = port
                .strip_prefix(':')
                .and_then(|port| port.parse::<u16>().ok());
            number.is_some_and(|number| port == format!(":{number}"))
        };
        let is_default = [Scheme::Http, Scheme::Https]
            .iter()
            .any(|known| text.starts_with(known.url_prefix()) && port == known.default_port());
        let valid = !parsed.host().is_empty() && (port.is_empty() || is_port(port)) && !is_default;
        valid.then(|| Self(text.to_owned()))
    }

    /// Closest origin to an invalid text, as a suggestion: lowercase, without path, query and default port.
    pub fn nearest(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let (scheme, rest) = text.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let usual = [Scheme::Http, Scheme::Https];
        let usual = usual
            .iter()
            .find(|known| known.url_prefix().strip_suffix("://") == Some(scheme));
        let authority = usual
            .and_then(|known| authority.strip_suffix(known.default_port()))
            .unwrap_or(authority);
        Self::new(&format!("{scheme}://{authority}"))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks the page of a request that a cookie authenticates. Safe methods need no check.
pub(super) fn check(inbound: &Inbound, allowed: &[Origin]) -> Result<(), Refusal> {
    let head = &inbound.head;
    let is_safe = matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS);
    // A WebSocket handshake is a GET, and browsers let every page open a WebSocket to any host.
    if is_safe && !inbound.opens_websocket {
        return Ok(());
    }
    let only =
        |name| single_value(&head.headers, name).map_err(|Repeated| Refusal::OriginNotAllowed);
    let (origin, site) = (only(&ORIGIN)?, only(&SEC_FETCH_SITE)?);
    let is_listed = origin.is_some_and(|origin| allowed.iter().any(|one| origin == one.as_str()));
    // Only the browser can write this field (Fetch Metadata section 2.3), and it compares whole origins.
    let says_same_origin = site.map(|site| site == "same-origin");
    let is_own = match origin {
        // A page hides its origin with `Referrer-Policy: no-referrer` (Fetch section 3.2): the browser still knows it.
        None => says_same_origin == Some(true),
        Some(origin) if origin == "null" => says_same_origin == Some(true),
        Some(origin) => says_same_origin.unwrap_or(true) && is_same_origin(origin, inbound),
    };
    if is_listed || is_own {
        Ok(())
    } else {
        Err(Refusal::OriginNotAllowed)
    }
}

/// Returns whether the page has the host of the request, and its scheme or a secure one: a proxy in front of the gate may
/// terminate TLS. A page without TLS never acts for one with it.
fn is_same_origin(origin: &HeaderValue, inbound: &Inbound) -> bool {
    let host = inbound
        .head
        .headers
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    let (Ok(origin), Some(host)) = (origin.to_str(), host) else {
        return false;
    };
    let has_scheme = |scheme: Scheme| {
        let host = host.strip_suffix(scheme.default_port()).unwrap_or(host);
        let origin_host = origin.strip_prefix(scheme.url_prefix());
        origin_host.is_some_and(|origin_host| origin_host.eq_ignore_ascii_case(host))
    };
    has_scheme(inbound.scheme) || has_scheme(Scheme::Https)
}

#[cfg(test)]
mod tests;
