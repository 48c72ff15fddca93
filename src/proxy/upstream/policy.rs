//! An upstream, as configured, and what all workers share about it.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;

use crate::config::{Balance, Ejection, Retries};
use crate::observe::metrics::UpstreamMetrics;

use super::address::Target;
use super::connect::Protocol;
use super::health::Health;
use super::queue::Queue;

/// An upstream, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamPolicy {
    /// Its name.
    pub name: String,
    /// Where it is: one or several of the same.
    pub targets: Vec<Target>,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Which of several endpoints is the next.
    pub balance: Balance,
    /// How long a connection may take to open.
    pub connect_timeout: Duration,
    /// How long from the whole request to the head of its answer.
    pub response_timeout: Duration,
    /// How long an answer or a WebSocket may stand still; zero is no limit.
    pub idle_timeout: Duration,
    /// Whether its interim answers are passed on.
    pub informational: bool,
    /// How long a connection is kept without a use.
    pub keep_alive: Duration,
    /// How often the addresses of a name are looked up.
    pub dns_refresh: Duration,
    /// What is tried once more.
    pub retries: Retries,
    /// When one of several endpoints is left out.
    pub ejection: Ejection,
    /// What is asked of every endpoint.
    pub health_check: Option<HealthPolicy>,
    /// What all workers share.
    pub common: Common,
}

/// A health check, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthPolicy {
    /// What is asked for.
    pub path: PathAndQuery,
    /// How often.
    pub interval: Duration,
    /// How long an answer may take, the connection included.
    pub timeout: Duration,
    /// After how many bad answers in a row an endpoint is not healthy.
    pub unhealthy: u32,
    /// After how many good answers in a row it is.
    pub healthy: u32,
}

/// What all workers share about one upstream.
#[derive(Debug, Clone, Default)]
pub struct Common {
    /// Who may go to it, if not everybody may at once.
    pub queue: Option<Arc<Queue>>,
    /// What the health check has found.
    pub health: Arc<Health>,
    /// What is counted.
    pub metrics: Arc<UpstreamMetrics>,
}

impl UpstreamPolicy {
    /// Takes over what workers share about the upstream of that name in the policy before. If it is no other, that is
    /// all: their connections, how many requests are with it, and how it is. What was counted goes on in any case.
    pub fn succeed(&mut self, before: &Self) {
        let (mine, theirs) = (&self.common, &before.common);
        let with_theirs = Self {
            common: theirs.clone(),
            ..self.clone()
        };
        let is_same = with_theirs == *before && mine.queue.as_deref() == theirs.queue.as_deref();
        if is_same {
            self.common = theirs.clone();
        } else {
            self.count_in(Arc::clone(&theirs.metrics));
        }
    }

    /// Goes on counting where an upstream of that name was counted before.
    pub fn count_in(&mut self, metrics: Arc<UpstreamMetrics>) {
        metrics.replace(self.health_check.is_some());
        self.common.metrics = metrics;
    }
}

impl PartialEq for Common {
    /// Two that are alike are not the same: each has its own connections.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.health, &other.health)
    }
}

impl Eq for Common {}
