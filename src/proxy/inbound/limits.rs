//! Limits of one client connection.

use std::time::Duration;

/// How long a client may take for each step.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a whole head.
    pub header: Duration,
    /// Without progress of a body.
    pub body: Duration,
    /// Between requests.
    pub idle: Duration,
}

/// The limits of a connection.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// How long a client may take.
    pub timeouts: Timeouts,
    /// The largest head, in bytes.
    pub max_header_bytes: usize,
}

impl ConnectionLimits {
    /// A head that is a little too large is still read, to be answered in words.
    pub(super) fn read_header_bytes(&self) -> usize {
        self.max_header_bytes.saturating_mul(2).max(16 * 1024)
    }
}
