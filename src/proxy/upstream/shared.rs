//! Upstream as shared by all workers: compiled configuration and run-time state.

use std::sync::Arc;

use crate::observe::metrics::UpstreamMetrics;

use super::health_status::HealthStatus;
use super::policy::UpstreamPolicy;
use super::protocol::Protocol;
use super::queue::Queue;

/// Configuration of an upstream with its run-time state.
#[derive(Debug, Clone)]
pub struct SharedUpstream {
    pub policy: UpstreamPolicy,
    pub protocol: Protocol,
    pub state: Arc<UpstreamState>,
}

/// Run-time state of an upstream. A configuration reload keeps it for an unchanged upstream.
#[derive(Debug)]
pub struct UpstreamState {
    pub queue: Option<Queue>,
    pub health: HealthStatus,
    pub metrics: Arc<UpstreamMetrics>,
}

impl SharedUpstream {
    /// Upstream with a new state.
    pub fn new(policy: UpstreamPolicy, protocol: Protocol) -> Self {
        let metrics = UpstreamMetrics::new(policy.name.clone(), policy.health_check.is_some());
        let state = UpstreamState::new(&policy, Arc::new(metrics));
        Self {
            state: Arc::new(state),
            policy,
            protocol,
        }
    }

    /// Takes over the state of the upstream with the same name in the previous configuration: all of it if
    /// [`Self::can_reuse`] allows, otherwise only the counters.
    pub fn inherit_state(&mut self, previous: &Self) {
        if self.can_reuse(previous) {
            self.state = Arc::clone(&previous.state);
        } else {
            self.continue_metrics(Arc::clone(&previous.state.metrics));
        }
    }

    /// Continues the counters of an upstream with the same name. Its health is unknown again.
    pub fn continue_metrics(&mut self, metrics: Arc<UpstreamMetrics>) {
        metrics.replace(self.policy.health_check.is_some());
        self.state = Arc::new(UpstreamState::new(&self.policy, metrics));
    }

    /// Returns true if connections, queue and health of another configuration stay valid in this one: every setting is
    /// equal, including the content of the TLS files.
    pub fn can_reuse(&self, other: &Self) -> bool {
        self.policy == other.policy && self.protocol.is_equivalent(&other.protocol)
    }

    /// Returns true if both are the same upstream, before and after configuration reloads that did not change it.
    pub fn shares_state(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }
}

impl UpstreamState {
    fn new(policy: &UpstreamPolicy, metrics: Arc<UpstreamMetrics>) -> Self {
        Self {
            queue: policy.queue.map(Queue::new),
            health: HealthStatus::default(),
            metrics,
        }
    }
}
