//! Header rewriting in both directions: the head of the decision becomes the forwarded head.

pub mod edits;
mod elements;
mod forwarded;
pub mod hop_by_hop;
mod identity;
mod node;
pub mod path_rewrite;
mod peer;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{
    CONTENT_LENGTH, CONTENT_TYPE, EXPECT, FORWARDED, HOST, SET_COOKIE, TE, TRAILER,
    TRANSFER_ENCODING, VIA, WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use ipnet::IpNet;
use tracing::warn;

use crate::config::Credential;
use crate::gate::framing::write_parsed_length;
use crate::gate::inbound::{Inbound, Scheme};
use crate::gate::managed_headers::{ManagedNames, is_method_override};
use crate::gate::permit::{Caller, Permit};
use crate::gate::refusal::GrpcProtocol;
use crate::gate::request_target::RequestTarget;
use crate::gate::token::TokenSource;

use super::forwarding::Forwarding;
use super::websocket;
use forwarded::{ForwardedFrom, X_FORWARDED_FOR};
use hop_by_hop::{is_hop_by_hop, named_by_connection};
use path_rewrite::PrefixRewrite;

pub use peer::Peer;

/// Request ID, shared by the logs of all hops.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Entry of this proxy in `Via` (RFC 9110 section 7.6.3).
const VIA_CLAIMGATE: HeaderValue = HeaderValue::from_static("1.1 claimgate");
pub(super) const CHUNKED: HeaderValue = HeaderValue::from_static("chunked");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// `Host` of a forwarded request from a client that sent none: HTTP/1.1 requires one.
const DEFAULT_HOST: HeaderValue = HeaderValue::from_static("localhost");

/// Approximate number of headers added to a forwarded head.
const ADDED_HEADERS: usize = 8;

/// Size limit of an accepted request ID, in bytes.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// Header rules of the configuration.
#[derive(Debug, Clone)]
pub struct HeaderPolicy {
    /// Managed headers: a client cannot set them.
    pub managed: Arc<ManagedNames>,
    /// Forwarding or removal of a verified token.
    pub credential: Credential,
    /// Networks of the trusted proxies.
    pub trusted_proxies: Vec<IpNet>,
    /// Forwarding headers that are kept from a trusted proxy, in addition to `X-Forwarded-*`.
    pub trusted_headers: Vec<HeaderName>,
    /// Set after the warning about an untrusted proxy.
    pub has_warned: Arc<AtomicBool>,
}

impl HeaderPolicy {
    /// Returns whether a peer at this address is a trusted proxy.
    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies
            .iter()
            .any(|network| network.contains(&address))
    }

    /// Client address: the peer's, or behind a trusted peer the last untrusted address in `X-Forwarded-For`, or in
    /// `Forwarded` without it. A node without an address ends the chain.
    pub fn client_address(&self, peer: &Peer, headers: &HeaderMap) -> Option<IpAddr> {
        let mut client = peer.address?;
        if !self.trusts(client) {
            return Some(client);
        }
        let mut follow = |node: Option<IpAddr>| {
            client = node?;
            self.trusts(client).then_some(())
        };
        let _end = if headers.contains_key(X_FORWARDED_FOR) {
            forwarded::x_forwarded_for(headers).try_for_each(&mut follow)
        } else {
            forwarded::forwarded_for(headers).try_for_each(&mut follow)
        };
        Some(client)
    }

    /// Warns, once per configuration, that an untrusted proxy makes its clients share one rate limit. If some proxies are
    /// trusted, the header may come from a client, so there is no warning.
    pub(super) fn warn_about_untrusted_proxy(&self, peer: &Peer, headers: &HeaderMap) {
        let Some(peer) = peer.address.filter(|_| self.trusted_proxies.is_empty()) else {
            return;
        };
        let is_forwarded = headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(FORWARDED);
        if is_forwarded && !self.has_warned.swap(true, Ordering::Relaxed) {
            warn!(
                %peer,
                "requests come through a proxy that is not in `listen.trusted_proxies`: all clients behind it share one \
                 client rate limit"
            );
        }
    }

    /// Builds the input of the gate. A trusted peer can set the client's address and scheme.
    pub fn inbound(&self, peer: &Peer, head: Parts) -> Inbound {
        Inbound {
            scheme: self.scheme(peer, &head.headers),
            from_trusted_proxy: peer.is_proxied
                || peer.address.is_some_and(|address| self.trusts(address)),
            client: self.client_address(peer, &head.headers),
            certificate: peer.certificate.clone(),
            opens_websocket: websocket::is_opened_by(&head),
            head,
        }
    }

    /// Scheme that the client used: the peer's, or behind a trusted peer the first one in `X-Forwarded-Proto`, or in
    /// `Forwarded` without it.
    fn scheme(&self, peer: &Peer, headers: &HeaderMap) -> Scheme {
        if !peer.address.is_some_and(|address| self.trusts(address)) {
            return peer.scheme;
        }
        forwarded::reported_scheme(headers).unwrap_or(peer.scheme)
    }

    /// Returns whether a forwarding header of a trusted proxy is forwarded.
    fn is_kept_from_trusted(&self, name: &HeaderName) -> bool {
        name.as_str().starts_with("x-forwarded-") || self.trusted_headers.contains(name)
    }

    /// WebSocket subprotocol in a received head that is removed together with the token. The client offered it, the
    /// upstream does not receive it.
    pub fn stripped_subprotocol(
        &self,
        permit: &Permit,
        received: &HeaderMap,
    ) -> Option<HeaderValue> {
        match (permit.source()?, self.credential) {
            (TokenSource::WebSocket(name), Credential::Strip) => name.offered_in(received).cloned(),
            _ => None,
        }
    }

    /// Turns the head of the decision into the forwarded head: removes hop-by-hop and managed headers, then writes the
    /// gate's own. Returns the target of the forwarded request, which is also the one in the head.
    pub fn to_upstream(
        &self,
        head: &mut Parts,
        permit: &Permit,
        forwarding: &Forwarding,
        peer: &Peer,
        request_id: &HeaderValue,
        opens_websocket: bool,
    ) -> RequestTarget {
        let chunked = head.headers.contains_key(TRANSFER_ENCODING);
        let accepts_trailers = accepts_trailers(&head.headers) && is_grpc(&head.headers);
        let trusted = peer.address.is_some_and(|address| self.trusts(address));
        let scheme = self.scheme(peer, &head.headers);
        let from = ForwardedFrom::read(trusted, scheme, &head.headers);
        let named = named_by_connection(&head.headers);
        let tokens = &permit.route().access.tokens;
        let forwards_tokens = self.credential == Credential::Forward;
        remove_each(&mut head.headers, |name| {
            let managed = self.managed.covers(name.as_str())
                && !(trusted && self.is_kept_from_trusted(name))
                && !(forwards_tokens && tokens.are_in(name));
            let overrides_method =
                !forwarding.forward_method_override && is_method_override(name.as_str());
            managed
                || overrides_method
                || is_hop_by_hop(name)
                || *name == EXPECT
                || named.contains(name)
        });
        head.headers.reserve(ADDED_HEADERS);
        let mut target = permit.target().clone();
        if let Some(rewrite) = &forwarding.path_rewrite {
            target = rewrite.apply(&target);
        }
        forwarding.request_headers.apply(&mut head.headers);
        if let Caller::Known(caller) = permit.caller() {
            if !forwards_tokens {
                tokens.strip(&mut head.headers, opens_websocket);
                target = tokens.strip_target(target);
            }
            identity::write(&mut head.headers, caller);
        }
        forwarded::write(&mut head.headers, peer, &from);
        if !head.headers.contains_key(HOST) {
            head.headers.insert(HOST, default_host(head));
        }
        let removed_prefix = forwarding
            .path_rewrite
            .as_ref()
            .map_or("", PrefixRewrite::from);
        forwarded::write_prefix(&mut head.headers, removed_prefix);
        head.headers.append(VIA, VIA_CLAIMGATE);
        head.headers.insert(X_REQUEST_ID, request_id.clone());
        if chunked {
            // Without it, hyper would send a GET without its body.
            head.headers.insert(TRANSFER_ENCODING, CHUNKED);
            head.headers.remove(CONTENT_LENGTH);
        } else {
            write_parsed_length(&mut head.headers);
        }
        if opens_websocket {
            websocket::write_upgrade(&mut head.headers);
        }
        if accepts_trailers {
            head.headers.insert(TE, TRAILERS);
        }
        head.version = Version::HTTP_11;
        head.uri = target.to_uri();
        target
    }

    /// Removes managed headers from trailers, and fields that trailers must not carry (RFC 9110 section 6.5.1).
    pub fn filter_trailers(&self, trailers: &mut HeaderMap) {
        remove_each(trailers, |name| {
            let is_forbidden =
                [&CONTENT_LENGTH, &HOST, &SET_COOKIE, &WWW_AUTHENTICATE].contains(&name);
            is_forbidden || is_hop_by_hop(name) || self.managed.covers(name.as_str())
        });
    }

    /// Removes hop-by-hop and identity headers from the head of an upstream response, and adds `Via`.
    pub fn to_client(&self, headers: &mut HeaderMap) {
        let named = named_by_connection(headers);
        remove_each(headers, |name| {
            let managed = self.managed.is_identity(name.as_str());
            // `Trailer` announces the trailers, which are forwarded.
            let hop_by_hop = is_hop_by_hop(name) && *name != TRAILER;
            managed || hop_by_hop || named.contains(name)
        });
        headers.append(VIA, VIA_CLAIMGATE);
    }
}

/// Removes every header with a matching name.
fn remove_each(headers: &mut HeaderMap, is_removed: impl Fn(&HeaderName) -> bool) {
    let names = headers.keys().filter(|name| is_removed(name));
    for name in names.cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
}

/// `Host` of an HTTP/1.0 request without one: the authority of an absolute target, or [`DEFAULT_HOST`].
fn default_host(head: &Parts) -> HeaderValue {
    let authority = head.uri.authority();
    let host = authority.and_then(|named| HeaderValue::from_str(named.as_str()).ok());
    host.unwrap_or(DEFAULT_HOST)
}

/// Returns whether a message is gRPC or gRPC-Web. gRPC-Web sends trailers in the body, but the status of a response
/// without a body in the same headers as gRPC.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    GrpcProtocol::of(headers).is_some()
}

/// Returns whether a message is gRPC: `application/grpc`, with or without the suffix of a message format.
pub fn is_grpc_call(headers: &HeaderMap) -> bool {
    let mut kinds = headers.get_all(CONTENT_TYPE).iter();
    match (kinds.next(), kinds.next()) {
        (Some(kind), None) => is_media_type(kind, b"application/grpc"),
        _ => false,
    }
}

/// Returns whether a `Content-Type` names this media type, with any suffix (`+json`) and parameters (RFC 9110 section
/// 8.3.1).
pub fn is_media_type(value: &HeaderValue, name: &[u8]) -> bool {
    let split = value.as_bytes().split_at_checked(name.len());
    split.is_some_and(|(start, rest)| {
        start.eq_ignore_ascii_case(name) && matches!(rest.first(), None | Some(b';' | b'+' | b' '))
    })
}

/// Returns whether the client accepts trailers (RFC 9110 section 10.1.4), as gRPC servers require.
fn accepts_trailers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(TE).iter();
    let mut codings = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    codings.any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

/// Request ID of the client if it is valid and the only one, otherwise a new one.
pub fn request_id(headers: &HeaderMap) -> HeaderValue {
    let mut ids = headers.get_all(X_REQUEST_ID).iter();
    if let (Some(id), None) = (ids.next(), ids.next())
        && is_request_id(id.as_bytes())
    {
        return id.clone();
    }
    let mut id = [0; 32];
    let mut random = u128::from(fastrand::u64(..)) << 64 | u128::from(fastrand::u64(..));
    for digit in &mut id {
        *digit = b"0123456789abcdef"
            .get((random & 15) as usize)
            .copied()
            .unwrap_or(b'0');
        random >>= 4;
    }
    HeaderValue::from_bytes(&id).unwrap_or(HeaderValue::from_static("unknown"))
}

/// Returns whether this is a valid request ID.
pub fn is_request_id(id: &[u8]) -> bool {
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    !id.is_empty() && id.len() <= MAX_REQUEST_ID_BYTES && id.iter().all(is_allowed)
}

#[cfg(test)]
mod tests;
