//! Where pages come from, and which of them may send a cookie.
//!
//! A browser sends a cookie along with whatever any page makes it send. Which page it was, only the browser can say.

use std::fmt;

use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method};

use super::refusal::Refusal;
use super::upgrade::asks_for_websocket;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A web origin as browsers write it (RFC 6454 section 6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

/// How a client has reached the gate, or the trusted proxy in front of it. The proxy puts it among the extensions of a
/// head, because no byte of the head says so; without it, it was HTTP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    #[default]
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    fn start(self) -> &'static str {
        match self {
            Self::Http => "http://",
            Self::Https => "https://",
        }
    }

    /// The port that no origin names.
    fn port(self) -> &'static str {
        match self {
            Self::Http => ":80",
            Self::Https => ":443",
        }
    }
}

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
            .any(|known| text.starts_with(known.start()) && port == known.port());
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
            .find(|known| known.start().strip_suffix("://") == Some(scheme));
        let authority = usual
            .and_then(|known| authority.strip_suffix(known.port()))
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
pub(super) fn check(head: &Parts, allowed: &[Origin]) -> Result<(), Refusal> {
    let is_safe = matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS);
    // A WebSocket begins with a GET, and no browser holds pages back from opening one elsewhere.
    if is_safe && !asks_for_websocket(head) {
        return Ok(());
    }
    let is_allowed = match only(head, &ORIGIN)? {
        Some(origin) => {
            allowed.iter().any(|allowed| origin == allowed.as_str()) || is_own(origin, head)
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
fn is_own(origin: &HeaderValue, head: &Parts) -> bool {
    let scheme = head.extensions.get::<Scheme>().copied().unwrap_or_default();
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let (Ok(origin), Some(host)) = (origin.to_str(), host) else {
        return false;
    };
    let host = host.strip_suffix(scheme.port()).unwrap_or(host);
    let named = origin.strip_prefix(scheme.start());
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
