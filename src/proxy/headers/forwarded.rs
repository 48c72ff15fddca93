//! Forwarding headers: the client address, host and scheme, for the upstream.

use std::net::IpAddr;

use http::header::{FORWARDED, GetAll};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::gate::inbound::Scheme;
use crate::gate::path::CanonicalPath;

use crate::proxy::request_head::RequestHeadWriter;

use super::peer::Peer;
use super::{elements, node};

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

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

/// Forwarding fields of a trusted proxy.
#[derive(Debug)]
pub(super) struct ForwardedFrom {
    /// `Forwarded` elements of the earlier hops.
    forwarded: Vec<u8>,
    /// Addresses of the earlier hops.
    chain: Vec<u8>,
    /// `X-Forwarded-Prefix` of the earlier hops, if it is a canonical path.
    prefix: String,
    /// True if `X-Forwarded-Proto` is one known scheme.
    has_one_scheme: bool,
    has_host: bool,
}

impl ForwardedFrom {
    pub(super) fn read(headers: &HeaderMap) -> Self {
        let mut chain = join(headers.get_all(X_FORWARDED_FOR));
        if !headers.contains_key(X_FORWARDED_FOR) {
            let mut hops: Vec<_> = forwarded_for(headers).collect();
            hops.reverse();
            for hop in hops {
                let hop = hop.map_or_else(|| "unknown".to_owned(), |hop| hop.to_string());
                push_item(&mut chain, hop.as_bytes());
            }
        }
        Self {
            forwarded: join(headers.get_all(FORWARDED)),
            chain,
            prefix: received_prefix(headers),
            has_one_scheme: has_one_scheme(headers),
            has_host: headers.contains_key(X_FORWARDED_HOST),
        }
    }

    /// Returns whether the gate writes its own form of a field of the trusted proxy.
    pub(super) fn replaces(&self, name: &HeaderName, peer: &Peer) -> bool {
        match name.as_str() {
            "forwarded" | "x-forwarded-prefix" => true,
            "x-forwarded-for" => peer.address.is_some(),
            "x-forwarded-proto" => !self.has_one_scheme,
            _ => false,
        }
    }
}

/// Writes `X-Forwarded-*` and `Forwarded` (RFC 7239), appended to those of a trusted proxy. `scheme` is the one that the
/// client used, `removed` the prefix that the gate removes from the path.
pub(super) fn write(
    head: &mut RequestHeadWriter,
    peer: &Peer,
    from: Option<&ForwardedFrom>,
    scheme: Scheme,
    host: Option<&HeaderValue>,
    removed: &str,
) {
    match from {
        Some(from) if !(from.chain.is_empty() && from.forwarded.is_empty()) => {
            if peer.address.is_some() {
                head.lines("x-forwarded-for: ");
                head.value(&from.chain);
                head.lines(separator(&from.chain));
                head.lines(peer.fields.address());
                head.lines("\r\n");
            }
            head.lines("forwarded: ");
            head.value(&from.forwarded);
            head.lines(separator(&from.forwarded));
            head.lines(peer.fields.node());
        }
        _ => head.lines(peer.fields.lines()),
    }
    if let Some(host) = host
        && host.to_str().is_ok()
    {
        head.lines(";host=\"");
        head.value(host.as_bytes());
        head.lines("\"");
    }
    head.lines(match peer.scheme {
        Scheme::Http => ";proto=http\r\n",
        Scheme::Https => ";proto=https\r\n",
    });
    if !from.is_some_and(|from| from.has_one_scheme) {
        // An upstream may read a list otherwise than the gate: it gets the scheme that the gate used.
        head.lines(match scheme {
            Scheme::Http => "x-forwarded-proto: http\r\n",
            Scheme::Https => "x-forwarded-proto: https\r\n",
        });
    }
    if let Some(host) = host
        && !from.is_some_and(|from| from.has_host)
    {
        head.field(&X_FORWARDED_HOST, host.as_bytes());
    }
    let prefix = from.map_or("", |from| &from.prefix);
    if !(prefix.is_empty() && removed.is_empty()) {
        head.lines("x-forwarded-prefix: ");
        head.lines(prefix);
        head.lines(removed);
        head.lines("\r\n");
    }
}

/// Separator after the elements of a list that continues.
fn separator(list: &[u8]) -> &'static str {
    if list.is_empty() { "" } else { ", " }
}

/// Prefix that trusted proxies removed; empty if it is not a canonical path.
fn received_prefix(headers: &HeaderMap) -> String {
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
    prefix
}

/// Returns whether `X-Forwarded-Proto` is one known scheme.
fn has_one_scheme(headers: &HeaderMap) -> bool {
    let mut fields = headers.get_all(X_FORWARDED_PROTO).iter();
    match (fields.next(), fields.next()) {
        (Some(field), None) => scheme_named(field.as_bytes()).is_some(),
        _ => false,
    }
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
