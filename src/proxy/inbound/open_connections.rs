//! Counts the open connections of one worker.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::observe::metrics::WorkerMetrics;
use crate::proxy::shared::Shared;

/// Number of open connections of one worker, tunnels included.
#[derive(Debug)]
pub(super) struct OpenConnections {
    count: Cell<usize>,
    closed: Notify,
    shared: Arc<Shared>,
    metrics: Arc<WorkerMetrics>,
}

/// Counts one connection until it is dropped.
#[derive(Debug)]
pub(super) struct Registration {
    /// Accepted after the shutdown began: rejected, and not awaited by the shutdown.
    is_late: bool,
    open: Rc<OpenConnections>,
}

impl OpenConnections {
    pub(super) fn new(shared: Arc<Shared>, metrics: Arc<WorkerMetrics>) -> Self {
        Self {
            count: Cell::new(0),
            closed: Notify::new(),
            shared,
            metrics,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count.get()
    }

    /// Waits until a connection has closed since the last call.
    pub(super) async fn closed(&self) {
        self.closed.notified().await;
    }

    pub(super) fn register(self: &Rc<Self>, is_late: bool) -> Registration {
        self.count.set(self.count.get() + 1);
        self.metrics.connection_opened();
        if !is_late {
            self.shared.connection_opened();
        }
        Registration {
            is_late,
            open: Rc::clone(self),
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let open = &self.open;
        open.count.set(open.count.get() - 1);
        open.closed.notify_one();
        if !self.is_late {
            open.shared.connection_closed();
        }
        open.metrics.connection_closed();
    }
}
