//! Limit of concurrent requests to one upstream, over all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::policy::QueueLimits;

/// Semaphore with a bounded number of waiting requests.
#[derive(Debug)]
pub struct Queue {
    slots: Arc<Semaphore>,
    waiting: AtomicUsize,
    max_waiting: usize,
}

/// Slot of one request in flight, released on drop.
pub(super) type Slot = OwnedSemaphorePermit;

/// Decrements the number of waiting requests on drop.
struct WaitingGuard<'a>(&'a AtomicUsize);

impl Drop for WaitingGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Queue {
    pub(super) fn new(limits: QueueLimits) -> Self {
        let QueueLimits {
            max_active,
            max_waiting,
        } = limits;
        Self {
            slots: Arc::new(Semaphore::new(max_active.min(Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            max_waiting,
        }
    }

    /// Acquires a slot. Returns none if the queue is full or the wait exceeds `max_wait`.
    pub(super) async fn acquire(&self, max_wait: Duration) -> Option<Slot> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Some(slot);
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = WaitingGuard(&self.waiting);
        if before >= self.max_waiting {
            return None;
        }
        let slot = Arc::clone(&self.slots).acquire_owned();
        timeout(max_wait, slot).await.ok()?.ok()
    }
}
