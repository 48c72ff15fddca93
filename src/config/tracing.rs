//! `[tracing]`: where the spans of requests go.

use std::path::PathBuf;

use serde::Deserialize;

/// `[tracing]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tracing {
    /// The collector, which takes OTLP over HTTP: spans go to `/v1/traces` beneath.
    pub url: String,
    /// Whether they may go to another machine without TLS.
    #[serde(default)]
    pub allow_http: bool,
    /// The authorities of its certificate, instead of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// How the gate is called in its spans.
    #[serde(default = "service_name")]
    pub service_name: String,
    /// The share of the traces beginning here whose spans are sent.
    #[serde(default = "sample")]
    pub sample: f64,
    /// Whether every request begins a trace, whatever trace its client says that it is in.
    #[serde(default)]
    pub restart: bool,
}

fn service_name() -> String {
    "claimgate".to_owned()
}

fn sample() -> f64 {
    1.0
}
