//! Key refreshes requested by tokens with an unknown `kid`. Requests share a running fetch, and a throttle limits the
//! number of fetches that they cause.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

/// Maximum time that a request waits for a fetch.
const WAIT_TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum number of requests waiting for one issuer.
const MAX_WAITING: usize = 512;

/// Fetches that requests may cause in a burst.
const BURST: u32 = 4;

/// Time in which requests may cause one more fetch.
const REFILL: Duration = Duration::from_secs(5);

/// Minimum time between two fetches that requests cause.
const SPACING: Duration = Duration::from_millis(500);

/// Time for which a `kid` missing from a fetched set causes no further fetch. After it, the `kid` asks again (OpenID
/// Connect Core section 10.1.1): a set can come from a stale cache of the issuer.
const MISSING_TTL: Duration = Duration::from_secs(10);

/// Maximum number of missing key IDs, and of retired ones, remembered.
const MAX_KIDS: usize = 4096;

/// Outcome of a requested refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// A fetch has completed, or none is needed: the newest keys decide.
    Fetched,
    /// A fetch that began before the request has completed. Without the key, the caller requests another.
    Newer,
    /// No fetch completed in time, too many requests wait, or this `kid` caused a fetch a moment ago.
    Undecided,
}

/// Coalesces key refreshes of one issuer and wakes waiting requests when a fetch completes.
#[derive(Debug)]
pub struct Refresher {
    requested: Notify,
    /// Number of fetches begun.
    begun: AtomicU64,
    /// Last completed fetch.
    ended: watch::Sender<FinishedFetch>,
    waiting: AtomicUsize,
    hasher: RandomState,
    absent: Mutex<AbsentKids>,
}

/// Key IDs known to be absent. Stores hashes, so that a long `kid` takes no more memory than a short one.
#[derive(Debug, Default)]
struct AbsentKids {
    /// Key IDs missing from a fetched set, with the time of that fetch. A later set may have them: an attacker can guess
    /// the `kid` of a future key.
    missing: HashMap<u64, Instant>,
    /// Key IDs that an issuer has removed from its set. While one is missing, its tokens are rejected instead of
    /// undecided: their users must sign in again.
    retired: HashSet<u64>,
}

/// Completed fetch.
#[derive(Debug, Clone, Copy, Default)]
struct FinishedFetch {
    /// Sequence number, from 1; 0 before the first fetch.
    number: u64,
    succeeded: bool,
}

impl Default for Refresher {
    fn default() -> Self {
        Self {
            requested: Notify::new(),
            begun: AtomicU64::new(0),
            ended: watch::Sender::default(),
            waiting: AtomicUsize::new(0),
            hasher: RandomState::new(),
            absent: Mutex::default(),
        }
    }
}

impl Refresher {
    /// Requests a fetch for an unknown `kid`, or for an issuer without keys, and waits for it. A request keeps `since`
    /// between its calls, to distinguish a fetch that began before the request from a later one.
    pub async fn refresh(&self, kid: Option<&str>, since: &mut Option<u64>) -> RefreshOutcome {
        let kid = kid.map(|kid| self.hasher.hash_one(kid));
        if let Some(known) = kid.and_then(|kid| self.known(kid)) {
            return known;
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return RefreshOutcome::Undecided;
        }
        let waiter = Waiter(self);
        let mut ended = self.ended.subscribe();
        let begun = self.begun.load(Ordering::Relaxed);
        let first = *since.get_or_insert(begun);
        let is_running = begun > ended.borrow().number;
        let awaited = if is_running { begun } else { begun + 1 };
        if !is_running {
            self.requested.notify_one();
        }
        let fetched = timeout(
            WAIT_TIMEOUT,
            ended.wait_for(|ended| ended.number >= awaited),
        )
        .await;
        drop(waiter);
        let Ok(Ok(ended)) = fetched else {
            return RefreshOutcome::Undecided;
        };
        match kid {
            None => RefreshOutcome::Fetched,
            // A fetch that was already running may have read the set before the key was added.
            Some(_) if awaited <= first => RefreshOutcome::Newer,
            Some(kid) => {
                if ended.succeeded {
                    self.record_missing(kid);
                }
                RefreshOutcome::Fetched
            }
        }
    }

    /// Waits until a request needs a fetch.
    pub(super) async fn requested(&self) {
        self.requested.notified().await;
    }

    /// Records the start of a fetch, which serves every request made so far.
    pub(super) async fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        tokio::select! {
            biased;
            () = self.requested.notified() => {}
            () = std::future::ready(()) => {}
        }
    }

    /// Records the end of the current fetch and wakes the waiting requests. The new ring must be published before.
    pub(super) fn end(&self, succeeded: bool) {
        let number = self.begun.load(Ordering::Relaxed);
        self.ended.send_replace(FinishedFetch { number, succeeded });
    }

    /// Wakes every waiting request after the fetch task has ended. They continue with the current policy.
    pub fn release_waiters(&self) {
        // Some requests wait for the running fetch, others for the next one.
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.end(false);
    }

    /// Records key IDs that the issuer has removed. The next token with one asks again: the set can be a stale one.
    pub(super) fn retire<'a>(&self, removed: impl Iterator<Item = &'a str>) {
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        for kid in removed {
            if absent.retired.len() >= MAX_KIDS {
                absent.retired.clear();
            }
            let kid = self.hasher.hash_one(kid);
            absent.retired.insert(kid);
            absent.missing.remove(&kid);
        }
    }

    /// Outcome that is known without a fetch, for a key ID that the newest keys do not have.
    fn known(&self, kid: u64) -> Option<RefreshOutcome> {
        let absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        let missed_at = absent.missing.get(&kid)?;
        if missed_at.elapsed() >= MISSING_TTL {
            return None;
        }
        Some(if absent.retired.contains(&kid) {
            RefreshOutcome::Fetched
        } else {
            RefreshOutcome::Undecided
        })
    }

    fn record_missing(&self, kid: u64) {
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        if absent.missing.len() >= MAX_KIDS {
            absent.missing.clear();
        }
        absent.missing.insert(kid, Instant::now());
    }
}

/// Slot of a waiting request, released on drop.
struct Waiter<'a>(&'a Refresher);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Token bucket for the fetches that requests cause.
#[derive(Debug)]
pub(super) struct FetchThrottle {
    left: u32,
    since: Instant,
    last: Option<Instant>,
}

impl FetchThrottle {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            since: now,
            last: None,
        }
    }

    /// Earliest time of the next requested fetch.
    pub(super) fn next(&mut self, now: Instant) -> Instant {
        self.refill(now);
        let spaced = self.last.map_or(now, |last| last + SPACING);
        if self.left > 0 {
            spaced
        } else {
            spaced.max(self.since + REFILL)
        }
    }

    /// Withdraws one fetch.
    pub(super) fn take(&mut self, now: Instant) {
        self.refill(now);
        if self.left == BURST {
            self.since = now;
        }
        self.left = self.left.saturating_sub(1);
        self.last = Some(now);
    }

    fn refill(&mut self, now: Instant) {
        while self.left < BURST && now >= self.since + REFILL {
            self.left += 1;
            self.since += REFILL;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttles_requested_fetches_after_a_burst() {
        let start = Instant::now();
        let mut throttle = FetchThrottle::new(start);
        let mut now = start;
        let mut begun = Vec::new();
        // A flood of requests: each fetch starts as soon as the throttle permits.
        while now < start + Duration::from_secs(29) {
            now = now.max(throttle.next(now));
            throttle.take(now);
            begun.push((now - start).as_millis());
        }
        assert_eq!(
            begun,
            [
                0, 500, 1000, 1500, 5000, 10_000, 15_000, 20_000, 25_000, 30_000
            ]
        );
    }
}
