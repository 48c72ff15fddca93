//! Forwarding fields that depend on the client's address alone, prepared once for each connection.

use std::net::IpAddr;

/// `X-Forwarded-For` and the start of `Forwarded`, up to the address: the same in every request of a connection.
#[derive(Debug, Clone)]
pub(super) struct AddressFields(Box<str>);

impl AddressFields {
    pub(super) fn of(address: Option<IpAddr>) -> Self {
        let fields = match address {
            Some(IpAddr::V4(address)) => {
                format!("x-forwarded-for: {address}\r\nforwarded: for={address}")
            }
            // RFC 7239 section 6: an IPv6 address is bracketed and quoted.
            Some(IpAddr::V6(address)) => {
                format!("x-forwarded-for: {address}\r\nforwarded: for=\"[{address}]\"")
            }
            None => "forwarded: for=unknown".to_owned(),
        };
        Self(fields.into())
    }

    /// Lines without the last line break.
    pub(super) fn lines(&self) -> &str {
        &self.0
    }

    /// Address in `X-Forwarded-For`.
    pub(super) fn address(&self) -> &str {
        let line = self.0.split("\r\n").next();
        let address = line.and_then(|line| line.strip_prefix("x-forwarded-for: "));
        address.unwrap_or_default()
    }

    /// `for` parameter of `Forwarded`.
    pub(super) fn node(&self) -> &str {
        let (_, node) = self.0.split_once("forwarded: ").unwrap_or_default();
        node
    }
}

impl Default for AddressFields {
    fn default() -> Self {
        Self::of(None)
    }
}
