//! Results of exchanges, in two generations: a full young generation becomes the old one.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use tokio::sync::watch;

use crate::keys::credential::{CredentialDigest, Exchanged, Outcome};

use super::{Finished, REFRESH_INTERVAL};
use crate::clock::UnixTime;

/// Most results of one generation.
const MAX_RESULTS: usize = 8192;

/// Most memory of the results of one generation, in bytes.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Most sessions with a known time of extension, in one generation.
const MAX_REFRESHED: usize = 32 * 1024;

/// Exchanges by the digest of their credential.
#[derive(Debug, Default)]
pub(super) struct Table {
    young: HashMap<CredentialDigest, Exchanged>,
    old: HashMap<CredentialDigest, Exchanged>,
    bytes: usize,
    running: HashMap<CredentialDigest, watch::Receiver<Option<Arc<Finished>>>>,
    refreshed: HashMap<CredentialDigest, UnixTime>,
    refreshed_before: HashMap<CredentialDigest, UnixTime>,
}

/// Known exchange of a credential.
pub(super) enum Entry<'a> {
    Done(&'a Exchanged),
    Running(&'a watch::Receiver<Option<Arc<Finished>>>),
}

impl Table {
    pub(super) fn find(&self, credential: &CredentialDigest, now: UnixTime) -> Option<Entry<'_>> {
        let done = self
            .young
            .get(credential)
            .or_else(|| self.old.get(credential));
        // A clock that was set back makes no result younger.
        let is_fresh = |done: &&Exchanged| now >= done.at && now < done.fresh_until;
        if let Some(done) = done.filter(is_fresh) {
            return Some(Entry::Done(done));
        }
        self.running.get(credential).map(Entry::Running)
    }

    /// Number of exchanges in progress.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    pub(super) fn insert_running(
        &mut self,
        credential: &CredentialDigest,
        finished: watch::Receiver<Option<Arc<Finished>>>,
    ) {
        self.running.insert(*credential, finished);
    }

    /// Ends an exchange, and keeps its result if there is one.
    pub(super) fn finish(&mut self, credential: &CredentialDigest, result: Option<Exchanged>) {
        self.running.remove(credential);
        self.old.remove(credential);
        let Some(result) = result else {
            self.young.remove(credential);
            return;
        };
        if self.young.len() >= MAX_RESULTS || self.bytes >= MAX_BYTES {
            self.old = mem::take(&mut self.young);
            self.bytes = 0;
        }
        self.bytes += size(&result);
        self.young.insert(*credential, result);
    }

    /// Returns whether the issuer may extend this session now.
    pub(super) fn is_refresh_due(&self, credential: &CredentialDigest, now: UnixTime) -> bool {
        let last = self.refreshed.get(credential);
        let last = last.or_else(|| self.refreshed_before.get(credential));
        last.is_none_or(|last| now.0 - last.0 >= REFRESH_INTERVAL)
    }

    pub(super) fn note_refresh(&mut self, credential: &CredentialDigest, now: UnixTime) {
        if self.refreshed.len() >= MAX_REFRESHED {
            self.refreshed_before = mem::take(&mut self.refreshed);
        }
        self.refreshed.insert(*credential, now);
    }
}

/// Approximate memory of a result, in bytes.
fn size(result: &Exchanged) -> usize {
    let content = match &result.outcome {
        Outcome::Jwt(token) => token.len(),
        Outcome::Claims(json) => json.len(),
        Outcome::Rejected => 0,
        Outcome::Unavailable { cause, .. } => cause.len(),
    };
    size_of::<(CredentialDigest, Exchanged)>() + content
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(number: usize, at: i64, bytes: usize) -> Exchanged {
        Exchanged {
            issuer: "app".into(),
            credential: digest(number),
            outcome: Outcome::Jwt("x".repeat(bytes).into()),
            at: UnixTime(at),
            fresh_until: UnixTime(at + 30),
        }
    }

    fn digest(number: usize) -> CredentialDigest {
        let mut digest = CredentialDigest::default();
        digest[..8].copy_from_slice(&number.to_le_bytes());
        digest
    }

    #[test]
    fn finds_a_result_only_while_it_is_fresh() {
        let mut table = Table::default();
        table.finish(&digest(1), Some(result(1, 100, 10)));
        for (now, is_found) in [(99, false), (100, true), (129, true), (130, false)] {
            let found = table.find(&digest(1), UnixTime(now));
            assert_eq!(found.is_some(), is_found, "{now}");
        }
        assert!(table.find(&digest(2), UnixTime(100)).is_none());
        table.finish(&digest(1), None);
        assert!(table.find(&digest(1), UnixTime(100)).is_none());
    }

    #[test]
    fn stays_bounded_in_number_and_memory() {
        let mut table = Table::default();
        for number in 0..5 * MAX_RESULTS {
            table.finish(&digest(number), Some(result(number, 0, 10)));
            assert!(table.young.len() + table.old.len() <= 2 * MAX_RESULTS);
        }
        for number in 0..5000 {
            table.finish(&digest(number), Some(result(number, 0, 8000)));
            assert!(table.bytes <= MAX_BYTES + 16_000);
        }
        assert!(table.young.len() + table.old.len() < 4000 + MAX_RESULTS);
        for number in 0..5 * MAX_REFRESHED {
            table.note_refresh(&digest(number), UnixTime(0));
            assert!(table.refreshed.len() + table.refreshed_before.len() <= 2 * MAX_REFRESHED);
        }
    }

    #[test]
    fn extends_a_session_once_a_day() {
        let mut table = Table::default();
        assert!(table.is_refresh_due(&digest(1), UnixTime(0)));
        table.note_refresh(&digest(1), UnixTime(0));
        assert!(!table.is_refresh_due(&digest(1), UnixTime(REFRESH_INTERVAL - 1)));
        assert!(table.is_refresh_due(&digest(1), UnixTime(REFRESH_INTERVAL)));
        assert!(table.is_refresh_due(&digest(2), UnixTime(0)));
    }
}
