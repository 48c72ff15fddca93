//! What is counted about upstreams.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{Named, Roster};

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

impl Named for UpstreamMetrics {
    fn name(&self) -> &str {
        &self.name
    }
}

/// One of the counters.
type Choose = fn(&UpstreamMetrics) -> &AtomicU64;

/// Writes what is counted about every upstream.
pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    upstreams: &Roster<UpstreamMetrics>,
) -> Result<(), fmt::Error> {
    let all = upstreams.all();
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
    let help = "Endpoints that are healthy by their check";
    let mut family =
        encoder.encode_descriptor("upstream_healthy_endpoints", help, None, MetricType::Gauge)?;
    let is_checked = |upstream: &&Arc<UpstreamMetrics>| upstream.is_checked.load(Ordering::Relaxed);
    for upstream in upstreams.in_force().iter().filter(is_checked) {
        let labels = [("upstream", upstream.name.as_str())];
        let healthy = i64::try_from(upstream.healthy.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        ConstGauge::new(healthy).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
