//! Targets and endpoint addresses of an upstream.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use rustls::pki_types::ServerName;

/// Configured location of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// Host name or IP address, and port.
    Tcp(String, u16),
    /// Path of a Unix socket.
    Unix(PathBuf),
}

impl Target {
    /// IP address; none for a host name or a Unix socket.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(host, _) => host.trim_matches(['[', ']']).parse().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Host name that needs a DNS lookup, and port.
    pub fn name(&self) -> Option<(&str, u16)> {
        match self {
            Self::Tcp(host, port) if self.address().is_none() => Some((host, *port)),
            Self::Tcp(..) | Self::Unix(_) => None,
        }
    }

    /// Returns true if the target is a Unix socket, `localhost` or a loopback address.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(host, _) => match self.address() {
                Some(address) => address.to_canonical().is_loopback(),
                None => host.eq_ignore_ascii_case("localhost"),
            },
        }
    }

    /// `Host` of a health check.
    pub fn authority(&self) -> String {
        match self {
            Self::Tcp(host, port) => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }

    /// Default name in the server certificate.
    pub fn server_name(&self) -> io::Result<ServerName<'static>> {
        match self {
            Self::Tcp(host, _) => ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
                .map_err(io::Error::other),
            Self::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Address of one endpoint: its target and the resolved addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointAddress {
    pub target: Target,
    /// Addresses of one server in the order of connection attempts; empty for a Unix socket.
    pub addresses: Vec<SocketAddr>,
}

impl EndpointAddress {
    /// Address of a target without a DNS lookup, or before it.
    pub fn of(target: &Target) -> Self {
        let address = match (target, target.address()) {
            (Target::Tcp(_, port), Some(address)) => Some(SocketAddr::new(address, *port)),
            (Target::Tcp(..) | Target::Unix(_), _) => None,
        };
        Self {
            target: target.clone(),
            addresses: address.into_iter().collect(),
        }
    }
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addresses.first() {
            Some(address) if self.target.address().is_none() => {
                write!(f, "{} ({address})", self.target)
            }
            Some(_) | None => write!(f, "{}", self.target),
        }
    }
}
