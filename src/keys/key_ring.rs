//! Key ring: the immutable set of keys of one issuer, with its age.

use std::time::Duration;

use crate::clock::UnixTime;

use super::VerificationKey;

/// Keys of one issuer at one moment. Immutable: every fetch makes a new ring.
#[derive(Debug, Clone, Default)]
pub struct KeyRing {
    keys: Vec<VerificationKey>,
    source: KeySource,
}

/// Source of the keys of a ring.
#[derive(Debug, Clone, Copy, Default)]
enum KeySource {
    /// A secret or a file. Complete, and never stale.
    #[default]
    Local,
    /// A key set (JWKS) at a URL.
    Remote {
        /// Result of the most recent fetch.
        last_fetch_succeeded: bool,
        /// Age of the keys; none before the first successful fetch.
        age: Option<KeyAge>,
    },
}

/// Age of fetched keys.
#[derive(Debug, Clone, Copy)]
struct KeyAge {
    fetched_at: UnixTime,
    usable_until: UnixTime,
}

impl KeyAge {
    fn new(fetched_at: UnixTime, max_stale: Duration) -> Self {
        let max_stale = i64::try_from(max_stale.as_secs()).unwrap_or(i64::MAX);
        Self {
            fetched_at,
            usable_until: UnixTime(fetched_at.0.saturating_add(max_stale)),
        }
    }
}

impl KeyRing {
    /// Creates a ring from a secret or a file.
    pub fn local(keys: Vec<VerificationKey>) -> Self {
        Self {
            keys,
            source: KeySource::Local,
        }
    }

    /// Creates the empty ring of a key set before its first fetch.
    pub fn awaited() -> Self {
        Self {
            keys: Vec::new(),
            source: KeySource::Remote {
                last_fetch_succeeded: false,
                age: None,
            },
        }
    }

    /// Creates a ring from a key set fetched at `fetched_at`. Its keys expire `max_stale` later.
    pub fn fetched(keys: Vec<VerificationKey>, fetched_at: UnixTime, max_stale: Duration) -> Self {
        Self {
            keys,
            source: KeySource::Remote {
                last_fetch_succeeded: true,
                age: Some(KeyAge::new(fetched_at, max_stale)),
            },
        }
    }

    /// Returns the same keys, of the same age, after a failed fetch.
    #[must_use]
    pub fn after_failure(&self) -> Self {
        let mut ring = self.clone();
        if let KeySource::Remote {
            last_fetch_succeeded,
            ..
        } = &mut ring.source
        {
            *last_fetch_succeeded = false;
        }
        ring
    }

    /// Returns the same keys with another maximum age, counted from the fetch that brought them.
    #[must_use]
    pub fn with_max_stale(&self, max_stale: Duration) -> Self {
        let mut ring = self.clone();
        if let KeySource::Remote { age, .. } = &mut ring.source {
            *age = age.map(|age| KeyAge::new(age.fetched_at, max_stale));
        }
        ring
    }

    fn age(&self) -> Option<KeyAge> {
        match self.source {
            KeySource::Local => None,
            KeySource::Remote { age, .. } => age,
        }
    }

    /// Time of the fetch that brought the keys; none for local keys and before the first successful fetch.
    pub fn fetched_at(&self) -> Option<UnixTime> {
        self.age().map(|age| age.fetched_at)
    }

    /// Time at which the keys expire; none for local keys and before the first successful fetch.
    pub fn usable_until(&self) -> Option<UnixTime> {
        self.age().map(|age| age.usable_until)
    }

    /// Reports whether the keys exist and have not expired.
    pub fn is_usable(&self, now: UnixTime) -> bool {
        match self.source {
            KeySource::Local => true,
            KeySource::Remote { .. } => self.usable_until().is_some_and(|until| now < until),
        }
    }

    /// Reports whether the most recent fetch succeeded. Always true for local keys.
    pub fn is_current(&self) -> bool {
        match self.source {
            KeySource::Local => true,
            KeySource::Remote {
                last_fetch_succeeded,
                ..
            } => last_fetch_succeeded,
        }
    }

    /// Reports whether another fetch could add keys.
    pub fn can_grow(&self) -> bool {
        matches!(self.source, KeySource::Remote { .. })
    }

    /// Reports whether a key has this key ID.
    pub fn has(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid() == Some(kid))
    }

    /// Reports whether both rings have the same keys, in any order and of any age.
    pub fn has_same_keys(&self, other: &Self) -> bool {
        let contains_all =
            |ring: &Self, keys: &[VerificationKey]| keys.iter().all(|key| ring.keys.contains(key));
        contains_all(self, &other.keys) && contains_all(other, &self.keys)
    }

    pub fn keys(&self) -> &[VerificationKey] {
        &self.keys
    }

    /// Selects the candidate keys for the `kid` of a token (RFC 7515 section 4.1.4): the keys with that key ID; if there
    /// are none, the keys without a key ID; for a token without a `kid`, every key.
    pub fn keys_for(&self, kid: Option<&str>) -> impl Iterator<Item = &VerificationKey> {
        let is_known = kid.is_some() && self.keys.iter().any(|key| key.kid() == kid);
        self.keys.iter().filter(move |key| match kid {
            None => true,
            Some(_) if is_known => key.kid() == kid,
            Some(_) => key.kid().is_none(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FETCHED: UnixTime = UnixTime(1_000);
    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn a_fetched_ring_expires_max_stale_after_its_fetch() {
        let ring = KeyRing::fetched(Vec::new(), FETCHED, HOUR);
        assert_eq!(ring.fetched_at(), Some(FETCHED));
        assert_eq!(ring.usable_until(), Some(UnixTime(4_600)));
        assert!(ring.is_usable(UnixTime(4_599)) && !ring.is_usable(UnixTime(4_600)));
        let forever = KeyRing::fetched(Vec::new(), FETCHED, Duration::MAX);
        assert!(forever.is_usable(UnixTime(i64::MAX - 1)));
    }

    #[test]
    fn a_failed_fetch_keeps_the_age_of_the_keys() {
        let ring = KeyRing::fetched(Vec::new(), FETCHED, HOUR).after_failure();
        assert!(!ring.is_current());
        assert_eq!(ring.fetched_at(), Some(FETCHED));
        assert_eq!(ring.usable_until(), Some(UnixTime(4_600)));
    }

    #[test]
    fn a_new_max_stale_counts_from_the_fetch_even_after_failures() {
        let ring = KeyRing::fetched(Vec::new(), FETCHED, HOUR).after_failure();
        let longer = ring.with_max_stale(HOUR * 2);
        assert_eq!(longer.usable_until(), Some(UnixTime(8_200)));
        assert_eq!(longer.fetched_at(), Some(FETCHED));
        assert!(!longer.is_current());
        let shorter = longer.with_max_stale(HOUR / 2);
        assert_eq!(shorter.usable_until(), Some(UnixTime(2_800)));
    }

    #[test]
    fn only_fetched_keys_have_an_age() {
        for ring in [KeyRing::local(Vec::new()), KeyRing::awaited()] {
            let ring = ring.with_max_stale(HOUR);
            assert_eq!((ring.fetched_at(), ring.usable_until()), (None, None));
        }
        assert!(KeyRing::local(Vec::new()).is_usable(UnixTime(i64::MAX)));
        assert!(!KeyRing::awaited().is_usable(FETCHED));
    }
}
