//! File descriptors of the process: raises their limit, and divides them among client connections, upstream connections
//! and everything else.

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// Descriptors for everything but clients and upstreams: key fetches, reloads, health checks, Redis, traces and the admin
/// listener.
const RESERVE: u64 = 192;

/// Descriptors of the process itself: standard streams, signals, the control thread.
const BASE: u64 = 16;

/// Descriptors of one worker, besides its listening sockets.
const PER_WORKER: u64 = 4;

/// Most connections of the admin listener.
const MAX_ADMIN_CONNECTIONS: u64 = 64;

/// Most connections that the descriptors of the process allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capacity {
    /// Client connections.
    pub(super) clients: usize,
    /// Connections of the admin listener.
    pub(super) admin: usize,
}

impl Capacity {
    /// Raises the descriptor limit to the maximum that the system grants, and divides it. Warns if it is too low for
    /// `max_connections`.
    pub(super) fn of_process(max_connections: usize, workers: usize, listeners: usize) -> Self {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            warn!("failed to raise the limit of file descriptors: {error}");
        }
        let granted = getrlimit(Resource::Nofile).current;
        let own = own(workers as u64, listeners as u64);
        let capacity = Self::divide(granted.unwrap_or(u64::MAX), own);
        if capacity.clients < max_connections {
            let needed = (max_connections as u64)
                .saturating_mul(2)
                .saturating_add(own + RESERVE);
            warn!(
                granted,
                needed,
                "the limit of file descriptors is too low for `max_connections = {max_connections}`: at most {} client \
                 connections are accepted",
                capacity.clients
            );
        }
        capacity
    }

    /// Divides `granted` descriptors, of which the process itself takes `own`. A client connection takes two: its own and
    /// that of the upstream.
    fn divide(granted: u64, own: u64) -> Self {
        let available = granted.saturating_sub(own);
        let reserve = RESERVE.min(available / 2);
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).max(1);
        Self {
            clients: count((available - reserve) / 2),
            admin: count((reserve / 3).min(MAX_ADMIN_CONNECTIONS)),
        }
    }
}

fn own(workers: u64, listeners: u64) -> u64 {
    BASE + workers * (PER_WORKER + listeners)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_descriptors_for_upstreams_the_admin_listener_and_the_rest() {
        for (granted, clients, admin) in [
            (u64::MAX, usize::MAX / 2 - 109, 64),
            (1_048_576, 524_179, 64),
            (20_192 + 26, 10_000, 64),
            (1024, 403, 64),
            (256, 57, 38),
            (48, 5, 3),
            (3, 1, 1),
            (0, 1, 1),
        ] {
            let found = Capacity::divide(granted, own(2, 1));
            assert_eq!((found.clients, found.admin), (clients, admin), "{granted}");
        }
    }
}
