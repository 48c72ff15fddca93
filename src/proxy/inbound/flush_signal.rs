//! Signal of a client socket to the response body: the bytes given to hyper are in the kernel.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Waker};

/// Counts the flushes of one socket and wakes the body that waits for the next.
///
/// Thread-safe because hyper requires a `Send` socket, although a single thread uses it.
#[derive(Debug, Default)]
pub(super) struct FlushSignal {
    count: AtomicU32,
    is_awaited: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl FlushSignal {
    /// Notes that all bytes given to the socket are in the kernel.
    pub(super) fn flushed(&self) {
        let count = self.count.load(Ordering::Relaxed);
        self.count.store(count.wrapping_add(1), Ordering::Relaxed);
        if self.is_awaited.load(Ordering::Relaxed) {
            self.is_awaited.store(false, Ordering::Relaxed);
            let mut waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }

    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// Wakes the task at the next flush.
    pub(super) fn wake_at_next(&self, context: &Context<'_>) {
        let mut waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        *waker = Some(context.waker().clone());
        self.is_awaited.store(true, Ordering::Relaxed);
    }
}
