//! Metrics of exchanges: requests to an issuer about a credential that only it can verify.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use serde_json::{Value, json};

use crate::observe::log::printable;

use super::durations::{BUCKETS, Histogram};
use super::families::counters;

/// Metrics of one issuer's exchanges of one kind.
#[derive(Debug, Default)]
pub struct ExchangeMetrics {
    /// Requests that used the result of an earlier exchange, or waited for a running one.
    pub hits: AtomicU64,
    /// Error of the last exchange, if it failed.
    pub last_error: ArcSwapOption<String>,
    outcomes: [AtomicU64; 4],
    durations: Mutex<Histogram>,
}

/// Outcome of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeOutcome {
    Valid,
    Rejected,
    /// The issuer limits the rate (429).
    Limited,
    Failed,
}

impl ExchangeOutcome {
    const ALL: [Self; 4] = [Self::Valid, Self::Rejected, Self::Limited, Self::Failed];

    fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Rejected => "rejected",
            Self::Limited => "limited",
            Self::Failed => "failed",
        }
    }
}

impl ExchangeMetrics {
    /// Records a finished exchange.
    pub fn record(&self, outcome: ExchangeOutcome, duration: Duration) {
        if let Some(count) = self.outcomes.get(outcome as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let mut durations = self
            .durations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        durations.observe(&BUCKETS, duration);
    }

    fn counts(&self) -> impl Iterator<Item = (ExchangeOutcome, u64)> {
        let counts = self
            .outcomes
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        ExchangeOutcome::ALL.into_iter().zip(counts)
    }

    fn durations(&self) -> Histogram {
        let durations = self.durations.lock();
        durations.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts and durations for the status page.
    pub(super) fn summary(&self) -> Value {
        let (error, durations) = (self.last_error.load(), self.durations());
        let count: u64 = durations.buckets.iter().sum();
        let outcomes = self.counts();
        let outcomes = outcomes.map(|(outcome, count)| (outcome.name().to_owned(), json!(count)));
        #[expect(clippy::cast_precision_loss, reason = "a mean for a person to read")]
        let mean = (count > 0).then(|| durations.sum / count as f64);
        json!({
            "outcomes": outcomes.collect::<serde_json::Map<_, _>>(),
            "hits": self.hits.load(Ordering::Relaxed),
            "mean_seconds": mean,
            "last_error": error.as_ref().map(|error| printable(error)),
        })
    }
}

/// Issuer, kind and metrics of exchanges.
pub(super) type Labeled<'a> = (&'a str, &'static str, Arc<ExchangeMetrics>);

pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    exchanges: &[Labeled<'_>],
) -> Result<(), fmt::Error> {
    let outcomes = exchanges.iter().flat_map(|(issuer, kind, metrics)| {
        metrics.counts().map(|(outcome, count)| {
            let labels = [
                ("issuer", *issuer),
                ("kind", *kind),
                ("outcome", outcome.name()),
            ];
            (labels, count)
        })
    });
    counters(
        encoder,
        "exchanges",
        "Credentials that the gate asked an issuer about",
        outcomes,
    )?;
    let hits = exchanges.iter().map(|(issuer, kind, metrics)| {
        let labels = [("issuer", *issuer), ("kind", *kind)];
        (labels, metrics.hits.load(Ordering::Relaxed))
    });
    let help = "Requests that used the result of another request's exchange";
    counters(encoder, "exchange_hits", help, hits)?;
    let mut family = encoder.encode_descriptor(
        "exchange_duration",
        "Time from the start of an exchange to the issuer's response",
        Some(&Unit::Seconds),
        MetricType::Histogram,
    )?;
    for (issuer, kind, metrics) in exchanges {
        let histogram = metrics.durations();
        if histogram.is_empty() {
            continue;
        }
        let bounds = BUCKETS.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(histogram.buckets).collect();
        let count = histogram.buckets.iter().sum();
        let labels = [("issuer", *issuer), ("kind", *kind)];
        let mut one = family.encode_family(&labels)?;
        one.encode_histogram::<prometheus_client::encoding::NoLabelSet>(
            histogram.sum,
            count,
            &buckets,
            None,
        )?;
    }
    Ok(())
}
