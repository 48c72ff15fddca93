//! How many requests may be with an upstream at once, over all workers, and how many may wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Who is with the upstream, and who waits.
#[derive(Debug)]
pub struct Queue {
    slots: Arc<Semaphore>,
    max_slots: usize,
    waiting: AtomicUsize,
    max_waiting: usize,
}

impl PartialEq for Queue {
    /// As large, whoever is there.
    fn eq(&self, other: &Self) -> bool {
        (self.max_slots, self.max_waiting) == (other.max_slots, other.max_waiting)
    }
}

/// The right to be with the upstream. It ends when it is dropped.
pub(super) type Slot = OwnedSemaphorePermit;

/// One that waits.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Queue {
    /// So many at once, and so many more that wait.
    pub fn new(slots: usize, max_waiting: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(slots.min(Semaphore::MAX_PERMITS))),
            max_slots: slots,
            waiting: AtomicUsize::new(0),
            max_waiting,
        }
    }

    /// Takes a slot, or waits for one; none if too many wait, or if it takes too long.
    pub(super) async fn enter(&self, patience: Duration) -> Option<Slot> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Some(slot);
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= self.max_waiting {
            return None;
        }
        let slot = Arc::clone(&self.slots).acquire_owned();
        timeout(patience, slot).await.ok()?.ok()
    }
}
