//! Result of the health checks of one upstream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

use super::address::EndpointAddress;

/// Endpoint health: written by the control thread, read by the workers.
#[derive(Debug, Default)]
pub struct HealthStatus {
    unhealthy: ArcSwap<Vec<Arc<EndpointAddress>>>,
    any_healthy: AtomicBool,
}

impl HealthStatus {
    pub(super) fn is_healthy(&self, address: &EndpointAddress) -> bool {
        let unhealthy = self.unhealthy.load();
        !unhealthy.iter().any(|unhealthy| **unhealthy == *address)
    }

    /// Returns true if at least one endpoint is healthy.
    pub fn any_healthy(&self) -> bool {
        self.any_healthy.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, unhealthy: Vec<Arc<EndpointAddress>>, any_healthy: bool) {
        self.unhealthy.store(Arc::new(unhealthy));
        self.any_healthy.store(any_healthy, Ordering::Relaxed);
    }
}
