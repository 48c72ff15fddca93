//! Tokens already verified: the costly part of a decision, remembered for as long as it cannot change.
//!
//! A cache belongs to one policy with its keys, and is thrown away with it. What time can change is checked at every
//! hit.

use std::collections::HashMap;
use std::fmt;
use std::mem;
use std::sync::Arc;

use aws_lc_rs::digest::{self, SHA256};

use super::certificate::Binding;
use super::claims::{Claims, Validity};
use super::permit::KnownCaller;
use super::token::BearerToken;
use super::verify::Unverified;

/// The most tokens of one generation.
const MAX_TOKENS: usize = 4096;

/// The most memory that the callers of one generation take, in bytes.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Verified tokens by their digest, in two generations: when the young one is full it becomes the old one, and what
/// was old and not asked for again is forgotten.
///
/// The tokens themselves are not kept, and no other token has the same digest (SHA-256).
#[derive(Default)]
pub struct TokenCache {
    young: Generation,
    old: Generation,
    counted: CacheCounts,
}

/// How often a cache was asked, and how often it knew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Tokens that were known.
    pub hits: u64,
    /// Tokens that were not.
    pub misses: u64,
    /// Tokens that were verified and found good.
    pub good: u64,
    /// Tokens that were verified and found bad.
    pub bad: u64,
    /// Tokens that could not be verified for want of a key.
    pub without_key: u64,
}

/// What stands for a token.
pub(super) type Digest = [u8; 32];

/// What a token was found to say.
#[derive(Debug, Clone)]
pub(super) struct CachedToken {
    pub(super) caller: Arc<KnownCaller>,
    /// The claims that rules of routes ask for, and no others.
    pub(super) claims: Arc<Claims>,
    pub(super) validity: Validity,
    /// The certificate that must be shown with it; whether it was is never remembered.
    pub(super) binding: Option<Binding>,
    /// Whose keys verified it, by the issuer's place.
    pub(super) issuer: usize,
}

#[derive(Default)]
struct Generation {
    tokens: HashMap<Digest, CachedToken>,
    bytes: usize,
}

impl TokenCache {
    pub(super) fn digest(token: BearerToken<'_>) -> Digest {
        let mut digest = Digest::default();
        let whole = digest::digest(&SHA256, token.expose().as_bytes());
        for (to, from) in digest.iter_mut().zip(whole.as_ref()) {
            *to = *from;
        }
        digest
    }

    /// Looks for a token. `is_counted` is whether this is the first time for its request.
    pub(super) fn find(&mut self, digest: &Digest, is_counted: bool) -> Option<&CachedToken> {
        if let Some(remembered) = self.old.tokens.remove(digest) {
            self.keep(*digest, remembered);
        }
        let found = self.young.tokens.get(digest);
        match found {
            Some(_) => self.counted.hits += u64::from(is_counted),
            None => self.counted.misses += u64::from(is_counted),
        }
        found
    }

    /// Counts what a verification has come to.
    pub(super) fn count<T>(&mut self, verified: &Result<T, Unverified>) {
        let count = match verified {
            Ok(_) => &mut self.counted.good,
            Err(unverified) if unverified.lacks_a_key() => &mut self.counted.without_key,
            Err(_) => &mut self.counted.bad,
        };
        *count += 1;
    }

    pub(super) fn remember(&mut self, digest: Digest, remembered: CachedToken) {
        self.keep(digest, remembered);
    }

    fn keep(&mut self, digest: Digest, remembered: CachedToken) {
        if self.young.tokens.len() >= MAX_TOKENS || self.young.bytes >= MAX_BYTES {
            self.old = mem::take(&mut self.young);
        }
        self.young.bytes += size(&remembered);
        self.young.tokens.insert(digest, remembered);
    }

    /// What was counted since this was last asked.
    pub fn take_counted(&mut self) -> CacheCounts {
        mem::take(&mut self.counted)
    }
}

/// About how much memory a caller takes, in bytes.
fn size(remembered: &CachedToken) -> usize {
    let caller = &remembered.caller;
    let headers = caller
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 64);
    size_of::<(Digest, CachedToken)>()
        + 2 * caller.subject.as_str().len()
        + headers.sum::<usize>()
        + size_of::<Claims>()
        + remembered.claims.bytes()
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "TokenCache({} tokens)",
            self.young.tokens.len() + self.old.tokens.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use crate::clock::UnixTime;
    use crate::gate::claims::ClaimPolicy;
    use crate::gate::subject::Subject;

    use super::*;

    fn remembered(subject: &str) -> CachedToken {
        let policy = ClaimPolicy {
            audience: None,
            authorized_party: None,
            allow_bound: false,
            subject: vec!["sub".parse().unwrap()],
            leeway: 0,
            max_lifetime: None,
        };
        let claims = Claims::parse(br#"{"sub":"a","exp":100}"#).unwrap();
        CachedToken {
            caller: Arc::new(KnownCaller {
                subject: Subject::new(subject).unwrap(),
                issuer: "test".into(),
                expires: UnixTime(100),
                headers: Vec::new().into(),
            }),
            validity: claims.check(&policy, UnixTime(1)).unwrap().validity,
            binding: None,
            claims: Arc::default(),
            issuer: 0,
        }
    }

    fn digest(token: &str) -> Digest {
        TokenCache::digest(BearerToken::new(token).unwrap())
    }

    #[test]
    fn a_token_is_found_by_all_of_its_bytes() {
        let mut cache = TokenCache::default();
        cache.remember(digest("a.b.c"), remembered("alice"));
        let found = cache.find(&digest("a.b.c"), true).unwrap();
        assert_eq!(found.caller.subject.as_str(), "alice");
        for other in ["a.b.d", "a.b.", "A.b.c", "a.b.cc"] {
            assert!(cache.find(&digest(other), true).is_none(), "{other}");
        }
        assert!(cache.find(&digest("a.b.c"), false).is_some());
        assert_eq!(
            cache.take_counted(),
            CacheCounts {
                hits: 1,
                misses: 4,
                ..CacheCounts::default()
            }
        );
        assert_eq!(cache.take_counted(), CacheCounts::default());
    }

    #[test]
    fn the_cache_stays_bounded_and_keeps_what_is_asked_for() {
        let mut cache = TokenCache::default();
        let favourite = digest("favourite");
        cache.remember(favourite, remembered("alice"));
        for number in 0..10 * MAX_TOKENS {
            cache.remember(digest(&number.to_string()), remembered("bob"));
            assert!(cache.find(&favourite, true).is_some(), "{number}");
            assert!(cache.young.tokens.len() + cache.old.tokens.len() <= 2 * MAX_TOKENS);
        }
        assert!(cache.find(&digest("0"), true).is_none());
    }

    #[test]
    fn large_callers_fill_a_generation_sooner() {
        let mut cache = TokenCache::default();
        let large = "x".repeat(256);
        let mut largest = remembered(&large);
        let value = http::HeaderValue::from_str(&"y".repeat(8000)).unwrap();
        Arc::make_mut(&mut largest.caller).headers = vec![(http::header::COOKIE, value); 4].into();
        for number in 0..MAX_TOKENS {
            cache.remember(digest(&number.to_string()), largest.clone());
            assert!(cache.young.bytes <= MAX_BYTES + size(&largest));
        }
    }

    #[test]
    fn large_claims_fill_a_generation_sooner() {
        let objects = vec![r#"{"":0}"#; 800].join(",");
        let claims = Claims::parse(format!(r#"{{"role":[{objects}]}}"#).as_bytes()).unwrap();
        let largest = CachedToken {
            claims: Arc::new(claims),
            ..remembered("alice")
        };
        let mut cache = TokenCache::default();
        for number in 0..100 {
            cache.remember(digest(&number.to_string()), largest.clone());
            assert!(cache.young.tokens.len() < 16, "{number}");
        }
    }

    #[test]
    fn nothing_of_a_token_is_shown() {
        let mut cache = TokenCache::default();
        cache.remember(digest("a.b.c"), remembered("alice"));
        assert_eq!(format!("{cache:?}"), "TokenCache(1 tokens)");
    }
}
