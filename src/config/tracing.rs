//! `[tracing]`: trace export.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Tracing {
    /// Base URL of an OTLP/HTTP collector. Spans are sent to `/v1/traces` below it.
    pub url: String,
    /// Allows plaintext HTTP to another machine.
    #[serde(default)]
    pub allow_http: bool,
    /// PEM file of CA certificates for the collector, instead of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// `service.name` of the spans.
    #[serde(default = "service_name")]
    pub service_name: String,
    /// Sampling ratio of traces that start here, from 0 to 1.
    #[serde(default = "sample")]
    pub sample: f64,
    /// Starts a new trace for every request and ignores an incoming `traceparent`.
    #[serde(default)]
    pub restart: bool,
}

fn service_name() -> String {
    "claimgate".to_owned()
}

fn sample() -> f64 {
    1.0
}
