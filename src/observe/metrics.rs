//! Counters and histograms. Each worker counts for itself; a scrape adds up.

mod config;
mod exposition;
mod roster;
mod summary;
mod upstreams;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use prometheus_client::registry::Registry;
use tracing_appender::non_blocking::ErrorCounter;

use crate::clock::UnixTime;
use crate::gate::cache::Counted;
use crate::gate::refusal::Refusal;

use super::Record;
use super::log::method_label;
use super::refusals::Refusals;
use super::traces::Spans;

pub use config::ConfigMetrics;
pub use roster::{Named, Roster};
pub use upstreams::{Pool, UpstreamMetrics};

/// The upper bounds of the buckets of a duration, in seconds.
type Bounds = [f64; 14];

/// Those of what an upstream or a client has a part in.
const BUCKETS: Bounds = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Those of what the gate does alone.
const GATE_BUCKETS: Bounds = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05,
    0.25, 1.0, 5.0,
];

/// What one worker has counted. Only its worker writes it, so that the lock is free but for a scrape.
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    counted: Mutex<Tally>,
    no_route: Arc<str>,
    /// What it has not served.
    pub refusals: Refusals,
    /// What it has for the collector of spans, together with the other workers.
    pub spans: Arc<Spans>,
    open: AtomicI64,
    accepted: AtomicU64,
    cache_hits: AtomicU64,
    cache_misses: AtomicU64,
    tokens_good: AtomicU64,
    tokens_bad: AtomicU64,
    tokens_without_key: AtomicU64,
    heads_malformed: AtomicU64,
    heads_too_large: AtomicU64,
    heads_too_late: AtomicU64,
    heads_without_proxy: AtomicU64,
    heads_of_strangers: AtomicU64,
    handshakes: AtomicU64,
    redis_successes: AtomicU64,
    redis_failures: AtomicU64,
    redis_skipped: AtomicU64,
    beat: AtomicU64,
}

/// Why a head came to no exchange: it has no route, and is no request yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadFault {
    /// It is not HTTP/1.1.
    Malformed,
    /// It is larger than can be answered in words.
    TooLarge,
    /// It did not arrive in time.
    TooLate,
    /// Before it was not the PROXY header that the listener wants.
    ProxyHeader,
    /// A peer that is not trusted has come to a listener that wants a PROXY header.
    PeerNotTrusted,
    /// Before it, client and gate did not agree on TLS, or the client's certificate is not good.
    Tls,
}

impl HeadFault {
    /// Every one of them.
    pub const ALL: [Self; 6] = [
        Self::Malformed,
        Self::TooLarge,
        Self::TooLate,
        Self::ProxyHeader,
        Self::PeerNotTrusted,
        Self::Tls,
    ];

    /// The name of the refusal it would have been, if there is one.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed => Refusal::RequestMalformed.reason(),
            Self::TooLarge => Refusal::HeadersTooLarge.reason(),
            Self::TooLate => Refusal::RequestTimeout.reason(),
            Self::ProxyHeader => "proxy_header_malformed",
            Self::PeerNotTrusted => "peer_not_trusted",
            Self::Tls => "tls_handshake",
        }
    }
}

/// What became of a request that was to be counted in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisOutcome {
    /// It was counted there.
    Success,
    /// It was not, and has waited in vain.
    Failure,
    /// Redis was known to be away.
    Skipped,
}

impl RedisOutcome {
    /// All of them, each with its label.
    pub const ALL: [(Self, &str); 3] = [
        (Self::Success, "success"),
        (Self::Failure, "failure"),
        (Self::Skipped, "skipped"),
    ];
}

#[derive(Debug, Default, Clone)]
struct Tally {
    requests: HashMap<Labels, u64>,
    durations: HashMap<Arc<str>, Durations>,
    request_bytes: u64,
    response_bytes: u64,
    /// What was last seen, by upstream.
    pools: BTreeMap<String, Pool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Labels {
    route: Arc<str>,
    method: &'static str,
    status: u16,
    reason: &'static str,
}

#[derive(Debug, Default, Clone)]
struct Durations {
    whole: Histogram,
    gate: Histogram,
    upstream: Histogram,
}

#[derive(Debug, Default, Clone)]
struct Histogram {
    sum: f64,
    buckets: [u64; BUCKETS.len() + 1],
}

impl WorkerMetrics {
    /// For a worker that leaves its spans here.
    pub fn new(spans: Arc<Spans>) -> Self {
        Self {
            spans,
            ..Self::default()
        }
    }

    /// Counts one exchange.
    pub fn count(&self, record: &Record) {
        let Record {
            method,
            target: _,
            route,
            status,
            reason,
            cause: _,
            is_about_the_caller: _,
            subject: _,
            issuer: _,
            client: _,
            request_id: _,
            elapsed,
            gate,
            upstream,
            request_bytes,
            response_bytes,
            whole: _,
            trace: _,
        } = record;
        let route = route
            .as_ref()
            .map_or(&self.no_route, |route| &route.pattern);
        let labels = Labels {
            route: Arc::clone(route),
            method: method_label(method),
            status: status.as_u16(),
            reason: reason.unwrap_or_default(),
        };
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        *counted.requests.entry(labels).or_default() += 1;
        counted.request_bytes += request_bytes;
        counted.response_bytes += response_bytes;
        let durations = counted.durations.entry(Arc::clone(route)).or_default();
        durations.whole.observe(&BUCKETS, *elapsed);
        durations.gate.observe(&GATE_BUCKETS, *gate);
        if let Some(upstream) = upstream {
            durations.upstream.observe(&BUCKETS, *upstream);
        }
    }

    /// A connection was accepted.
    pub fn connection_opened(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection has ended.
    pub fn connection_closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> usize {
        usize::try_from(self.open.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Tokens were looked for among those already verified.
    pub fn tokens_looked_for(&self, counted: Counted) {
        let Counted {
            hits,
            misses,
            good,
            bad,
            without_key,
        } = counted;
        for (count, more) in [
            (&self.cache_hits, hits),
            (&self.cache_misses, misses),
            (&self.tokens_good, good),
            (&self.tokens_bad, bad),
            (&self.tokens_without_key, without_key),
        ] {
            // Most requests have one of them, at the most.
            if more > 0 {
                count.fetch_add(more, Ordering::Relaxed);
            }
        }
    }

    /// The worker has these connections to its upstreams.
    pub fn pools(&self, pools: BTreeMap<String, Pool>) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.pools = pools;
    }

    /// A head came to no exchange.
    pub fn head_refused(&self, fault: HeadFault) {
        self.heads_refused(fault).fetch_add(1, Ordering::Relaxed);
    }

    fn heads_refused(&self, fault: HeadFault) -> &AtomicU64 {
        match fault {
            HeadFault::Malformed => &self.heads_malformed,
            HeadFault::TooLarge => &self.heads_too_large,
            HeadFault::TooLate => &self.heads_too_late,
            HeadFault::ProxyHeader => &self.heads_without_proxy,
            HeadFault::PeerNotTrusted => &self.heads_of_strangers,
            HeadFault::Tls => &self.handshakes,
        }
    }

    /// A request was to be counted in Redis.
    pub fn redis_asked(&self, outcome: RedisOutcome) {
        self.redis_outcomes(outcome).fetch_add(1, Ordering::Relaxed);
    }

    fn redis_outcomes(&self, outcome: RedisOutcome) -> &AtomicU64 {
        match outcome {
            RedisOutcome::Success => &self.redis_successes,
            RedisOutcome::Failure => &self.redis_failures,
            RedisOutcome::Skipped => &self.redis_skipped,
        }
    }

    /// The worker's event loop turns.
    pub fn beat(&self) {
        self.beat.fetch_add(1, Ordering::Relaxed);
    }

    /// How often the event loop has said so.
    pub fn beats(&self) -> u64 {
        self.beat.load(Ordering::Relaxed)
    }
}

impl Histogram {
    fn observe(&mut self, bounds: &Bounds, duration: Duration) {
        let seconds = duration.as_secs_f64();
        self.sum += seconds;
        let bucket = bounds
            .iter()
            .position(|bound| seconds <= *bound)
            .unwrap_or(bounds.len());
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            *bucket += 1;
        }
    }

    fn is_empty(&self) -> bool {
        self.buckets.iter().all(|count| *count == 0)
    }

    fn add(&mut self, other: &Self) {
        self.sum += other.sum;
        for (bucket, more) in self.buckets.iter_mut().zip(other.buckets) {
            *bucket += more;
        }
    }
}

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
    pub issuers: Roster<IssuerMetrics>,
    /// By file, each once.
    pub certificates: Vec<ExpiryMetrics>,
    /// Revocation lists, by file, each once.
    pub revocation_lists: Vec<ExpiryMetrics>,
    /// Changed files of listeners that were taken over.
    pub files_reloaded: AtomicU64,
    /// Changed files of listeners that could not be used.
    pub files_kept: AtomicU64,
    /// By upstream.
    pub upstreams: Roster<UpstreamMetrics>,
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
            let counted = worker
                .counted
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            total.request_bytes += counted.request_bytes;
            total.response_bytes += counted.response_bytes;
            for (labels, count) in counted.requests {
                *total.requests.entry(labels).or_default() += count;
            }
            for (route, durations) in counted.durations {
                let sum = total.durations.entry(route).or_default();
                sum.whole.add(&durations.whole);
                sum.gate.add(&durations.gate);
                sum.upstream.add(&durations.upstream);
            }
            for (upstream, pool) in counted.pools {
                total.pools.entry(upstream).or_default().add(pool);
            }
        }
        total
    }
}

/// A time as a metric; 0 if it is not known.
fn seconds(time: Option<UnixTime>) -> i64 {
    time.map_or(0, |time| time.0)
}
