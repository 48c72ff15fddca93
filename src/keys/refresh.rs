//! How requests ask for newer keys: all that ask while one fetch runs share it, and nobody can ask too often.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

/// How long a request waits for a fetch that it has asked for.
const PATIENCE: Duration = Duration::from_secs(3);

/// How many requests may wait for one issuer.
const MAX_WAITING: usize = 512;

/// How many fetches requests may cause in a row.
const BURST: u32 = 4;

/// How often requests may cause one more.
const REFILL: Duration = Duration::from_secs(15);

/// How far apart two fetches that requests cause are at least.
const SPACING: Duration = Duration::from_millis(500);

/// How long a `kid` that a fetch did not bring is known not to exist.
const MADE_UP_FOR: Duration = Duration::from_mins(1);

/// How many such names are remembered.
const MAX_MADE_UP: usize = 4096;

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A fetch has ended since: what the newest keys say holds.
    Fetched,
    /// A fetch has ended that had begun before: if it did not bring the key, ask again.
    Newer,
    /// A fetch not long ago did not bring this `kid`: it is made up.
    MadeUp,
    /// Nobody knows: it took too long, too many wait, or too many fetches were caused already.
    Undecided,
}

/// The wish of requests for newer keys of one issuer, and the word that they have come.
#[derive(Debug)]
pub struct Refresher {
    wanted: Notify,
    /// How many fetches have begun, and which was the last to end.
    begun: AtomicU64,
    ended: watch::Sender<Ended>,
    waiting: AtomicUsize,
    names: RandomState,
    /// By the hash of the name, so that a flood of long names takes no more room than one of short ones.
    made_up: Mutex<HashMap<u64, Instant>>,
}

/// A fetch that has ended, counted from 1.
#[derive(Debug, Clone, Copy, Default)]
struct Ended {
    number: u64,
    well: bool,
}

impl Default for Refresher {
    fn default() -> Self {
        Self {
            wanted: Notify::new(),
            begun: AtomicU64::new(0),
            ended: watch::Sender::default(),
            waiting: AtomicUsize::new(0),
            names: RandomState::new(),
            made_up: Mutex::default(),
        }
    }
}

impl Refresher {
    /// Asks for a fetch because of a `kid`, or because there are no keys at all. `since` is kept by a request that has
    /// to ask again.
    pub async fn ask(&self, kid: Option<&str>, since: &mut Option<u64>) -> Asked {
        let name = kid.map(|kid| self.names.hash_one(kid));
        if name.is_some_and(|name| self.is_made_up(name)) {
            return Asked::MadeUp;
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Asked::Undecided;
        }
        let waiting = Waiting(self);
        let mut ended = self.ended.subscribe();
        let begun = self.begun.load(Ordering::Relaxed);
        let first = *since.get_or_insert(begun);
        let runs = begun > ended.borrow().number;
        let awaited = if runs { begun } else { begun + 1 };
        if !runs {
            self.wanted.notify_one();
        }
        let fetched = timeout(PATIENCE, ended.wait_for(|ended| ended.number >= awaited)).await;
        drop(waiting);
        let Ok(Ok(ended)) = fetched else {
            return Asked::Undecided;
        };
        match name {
            None => Asked::Fetched,
            // A fetch that had begun already may have missed the very key that is asked for.
            Some(_) if awaited <= first => Asked::Newer,
            Some(name) => {
                if ended.well {
                    self.note_made_up(name);
                }
                Asked::Fetched
            }
        }
    }

    /// A request has asked.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// A fetch begins: whoever asked before gets what they asked for.
    pub(super) async fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        tokio::select! {
            biased;
            () = self.wanted.notified() => {}
            () = std::future::ready(()) => {}
        }
    }

    /// The fetch that began last has ended, and what it brought is in force.
    pub(super) fn end(&self, well: bool) {
        let number = self.begun.load(Ordering::Relaxed);
        self.ended.send_replace(Ended { number, well });
    }

    fn is_made_up(&self, name: u64) -> bool {
        let made_up = self.made_up.lock().unwrap_or_else(PoisonError::into_inner);
        made_up
            .get(&name)
            .is_some_and(|since| since.elapsed() < MADE_UP_FOR)
    }

    /// Only asked about again while no ring has the name, so a name that turns out to exist does no harm.
    fn note_made_up(&self, name: u64) {
        let mut made_up = self.made_up.lock().unwrap_or_else(PoisonError::into_inner);
        if made_up.len() >= MAX_MADE_UP {
            made_up.clear();
        }
        made_up.insert(name, Instant::now());
    }
}

struct Waiting<'a>(&'a Refresher);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many fetches requests may still cause.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u32,
    since: Instant,
    last: Option<Instant>,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            since: now,
            last: None,
        }
    }

    /// When the next fetch that a request causes may begin.
    pub(super) fn next(&mut self, now: Instant) -> Instant {
        while self.left < BURST && now >= self.since + REFILL {
            self.left += 1;
            self.since += REFILL;
        }
        let spaced = self.last.map_or(now, |last| last + SPACING);
        if self.left > 0 {
            spaced
        } else {
            spaced.max(self.since + REFILL)
        }
    }

    /// A request has caused a fetch.
    pub(super) fn take(&mut self, now: Instant) {
        if self.left == BURST {
            self.since = now;
        }
        self.left = self.left.saturating_sub(1);
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_cause_a_handful_of_fetches_and_then_one_now_and_then() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let mut now = start;
        let mut begun = Vec::new();
        while now < start + Duration::from_mins(1) {
            if allowance.next(now) <= now {
                allowance.take(now);
                begun.push((now - start).as_millis());
            }
            now += Duration::from_millis(100);
        }
        assert_eq!(begun, [0, 500, 1000, 1500, 15_000, 30_000, 45_000]);
    }
}
