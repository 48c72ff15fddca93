//! `[upstreams.NAME]`: where requests go.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::units::{self, OneOrMany};

/// `[upstreams.NAME]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// `http://`, `https://` or `h2c://` with a host and a port, or `unix:` or `unix+h2c:` with a path; one or a list.
    pub url: OneOrMany,
    /// Which of several endpoints is the next.
    #[serde(default)]
    pub balance: Balance,
    /// Whether plaintext may leave this machine.
    #[serde(default)]
    pub allow_remote: bool,
    /// How long a connection may take to open, its TLS included.
    #[serde(default = "one_second", deserialize_with = "units::duration")]
    pub connect_timeout: Duration,
    /// How long the upstream may take from the whole request to the head of its answer.
    #[serde(default = "half_a_minute", deserialize_with = "units::duration")]
    pub response_timeout: Duration,
    /// How long an answer or a WebSocket may stand still, in both directions; 0 is no limit.
    #[serde(default = "five_minutes", deserialize_with = "units::duration")]
    pub idle_timeout: Duration,
    /// Whether interim answers (1xx) are passed on.
    #[serde(default)]
    pub informational: bool,
    /// How many requests may be with the upstream at once; 0 is no limit.
    #[serde(default)]
    pub max_connections: usize,
    /// How many more may wait until one of them has ended.
    #[serde(default = "one_hundred")]
    pub max_pending: usize,
    /// How long a connection is kept without a use.
    #[serde(default = "fifty_seconds", deserialize_with = "units::duration")]
    pub keep_alive: Duration,
    /// How often the addresses of a name are looked up.
    #[serde(default = "half_a_minute", deserialize_with = "units::duration")]
    pub dns_refresh: Duration,
    /// What is tried once more.
    #[serde(default)]
    pub retries: Retries,
    /// When one of several endpoints is left out.
    #[serde(default)]
    pub ejection: Ejection,
    /// What is asked of every endpoint, whether there are requests or not.
    #[serde(default)]
    pub health_check: Option<HealthCheck>,
    /// How both sides prove who they are; only for `https`.
    #[serde(default)]
    pub tls: Option<UpstreamTls>,
}

/// Which of several endpoints is the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The one with the fewest requests.
    LeastPending,
}

/// `retries = { … }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retries {
    /// How often one request may be tried again.
    pub attempts: usize,
    /// How many of a hundred requests may be sent twice.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ejection {
    /// After how many failures in a row; 0 is never.
    pub failures: u32,
    /// For how long.
    #[serde(deserialize_with = "units::duration")]
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
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// What is asked for.
    pub path: String,
    /// How often.
    #[serde(default = "five_seconds", deserialize_with = "units::duration")]
    pub interval: Duration,
    /// How long an answer may take, the connection included.
    #[serde(default = "one_second", deserialize_with = "units::duration")]
    pub timeout: Duration,
    /// After how many bad answers in a row an endpoint is not healthy.
    #[serde(default = "two")]
    pub unhealthy: u32,
    /// After how many good answers in a row it is.
    #[serde(default = "one")]
    pub healthy: u32,
}

/// `tls = { … }`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTls {
    /// A file of PEM certificates that prove who the upstream is, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// A file with the PEM certificate that is shown to the upstream.
    pub certificate: Option<PathBuf>,
    /// A file with its key.
    pub key: Option<PathBuf>,
    /// The name in the upstream's certificate, if it is not that of `url`.
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

fn half_a_minute() -> Duration {
    Duration::from_secs(30)
}

/// Longer than most servers and clients let a connection rest.
fn five_minutes() -> Duration {
    Duration::from_mins(5)
}

fn fifty_seconds() -> Duration {
    Duration::from_secs(50)
}
