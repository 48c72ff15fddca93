//! Forwarding headers: the client address, host and scheme, for the upstream.

use std::net::IpAddr;

use http::header::{FORWARDED, GetAll, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::gate::inbound::Scheme;
use crate::gate::path::CanonicalPath;

use super::peer::Peer;
use super::{elements, node};

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

const HTTP: HeaderValue = HeaderValue::from_static("http");
const HTTPS: HeaderValue = HeaderValue::from_static("https");

/// Nodes of `X-Forwarded-For`, the last one first; `None` for a node without an address.
pub(super) fn x_forwarded_for(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    let fields = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let nodes = fields.flat_map(|field| field.as_bytes().rsplit(|byte| *byte == b','));
    // RFC 9110 section 5.6.1: empty elements of a list are ignored.
    let nodes = nodes.filter(|node| !node.trim_ascii().is_empty());
    nodes.map(node::address)
}

/// Nodes of the `for` parameters of `Forwarded`, the last one first; `None` for an element without an address.
pub(super) fn forwarded_for(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    let fields = headers.get_all(FORWARDED).iter().rev();
    let elements = fields.flat_map(|field| elements::of(field.as_bytes()));
    elements.map(|element| node::address(&elements::parameter(element, "for")?))
}

/// Scheme of the first hop, in `X-Forwarded-Proto`, or in `Forwarded` without it.
pub(super) fn reported_scheme(headers: &HeaderMap) -> Option<Scheme> {
    if let Some(field) = headers.get(X_FORWARDED_PROTO) {
        let mut values = field.as_bytes().split(|byte| *byte == b',');
        return scheme_named(values.find(|value| !value.trim_ascii().is_empty())?);
    }
    let fields = headers.get_all(FORWARDED).iter();
    let mut first = fields.filter_map(|field| {
        let schemes = elements::of(field.as_bytes());
        let schemes = schemes.filter_map(|element| elements::parameter(element, "proto"));
        // The elements come in reverse.
        schemes.last()
    });
    scheme_named(&first.next()?)
}

/// Scheme with this name. Some proxies name those of a WebSocket.
fn scheme_named(name: &[u8]) -> Option<Scheme> {
    let is = |scheme: &str| name.trim_ascii().eq_ignore_ascii_case(scheme.as_bytes());
    if is("https") || is("wss") {
        Some(Scheme::Https)
    } else if is("http") || is("ws") {
        Some(Scheme::Http)
    } else {
        None
    }
}

/// Forwarding fields of a trusted proxy, read before they are removed.
#[derive(Default)]
pub(super) struct ForwardedFrom {
    is_trusted: bool,
    /// Scheme that the client used.
    scheme: Scheme,
    /// `Forwarded` elements of earlier hops.
    forwarded: Vec<u8>,
    /// Addresses of the earlier hops, if only `Forwarded` has them.
    chain: Vec<u8>,
}

impl ForwardedFrom {
    pub(super) fn read(is_trusted: bool, scheme: Scheme, headers: &HeaderMap) -> Self {
        if !is_trusted {
            return Self {
                scheme,
                ..Self::default()
            };
        }
        let mut chain = Vec::new();
        if !headers.contains_key(X_FORWARDED_FOR) {
            let mut hops: Vec<_> = forwarded_for(headers).collect();
            hops.reverse();
            for hop in hops {
                let hop = hop.map_or_else(|| "unknown".to_owned(), |hop| hop.to_string());
                push_item(&mut chain, hop.as_bytes());
            }
        }
        Self {
            is_trusted,
            scheme,
            forwarded: join(headers.get_all(FORWARDED)),
            chain,
        }
    }
}

/// Writes `X-Forwarded-*` and `Forwarded` (RFC 7239), appended to those of a trusted proxy.
pub(super) fn write(headers: &mut HeaderMap, peer: &Peer, from: &ForwardedFrom) {
    let host = headers.get(HOST).cloned();
    let host_text = host.as_ref().and_then(|host| host.to_str().ok());
    let mut forwarded = from.forwarded.clone();
    push_item(&mut forwarded, hop(peer, host_text).as_bytes());
    if let Ok(value) = HeaderValue::try_from(forwarded) {
        headers.insert(FORWARDED, value);
    }
    if peer.address.is_some() {
        // The chain of an untrusted peer was removed before: a remaining one comes from a trusted peer.
        let mut chain = join(headers.get_all(X_FORWARDED_FOR));
        push_item(&mut chain, &from.chain);
        push_item(&mut chain, peer.written.as_bytes());
        if let Ok(value) = HeaderValue::try_from(chain) {
            headers.insert(X_FORWARDED_FOR, value);
        }
    }
    if !(from.is_trusted && has_one_scheme(headers)) {
        // An upstream may read a list otherwise than the gate: it gets the scheme that the gate used.
        let scheme = match from.scheme {
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

/// Writes `X-Forwarded-Prefix`: the prefix that trusted proxies removed, followed by the one that the gate removes. The
/// field of an untrusted peer was removed before.
pub(super) fn write_prefix(headers: &mut HeaderMap, removed: &str) {
    if removed.is_empty() && !headers.contains_key(X_FORWARDED_PREFIX) {
        return;
    }
    let mut prefix = String::new();
    for field in headers.get_all(X_FORWARDED_PREFIX) {
        for part in field.as_bytes().split(|byte| *byte == b',') {
            let part = str::from_utf8(part).unwrap_or("?").trim_ascii();
            prefix.push_str(part.trim_end_matches('/'));
        }
    }
    if CanonicalPath::parse(&prefix).is_err() {
        // Proxies often pass the field of a client: `//evil.example` would become the host of a link.
        prefix.clear();
    }
    prefix.push_str(removed);
    match HeaderValue::try_from(prefix) {
        Ok(prefix) if !prefix.is_empty() => headers.insert(X_FORWARDED_PREFIX, prefix),
        Ok(_) | Err(_) => headers.remove(X_FORWARDED_PREFIX),
    };
}

/// Returns whether `X-Forwarded-Proto` is one known scheme.
fn has_one_scheme(headers: &HeaderMap) -> bool {
    let mut fields = headers.get_all(X_FORWARDED_PROTO).iter();
    match (fields.next(), fields.next()) {
        (Some(field), None) => scheme_named(field.as_bytes()).is_some(),
        _ => false,
    }
}

/// `Forwarded` element of this hop.
fn hop(peer: &Peer, host: Option<&str>) -> String {
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
    [before, &peer.written, after, open, host, close, scheme].concat()
}

/// Appends an item to a list.
fn push_item(list: &mut Vec<u8>, item: &[u8]) {
    if !list.is_empty() && !item.is_empty() {
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(item);
}

/// Joins the values of a list header (RFC 9110 section 5.3).
fn join(values: GetAll<'_, HeaderValue>) -> Vec<u8> {
    let mut joined = Vec::new();
    for value in values {
        push_item(&mut joined, value.as_bytes());
    }
    joined
}
