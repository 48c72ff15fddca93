//! All header work, in both directions.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::GetAll;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, FORWARDED, HOST, SET_COOKIE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, VIA, WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use ipnet::IpNet;
use tracing::warn;

use crate::config::Credential;
use crate::gate::certificate::ClientCertificate;
use crate::gate::managed_headers::ManagedNames;
use crate::gate::origin::Scheme;
use crate::gate::permit::{Caller, Permit};
use crate::gate::routes::Route;
use crate::gate::token::TokenSource;
use crate::gate::upgrade::named_by_connection;
pub use crate::gate::upgrade::{asks_for_websocket, names_websocket};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The name of a request in every log it passes.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How this proxy names itself in `Via` (RFC 9110 section 7.6.3).
const VIA_CLAIMGATE: HeaderValue = HeaderValue::from_static("1.1 claimgate");
pub(super) const CHUNKED: HeaderValue = HeaderValue::from_static("chunked");
pub(super) const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
pub(super) const UPGRADE_TOKEN: HeaderValue = HeaderValue::from_static("upgrade");
const HTTP: HeaderValue = HeaderValue::from_static("http");
const HTTPS: HeaderValue = HeaderValue::from_static("https");

/// About how many headers are written.
const WRITTEN: usize = 8;

/// The longest request id that is passed on, in bytes.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// What header work needs to know of the configuration.
#[derive(Debug, Clone)]
pub struct HeaderPolicy {
    /// The names that only the gate may write.
    pub managed: Arc<ManagedNames>,
    /// Whether the upstream sees a token that the gate has verified.
    pub credential: Credential,
    /// The peers whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether it was said that a proxy stands in front which is not among them.
    pub has_warned: Arc<AtomicBool>,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    address: Option<IpAddr>,
    /// The address as text: every request tells it to the upstream.
    written: String,
    /// Whether the connection is encrypted.
    pub scheme: Scheme,
    /// The certificate it has proven to have.
    pub certificate: Option<Arc<ClientCertificate>>,
}

impl Peer {
    /// Somebody at this address, without encryption; none is a Unix socket.
    pub fn at(address: Option<IpAddr>) -> Self {
        Self {
            address,
            written: address.map_or_else(String::new, |address| address.to_string()),
            ..Self::default()
        }
    }
}

impl HeaderPolicy {
    /// Whether what a peer at this address says about others is believed.
    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted_proxies
            .iter()
            .any(|network| network.contains(&address))
    }

    /// The address of the client: the peer's, or if the peer is trusted the last in `X-Forwarded-For` that is not.
    pub fn client_address(&self, peer: &Peer, headers: &HeaderMap) -> Option<IpAddr> {
        let peer = peer.address?;
        if !self.trusts(peer) {
            return Some(peer);
        }
        let mut client = peer;
        for value in headers.get_all(X_FORWARDED_FOR).iter().rev() {
            for entry in value.to_str().unwrap_or_default().rsplit(',') {
                let Ok(address) = entry.trim().parse() else {
                    return Some(client);
                };
                client = address;
                if !self.trusts(address) {
                    return Some(client);
                }
            }
        }
        Some(client)
    }

    /// Says, once for each configuration, that clients were counted as one because nobody believes the proxy before them.
    /// Where some proxies are trusted, a client may have written such a header itself.
    pub(super) fn note_hidden_clients(&self, peer: &Peer, headers: &HeaderMap) {
        let Some(peer) = peer.address.filter(|_| self.trusted_proxies.is_empty()) else {
            return;
        };
        let is_forwarded = headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(FORWARDED);
        if is_forwarded && !self.has_warned.swap(true, Ordering::Relaxed) {
            warn!(
                %peer,
                "requests come through a proxy that is not in `listen.trusted_proxies`: for a limit by client address, \
                 all clients behind it are one"
            );
        }
    }

    /// Notes for the gate what no byte of the head says: how the client has come here, or to the trusted peer that
    /// says so, and the certificate of the peer.
    pub fn note_peer(&self, peer: &Peer, head: &mut Parts) {
        if let Some(certificate) = &peer.certificate {
            head.extensions.insert(Arc::clone(certificate));
        }
        if peer.scheme == Scheme::Https {
            head.extensions.insert(Scheme::Https);
        }
        if !peer.address.is_some_and(|address| self.trusts(address)) {
            return;
        }
        let mut told = head.headers.get_all(X_FORWARDED_PROTO).iter();
        if let (Some(told), None) = (told.next(), told.next())
            && told.as_bytes().eq_ignore_ascii_case(b"https")
        {
            head.extensions.insert(Scheme::Https);
        }
    }

    /// The subprotocol that stood before the token, and that the upstream has not seen.
    pub fn kept_subprotocol(&self, permit: &Permit) -> Option<HeaderValue> {
        match (permit.source()?, self.credential) {
            (TokenSource::WebSocket(name), Credential::Strip) => Some(name.as_answer().clone()),
            _ => None,
        }
    }

    /// Turns the head that was judged into the head that is sent: removes what concerns this connection alone and
    /// what only the gate may write, then writes it.
    pub fn to_upstream(
        &self,
        head: &mut Parts,
        caller: &Caller,
        route: &Route,
        peer: &Peer,
        request_id: &HeaderValue,
        websocket: bool,
    ) {
        let chunked = head.headers.contains_key(TRANSFER_ENCODING);
        let takes_trailers = takes_trailers(&head.headers) && is_grpc(&head.headers);
        let trusted = peer.address.is_some_and(|address| self.trusts(address));
        let told = ForwardedFrom::by(trusted, &head.headers);
        let named = named_by_connection(&head.headers);
        remove_each(&mut head.headers, |name| {
            let is_kept_from_trusted = trusted && name.as_str().starts_with("x-forwarded-");
            let managed = self.managed.covers(name.as_str()) && !is_kept_from_trusted;
            managed || is_hop_by_hop(name) || *name == EXPECT || named.contains(name)
        });
        head.headers.reserve(WRITTEN);
        reduce_to_origin_form(head);
        if let Some(prefix) = &route.prefix {
            prefix.apply(&mut head.uri);
        }
        route.request_headers.apply(&mut head.headers);
        if let Caller::Known(caller) = caller {
            if self.credential == Credential::Strip {
                route.tokens.strip(head, websocket);
            }
            for (name, value) in caller.headers.iter() {
                head.headers.insert(name, value.clone());
            }
        }
        write_forwarding(&mut head.headers, peer, &told);
        head.headers.append(VIA, VIA_CLAIMGATE);
        head.headers.insert(X_REQUEST_ID, request_id.clone());
        if chunked {
            // Without it, a GET would lose its body on the way.
            head.headers.insert(TRANSFER_ENCODING, CHUNKED);
            head.headers.remove(CONTENT_LENGTH);
        }
        if websocket {
            head.headers.insert(CONNECTION, UPGRADE_TOKEN);
            head.headers.insert(UPGRADE, WEBSOCKET);
        }
        if takes_trailers {
            head.headers.insert(TE, TRAILERS);
        }
        head.version = Version::HTTP_11;
    }

    /// Takes out of trailers what a client must not see or would have to obey: the names of the gate, and what RFC 9110
    /// section 6.5.1 does not let trailers say.
    pub fn clean_trailers(&self, trailers: &mut HeaderMap) {
        remove_each(trailers, |name| {
            let frames = [&CONTENT_LENGTH, &HOST, &SET_COOKIE, &WWW_AUTHENTICATE].contains(&name);
            frames || is_hop_by_hop(name) || self.managed.covers(name.as_str())
        });
    }

    /// Cleans the head of an answer of the upstream.
    pub fn to_client(&self, headers: &mut HeaderMap, request_id: &HeaderValue, websocket: bool) {
        let named = named_by_connection(headers);
        remove_each(headers, |name| {
            let managed = self.managed.is_identity(name.as_str());
            // It says which trailers come, and they are passed on.
            let hop_by_hop = is_hop_by_hop(name) && *name != TRAILER;
            managed || hop_by_hop || named.contains(name)
        });
        headers.append(VIA, VIA_CLAIMGATE);
        headers.insert(X_REQUEST_ID, request_id.clone());
        if websocket {
            headers.insert(CONNECTION, UPGRADE_TOKEN);
            headers.insert(UPGRADE, WEBSOCKET);
        }
    }
}

/// Removes every header whose name is like that.
fn remove_each(headers: &mut HeaderMap, is_to_go: impl Fn(&HeaderName) -> bool) {
    let names = headers.keys().filter(|name| is_to_go(name));
    for name in names.cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
}

/// What a proxy in front has told about the request, if it is trusted.
#[derive(Default)]
struct ForwardedFrom {
    is_trusted: bool,
    forwarded: String,
}

impl ForwardedFrom {
    fn by(is_trusted: bool, headers: &HeaderMap) -> Self {
        if !is_trusted {
            return Self::default();
        }
        Self {
            is_trusted,
            forwarded: join(headers.get_all(FORWARDED)),
        }
    }
}

/// Writes `X-Forwarded-*` and `Forwarded` (RFC 7239) anew, or goes on with what a trusted proxy wrote.
fn write_forwarding(headers: &mut HeaderMap, peer: &Peer, told: &ForwardedFrom) {
    let host = headers.get(HOST).cloned();
    let host_text = host.as_ref().and_then(|host| host.to_str().ok());
    if let Ok(value) = HeaderValue::try_from(with_hop(&told.forwarded, peer, host_text)) {
        headers.insert(FORWARDED, value);
    }
    if peer.address.is_some() {
        // The chain of a peer that is not trusted was removed before: what is left was written by one that is.
        let chain = join(headers.get_all(X_FORWARDED_FOR));
        let chain = [&chain, separator(&chain), &peer.written].concat();
        if let Ok(value) = HeaderValue::try_from(chain) {
            headers.insert(X_FORWARDED_FOR, value);
        }
    }
    if !(told.is_trusted && headers.contains_key(X_FORWARDED_PROTO)) {
        let scheme = match peer.scheme {
            Scheme::Http => HTTP,
            Scheme::Https => HTTPS,
        };
        headers.insert(X_FORWARDED_PROTO, scheme);
    }
    if let Some(host) = host
        && !(told.is_trusted && headers.contains_key(X_FORWARDED_HOST))
    {
        headers.insert(X_FORWARDED_HOST, host);
    }
}

/// What `Forwarded` says of the way so far, and of this step of it.
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

/// What stands between a list and one more item.
fn separator(list: &str) -> &'static str {
    if list.is_empty() { "" } else { ", " }
}

/// Every value of a list header as one (RFC 9110 section 5.3).
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

/// RFC 9112 section 3.2.1: to an origin server goes the path alone, as it was judged.
fn reduce_to_origin_form(head: &mut Parts) {
    if head.uri.authority().is_none() {
        return;
    }
    if let Some(target) = head.uri.path_and_query().cloned() {
        head.uri = http::Uri::from(target);
    }
}

/// Whether a message is one of gRPC. gRPC-Web has its trailers in the body, but an answer without a body has its status
/// in the same place.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

/// Whether the client takes trailers (RFC 9110 section 10.1.4), which servers of gRPC ask for.
fn takes_trailers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(TE).iter();
    let mut codings = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    codings.any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

/// RFC 9110 section 7.6.1.
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    // `Proxy-Authorization` and `Proxy-Authenticate` are for this proxy, which uses neither.
    let text = name.as_str();
    match text.as_bytes().first() {
        Some(b'c') => *name == CONNECTION,
        Some(b'k') => *name == KEEP_ALIVE,
        Some(b'p') => {
            *name == PROXY_CONNECTION
                || text == "proxy-authorization"
                || text == "proxy-authenticate"
        }
        Some(b't') => *name == TE || *name == TRAILER || *name == TRANSFER_ENCODING,
        Some(b'u') => *name == UPGRADE,
        Some(b'h') => *name == HTTP2_SETTINGS,
        _ => false,
    }
}

/// The request's own id if it has a plain one, or a new one.
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

/// Whether a client may name its request like that.
pub fn is_request_id(id: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    !id.is_empty() && id.len() <= MAX_REQUEST_ID_BYTES && id.iter().all(plain)
}

#[cfg(test)]
mod tests;
