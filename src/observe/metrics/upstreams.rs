//! Metrics of upstreams.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use prometheus_client::encoding::DescriptorEncoder;
use serde_json::{Value, json};

use super::families::{counters, gauges};
use super::{MetricsRegistry, Named};

/// Metrics of one upstream.
#[derive(Debug, Default)]
pub struct UpstreamMetrics {
    name: String,
    /// True if the upstream has a health check.
    is_checked: AtomicBool,
    connected: AtomicU64,
    failed: AtomicU64,
    retried: AtomicU64,
    ejected: AtomicU64,
    healthy: AtomicU64,
}

impl UpstreamMetrics {
    pub fn new(name: String, is_checked: bool) -> Self {
        Self {
            name,
            is_checked: is_checked.into(),
            ..Self::default()
        }
    }

    /// Starts over for a new configuration of the upstream, with no endpoint known to be healthy. Counters continue.
    pub fn replace(&self, is_checked: bool) {
        self.is_checked.store(is_checked, Ordering::Relaxed);
        self.healthy(0);
    }

    /// Counts a connection attempt.
    pub fn connected(&self, is_open: bool) {
        let count = if is_open {
            &self.connected
        } else {
            &self.failed
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a retried request.
    pub fn retried(&self) {
        self.retried.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an ejection.
    pub fn ejected(&self) {
        self.ejected.fetch_add(1, Ordering::Relaxed);
    }

    /// Sets the number of healthy endpoints.
    pub fn healthy(&self, endpoints: usize) {
        self.healthy.store(endpoints as u64, Ordering::Relaxed);
    }
}

impl UpstreamMetrics {
    pub(super) fn summary(&self, pools: &BTreeMap<String, Pool>) -> Value {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Pool {
            requests,
            active,
            idle,
        } = pools.get(&self.name).copied().unwrap_or_default();
        let is_checked = self.is_checked.load(Ordering::Relaxed);
        json!({
            "name": self.name,
            "healthy": is_checked.then(|| load(&self.healthy)),
            "requests": requests,
            "active": active,
            "idle": idle,
            "connected": load(&self.connected),
            "failed": load(&self.failed),
            "retried": load(&self.retried),
            "ejected": load(&self.ejected),
        })
    }
}

impl Named for UpstreamMetrics {
    fn name(&self) -> &str {
        &self.name
    }
}

/// Connection pool of one upstream, of one worker or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pool {
    /// Requests and tunnels in flight.
    pub requests: u64,
    /// Connections in use or being opened.
    pub active: u64,
    /// Connections ready for the next request.
    pub idle: u64,
}

impl Pool {
    pub fn add(&mut self, other: Self) {
        let Self {
            requests,
            active,
            idle,
        } = other;
        self.requests += requests;
        self.active += active;
        self.idle += idle;
    }
}

pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    upstreams: &MetricsRegistry<UpstreamMetrics>,
    pools: &BTreeMap<String, Pool>,
) -> Result<(), fmt::Error> {
    type Choose = fn(&UpstreamMetrics) -> &AtomicU64;
    let (all, configured) = (upstreams.all(), upstreams.configured());
    let connections = all.iter().flat_map(|upstream| {
        let outcomes = [
            ("success", &upstream.connected),
            ("failure", &upstream.failed),
        ];
        outcomes.map(|(outcome, count)| {
            let labels = [("upstream", upstream.name.as_str()), ("outcome", outcome)];
            (labels, count.load(Ordering::Relaxed))
        })
    });
    counters(
        encoder,
        "upstream_connections",
        "Connection attempts to an upstream",
        connections,
    )?;
    let families: [(&str, &str, Choose); 2] = [
        ("upstream_retries", "Retried requests", |upstream| {
            &upstream.retried
        }),
        (
            "upstream_ejections",
            "Endpoint ejections by a worker",
            |upstream| &upstream.ejected,
        ),
    ];
    for (name, help, choose) in families {
        let counts = all.iter().map(|upstream| {
            let count = choose(upstream).load(Ordering::Relaxed);
            ([("upstream", upstream.name.as_str())], count)
        });
        counters(encoder, name, help, counts)?;
    }
    let pool = |upstream: &UpstreamMetrics| pools.get(&upstream.name).copied().unwrap_or_default();
    let signed = |count| i64::try_from(count).unwrap_or(i64::MAX);
    let open = configured.iter().flat_map(|upstream| {
        let Pool { active, idle, .. } = pool(upstream);
        [("active", active), ("idle", idle)].map(|(state, count)| {
            let labels = [("upstream", upstream.name.as_str()), ("state", state)];
            (labels, signed(count))
        })
    });
    gauges(
        encoder,
        "upstream_connections_open",
        "Open connections to an upstream",
        None,
        open,
    )?;
    let requests = configured.iter().map(|upstream| {
        let labels = [("upstream", upstream.name.as_str())];
        (labels, signed(pool(upstream).requests))
    });
    gauges(
        encoder,
        "upstream_requests_active",
        "Requests and tunnels in flight to an upstream",
        None,
        requests,
    )?;
    let is_checked = |upstream: &&Arc<UpstreamMetrics>| upstream.is_checked.load(Ordering::Relaxed);
    let healthy = configured.iter().filter(is_checked).map(|upstream| {
        let healthy = upstream.healthy.load(Ordering::Relaxed);
        ([("upstream", upstream.name.as_str())], signed(healthy))
    });
    gauges(
        encoder,
        "upstream_healthy_endpoints",
        "Healthy endpoints",
        None,
        healthy,
    )
}
