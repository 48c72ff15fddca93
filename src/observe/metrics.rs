//! Counters and histograms. Each worker counts for itself; a scrape adds up.

mod config;
mod durations;
mod exposition;
mod registry;
mod summary;
mod upstreams;
mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use prometheus_client::registry::Registry;
use tracing_appender::non_blocking::ErrorCounter;

use crate::clock::UnixTime;

use super::traces::Spans;

pub use config::ConfigMetrics;
pub use registry::{MetricsRegistry, Named};
pub use upstreams::{Pool, UpstreamMetrics};
use worker::Tally;
pub use worker::{RedisOutcome, RejectedHead, WorkerMetrics};

/// What is counted about the keys of one issuer.
#[derive(Debug, Default)]
pub struct IssuerMetrics {
    /// The issuer's name.
    pub name: String,
    /// Whether its keys come from a URL.
    pub is_remote: AtomicBool,
    /// How many keys it has.
    pub keys: AtomicU64,
    /// Fetches that succeeded.
    pub fetched: AtomicU64,
    /// Fetches that failed.
    pub failed: AtomicU64,
    /// When the last fetch succeeded, in Unix seconds; 0 if none did.
    pub last_success: AtomicI64,
    /// Until when the keys are used if no other fetch succeeds, in Unix seconds; 0 if none did.
    pub usable_until: AtomicI64,
    /// Why the last fetch has failed, if it has.
    pub last_error: ArcSwapOption<String>,
}

impl Named for IssuerMetrics {
    fn name(&self) -> &str {
        &self.name
    }
}

/// Files, and until when what is in each is good.
pub type Expiries = BTreeMap<PathBuf, Option<UnixTime>>;

/// Until when what is in one file of a listener is good.
#[derive(Debug)]
pub struct ExpiryMetrics {
    /// The file, as the configuration has it.
    pub file: PathBuf,
    /// Until when its first certificate is good, or all of its revocation lists are; in Unix seconds; 0 if that is not known.
    pub expiry: AtomicI64,
}

/// What the whole process has counted.
#[derive(Debug, Default)]
pub struct Metrics {
    /// By worker.
    pub workers: Vec<Arc<WorkerMetrics>>,
    /// The configuration and its changes.
    pub config: ConfigMetrics,
    /// By issuer.
    pub issuers: MetricsRegistry<IssuerMetrics>,
    /// By file, each once.
    pub certificates: Vec<ExpiryMetrics>,
    /// Revocation lists, by file, each once.
    pub revocation_lists: Vec<ExpiryMetrics>,
    /// Changed files of listeners that were taken over.
    pub files_reloaded: AtomicU64,
    /// Changed files of listeners that could not be used.
    pub files_kept: AtomicU64,
    /// By upstream.
    pub upstreams: MetricsRegistry<UpstreamMetrics>,
    /// Panics that ended a connection.
    pub panics: AtomicU64,
    /// The spans of all workers.
    pub spans: Arc<Spans>,
    /// Buckets of rate limits that are in use, as of the last time somebody looked.
    pub rate_buckets: AtomicI64,
    /// Buckets of rate limits that were forgotten while they were in use.
    pub rate_buckets_forgotten: AtomicU64,
    dropped_lines: OnceLock<ErrorCounter>,
}

impl Metrics {
    /// Counters for so many workers, and for these files with certificates and with revocation lists.
    pub fn new(workers: usize, [certificates, lists]: [Expiries; 2]) -> Self {
        let files = |expiries: Expiries| {
            let files = expiries.into_iter();
            let files = files.map(|(file, expiry)| ExpiryMetrics {
                file,
                expiry: AtomicI64::new(seconds(expiry)),
            });
            files.collect()
        };
        let spans = Arc::<Spans>::default();
        let workers = (0..workers).map(|_| Arc::new(WorkerMetrics::new(Arc::clone(&spans))));
        Self {
            workers: workers.collect(),
            certificates: files(certificates),
            revocation_lists: files(lists),
            spans,
            ..Self::default()
        }
    }

    /// A file of a listener has changed, and was taken over with what is in it or was of no use.
    pub fn file_changed<E>(&self, file: &Path, result: &Result<Option<UnixTime>, E>) {
        let Ok(expiry) = result else {
            self.files_kept.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.files_reloaded.fetch_add(1, Ordering::Relaxed);
        let mut files = self.certificates.iter().chain(&self.revocation_lists);
        if let Some(metrics) = files.find(|metrics| metrics.file == file) {
            metrics.expiry.store(seconds(*expiry), Ordering::Relaxed);
        }
    }

    /// So many buckets of rate limits are in use, and so many were forgotten.
    pub fn rates_looked_at(&self, kept: usize, forgotten: u64) {
        let kept = i64::try_from(kept).unwrap_or(i64::MAX);
        self.rate_buckets.store(kept, Ordering::Relaxed);
        self.rate_buckets_forgotten
            .store(forgotten, Ordering::Relaxed);
    }

    /// Counts the lines that the log could not write in time.
    pub fn watch_log(&self, dropped: ErrorCounter) {
        let _once = self.dropped_lines.set(dropped);
    }

    /// Everything in the text format of `OpenMetrics`, which Prometheus reads.
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
}

/// A time as a metric; 0 if it is not known.
fn seconds(time: Option<UnixTime>) -> i64 {
    time.map_or(0, |time| time.0)
}
