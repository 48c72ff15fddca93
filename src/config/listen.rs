//! `[listen]`, `[[listeners]]`, `[admin]`, `[drain]` and `[log]`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

#[cfg(test)]
use super::schema;
use super::tls::Tls;
use super::units::{self, Address, Network};

/// `[listen]`: the main listener, and the limits of all connections.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// Socket address. Read once at start.
    pub address: Address,
    /// Requires a PROXY protocol header with the client address. Read once at start.
    pub proxy_protocol: bool,
    /// Worker threads; 0 starts one per CPU available to the process. Read once at start.
    pub workers: usize,
    /// Most open connections.
    pub max_connections: usize,
    /// Most open connections of one client; 0 for no limit. Default: half of `max_connections`.
    pub max_connections_per_client: Option<usize>,
    /// Longest time from the first byte, or from the start of a connection, to a complete request head.
    #[serde(with = "units::duration")]
    #[cfg_attr(test, schemars(with = "schema::Duration"))]
    pub header_timeout: Duration,
    /// Longest time by which a client that sends or reads a body may lag behind 1024 bytes per second. A client that
    /// stands still lags by all of the time.
    #[serde(with = "units::duration")]
    #[cfg_attr(test, schemars(with = "schema::Duration"))]
    pub body_timeout: Duration,
    /// Longest time that a connection stays open without a request.
    #[serde(with = "units::duration")]
    #[cfg_attr(test, schemars(with = "schema::Duration"))]
    pub idle_timeout: Duration,
    /// Largest request head, in bytes.
    #[serde(with = "units::size")]
    #[cfg_attr(test, schemars(with = "schema::Size"))]
    pub max_header_bytes: u64,
    /// Largest request body, in bytes; 0 for no limit.
    #[serde(with = "units::size")]
    #[cfg_attr(test, schemars(with = "schema::Size"))]
    pub max_body_bytes: u64,
    /// Trusted proxies: `X-Forwarded-*` and `Forwarded` headers from these networks are accepted.
    pub trusted_proxies: Vec<Network>,
    /// Forwarding headers of trusted proxies that are forwarded, in addition to `X-Forwarded-*` and `Forwarded`.
    pub trusted_headers: Vec<String>,
    /// TLS. Without it, the listener serves plaintext HTTP. Read once at start; certificate files are hot reloaded.
    pub tls: Option<Tls>,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            address: Address::Tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080))),
            proxy_protocol: false,
            workers: 0,
            max_connections: 10_000,
            max_connections_per_client: None,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30),
            max_header_bytes: 32 * 1024,
            max_body_bytes: 10 * 1024 * 1024,
            trusted_proxies: Vec::new(),
            trusted_headers: Vec::new(),
            tls: None,
        }
    }
}

/// `[[listeners]]`: an additional listener, subject to the limits of `[listen]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Socket address. Read once at start.
    pub address: Address,
    /// Requires a PROXY protocol header with the client address. Read once at start.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// HTTPS port that every request is redirected to. Read once at start.
    pub redirect_to_https: Option<u16>,
    /// TLS, as in `[listen]`.
    #[serde(default)]
    pub tls: Option<Tls>,
}

/// `[admin]`: the listener for probes, metrics and `claimgate drain`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Socket address. Read once at start.
    #[serde(with = "units::socket_address")]
    #[cfg_attr(test, schemars(with = "schema::SocketAddress"))]
    pub address: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 9901)),
        }
    }
}

/// `[drain]`: graceful shutdown.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// Grace period for requests in flight after SIGTERM.
    #[serde(with = "units::duration")]
    #[cfg_attr(test, schemars(with = "schema::Duration"))]
    pub grace: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(25),
        }
    }
}

/// `[log]`: the log on standard error.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Read once at start.
    pub format: LogFormat,
    /// Least severe level that is logged. Read once at start.
    pub level: LogLevel,
    /// Share of successful requests that are logged, from 0 to 1.
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

/// Format of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// Human-readable text.
    Text,
    /// One short line for each exchange, in colour on a terminal.
    Compact,
}

/// Log level. Each level includes those before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Failures that need an operator.
    Error,
    /// Rejected tokens, failed requests and problems of the environment.
    Warn,
    /// Every request, and changes of state.
    #[default]
    Info,
    /// Every stage of the gate's decision.
    Debug,
}
