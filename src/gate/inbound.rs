//! The input of the gate: one request head and the facts of its connection.

use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;

use super::certificate::ClientCertificate;

/// A request as received, with everything outside its head that a decision depends on.
#[derive(Debug, Clone)]
pub struct Inbound {
    /// Request head, in the form of HTTP/1.1.
    pub head: Parts,
    /// Scheme that the client used, as observed or as reported by a trusted proxy.
    pub scheme: Scheme,
    /// True if a trusted proxy sent the request. Its client may have used another scheme.
    pub from_trusted_proxy: bool,
    /// True if the forwarding headers of the request come from a trusted proxy.
    pub has_trusted_forwarding: bool,
    /// Client address; `None` over a Unix socket.
    pub client: Option<IpAddr>,
    /// Client certificate that the TLS handshake verified.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// True if the request opens a WebSocket (RFC 6455 section 4.1).
    pub opens_websocket: bool,
}

/// Scheme that a client used to reach the gate, or the trusted proxy in front of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scheme {
    #[default]
    Http,
    Https,
}

impl Scheme {
    /// Name of this scheme.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Start of a URL with this scheme.
    pub(super) fn url_prefix(self) -> &'static str {
        match self {
            Self::Http => "http://",
            Self::Https => "https://",
        }
    }

    /// Default port, which an origin never names.
    pub(super) fn default_port(self) -> &'static str {
        match self {
            Self::Http => ":80",
            Self::Https => ":443",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Inbound {
        /// A request over plain HTTP from a client without an address or a certificate.
        pub(crate) fn plain(head: Parts) -> Self {
            Self {
                scheme: Scheme::Http,
                from_trusted_proxy: false,
                has_trusted_forwarding: false,
                client: None,
                certificate: None,
                opens_websocket: crate::proxy::websocket::is_opened_by(&head),
                head,
            }
        }
    }
}
