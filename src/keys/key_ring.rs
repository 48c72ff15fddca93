//! The keys of one issuer.

use crate::clock::UnixTime;

use super::VerificationKey;

/// The keys of one issuer at one moment: a value that never changes.
#[derive(Debug, Clone, Default)]
pub struct KeyRing {
    keys: Vec<VerificationKey>,
    origin: Origin,
}

/// Where a ring came from, and what may therefore still be learnt.
#[derive(Debug, Clone, Copy, Default)]
enum Origin {
    /// From a secret or a file: all there is.
    #[default]
    Local,
    /// From a URL.
    Remote {
        /// Whether the last fetch succeeded.
        current: bool,
        /// When the keys are too old to be used; none if nothing was ever fetched.
        usable_until: Option<UnixTime>,
    },
}

impl KeyRing {
    /// Keys from a secret or a file.
    pub fn local(keys: Vec<VerificationKey>) -> Self {
        Self {
            keys,
            origin: Origin::Local,
        }
    }

    /// The ring of a URL that was not fetched yet.
    pub fn awaited() -> Self {
        Self {
            keys: Vec::new(),
            origin: Origin::Remote {
                current: false,
                usable_until: None,
            },
        }
    }

    /// Keys just fetched, to be used until `usable_until` if no fetch succeeds before.
    pub fn fetched(keys: Vec<VerificationKey>, usable_until: UnixTime) -> Self {
        Self {
            keys,
            origin: Origin::Remote {
                current: true,
                usable_until: Some(usable_until),
            },
        }
    }

    /// The same keys after a fetch that failed.
    #[must_use]
    pub fn after_failure(&self) -> Self {
        let origin = match self.origin {
            Origin::Local => Origin::Local,
            Origin::Remote { usable_until, .. } => Origin::Remote {
                current: false,
                usable_until,
            },
        };
        Self {
            keys: self.keys.clone(),
            origin,
        }
    }

    /// The same keys, to be used until another time.
    #[must_use]
    pub fn usable_to(&self, until: UnixTime) -> Self {
        let mut ring = self.clone();
        if let Origin::Remote { usable_until, .. } = &mut ring.origin {
            *usable_until = usable_until.and(Some(until));
        }
        ring
    }

    /// When the keys are too old to be used; none if they never are, or if nothing was ever fetched.
    pub fn usable_until(&self) -> Option<UnixTime> {
        match self.origin {
            Origin::Local => None,
            Origin::Remote { usable_until, .. } => usable_until,
        }
    }

    /// Whether there are keys that are not too old.
    pub fn is_usable(&self, now: UnixTime) -> bool {
        match self.origin {
            Origin::Local => true,
            Origin::Remote { .. } => self.usable_until().is_some_and(|until| now < until),
        }
    }

    /// Whether this is all there is to know, as far as anyone could learn.
    pub fn is_current(&self) -> bool {
        match self.origin {
            Origin::Local => true,
            Origin::Remote { current, .. } => current,
        }
    }

    /// Whether another fetch could bring more keys.
    pub fn can_grow(&self) -> bool {
        matches!(self.origin, Origin::Remote { .. })
    }

    /// Whether a key has this name.
    pub fn has(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid() == Some(kid))
    }

    /// Every key.
    pub fn keys(&self) -> &[VerificationKey] {
        &self.keys
    }

    /// The keys that a token with this `kid` may be signed with (RFC 7515 section 4.1.4): those with the
    /// name; if none has it, those without a name; for a token without one, all.
    pub fn keys_for(&self, kid: Option<&str>) -> impl Iterator<Item = &VerificationKey> {
        let is_known = kid.is_some() && self.keys.iter().any(|key| key.kid() == kid);
        self.keys.iter().filter(move |key| match kid {
            None => true,
            Some(_) if is_known => key.kid() == kid,
            Some(_) => key.kid().is_none(),
        })
    }
}
