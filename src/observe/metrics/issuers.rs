//! Metrics of issuers and their key sets.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Unit;
use serde_json::{Value, json};

use crate::observe::log::printable;

use super::exchanges::{self, ExchangeMetrics, Labeled};
use super::families::{counters, gauges};
use super::{MetricsRegistry, Named};

/// Metrics of one issuer's keys. Times are in Unix seconds; 0 means never.
#[derive(Debug, Default)]
pub struct IssuerMetrics {
    /// Name of the issuer in the configuration.
    pub name: String,
    /// True if the keys come from a URL.
    pub is_remote: AtomicBool,
    /// Keys held.
    pub keys: AtomicU64,
    /// Successful fetches.
    pub fetched: AtomicU64,
    /// Failed fetches.
    pub failed: AtomicU64,
    /// Time of the last successful fetch.
    pub last_success: AtomicI64,
    /// Time at which the keys expire unless a fetch succeeds before.
    pub usable_until: AtomicI64,
    /// Error of the last fetch, if it failed.
    pub last_error: ArcSwapOption<String>,
    /// Exchanges of sessions, if the issuer has them.
    pub sessions: ArcSwapOption<ExchangeMetrics>,
    /// Introspection of tokens, if the issuer has it.
    pub introspection: ArcSwapOption<ExchangeMetrics>,
}

impl Named for IssuerMetrics {
    fn name(&self) -> &str {
        &self.name
    }
}

impl IssuerMetrics {
    /// Exchanges of this issuer, with their labels.
    fn exchanges(&self) -> impl Iterator<Item = Labeled<'_>> {
        let kinds = [
            ("session", self.sessions.load_full()),
            ("introspection", self.introspection.load_full()),
        ];
        let name = self.name.as_str();
        let kinds = kinds.into_iter();
        kinds.filter_map(move |(kind, metrics)| Some((name, kind, metrics?)))
    }

    pub(super) fn summary(&self) -> Value {
        let error = self.last_error.load();
        json!({
            "name": self.name,
            "is_remote": self.is_remote.load(Ordering::Relaxed),
            "keys": self.keys.load(Ordering::Relaxed),
            "fetched": self.fetched.load(Ordering::Relaxed),
            "failed": self.failed.load(Ordering::Relaxed),
            "last_success": self.last_success.load(Ordering::Relaxed),
            "usable_until": self.usable_until.load(Ordering::Relaxed),
            "last_error": error.as_ref().map(|error| printable(error)),
            "sessions": self.sessions.load().as_ref().map(|metrics| metrics.summary()),
            "introspection": self.introspection.load().as_ref().map(|metrics| metrics.summary()),
        })
    }
}

pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    issuers: &MetricsRegistry<IssuerMetrics>,
) -> Result<(), fmt::Error> {
    type Choose = fn(&IssuerMetrics) -> &AtomicI64;
    let (all, configured) = (issuers.all(), issuers.configured());
    let keys = configured.iter().map(|issuer| {
        let keys = i64::try_from(issuer.keys.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        ([("issuer", issuer.name.as_str())], keys)
    });
    gauges(encoder, "keys", "Keys held", None, keys)?;
    let is_remote = |issuer: &&Arc<IssuerMetrics>| issuer.is_remote.load(Ordering::Relaxed);
    let fetches = all.iter().filter(is_remote).flat_map(|issuer| {
        let outcomes = [("success", &issuer.fetched), ("failure", &issuer.failed)];
        outcomes.map(|(outcome, count)| {
            let labels = [("issuer", issuer.name.as_str()), ("outcome", outcome)];
            (labels, count.load(Ordering::Relaxed))
        })
    });
    counters(encoder, "key_fetches", "Key set fetches", fetches)?;
    let times: [(&str, &str, Choose); 2] = [
        (
            "key_last_success_timestamp",
            "Last successful key set fetch, in Unix time; 0 before the first",
            |issuer| &issuer.last_success,
        ),
        (
            "keys_usable_until_timestamp",
            "Expiry of the key set unless a fetch succeeds before, in Unix time; 0 before the first fetch",
            |issuer| &issuer.usable_until,
        ),
    ];
    for (name, help, choose) in times {
        let times = configured.iter().filter(is_remote).map(|issuer| {
            let time = choose(issuer).load(Ordering::Relaxed);
            ([("issuer", issuer.name.as_str())], time)
        });
        gauges(encoder, name, help, Some(&Unit::Seconds), times)?;
    }
    let exchanges: Vec<_> = all.iter().flat_map(|issuer| issuer.exchanges()).collect();
    exchanges::encode(encoder, &exchanges)
}
