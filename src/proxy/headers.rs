//! Header rewriting in both directions: the head of the decision becomes the forwarded head.

mod address_fields;
pub mod edits;
mod elements;
mod forwarded;
pub mod hop_by_hop;
mod identity;
mod node;
pub mod path_rewrite;
mod peer;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{
    CONTENT_LENGTH, CONTENT_TYPE, FORWARDED, HOST, SEC_WEBSOCKET_PROTOCOL, SET_COOKIE, TRAILER,
    VIA, WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use tracing::warn;

use crate::config::Credential;
use crate::gate::framing::parse_length;
use crate::gate::inbound::{Inbound, Scheme};
use crate::gate::managed_headers::{ManagedNames, is_method_override};
use crate::gate::permit::{Caller, KnownCaller, Permit};
use crate::gate::refusal::GrpcProtocol;
use crate::gate::request_target::RequestTarget;
use crate::gate::token::{TokenFilter, TokenSource, TokenSources};
use crate::observe::traces::TraceFields;

use super::forwarding::Forwarding;
use super::request_head::{RequestHead, RequestLength, wire_size};
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

/// `Host` of a forwarded request from a client that sent none: HTTP/1.1 requires one.
const DEFAULT_HOST: &[u8] = b"localhost";

/// Usual size of the fields added to a forwarded head, in bytes.
const ADDED_BYTES: usize = 384;

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
        let is_trusted = peer.address.is_some_and(|address| self.trusts(address));
        Inbound {
            scheme: self.scheme(peer, &head.headers),
            from_trusted_proxy: peer.is_proxied || is_trusted,
            has_trusted_forwarding: is_trusted,
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

    /// Target of the forwarded request: the judged one with the path of the route's rewrite and without a token.
    pub fn target<'a>(
        &self,
        permit: &'a Permit,
        forwarding: &Forwarding,
    ) -> Cow<'a, RequestTarget> {
        let target = match &forwarding.path_rewrite {
            Some(rewrite) => Cow::Owned(rewrite.apply(permit.target())),
            None => Cow::Borrowed(permit.target()),
        };
        match permit.caller() {
            Caller::Known(_) if self.credential == Credential::Strip => {
                permit.route().access.tokens.strip_target(target)
            }
            Caller::Known(_) | Caller::Anonymous => target,
        }
    }

    /// Writes the forwarded head from the head of the decision: omits hop-by-hop and managed headers, and adds the gate's
    /// own. `trace` has the trace context of the upstream request.
    pub fn to_upstream(
        &self,
        inbound: &Inbound,
        permit: &Permit,
        forwarding: &Forwarding,
        peer: &Peer,
        request_id: &HeaderValue,
        trace: Option<&TraceFields>,
    ) -> RequestHead {
        let received = &inbound.head;
        let target = self.target(permit, forwarding);
        let capacity = wire_size(received) + ADDED_BYTES;
        let mut head = RequestHead::begin(&received.method, target.as_str(), capacity);
        let trusted = peer.address.is_some_and(|address| self.trusts(address));
        let from = trusted.then(|| ForwardedFrom::read(&received.headers));
        let tokens = &permit.route().access.tokens;
        let caller = match permit.caller() {
            Caller::Known(caller) => Some(&**caller),
            Caller::Anonymous => None,
        };
        let filter = match self.credential {
            Credential::Strip => {
                caller.map(|_| tokens.filter(&received.headers, inbound.opens_websocket))
            }
            Credential::Forward => None,
        };
        let fields = FieldFilter {
            policy: self,
            forwarding,
            forwarded_tokens: (self.credential == Credential::Forward).then_some(tokens),
            caller,
            from: from.as_ref(),
            peer,
            named: named_by_connection(&received.headers),
            trace,
        };
        let mut facts = FieldFacts::default();
        for (name, value) in &received.headers {
            facts.note(name, value);
            if !fields.keep(name) {
                continue;
            }
            match &filter {
                None => head.field(name, value.as_bytes()),
                Some(filter) => {
                    if let Some(value) = filter.value(name, value.as_bytes()) {
                        head.field(name, &value);
                    }
                }
            }
        }
        if let Some(rest) = filter.as_ref().and_then(TokenFilter::subprotocols) {
            head.field(&SEC_WEBSOCKET_PROTOCOL, rest);
        }
        for (name, value) in forwarding.request_headers.written() {
            let is_replaced = trace.is_some_and(|trace| trace.replace(name));
            let is_token = |filter: &TokenFilter<'_>| filter.value(name, b"").is_none();
            if !(is_replaced || filter.as_ref().is_some_and(is_token)) {
                head.field(name, value.as_bytes());
            }
        }
        if let Some(caller) = caller {
            identity::write(&mut head, caller);
        }
        let removed_prefix = forwarding.path_rewrite.as_ref();
        let removed_prefix = removed_prefix.map_or("", PrefixRewrite::from);
        let scheme = inbound.scheme;
        let (peer, from, host) = (peer, from.as_ref(), facts.host);
        forwarded::write(&mut head, peer, from, scheme, host, removed_prefix);
        if host.is_none() {
            head.field(&HOST, default_host(received));
        }
        head.lines("via: 1.1 claimgate\r\nx-request-id: ");
        head.value(request_id.as_bytes());
        head.lines("\r\n");
        if let Some(parent) = trace.and_then(TraceFields::parent) {
            head.lines("traceparent: ");
            head.lines(parent);
            head.lines("\r\n");
        }
        if inbound.opens_websocket {
            head.upgrade();
        }
        if facts.accepts_trailers && is_grpc(&received.headers) {
            head.lines("te: trailers\r\n");
        }
        head.finish(facts.length())
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

/// Decides which received fields are forwarded.
struct FieldFilter<'a> {
    policy: &'a HeaderPolicy,
    forwarding: &'a Forwarding,
    /// Token sources, if a verified token is forwarded.
    forwarded_tokens: Option<&'a TokenSources>,
    caller: Option<&'a KnownCaller>,
    /// Forwarding fields of a trusted proxy.
    from: Option<&'a ForwardedFrom>,
    peer: &'a Peer,
    /// Names in the `Connection` fields.
    named: Vec<HeaderName>,
    trace: Option<&'a TraceFields>,
}

impl FieldFilter<'_> {
    fn keep(&self, name: &HeaderName) -> bool {
        let text = name.as_str();
        // The gate writes these itself, from the judged head.
        if matches!(text, "content-length" | "expect" | "x-request-id") || is_hop_by_hop(name) {
            return false;
        }
        if self.policy.managed.covers(text) && !self.keep_managed(name) {
            return false;
        }
        let is_removed = (!self.forwarding.forward_method_override && is_method_override(text))
            || self.named.contains(name)
            || self.forwarding.request_headers.remove(name)
            || self.trace.is_some_and(|trace| trace.replace(name));
        !is_removed
    }

    /// Returns whether a managed header is forwarded: a forwarding header of a trusted proxy, or a token.
    fn keep_managed(&self, name: &HeaderName) -> bool {
        let is_identity = |caller: &KnownCaller| caller.headers.iter().any(|(own, _)| own == name);
        if self.caller.is_some_and(is_identity) {
            return false;
        }
        let is_of_proxy = self.from.is_some_and(|from| {
            self.policy.is_kept_from_trusted(name) && !from.replaces(name, self.peer)
        });
        is_of_proxy
            || self
                .forwarded_tokens
                .is_some_and(|tokens| tokens.are_in(name))
    }
}

/// Facts of a received head that decide about the gate's own fields.
#[derive(Default)]
struct FieldFacts<'a> {
    host: Option<&'a HeaderValue>,
    content_length: Option<&'a HeaderValue>,
    is_chunked: bool,
    /// RFC 9110 section 10.1.4, as gRPC servers require.
    accepts_trailers: bool,
}

impl<'a> FieldFacts<'a> {
    fn note(&mut self, name: &HeaderName, value: &'a HeaderValue) {
        match name.as_str() {
            "host" => self.host = self.host.or(Some(value)),
            "content-length" => self.content_length = Some(value),
            "transfer-encoding" => self.is_chunked = true,
            "te" => self.accepts_trailers |= accepts_trailers(value),
            _ => {}
        }
    }

    fn length(&self) -> RequestLength {
        if self.is_chunked {
            return RequestLength::Chunked;
        }
        let length = self.content_length.and_then(parse_length);
        length.map_or(RequestLength::None, RequestLength::Exact)
    }
}

/// `Host` of an HTTP/1.0 request without one: the authority of an absolute target, or [`DEFAULT_HOST`].
fn default_host(head: &Parts) -> &[u8] {
    let authority = head.uri.authority();
    authority.map_or(DEFAULT_HOST, |named| named.as_str().as_bytes())
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

/// Returns whether a `TE` field accepts trailers.
fn accepts_trailers(value: &HeaderValue) -> bool {
    let mut codings = value.to_str().unwrap_or_default().split(',');
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
