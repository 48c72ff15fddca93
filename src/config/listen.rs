//! `[listen]`, `[admin]`, `[drain]` and `[log]`: the process and its sockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;

use super::tls::Tls;
use super::units::{self, Address, Network};

/// `[listen]`: where requests come in, and the limits of a connection.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// Where to listen; read once at start.
    pub address: Address,
    /// Whether the peer says with the PROXY protocol who the client is; read once at start.
    pub proxy_protocol: bool,
    /// Worker threads; 0 is one for each CPU the process may use. Read once at start.
    pub workers: usize,
    /// How many connections may be open at once.
    pub max_connections: usize,
    /// From the first byte, or the start of a connection, to a whole request head.
    #[serde(deserialize_with = "units::duration")]
    pub header_timeout: Duration,
    /// How long a client may make no progress in sending or in taking a body.
    #[serde(deserialize_with = "units::duration")]
    pub body_timeout: Duration,
    /// How long a connection may stay open without a request.
    #[serde(deserialize_with = "units::duration")]
    pub idle_timeout: Duration,
    /// The largest request head.
    #[serde(deserialize_with = "units::size")]
    pub max_header_bytes: u64,
    /// The largest request body; 0 is no limit.
    #[serde(deserialize_with = "units::size")]
    pub max_body_bytes: u64,
    /// The peers whose `X-Forwarded-*` and `Forwarded` are believed.
    pub trusted_proxies: Vec<Network>,
    /// Encryption; left out, requests come in plain HTTP. Read once at start, the content of its files whenever it changes.
    pub tls: Option<Tls>,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            address: Address::Tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080))),
            proxy_protocol: false,
            workers: 0,
            max_connections: 10_000,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            max_header_bytes: 32 * 1024,
            max_body_bytes: 10 * 1024 * 1024,
            trusted_proxies: Vec::new(),
            tls: None,
        }
    }
}

/// `[[listeners]]`: another address where requests come in. The limits of `[listen]` hold for it too.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Where to listen; read once at start.
    pub address: Address,
    /// Whether the peer says with the PROXY protocol who the client is; read once at start.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// The port of HTTPS to which every request is sent instead of being served; read once at start.
    pub redirect_to_https: Option<u16>,
    /// Encryption, as in [`Listen`].
    #[serde(default)]
    pub tls: Option<Tls>,
}

/// `[admin]`: the listener for probes, metrics and `claimgate drain`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Where to listen; read once at start.
    #[serde(deserialize_with = "units::socket_address")]
    pub address: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 9901)),
        }
    }
}

/// `[drain]`: how the gate stops.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// How long requests in flight may take to finish after SIGTERM.
    #[serde(deserialize_with = "units::duration")]
    pub grace: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(25),
        }
    }
}

/// `[log]`: what is written to standard error.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// The form of a line; read once at start.
    pub format: LogFormat,
    /// The least important lines that are written; read once at start.
    pub level: LogLevel,
    /// The share of good answers that are logged, from 0 to 1.
    pub sample: f64,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::default(),
            level: LogLevel::default(),
            sample: 1.0,
        }
    }
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// How much is logged. Answers are `info`, refused tokens and failures are `warn`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what needs somebody.
    Error,
    /// And what was refused for its token or failed.
    Warn,
    /// And every answer.
    #[default]
    Info,
    /// And how the gate came to it.
    Debug,
}
