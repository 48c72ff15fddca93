//! Where an upstream is.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use rustls::pki_types::ServerName;

/// Where an upstream is, as configured.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A name or an address, and a port.
    Tcp(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Target {
    /// The address, if that is how it is written.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(host, _) => host.trim_matches(['[', ']']).parse().ok(),
            Self::Unix(_) => None,
        }
    }

    /// What must be looked up, if anything, and the port.
    pub fn name(&self) -> Option<(&str, u16)> {
        match self {
            Self::Tcp(host, port) if self.address().is_none() => Some((host, *port)),
            Self::Tcp(..) | Self::Unix(_) => None,
        }
    }

    /// Whether it is on this machine, by what is written.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(host, _) => match self.address() {
                Some(address) => address.to_canonical().is_loopback(),
                None => host.eq_ignore_ascii_case("localhost"),
            },
        }
    }

    /// Whom a request of the gate's own is for.
    pub fn authority(&self) -> String {
        match self {
            Self::Tcp(host, port) => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }

    /// What its certificate must be for.
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

/// One endpoint: a target, and what its name stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointAddress {
    /// As configured.
    pub target: Target,
    /// The addresses of one server, the first tried first; none for a Unix socket.
    pub addresses: Vec<SocketAddr>,
}

impl EndpointAddress {
    /// A target that needs no look-up, or that was not looked up yet.
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
