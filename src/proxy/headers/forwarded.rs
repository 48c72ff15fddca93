//! Forwarding headers: the client address, host and scheme, for the upstream.

use std::net::IpAddr;

use http::header::{FORWARDED, GetAll, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::gate::inbound::Scheme;

use super::peer::Peer;

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

const HTTP: HeaderValue = HeaderValue::from_static("http");
const HTTPS: HeaderValue = HeaderValue::from_static("https");

/// Forwarding fields of a trusted proxy, read before they are removed.
#[derive(Default)]
pub(super) struct ForwardedFrom {
    is_trusted: bool,
    /// `Forwarded` elements of earlier hops.
    forwarded: String,
}

impl ForwardedFrom {
    pub(super) fn read(is_trusted: bool, headers: &HeaderMap) -> Self {
        if !is_trusted {
            return Self::default();
        }
        Self {
            is_trusted,
            forwarded: join(headers.get_all(FORWARDED)),
        }
    }
}

/// Writes `X-Forwarded-*` and `Forwarded` (RFC 7239), appended to those of a trusted proxy.
pub(super) fn write(headers: &mut HeaderMap, peer: &Peer, from: &ForwardedFrom) {
    let host = headers.get(HOST).cloned();
    let host_text = host.as_ref().and_then(|host| host.to_str().ok());
    if let Ok(value) = HeaderValue::try_from(with_hop(&from.forwarded, peer, host_text)) {
        headers.insert(FORWARDED, value);
    }
    if peer.address.is_some() {
        // The chain of an untrusted peer was removed before: a remaining one comes from a trusted peer.
        let chain = join(headers.get_all(X_FORWARDED_FOR));
        let chain = [&chain, separator(&chain), &peer.written].concat();
        if let Ok(value) = HeaderValue::try_from(chain) {
            headers.insert(X_FORWARDED_FOR, value);
        }
    }
    if !(from.is_trusted && headers.contains_key(X_FORWARDED_PROTO)) {
        let scheme = match peer.scheme {
            Scheme::Http => HTTP,
            Scheme::Https => HTTPS,
        };
        headers.insert(X_FORWARDED_PROTO, scheme);
    }
    if let Some(host) = host
        && !(from.is_trusted && headers.contains_key(X_FORWARDED_HOST))
    {
        headers.insert(X_FORWARDED_HOST, host);
    }
}

/// `Forwarded` elements of the earlier hops and of this one.
fn with_hop(forwarded: &str, peer: &Peer, host: Option<&str>) -> String {
    let (before, after) = match peer.address {
        Some(IpAddr::V4(_)) => ("for=", ""),
        // RFC 7239 section 6: an IPv6 address is bracketed and quoted.
        Some(IpAddr::V6(_)) => ("for=\"[", "]\""),
        None => ("for=unknown", ""),
    };
    let [open, host, close] = host.map_or([""; 3], |host| [";host=\"", host, "\""]);
    let scheme = match peer.scheme {
        Scheme::Http => ";proto=http",
        Scheme::Https => ";proto=https",
    };
    let comma = separator(forwarded);
    let address = &peer.written;
    [
        forwarded, comma, before, address, after, open, host, close, scheme,
    ]
    .concat()
}

/// Separator between a list and its next item.
fn separator(list: &str) -> &'static str {
    if list.is_empty() { "" } else { ", " }
}

/// Joins the values of a list header (RFC 9110 section 5.3).
fn join(values: GetAll<'_, HeaderValue>) -> String {
    let mut joined = String::new();
    for value in values {
        if let Ok(text) = value.to_str() {
            if !joined.is_empty() {
                joined.push_str(", ");
            }
            joined.push_str(text);
        }
    }
    joined
}
