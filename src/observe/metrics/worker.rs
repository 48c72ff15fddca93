//! Metrics of one worker.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::gate::cache::CacheCounts;
use crate::gate::refusal::Refusal;
use crate::observe::Record;
use crate::observe::log::method_label;
use crate::observe::refusals::Refusals;
use crate::observe::traces::Spans;
use crate::unkeyed_hash::UnkeyedHashMap;

use super::Pool;
use super::durations::{BUCKETS, Durations, GATE_BUCKETS};

/// Metrics of one worker. Only this worker writes them, so only a scrape contends for the lock.
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    tally: Mutex<Tally>,
    /// Route label of requests without a route: empty.
    no_route: Arc<str>,
    /// Last refusals.
    pub refusals: Refusals,
    /// Export queue of spans, shared by all workers.
    pub spans: Arc<Spans>,
    pub(super) open: AtomicI64,
    pub(super) accepted: AtomicU64,
    pub(super) evicted: AtomicU64,
    rejected_in_total: AtomicU64,
    rejected_per_client: AtomicU64,
    pub(super) cache_hits: AtomicU64,
    pub(super) cache_misses: AtomicU64,
    pub(super) tokens_valid: AtomicU64,
    pub(super) tokens_invalid: AtomicU64,
    pub(super) tokens_without_key: AtomicU64,
    heads_malformed: AtomicU64,
    heads_too_large: AtomicU64,
    heads_timed_out: AtomicU64,
    proxy_headers_malformed: AtomicU64,
    peers_not_trusted: AtomicU64,
    tls_handshakes_failed: AtomicU64,
    redis_successes: AtomicU64,
    redis_failures: AtomicU64,
    redis_skipped: AtomicU64,
    heartbeats: AtomicU64,
}

/// Rejection of a connection without a complete request head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectedHead {
    /// Malformed HTTP.
    Malformed,
    /// Larger than the parser accepts.
    TooLarge,
    /// Not received within the header timeout.
    TimedOut,
    /// Missing or malformed PROXY protocol header on a listener that requires one.
    ProxyHeader,
    /// Untrusted peer on a listener that requires a PROXY protocol header.
    PeerNotTrusted,
    /// Failed TLS handshake, also for an invalid client certificate.
    Tls,
}

impl RejectedHead {
    pub const ALL: [Self; 6] = [
        Self::Malformed,
        Self::TooLarge,
        Self::TimedOut,
        Self::ProxyHeader,
        Self::PeerNotTrusted,
        Self::Tls,
    ];

    /// Value of the `reason` label: the reason of the corresponding refusal, if there is one.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed => Refusal::RequestMalformed.reason(),
            Self::TooLarge => Refusal::HeadersTooLarge.reason(),
            Self::TimedOut => Refusal::RequestTimeout.reason(),
            Self::ProxyHeader => "proxy_protocol_malformed",
            Self::PeerNotTrusted => "peer_not_trusted",
            Self::Tls => "tls_handshake",
        }
    }
}

/// Limit of open connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionLimit {
    /// Of all clients together.
    Total,
    /// Of one client.
    PerClient,
}

impl ConnectionLimit {
    /// Limits with their labels, the keys of the configuration.
    pub const ALL: [(Self, &str); 2] = [
        (Self::Total, "max_connections"),
        (Self::PerClient, "max_connections_per_client"),
    ];
}

/// Outcome of counting a request in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisOutcome {
    Success,
    /// Redis failed or timed out.
    Failure,
    /// Redis is known to be unavailable, and was not called.
    Skipped,
}

impl RedisOutcome {
    /// Outcomes with their labels.
    pub const ALL: [(Self, &str); 3] = [
        (Self::Success, "success"),
        (Self::Failure, "failure"),
        (Self::Skipped, "skipped"),
    ];
}

/// Counts by route and by upstream.
#[derive(Debug, Default, Clone)]
pub(super) struct Tally {
    pub(super) requests: UnkeyedHashMap<Labels, u64>,
    /// Refusals by stage and reason.
    pub(super) refusals: BTreeMap<(&'static str, &'static str), u64>,
    pub(super) durations: UnkeyedHashMap<Arc<str>, Durations>,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    /// Last known state of the connection pools, by upstream.
    pub(super) pools: BTreeMap<String, Pool>,
}

/// Label values of the request counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Labels {
    pub(super) route: Arc<str>,
    pub(super) method: &'static str,
    pub(super) status: u16,
    pub(super) reason: &'static str,
}

impl WorkerMetrics {
    pub fn new(spans: Arc<Spans>) -> Self {
        Self {
            spans,
            ..Self::default()
        }
    }

    /// Counts one exchange.
    pub fn count(&self, record: &Record<'_>) {
        let Record {
            method,
            target: _,
            route,
            status,
            reason,
            stage,
            cause: _,
            is_auth_failure: _,
            caller: _,
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
        let route = route.map_or(&self.no_route, |route| &route.pattern);
        let labels = Labels {
            route: Arc::clone(route),
            method: method_label(method),
            status: status.as_u16(),
            reason: reason.unwrap_or_default(),
        };
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        *tally.requests.entry(labels).or_default() += 1;
        if let (Some(stage), Some(reason)) = (stage, reason) {
            let refusals = tally.refusals.entry((stage.name(), reason));
            *refusals.or_default() += 1;
        }
        tally.request_bytes += request_bytes;
        tally.response_bytes += response_bytes;
        let durations = tally.durations.entry(Arc::clone(route)).or_default();
        durations.request.observe(&BUCKETS, *elapsed);
        durations.gate.observe(&GATE_BUCKETS, *gate);
        if let Some(upstream) = upstream {
            durations.upstream.observe(&BUCKETS, *upstream);
        }
    }

    /// Counts an accepted connection.
    pub fn connection_opened(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a closed connection.
    pub fn connection_closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a connection above a limit.
    pub fn connection_rejected(&self, limit: ConnectionLimit) {
        self.connections_rejected(limit)
            .fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connections_rejected(&self, limit: ConnectionLimit) -> &AtomicU64 {
        match limit {
            ConnectionLimit::Total => &self.rejected_in_total,
            ConnectionLimit::PerClient => &self.rejected_per_client,
        }
    }

    /// Counts idle connections closed to make room.
    pub fn connections_evicted(&self, count: usize) {
        self.evicted.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub fn open_connections(&self) -> usize {
        usize::try_from(self.open.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Adds lookups in the token cache and verifications.
    pub fn count_tokens(&self, counts: CacheCounts) {
        let CacheCounts {
            hits,
            misses,
            valid,
            invalid,
            without_key,
        } = counts;
        for (count, more) in [
            (&self.cache_hits, hits),
            (&self.cache_misses, misses),
            (&self.tokens_valid, valid),
            (&self.tokens_invalid, invalid),
            (&self.tokens_without_key, without_key),
        ] {
            // Most requests increment one counter at most.
            if more > 0 {
                count.fetch_add(more, Ordering::Relaxed);
            }
        }
    }

    /// Sets the state of the connection pools, by upstream.
    pub fn set_pools(&self, pools: BTreeMap<String, Pool>) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.pools = pools;
    }

    /// Counts a rejected request head.
    pub fn head_rejected(&self, head: RejectedHead) {
        self.heads_rejected(head).fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn heads_rejected(&self, head: RejectedHead) -> &AtomicU64 {
        match head {
            RejectedHead::Malformed => &self.heads_malformed,
            RejectedHead::TooLarge => &self.heads_too_large,
            RejectedHead::TimedOut => &self.heads_timed_out,
            RejectedHead::ProxyHeader => &self.proxy_headers_malformed,
            RejectedHead::PeerNotTrusted => &self.peers_not_trusted,
            RejectedHead::Tls => &self.tls_handshakes_failed,
        }
    }

    /// Counts a request that was to be counted in Redis.
    pub fn count_redis(&self, outcome: RedisOutcome) {
        self.redis_outcomes(outcome).fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn redis_outcomes(&self, outcome: RedisOutcome) -> &AtomicU64 {
        match outcome {
            RedisOutcome::Success => &self.redis_successes,
            RedisOutcome::Failure => &self.redis_failures,
            RedisOutcome::Skipped => &self.redis_skipped,
        }
    }

    /// Counts a heartbeat of the worker's event loop.
    pub fn beat(&self) {
        self.heartbeats.fetch_add(1, Ordering::Relaxed);
    }

    pub fn heartbeats(&self) -> u64 {
        self.heartbeats.load(Ordering::Relaxed)
    }

    pub(super) fn tally(&self) -> Tally {
        let tally = self.tally.lock();
        tally.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        let Self {
            requests,
            refusals,
            durations,
            request_bytes,
            response_bytes,
            pools,
        } = other;
        for (labels, count) in requests {
            *self.requests.entry(labels).or_default() += count;
        }
        for (labels, count) in refusals {
            *self.refusals.entry(labels).or_default() += count;
        }
        for (route, durations) in durations {
            let sum = self.durations.entry(route).or_default();
            sum.request.add(&durations.request);
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
