//! The counters as JSON, for the status page.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use tracing_appender::non_blocking::ErrorCounter;

use crate::observe::log::printable;

use super::durations::{BUCKETS, GATE_BUCKETS};
use super::exposition::{COMMIT, VERSION};
use super::{IssuerMetrics, Metrics, WorkerMetrics};

impl Metrics {
    /// What is counted, as the status page wants it.
    pub fn summary(&self) -> Value {
        let total = self.total();
        let sum = |count: fn(&WorkerMetrics) -> u64| self.workers.iter().map(|w| count(w)).sum();
        let accepted: u64 = sum(|worker| worker.accepted.load(Ordering::Relaxed));
        let open: u64 = sum(|worker| worker.open_connections() as u64);
        let hits: u64 = sum(|worker| worker.cache_hits.load(Ordering::Relaxed));
        let misses: u64 = sum(|worker| worker.cache_misses.load(Ordering::Relaxed));
        let requests = total.requests.iter().map(|(labels, count)| {
            json!({
                "route": labels.route,
                "method": labels.method,
                "status": labels.status,
                "reason": labels.reason,
                "count": count,
            })
        });
        let durations = total.durations.iter().map(|(route, durations)| {
            json!({
                "route": route,
                "request": durations.whole.buckets,
                "gate": durations.gate.buckets,
                "upstream": durations.upstream.buckets,
            })
        });
        let (issuers, upstreams) = (self.issuers.in_force(), self.upstreams.in_force());
        let issuers = issuers.iter().map(|issuer| issuer.summary());
        let upstreams = upstreams
            .iter()
            .map(|upstream| upstream.summary(&total.pools));
        let dropped = self.dropped_lines.get();
        json!({
            "version": VERSION,
            "commit": COMMIT,
            "workers": self.workers.len(),
            "panics": self.panics.load(Ordering::Relaxed),
            "log_lines_dropped": dropped.map_or(0, ErrorCounter::dropped_lines),
            "configuration": self.config.summary(),
            "connections": { "open": open, "accepted": accepted },
            "token_cache": { "hit": hits, "miss": misses },
            "bounds": { "request": BUCKETS, "gate": GATE_BUCKETS, "upstream": BUCKETS },
            "requests": requests.collect::<Vec<_>>(),
            "durations": durations.collect::<Vec<_>>(),
            "issuers": issuers.collect::<Vec<_>>(),
            "upstreams": upstreams.collect::<Vec<_>>(),
        })
    }
}

impl IssuerMetrics {
    fn summary(&self) -> Value {
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
        })
    }
}
