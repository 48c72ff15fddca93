//! `introspection` of `[issuers.NAME]`: token introspection (RFC 7662).

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

#[cfg(test)]
use super::schema;
use super::units;

/// `introspection = { … }`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Introspection {
    /// URL of the introspection endpoint.
    pub url: String,
    /// Client ID of the gate at the issuer.
    pub client_id: String,
    /// File with the client secret.
    #[serde(default)]
    pub client_secret_file: Option<PathBuf>,
    /// Environment variable with the client secret.
    #[serde(default)]
    pub client_secret_env: Option<String>,
    /// Longest use of one response: a revocation takes effect within this time.
    #[serde(default = "ten_seconds", with = "units::duration")]
    #[cfg_attr(test, schemars(with = "schema::Duration"))]
    pub max_age: Duration,
    /// `Host` header of the requests to the issuer, if it differs from the URL.
    #[serde(default)]
    pub host: Option<String>,
    /// PEM file of CA certificates for the issuer's server, instead of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Allows plaintext HTTP to another machine.
    #[serde(default)]
    pub allow_http: bool,
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}
