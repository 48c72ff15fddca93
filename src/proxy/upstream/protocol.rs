//! HTTP version and encryption of upstream connections.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::files::Fingerprint;
use crate::tls::client::Trust;

/// ALPN protocol ID of HTTP/2 (RFC 9113 section 3.2).
pub const HTTP2: &[u8] = b"h2";

/// ALPN protocol ID of HTTP/1.1 (RFC 7301 section 6).
pub const HTTP1: &[u8] = b"http/1.1";

/// HTTP version and encryption.
#[derive(Debug, Clone)]
pub enum Protocol {
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// TLS, with the HTTP version negotiated by ALPN.
    Tls(Tls),
}

/// TLS settings and the client configurations built from them.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Offers HTTP/2 and HTTP/1.1.
    pub either: Arc<ClientConfig>,
    /// Offers HTTP/1.1 only, for upgrades.
    pub http1: Arc<ClientConfig>,
    pub settings: TlsSettings,
}

/// Input of the client configurations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// Name in the server certificate, if not the host of the URL.
    pub server_name: Option<ServerName<'static>>,
    pub trust: Trust,
    /// Content of the files of `trust` at the time they were read.
    pub fingerprint: Fingerprint,
}

impl Protocol {
    pub(super) fn is_http1(&self) -> bool {
        matches!(self, Self::Http1)
    }

    pub(super) fn is_http2(&self) -> bool {
        matches!(self, Self::Http2)
    }

    /// Returns true if connections of one are interchangeable with connections of the other.
    pub(super) fn is_equivalent(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Http1, Self::Http1) | (Self::Http2, Self::Http2) => true,
            (Self::Tls(one), Self::Tls(other)) => one.settings == other.settings,
            (Self::Http1 | Self::Http2 | Self::Tls(_), _) => false,
        }
    }
}
