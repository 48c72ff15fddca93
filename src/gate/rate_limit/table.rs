//! Buckets of all callers, in a table of fixed size.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use crate::clock::Ticks;

use super::{BucketOwner, Buckets, RateLimit, RateLimitStatus};

/// Parts with a lock of their own, so that workers rarely contend.
const PARTS: usize = 16;
/// Sets of a part; a bucket belongs to one set.
const SETS: usize = 512;
/// Buckets of a set.
const WAYS: usize = 16;

/// Capacity of the table: one bucket per limit and owner.
pub const MAX_BUCKETS: usize = PARTS * SETS * WAYS;

/// Buckets shared by all workers, 16 bytes each, in a table of fixed size.
///
/// An empty bucket need not be kept. A full set evicts the bucket that drains first, so evicting a busy caller takes as
/// many requests under every forged identity.
pub struct RateLimitTable {
    parts: Vec<Mutex<Part>>,
    /// Secret, so that no caller can choose its set.
    seed: RandomState,
}

struct Part {
    sets: Vec<[Bucket; WAYS]>,
    evicted: u64,
}

/// Digest of limit and owner, and the time at which the bucket is empty.
type Bucket = [u64; 2];

impl Default for RateLimitTable {
    fn default() -> Self {
        let part = || {
            Mutex::new(Part {
                // Zeroed memory: the system commits a page when it is first written.
                sets: vec![[[0; 2]; WAYS]; SETS],
                evicted: 0,
            })
        };
        Self {
            parts: std::iter::repeat_with(part).take(PARTS).collect(),
            seed: RandomState::new(),
        }
    }
}

impl RateLimitTable {
    /// Adds one request to the bucket of each limit in turn. A request that one of them refuses is added to none.
    pub fn take(&self, buckets: Buckets<'_>, now: Ticks) -> Vec<RateLimitStatus> {
        let Buckets { limits, owner } = buckets;
        let mut statuses = Vec::with_capacity(limits.len());
        for limit in limits {
            let status = self.with_bucket(limit, owner, now, |bucket| {
                let (empty, status) = limit.add(*bucket, now);
                *bucket = empty;
                status
            });
            let Some(status) = status else { break };
            statuses.push(status);
            if !status.is_allowed {
                for limit in limits.iter().take(statuses.len() - 1) {
                    self.with_bucket(limit, owner, now, |bucket| {
                        *bucket = bucket.saturating_sub(limit.interval);
                    });
                }
                break;
            }
        }
        statuses
    }

    fn with_bucket<T>(
        &self,
        limit: &RateLimit,
        owner: BucketOwner<'_>,
        now: Ticks,
        change: impl FnOnce(&mut u64) -> T,
    ) -> Option<T> {
        let digest = self.seed.hash_one((limit.id, owner));
        let index = usize::try_from(digest % (PARTS * SETS) as u64).ok()?;
        let part = self.parts.get(index / SETS)?;
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        let Part { sets, evicted } = &mut *part;
        let set = sets.get_mut(index % SETS)?;
        let known = set.iter().position(|[known, _]| *known == digest);
        let least = || {
            let buckets = (0..).zip(set.iter());
            let least = buckets.min_by_key(|(_, [_, empty])| *empty);
            least.map(|(at, _)| at)
        };
        let at: usize = known.or_else(least)?;
        let bucket = set.get_mut(at)?;
        if known.is_none() {
            *evicted += u64::from(bucket[1] > now.0);
            *bucket = [digest, 0];
        }
        Some(change(&mut bucket[1]))
    }

    /// Number of buckets that are not empty, and of buckets evicted before they were.
    pub fn used_and_evicted(&self, now: Ticks) -> (usize, u64) {
        let (mut used, mut evicted) = (0, 0);
        for part in &self.parts {
            let part = part.lock().unwrap_or_else(PoisonError::into_inner);
            let buckets = part.sets.iter().flatten();
            used += buckets.filter(|[_, empty]| *empty > now.0).count();
            evicted += part.evicted;
        }
        (used, evicted)
    }
}

impl fmt::Debug for RateLimitTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitTable").finish_non_exhaustive()
    }
}
