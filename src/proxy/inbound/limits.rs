//! Limits of one client connection.

use std::time::Duration;

/// Connections above a limit that get a 503 response; the rest are closed at once.
pub(in crate::proxy) const MAX_REJECTED_WITH_RESPONSE: usize = 64;

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
