//! What is counted about the configuration.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use serde_json::{Value, json};

use crate::clock::UnixTime;

use super::exposition::gauge;

/// The configuration in force, and what became of its changes.
#[derive(Debug, Default)]
pub struct ConfigMetrics {
    taken: AtomicU64,
    refused: AtomicU64,
    is_refused: AtomicBool,
    generation: AtomicU64,
    since: AtomicI64,
}

impl ConfigMetrics {
    /// The one that the process has started with is in force.
    pub fn started(&self, now: UnixTime) {
        self.generation.store(1, Ordering::Relaxed);
        self.since.store(now.0, Ordering::Relaxed);
    }

    /// Another is in force. Gives its number.
    pub fn taken(&self, now: UnixTime) -> u64 {
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.is_refused.store(false, Ordering::Relaxed);
        self.since.store(now.0, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Another cannot be used. Gives the number of the one that stays in force.
    pub fn refused(&self) -> u64 {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.is_refused.store(true, Ordering::Relaxed);
        self.generation()
    }

    /// The number of the one in force, counted from 1.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    pub(super) fn summary(&self) -> Value {
        json!({
            "generation": self.generation(),
            "since": self.since.load(Ordering::Relaxed),
            "is_refused": self.is_refused.load(Ordering::Relaxed),
        })
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Changes of the configuration";
        let mut family =
            encoder.encode_descriptor("config_reloads", help, None, MetricType::Counter)?;
        for (outcome, count) in [("success", &self.taken), ("failure", &self.refused)] {
            let labels = [("outcome", outcome)];
            ConstCounter::new(count.load(Ordering::Relaxed))
                .encode(family.encode_family(&labels)?)?;
        }
        gauge(
            encoder,
            "config_last_reload_success",
            "Whether the configuration as it is written now is in force",
            i64::from(!self.is_refused.load(Ordering::Relaxed)),
        )?;
        gauge(
            encoder,
            "config_generation",
            "The number of the configuration in force",
            i64::try_from(self.generation()).unwrap_or(i64::MAX),
        )?;
        let help = "Since when the configuration is in force, in Unix time";
        ConstGauge::new(self.since.load(Ordering::Relaxed)).encode(encoder.encode_descriptor(
            "config_last_reload_timestamp",
            help,
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?)
    }
}
