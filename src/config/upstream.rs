//! `[upstreams.NAME]`: where requests go.

use std::time::Duration;

use serde::Deserialize;

use super::units;

/// `[upstreams.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// `http://host:port`, `h2c://host:port`, `unix:/path` or `unix+h2c:/path`.
    pub url: String,
    /// Whether plaintext may leave this machine.
    #[serde(default)]
    pub allow_remote: bool,
    /// How long a connection may take to open.
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
}

/// Longer than most servers and clients let a connection rest.
fn five_minutes() -> Duration {
    Duration::from_mins(5)
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

fn half_a_minute() -> Duration {
    Duration::from_secs(30)
}
