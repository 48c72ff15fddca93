//! What one worker counts.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::gate::cache::CacheCounts;
use crate::gate::refusal::Refusal;
use crate::observe::Record;
use crate::observe::log::method_label;
use crate::observe::refusals::Refusals;
use crate::observe::traces::Spans;

use super::Pool;
use super::durations::{BUCKETS, Durations, GATE_BUCKETS};

/// What one worker has counted. Only its worker writes it, so that the lock is free but for a scrape.
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    counted: Mutex<Tally>,
    no_route: Arc<str>,
    /// What it has not served.
    pub refusals: Refusals,
    /// What it has for the collector of spans, together with the other workers.
    pub spans: Arc<Spans>,
    pub(super) open: AtomicI64,
    pub(super) accepted: AtomicU64,
    pub(super) cache_hits: AtomicU64,
    pub(super) cache_misses: AtomicU64,
    pub(super) tokens_good: AtomicU64,
    pub(super) tokens_bad: AtomicU64,
    pub(super) tokens_without_key: AtomicU64,
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
pub enum RejectedHead {
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

impl RejectedHead {
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
            Self::ProxyHeader => "proxy_protocol_malformed",
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

/// What is counted by route, and by upstream.
#[derive(Debug, Default, Clone)]
pub(super) struct Tally {
    pub(super) requests: HashMap<Labels, u64>,
    pub(super) durations: HashMap<Arc<str>, Durations>,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    /// What was last seen, by upstream.
    pub(super) pools: BTreeMap<String, Pool>,
}

/// What exchanges that are counted together have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Labels {
    pub(super) route: Arc<str>,
    pub(super) method: &'static str,
    pub(super) status: u16,
    pub(super) reason: &'static str,
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
            is_auth_failure: _,
            subject: _,
            issuer: _,
            client: _,
            request_id: _,
            elapsed,
            gate,
            upstream,
            request_bytes,
            response_bytes,
            complete: _,
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
    pub fn tokens_looked_for(&self, counted: CacheCounts) {
        let CacheCounts {
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
    pub fn head_refused(&self, fault: RejectedHead) {
        self.heads_refused(fault).fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn heads_refused(&self, fault: RejectedHead) -> &AtomicU64 {
        match fault {
            RejectedHead::Malformed => &self.heads_malformed,
            RejectedHead::TooLarge => &self.heads_too_large,
            RejectedHead::TooLate => &self.heads_too_late,
            RejectedHead::ProxyHeader => &self.heads_without_proxy,
            RejectedHead::PeerNotTrusted => &self.heads_of_strangers,
            RejectedHead::Tls => &self.handshakes,
        }
    }

    /// A request was to be counted in Redis.
    pub fn redis_asked(&self, outcome: RedisOutcome) {
        self.redis_outcomes(outcome).fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn redis_outcomes(&self, outcome: RedisOutcome) -> &AtomicU64 {
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

    /// What it has counted until now.
    pub(super) fn tally(&self) -> Tally {
        let counted = self.counted.lock();
        counted.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        let Self {
            requests,
            durations,
            request_bytes,
            response_bytes,
            pools,
        } = other;
        for (labels, count) in requests {
            *self.requests.entry(labels).or_default() += count;
        }
        for (route, durations) in durations {
            let sum = self.durations.entry(route).or_default();
            sum.whole.add(&durations.whole);
            sum.gate.add(&durations.gate);
            sum.upstream.add(&durations.upstream);
        }
        self.request_bytes += request_bytes;
        self.response_bytes += response_bytes;
        for (upstream, pool) in pools {
            self.pools.entry(upstream).or_default().add(pool);
        }
    }
}
