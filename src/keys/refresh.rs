//! How requests ask for newer keys: all that ask while one fetch runs share it, and nobody can ask too often.

use std::collections::{HashMap, HashSet};
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
const REFILL: Duration = Duration::from_secs(5);

/// How far apart two fetches that requests cause are at least.
const SPACING: Duration = Duration::from_millis(500);

/// How long a `kid` that a fetch did not bring causes no other.
const MISSED_FOR: Duration = Duration::from_secs(10);

/// How many names of each kind are remembered.
const MAX_NAMES: usize = 4096;

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// A fetch has ended since, or none is needed: what the newest keys say holds.
    Fetched,
    /// A fetch has ended that had begun before: if it did not bring the key, ask again.
    Newer,
    /// Nobody knows: it took too long, too many wait, too many fetches were caused, or this `kid` just caused one.
    Undecided,
}

/// The wish of requests for newer keys of one issuer, and the word that they have come.
#[derive(Debug)]
pub struct Refresher {
    wanted: Notify,
    /// How many fetches have begun, and which was the last to end.
    begun: AtomicU64,
    ended: watch::Sender<FinishedFetch>,
    waiting: AtomicUsize,
    hasher: RandomState,
    names: Mutex<Names>,
}

/// What is known of names that no key has, by their hashes, so that long ones take no more room than short ones.
#[derive(Debug, Default)]
struct Names {
    /// A fetch did not bring them, at that moment. They may exist in the next: a stranger can guess the name of a key to
    /// come.
    missed: HashMap<u64, Instant>,
    /// Keys had them and are gone.
    retired: HashSet<u64>,
}

/// A fetch that has ended, counted from 1.
#[derive(Debug, Clone, Copy, Default)]
struct FinishedFetch {
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
            hasher: RandomState::new(),
            names: Mutex::default(),
        }
    }
}

impl Refresher {
    /// Asks for a fetch because of a `kid`, or because there are no keys at all. `since` is kept by a request that has
    /// to ask again.
    pub async fn ask(&self, kid: Option<&str>, since: &mut Option<u64>) -> RefreshOutcome {
        let name = kid.map(|kid| self.hasher.hash_one(kid));
        if let Some(known) = name.and_then(|name| self.known(name)) {
            return known;
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return RefreshOutcome::Undecided;
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
            return RefreshOutcome::Undecided;
        };
        match name {
            None => RefreshOutcome::Fetched,
            // A fetch that had begun already may have missed the very key that is asked for.
            Some(_) if awaited <= first => RefreshOutcome::Newer,
            Some(name) => {
                if ended.well {
                    self.note_missed(name);
                }
                RefreshOutcome::Fetched
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
        self.ended.send_replace(FinishedFetch { number, well });
    }

    /// Nobody fetches any more: whoever waits is to look at the policy in force.
    pub fn give_up(&self) {
        // Some wait for a fetch that has begun, and some for the one after it.
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.end(false);
    }

    /// The names of keys that are gone: nobody has to ask for them again.
    pub(super) fn retire<'a>(&self, gone: impl Iterator<Item = &'a str>) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        for kid in gone {
            if names.retired.len() >= MAX_NAMES {
                names.retired.clear();
            }
            names.retired.insert(self.hasher.hash_one(kid));
        }
    }

    /// What can be said of a name without a fetch. Nobody asks about a name that the newest keys have.
    fn known(&self, name: u64) -> Option<RefreshOutcome> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.retired.contains(&name) {
            return Some(RefreshOutcome::Fetched);
        }
        let missed = names.missed.get(&name)?;
        (missed.elapsed() < MISSED_FOR).then_some(RefreshOutcome::Undecided)
    }

    fn note_missed(&self, name: u64) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.missed.len() >= MAX_NAMES {
            names.missed.clear();
        }
        names.missed.insert(name, Instant::now());
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

    /// When the next fetch that a request causes may begin.
    pub(super) fn next(&mut self, now: Instant) -> Instant {
        self.refill(now);
        let spaced = self.last.map_or(now, |last| last + SPACING);
        if self.left > 0 {
            spaced
        } else {
            spaced.max(self.since + REFILL)
        }
    }

    /// A request has caused a fetch.
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
    fn requests_cause_a_handful_of_fetches_and_then_one_now_and_then() {
        let start = Instant::now();
        let mut allowance = FetchThrottle::new(start);
        let mut now = start;
        let mut begun = Vec::new();
        // As in a flood: somebody always asks, and waits until it is time.
        while now < start + Duration::from_secs(29) {
            now = now.max(allowance.next(now));
            allowance.take(now);
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
