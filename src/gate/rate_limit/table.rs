//! How often everybody has come, in a space that does not grow.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use crate::clock::Ticks;

use super::{BucketOwner, RateLimit, RateLimitStatus};

/// Parts with a lock of their own, so that workers seldom meet.
const PARTS: usize = 16;
/// The places in each part where a bucket may be.
const SETS: usize = 512;
/// The buckets of one place.
const WAYS: usize = 16;

/// How many buckets are kept: one for each limit and caller.
pub const MAX_BUCKETS: usize = PARTS * SETS * WAYS;

/// Buckets of callers, shared by all workers. Each is 16 bytes of a table that has its size from the start.
///
/// A bucket that is empty need not be kept. When all buckets of a place are in use, the one that is empty soonest is
/// forgotten: of all it has the least to say. So whoever comes under many names to be forgotten has to come as often
/// under each of them.
pub struct RateLimitTable {
    parts: Vec<Mutex<Part>>,
    /// Not known to callers, so that none of them can choose a place.
    seed: RandomState,
}

struct Part {
    sets: Vec<[Bucket; WAYS]>,
    forgotten: u64,
}

/// The digest of limit and caller, and when the bucket is empty.
type Bucket = [u64; 2];

impl Default for RateLimitTable {
    fn default() -> Self {
        let part = || {
            Mutex::new(Part {
                // Zeroed memory, of which the system gives only what is written to.
                sets: vec![[[0; 2]; WAYS]; SETS],
                forgotten: 0,
            })
        };
        Self {
            parts: std::iter::repeat_with(part).take(PARTS).collect(),
            seed: RandomState::new(),
        }
    }
}

impl RateLimitTable {
    /// Counts one request for each limit in turn. What one of them does not let pass is counted for none.
    pub fn take(
        &self,
        limits: &[RateLimit],
        key: BucketOwner<'_>,
        now: Ticks,
    ) -> Vec<RateLimitStatus> {
        let mut statuses = Vec::with_capacity(limits.len());
        for limit in limits {
            let status = self.with_bucket(limit, key, now, |bucket| {
                let (empty, status) = limit.judge(*bucket, now);
                *bucket = empty;
                status
            });
            let Some(status) = status else { break };
            statuses.push(status);
            if !status.is_allowed {
                for limit in limits.iter().take(statuses.len() - 1) {
                    self.with_bucket(limit, key, now, |bucket| {
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
        key: BucketOwner<'_>,
        now: Ticks,
        change: impl FnOnce(&mut u64) -> T,
    ) -> Option<T> {
        let digest = self.seed.hash_one((limit.id, key));
        let place = usize::try_from(digest % (PARTS * SETS) as u64).ok()?;
        let part = self.parts.get(place / SETS)?;
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        let Part { sets, forgotten } = &mut *part;
        let set = sets.get_mut(place % SETS)?;
        let known = set.iter().position(|[known, _]| *known == digest);
        let least = || {
            let buckets = (0..).zip(set.iter());
            let least = buckets.min_by_key(|(_, [_, empty])| *empty);
            least.map(|(at, _)| at)
        };
        let at: usize = known.or_else(least)?;
        let bucket = set.get_mut(at)?;
        if known.is_none() {
            *forgotten += u64::from(bucket[1] > now.0);
            *bucket = [digest, 0];
        }
        Some(change(&mut bucket[1]))
    }

    /// How many buckets are not empty, and how many were forgotten before they were.
    pub fn kept_and_forgotten(&self, now: Ticks) -> (usize, u64) {
        let (mut kept, mut forgotten) = (0, 0);
        for part in &self.parts {
            let part = part.lock().unwrap_or_else(PoisonError::into_inner);
            let buckets = part.sets.iter().flatten();
            kept += buckets.filter(|[_, empty]| *empty > now.0).count();
            forgotten += part.forgotten;
        }
        (kept, forgotten)
    }
}

impl fmt::Debug for RateLimitTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitTable").finish_non_exhaustive()
    }
}
