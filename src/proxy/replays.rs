//! Proofs that were accepted already (RFC 9449 section 11.1), shared by all workers.

use std::collections::HashSet;
use std::mem;
use std::sync::{Mutex, PoisonError};

use crate::clock::UnixTime;
use crate::gate::dpop::VerifiedProof;

/// Parts of the store, each with its own lock.
const SHARDS: usize = 16;

/// Most proofs of one generation of a shard. All generations together take less than 40 MiB.
const MAX_PROOFS: usize = 32 * 1024;

/// Longest time for which a proof is accepted, in seconds: the age of a generation that can be dropped.
const GENERATION: i64 = 320;

/// Half of a replay key: enough that two proofs do not have the same one.
type Key = [u8; 16];

/// Accepted proofs by their replay key.
#[derive(Debug, Default)]
pub struct ReplayStore {
    shards: [Mutex<Shard>; SHARDS],
}

/// Result of a proof's first or later use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    First,
    Replay,
    /// The store is full, so a replay could not be noticed.
    Unknown,
}

#[derive(Debug, Default)]
struct Shard {
    young: HashSet<Key>,
    old: HashSet<Key>,
    /// Start of the young generation, in Unix time.
    since: i64,
}

impl ReplayStore {
    /// Records the use of a proof.
    pub fn record(&self, proof: &VerifiedProof, now: UnixTime) -> Use {
        let [first, ..] = proof.replay_key;
        let Some(shard) = self.shards.get(usize::from(first) % SHARDS) else {
            return Use::Unknown;
        };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        shard.record(proof, now)
    }
}

impl Shard {
    fn record(&mut self, proof: &VerifiedProof, now: UnixTime) -> Use {
        // Every proof of the old generation has expired when the young one is this old.
        if now.0 - self.since >= GENERATION {
            self.old = mem::take(&mut self.young);
            self.since = now.0;
        }
        let mut key = Key::default();
        for (to, from) in key.iter_mut().zip(proof.replay_key) {
            *to = from;
        }
        if self.young.contains(&key) || self.old.contains(&key) {
            return Use::Replay;
        }
        if self.young.len() >= MAX_PROOFS {
            return Use::Unknown;
        }
        self.young.insert(key);
        Use::First
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof(number: u32, until: i64) -> VerifiedProof {
        let mut replay_key = [0; 32];
        replay_key[..4].copy_from_slice(&number.to_le_bytes());
        VerifiedProof {
            replay_key,
            until: UnixTime(until),
            nonce: None,
        }
    }

    #[test]
    fn notices_a_replay_until_the_proof_has_expired() {
        let store = ReplayStore::default();
        let start = 1_800_000_000;
        assert_eq!(
            store.record(&proof(1, start + 306), UnixTime(start)),
            Use::First
        );
        for later in [0, 1, 100, 305, 306, 319, 320, 400, 639] {
            let now = UnixTime(start + later);
            assert_eq!(
                store.record(&proof(1, start + 306), now),
                Use::Replay,
                "{later}"
            );
            // Others come in the meantime.
            store.record(
                &proof(256 + u32::try_from(later).unwrap(), start + 1000),
                now,
            );
        }
        assert_eq!(
            store.record(&proof(2, start + 306), UnixTime(start)),
            Use::First
        );
    }

    #[test]
    fn a_full_store_refuses_instead_of_forgetting() {
        let mut shard = Shard::default();
        let start = 1_800_000_000;
        let number = |number: usize| u32::try_from(number).unwrap();
        for count in 0..MAX_PROOFS {
            let used = shard.record(&proof(number(count), start + 306), UnixTime(start));
            assert_eq!(used, Use::First);
        }
        let late = proof(number(MAX_PROOFS), start + 306);
        assert_eq!(shard.record(&late, UnixTime(start)), Use::Unknown);
        assert_eq!(
            shard.record(&proof(0, start + 306), UnixTime(start)),
            Use::Replay
        );
        assert_eq!(
            shard.record(&late, UnixTime(start + GENERATION)),
            Use::First
        );
    }
}
