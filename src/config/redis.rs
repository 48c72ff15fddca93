//! `[redis]`: rate limits shared by several gates.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

#[cfg(test)]
use super::schema;
use super::units;

/// Port of a URL without a port.
pub const DEFAULT_REDIS_PORT: u16 = 6379;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// `redis://HOST:PORT`, or `rediss://HOST:PORT` for TLS, optionally followed by `/DATABASE`.
    pub url: String,
    /// ACL user, if not the default user.
    #[serde(default)]
    pub username: Option<String>,
    /// Environment variable with the password.
    #[serde(default)]
    pub password_env: Option<String>,
    /// File with the password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// PEM file of CA certificates for the server, instead of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Prefix of all Redis keys. Gates with the same prefix share their counters.
    #[serde(default = "prefix")]
    pub prefix: String,
    /// Longest time that a request waits for Redis.
    #[serde(default = "timeout", with = "units::duration")]
    #[cfg_attr(test, schemars(with = "schema::Duration"))]
    pub timeout: Duration,
    /// Treatment of requests while Redis is unavailable.
    #[serde(default)]
    pub when_unavailable: WhenUnavailable,
}

/// Treatment of requests while Redis is unavailable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum WhenUnavailable {
    /// Applies the limits per gate.
    #[default]
    Local,
    /// Accepts the requests without a limit.
    Allow,
    /// Rejects the requests.
    Refuse,
}

fn prefix() -> String {
    "claimgate".to_owned()
}

fn timeout() -> Duration {
    Duration::from_millis(50)
}
