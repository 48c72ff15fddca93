//! `[upstreams.NAME]`: servers behind the gate.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

#[cfg(test)]
use super::schema;
use super::units::{self, OneOrMany};

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// One or several URLs: `http://`, `https://` or `h2c://` with host and port, `unix:` or `unix+h2c:` with a
    /// socket path.
    pub url: OneOrMany,
    /// Load balancing policy.
    #[serde(default)]
    pub balance: Balance,
    /// Allows plaintext connections to another machine.
    #[serde(default)]
    pub allow_remote: bool,
    /// Timeout of a connection attempt, including the TLS handshake.
    #[serde(default = "one_second", with = "units::duration")]
    #[cfg_attr(test, schemars(with = "schema::Duration"))]
    pub connect_timeout: Duration,
    /// Timeout from the end of the request to the response head.
    #[serde(default = "thirty_seconds", with = "units::duration")]
    #[cfg_attr(test, schemars(with = "schema::Duration"))]
    pub response_timeout: Duration,
    /// Idle timeout of response bodies and WebSocket connections; 0 for none.
    #[serde(default = "five_minutes", with = "units::duration")]
    #[cfg_attr(test, schemars(with = "schema::Duration"))]
    pub idle_timeout: Duration,
    /// Forwards informational responses (1xx).
    #[serde(default)]
    pub informational: bool,
    /// Most concurrent requests to the upstream; 0 for no limit.
    #[serde(default)]
    pub max_connections: usize,
    /// Most requests in the queue while `max_connections` are active.
    #[serde(default = "one_hundred")]
    pub max_pending: usize,
    /// Condition for another request on an HTTP/1.1 connection.
    #[serde(default)]
    pub reuse: Reuse,
    /// Idle timeout of pooled connections.
    #[serde(default = "fifty_seconds", with = "units::duration")]
    #[cfg_attr(test, schemars(with = "schema::Duration"))]
    pub keep_alive: Duration,
    /// Interval of DNS lookups.
    #[serde(default = "thirty_seconds", with = "units::duration")]
    #[cfg_attr(test, schemars(with = "schema::Duration"))]
    pub dns_refresh: Duration,
    /// Retry policy.
    #[serde(default)]
    pub retries: Retries,
    /// Outlier detection: ejection of failing endpoints.
    #[serde(default)]
    pub ejection: Ejection,
    /// Active health check of every endpoint.
    #[serde(default)]
    pub health_check: Option<HealthCheck>,
    /// TLS settings. Only with `https://`.
    #[serde(default)]
    pub tls: Option<UpstreamTls>,
}

/// Load balancing policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    #[default]
    RoundRobin,
    /// The endpoint with the fewest requests in flight.
    LeastPending,
}

/// Condition for another request on an HTTP/1.1 connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Reuse {
    /// Each request opens a connection.
    Never,
    /// After a response whose framing shows its end, but not after HEAD, 204 and 304, and for an hour not at all after
    /// surplus bytes.
    #[default]
    Safe,
    /// After every response whose framing shows its end. For an upstream that is known to send nothing else.
    Always,
}

/// `retries = { … }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Retries {
    /// Most retries of one request.
    pub attempts: usize,
    /// Retry budget, as a percentage of requests.
    pub budget: u32,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: 1,
            budget: 20,
        }
    }
}

/// `ejection = { … }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Ejection {
    /// Consecutive failures before an ejection; 0 disables ejection.
    pub failures: u32,
    /// Duration of the first ejection.
    #[serde(with = "units::duration")]
    #[cfg_attr(test, schemars(with = "schema::Duration"))]
    pub time: Duration,
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            failures: 5,
            time: Duration::from_secs(10),
        }
    }
}

/// `health_check = { … }`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// Request path.
    pub path: String,
    /// Interval of checks.
    #[serde(default = "five_seconds", with = "units::duration")]
    #[cfg_attr(test, schemars(with = "schema::Duration"))]
    pub interval: Duration,
    /// Timeout of one check, including the connection.
    #[serde(default = "one_second", with = "units::duration")]
    #[cfg_attr(test, schemars(with = "schema::Duration"))]
    pub timeout: Duration,
    /// Consecutive failures before an endpoint is unhealthy.
    #[serde(default = "two")]
    pub unhealthy: u32,
    /// Consecutive successes before an endpoint is healthy.
    #[serde(default = "one")]
    pub healthy: u32,
}

/// `tls = { … }`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTls {
    /// PEM file of CA certificates for the upstream, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the gate's client certificate.
    pub certificate: Option<PathBuf>,
    /// PEM file of the client certificate's private key.
    pub key: Option<PathBuf>,
    /// Expected name in the upstream's certificate, if it differs from the host of `url`.
    pub server_name: Option<String>,
}

fn one() -> u32 {
    1
}

fn two() -> u32 {
    2
}

fn one_hundred() -> usize {
    100
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

/// Longer than the idle timeouts of most servers and clients.
fn five_minutes() -> Duration {
    Duration::from_mins(5)
}

fn fifty_seconds() -> Duration {
    Duration::from_secs(50)
}
