//! `[redis]`: where several gates count together.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::units;

/// `[redis]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// `"redis://host:6379"`, or `"rediss://…"` with TLS; behind it a `/` and the number of a database, if it is not 0.
    pub url: String,
    /// The user, if it is not the default one.
    #[serde(default)]
    pub username: Option<String>,
    /// The environment variable that holds the password.
    #[serde(default)]
    pub password_env: Option<String>,
    /// The file that holds the password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// The authorities of its certificate, instead of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// What the names of all keys begin with: the same for gates that count together.
    #[serde(default = "prefix")]
    pub prefix: String,
    /// How long a request may wait for an answer.
    #[serde(default = "timeout", deserialize_with = "units::duration")]
    pub timeout: Duration,
    /// What becomes of requests that cannot be counted there.
    #[serde(default)]
    pub when_unavailable: WhenUnavailable,
}

/// What becomes of requests that cannot be counted together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenUnavailable {
    /// Each gate counts for itself.
    #[default]
    Local,
    /// They are let through.
    Allow,
    /// They are refused.
    Refuse,
}

fn prefix() -> String {
    "claimgate".to_owned()
}

fn timeout() -> Duration {
    Duration::from_millis(50)
}
