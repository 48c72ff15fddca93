//! Counters, gauges and histograms. Each worker has its own; a scrape adds them up.

mod config;
mod durations;
mod exchanges;
mod exposition;
mod families;
mod history;
mod issuers;
mod registry;
mod summary;
mod tls;
mod upstreams;
mod worker;

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use prometheus_client::registry::Registry;

use crate::clock::UnixTime;

use super::log::DroppedLines;
use super::traces::Spans;

pub use config::ConfigMetrics;
pub use exchanges::{ExchangeMetrics, ExchangeOutcome};
use history::History;
pub(super) use history::INTERVAL as HISTORY_INTERVAL;
pub use issuers::IssuerMetrics;
pub use registry::{MetricsRegistry, Named};
pub use tls::Expiries;
use tls::TlsMetrics;
pub use upstreams::{Pool, UpstreamMetrics};
use worker::Tally;
pub use worker::{ConnectionLimit, RedisOutcome, RejectedHead, WorkerMetrics};

/// Metrics of the whole process.
#[derive(Debug, Default)]
pub struct Metrics {
    pub workers: Vec<Arc<WorkerMetrics>>,
    pub config: ConfigMetrics,
    pub issuers: MetricsRegistry<IssuerMetrics>,
    pub upstreams: MetricsRegistry<UpstreamMetrics>,
    tls: TlsMetrics,
    /// Panics that closed a connection.
    pub panics: AtomicU64,
    /// Spans of all workers.
    pub spans: Arc<Spans>,
    connections_limit: AtomicI64,
    rate_limit_buckets: AtomicI64,
    rate_limit_buckets_evicted: AtomicU64,
    dropped_lines: OnceLock<DroppedLines>,
    history: History,
}

impl Metrics {
    /// Metrics for `workers` workers, and for these files with certificates and with revocation lists.
    pub fn new(workers: usize, expiries: [Expiries; 2]) -> Self {
        let spans = Arc::<Spans>::default();
        let workers = (0..workers).map(|_| Arc::new(WorkerMetrics::new(Arc::clone(&spans))));
        Self {
            workers: workers.collect(),
            tls: TlsMetrics::new(expiries),
            spans,
            ..Self::default()
        }
    }

    /// Counts a reload of a changed TLS file, with the new expiry of its contents if there is one.
    pub fn tls_file_reloaded<E>(&self, file: &Path, result: &Result<Option<UnixTime>, E>) {
        self.tls.reloaded(file, result);
    }

    /// Sets the limit of open connections in force.
    pub fn set_connection_limit(&self, limit: usize) {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.connections_limit.store(limit, Ordering::Relaxed);
    }

    /// Sets the rate limit buckets in use, and the buckets evicted so far.
    pub fn set_rate_limit_buckets(&self, in_use: usize, evicted: u64) {
        let in_use = i64::try_from(in_use).unwrap_or(i64::MAX);
        self.rate_limit_buckets.store(in_use, Ordering::Relaxed);
        self.rate_limit_buckets_evicted
            .store(evicted, Ordering::Relaxed);
    }

    /// Adds the counter of dropped log lines.
    pub fn watch_log(&self, dropped: DroppedLines) {
        let _once = self.dropped_lines.set(dropped);
    }

    /// All metrics in the `OpenMetrics` text format, which Prometheus reads.
    pub fn exposition(self: &Arc<Self>) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("claimgate");
        registry.register_collector(Box::new(exposition::Scrape(Arc::clone(self))));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }

    fn total(&self) -> Tally {
        let mut total = Tally::default();
        for worker in &self.workers {
            total.add(worker.tally());
        }
        total
    }

    fn dropped_lines(&self) -> u64 {
        let dropped = self.dropped_lines.get();
        dropped.map_or(0, DroppedLines::count)
    }
}
