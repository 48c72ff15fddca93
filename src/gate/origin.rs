//! Where pages come from, and which of them may send a cookie.
//!
//! A browser sends a cookie along with whatever any page makes it send. Which page it was, only the browser can say.

use std::fmt;

use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method};

use super::inbound::{Inbound, Scheme};
use super::refusal::Refusal;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A web origin as browsers write it (RFC 6454 section 6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// Takes what a browser could send: scheme and host in lower case, and a port unless it is the scheme's own.
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

    /// The origin that a person most likely meant: without what follows the host, and in lower case.
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

    /// As browsers send it.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a request that is who it is by a cookie may do what it is about to.
pub(super) fn check(inbound: &Inbound, allowed: &[Origin]) -> Result<(), Refusal> {
    let head = &inbound.head;
    let is_safe = matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS);
    // A WebSocket begins with a GET, and no browser holds pages back from opening one elsewhere.
    if is_safe && !inbound.opens_websocket {
        return Ok(());
    }
    let is_allowed = match only(head, &ORIGIN)? {
        Some(origin) => {
            allowed.iter().any(|allowed| origin == allowed.as_str()) || is_own(origin, inbound)
        }
        None => only(head, &SEC_FETCH_SITE)?.is_some_and(|site| site == "same-origin"),
    };
    if is_allowed {
        Ok(())
    } else {
        Err(Refusal::OriginNotAllowed)
    }
}

/// Whether the page is of the scheme and the host that the request itself is for.
fn is_own(origin: &HeaderValue, inbound: &Inbound) -> bool {
    let scheme = inbound.scheme;
    let host = inbound
        .head
        .headers
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    let (Ok(origin), Some(host)) = (origin.to_str(), host) else {
        return false;
    };
    let host = host.strip_suffix(scheme.default_port()).unwrap_or(host);
    let named = origin.strip_prefix(scheme.url_prefix());
    named.is_some_and(|named| named.eq_ignore_ascii_case(host))
}

/// The one field of this name, if there is any.
fn only<'a>(head: &'a Parts, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Refusal> {
    let mut values = head.headers.get_all(name).iter();
    let value = values.next();
    match values.next() {
        Some(_) => Err(Refusal::OriginNotAllowed),
        None => Ok(value),
    }
}

#[cfg(test)]
mod tests;
