//! The peer of a client connection.

use std::net::IpAddr;
use std::sync::Arc;

use crate::gate::certificate::ClientCertificate;
use crate::gate::inbound::Scheme;

use super::address_fields::AddressFields;

/// Other end of a client connection.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// `None` for a Unix socket.
    pub(super) address: Option<IpAddr>,
    /// Forwarding fields that depend on the address alone.
    pub(super) fields: AddressFields,
    pub scheme: Scheme,
    /// True if a trusted proxy named the address in a PROXY protocol header.
    pub is_proxied: bool,
    /// Verified client certificate.
    pub certificate: Option<Arc<ClientCertificate>>,
}

impl Peer {
    /// A peer at this address, without TLS; `None` is a Unix socket.
    pub fn at(address: Option<IpAddr>) -> Self {
        Self {
            address,
            fields: AddressFields::of(address),
            ..Self::default()
        }
    }
}
