//! Compiled configuration of an upstream: plain values without run-time state.

use std::time::Duration;

use http::uri::PathAndQuery;

use crate::config::{Balance, Ejection, Retries, Reuse};

use super::address::Target;

/// Compiled `[upstreams.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamPolicy {
    pub name: String,
    /// Configured URLs, all with the same protocol.
    pub targets: Vec<Target>,
    /// Load balancing between endpoints.
    pub balance: Balance,
    /// Timeout of opening a connection, and of waiting in the queue.
    pub connect_timeout: Duration,
    /// Time from the end of the request to the response head.
    pub response_timeout: Duration,
    /// Idle timeout of a response body or a WebSocket; zero for none.
    pub idle_timeout: Duration,
    /// Forwards informational responses (1xx).
    pub informational: bool,
    /// Condition for another exchange on an HTTP/1.1 connection.
    pub reuse: Reuse,
    /// Idle timeout of a pooled connection.
    pub keep_alive: Duration,
    /// Interval between DNS lookups.
    pub dns_refresh: Duration,
    pub retries: Retries,
    /// Outlier detection.
    pub ejection: Ejection,
    pub health_check: Option<HealthPolicy>,
    /// Limit of concurrent requests; none for no limit.
    pub queue: Option<QueueLimits>,
}

/// Compiled `health_check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthPolicy {
    pub path: PathAndQuery,
    pub interval: Duration,
    /// Timeout of one check, including the connection.
    pub timeout: Duration,
    /// Consecutive failed checks until an endpoint is unhealthy.
    pub unhealthy: u32,
    /// Consecutive successful checks until an endpoint is healthy.
    pub healthy: u32,
}

/// Limits of concurrent requests, over all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Requests in flight.
    pub max_active: usize,
    /// Requests waiting for a slot.
    pub max_waiting: usize,
}
