//! Limits of one client connection.

use std::time::Duration;

/// Timeouts of a client connection.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a complete request head.
    pub header: Duration,
    /// For progress of a body.
    pub body: Duration,
    /// Between requests.
    pub idle: Duration,
}

#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    pub timeouts: Timeouts,
    /// Size of a request head, in bytes.
    pub max_header_bytes: usize,
}

impl ConnectionLimits {
    /// Size of the read buffer, in bytes: a head slightly above the limit is still read, for an explanatory response.
    pub(super) fn read_header_bytes(&self) -> usize {
        self.max_header_bytes.saturating_mul(2).max(16 * 1024)
    }
}
