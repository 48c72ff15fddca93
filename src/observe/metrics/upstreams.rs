//! What is counted about upstreams.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use serde_json::{Value, json};

use super::{MetricsRegistry, Named};

/// What is counted about one upstream.
#[derive(Debug, Default)]
pub struct UpstreamMetrics {
    name: String,
    /// Whether its endpoints are asked how they are.
    is_checked: AtomicBool,
    connected: AtomicU64,
    failed: AtomicU64,
    retried: AtomicU64,
    ejected: AtomicU64,
    healthy: AtomicU64,
}

impl UpstreamMetrics {
    /// Nothing counted yet.
    pub fn new(name: String, is_checked: bool) -> Self {
        Self {
            name,
            is_checked: is_checked.into(),
            ..Self::default()
        }
    }

    /// The upstream is another from now on, of which nothing is known yet; the counters go on.
    pub fn replace(&self, is_checked: bool) {
        self.is_checked.store(is_checked, Ordering::Relaxed);
        self.healthy(0);
    }

    /// A connection was opened, or could not be.
    pub fn connected(&self, is_open: bool) {
        let count = if is_open {
            &self.connected
        } else {
            &self.failed
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// A request is tried once more.
    pub fn retried(&self) {
        self.retried.fetch_add(1, Ordering::Relaxed);
    }

    /// A worker leaves an endpoint out.
    pub fn ejected(&self) {
        self.ejected.fetch_add(1, Ordering::Relaxed);
    }

    /// So many endpoints are healthy.
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

/// What one or all workers have of one upstream at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pool {
    /// Requests that are with it, and tunnels.
    pub requests: u64,
    /// Connections that are in use, or being opened.
    pub active: u64,
    /// Connections that are kept for the next request.
    pub idle: u64,
}

impl Pool {
    /// Adds another.
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

/// One of the counters.
type Choose = fn(&UpstreamMetrics) -> &AtomicU64;

/// Writes what is counted about every upstream.
pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    upstreams: &MetricsRegistry<UpstreamMetrics>,
    pools: &BTreeMap<String, Pool>,
) -> Result<(), fmt::Error> {
    let (all, in_force) = (upstreams.all(), upstreams.in_force());
    let help = "Connections to an upstream";
    let mut family =
        encoder.encode_descriptor("upstream_connections", help, None, MetricType::Counter)?;
    for upstream in &all {
        for (outcome, count) in [
            ("success", &upstream.connected),
            ("failure", &upstream.failed),
        ] {
            let labels = [("upstream", upstream.name.as_str()), ("outcome", outcome)];
            ConstCounter::new(count.load(Ordering::Relaxed))
                .encode(family.encode_family(&labels)?)?;
        }
    }
    let counters: [(&str, &str, Choose); 2] = [
        ("upstream_retries", "Requests tried once more", |upstream| {
            &upstream.retried
        }),
        (
            "upstream_ejections",
            "Endpoints left out for a while by a worker",
            |upstream| &upstream.ejected,
        ),
    ];
    for (name, help, choose) in counters {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for upstream in &all {
            let labels = [("upstream", upstream.name.as_str())];
            ConstCounter::new(choose(upstream).load(Ordering::Relaxed))
                .encode(family.encode_family(&labels)?)?;
        }
    }
    let pool = |upstream: &UpstreamMetrics| pools.get(&upstream.name).copied().unwrap_or_default();
    let whole = |count| i64::try_from(count).unwrap_or(i64::MAX);
    let help = "Connections to an upstream that are open";
    let mut family =
        encoder.encode_descriptor("upstream_connections_open", help, None, MetricType::Gauge)?;
    for upstream in in_force.iter() {
        let Pool { active, idle, .. } = pool(upstream);
        for (state, count) in [("active", active), ("idle", idle)] {
            let labels = [("upstream", upstream.name.as_str()), ("state", state)];
            ConstGauge::new(whole(count)).encode(family.encode_family(&labels)?)?;
        }
    }
    let help = "Requests that are with an upstream";
    let mut family =
        encoder.encode_descriptor("upstream_requests_active", help, None, MetricType::Gauge)?;
    for upstream in in_force.iter() {
        let labels = [("upstream", upstream.name.as_str())];
        ConstGauge::new(whole(pool(upstream).requests)).encode(family.encode_family(&labels)?)?;
    }
    let help = "Endpoints that are healthy by their check";
    let mut family =
        encoder.encode_descriptor("upstream_healthy_endpoints", help, None, MetricType::Gauge)?;
    let is_checked = |upstream: &&Arc<UpstreamMetrics>| upstream.is_checked.load(Ordering::Relaxed);
    for upstream in in_force.iter().filter(is_checked) {
        let labels = [("upstream", upstream.name.as_str())];
        let healthy = i64::try_from(upstream.healthy.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        ConstGauge::new(healthy).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
