//! Summary of the metrics as JSON, for the status page.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::durations::{BUCKETS, GATE_BUCKETS};
use super::exposition::{COMMIT, VERSION};
use super::{Metrics, WorkerMetrics};

impl Metrics {
    /// Totals since the start, and the current connections.
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
                "request": durations.request.buckets,
                "gate": durations.gate.buckets,
                "upstream": durations.upstream.buckets,
            })
        });
        let (issuers, upstreams) = (self.issuers.configured(), self.upstreams.configured());
        let issuers = issuers.iter().map(|issuer| issuer.summary());
        let upstreams = upstreams
            .iter()
            .map(|upstream| upstream.summary(&total.pools));
        json!({
            "version": VERSION,
            "commit": COMMIT,
            "workers": self.workers.len(),
            "panics": self.panics.load(Ordering::Relaxed),
            "log_lines_dropped": self.dropped_lines(),
            "configuration": self.config.summary(),
            "connections": { "open": open, "accepted": accepted },
            "token_cache": { "hit": hits, "miss": misses },
            "bounds": { "request": BUCKETS, "gate": GATE_BUCKETS, "upstream": BUCKETS },
            "requests": requests.collect::<Vec<_>>(),
            "durations": durations.collect::<Vec<_>>(),
            "issuers": issuers.collect::<Vec<_>>(),
            "upstreams": upstreams.collect::<Vec<_>>(),
            "certificates": self.tls.summary(),
            "history": self.history.summary(),
        })
    }
}
