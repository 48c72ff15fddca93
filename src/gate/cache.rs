//! Cache of verified tokens: the expensive part of a decision, kept as long as it cannot change.
//!
//! A cache belongs to one configuration and is dropped with it; tokens of an issuer are dropped when its keys change.
//! Times are checked at every hit.

use std::fmt;
use std::mem;
use std::sync::Arc;

use aws_lc_rs::digest::{self, SHA256};

use crate::clock::UnixTime;
use crate::unkeyed_hash::UnkeyedHashMap;

use super::binding::Binding;
use super::claims::{Claims, Validity};
use super::issuer_id::IssuerId;
use super::permit::KnownCaller;
use super::token::BearerToken;
use super::verify::Unverified;

/// Most tokens of one generation.
const MAX_TOKENS: usize = 4096;

/// Most memory of one generation, in bytes.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Verified tokens by their digest (SHA-256), in two generations: a full young generation becomes the old one, and
/// tokens of the old one that were not used again are evicted. The tokens themselves are not kept.
#[derive(Default)]
pub struct TokenCache {
    young: Generation,
    old: Generation,
    counted: CacheCounts,
}

/// Lookups and verifications.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheCounts {
    pub hits: u64,
    pub misses: u64,
    pub valid: u64,
    pub invalid: u64,
    /// Tokens that could not be verified because their key is missing.
    pub without_key: u64,
}

pub(super) type Digest = [u8; 32];

/// Contents of a verified token.
#[derive(Debug, Clone)]
pub(super) struct CachedToken {
    pub(super) caller: Arc<KnownCaller>,
    /// Claims that some route's requirements read.
    pub(super) claims: Arc<Claims>,
    pub(super) validity: Validity,
    /// Certificate that the connection must prove; whether it did is never cached.
    pub(super) binding: Option<Binding>,
    pub(super) issuer: IssuerId,
    /// First second at which the issuer must be asked again; `None` if it is not asked.
    pub(super) fresh_until: Option<UnixTime>,
}

impl CachedToken {
    /// Returns whether the token may be used without another exchange.
    pub(super) fn is_fresh(&self, now: UnixTime) -> bool {
        self.fresh_until.is_none_or(|until| now < until)
    }
}

#[derive(Default)]
struct Generation {
    // A digest is a hash itself, and only a verified token is inserted.
    tokens: UnkeyedHashMap<Digest, CachedToken>,
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

    /// Looks up a token and counts the hit or miss.
    pub(super) fn find(&mut self, digest: &Digest) -> Option<&CachedToken> {
        if let Some(token) = self.old.tokens.remove(digest) {
            self.store(*digest, token);
        }
        let found = self.young.tokens.get(digest);
        match found {
            Some(_) => self.counted.hits += 1,
            None => self.counted.misses += 1,
        }
        found
    }

    /// Counts the outcome of a verification.
    pub(super) fn count<T>(&mut self, verified: &Result<T, Unverified>) {
        let count = match verified {
            Ok(_) => &mut self.counted.valid,
            Err(unverified) if unverified.lacks_a_key() => &mut self.counted.without_key,
            Err(_) => &mut self.counted.invalid,
        };
        *count += 1;
    }

    pub(super) fn insert(&mut self, digest: Digest, token: CachedToken) {
        self.store(digest, token);
    }

    fn store(&mut self, digest: Digest, token: CachedToken) {
        if self.young.tokens.len() >= MAX_TOKENS || self.young.bytes >= MAX_BYTES {
            self.old = mem::take(&mut self.young);
        }
        self.young.bytes += size(&token);
        self.young.tokens.insert(digest, token);
    }

    /// Keeps the tokens of these issuers only.
    pub(super) fn retain_issuers(&mut self, is_kept: impl Fn(IssuerId) -> bool) {
        for generation in [&mut self.young, &mut self.old] {
            generation.tokens.retain(|_, token| is_kept(token.issuer));
            generation.bytes = generation.tokens.values().map(size).sum();
        }
    }

    /// Takes the counts since the last call.
    pub fn take_counted(&mut self) -> CacheCounts {
        mem::take(&mut self.counted)
    }
}

/// Approximate memory of an entry, in bytes.
fn size(token: &CachedToken) -> usize {
    let caller = &token.caller;
    let headers = caller
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 64);
    size_of::<(Digest, CachedToken)>()
        + 2 * caller.subject.as_str().len()
        + headers.sum::<usize>()
        + size_of::<Claims>()
        + token.claims.bytes()
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
    use crate::gate::caller_kind::CallerKind;
    use crate::gate::claims::ClaimPolicy;
    use crate::gate::subject::{Namespace, Subject};

    use super::*;

    fn cached(subject: &str) -> CachedToken {
        let policy = ClaimPolicy {
            audience: None,
            authorized_party: None,
            allow_bound: false,
            subject: vec!["sub".parse().unwrap()],
            namespace: Namespace::default(),
            leeway: 0,
            max_lifetime: None,
        };
        let claims = Claims::parse(br#"{"sub":"a","exp":100}"#).unwrap();
        CachedToken {
            caller: Arc::new(KnownCaller {
                kind: CallerKind::User,
                subject: Subject::new(subject).unwrap(),
                issuer: "test".into(),
                expires: UnixTime(100),
                headers: Vec::new().into(),
            }),
            validity: claims.check(&policy, UnixTime(1)).unwrap().validity,
            binding: None,
            claims: Arc::default(),
            issuer: IssuerId(0),
            fresh_until: None,
        }
    }

    fn digest(token: &str) -> Digest {
        TokenCache::digest(BearerToken::new(token, 100).unwrap())
    }

    #[test]
    fn finds_a_token_by_all_of_its_bytes() {
        let mut cache = TokenCache::default();
        cache.insert(digest("a.b.c"), cached("alice"));
        let found = cache.find(&digest("a.b.c")).unwrap();
        assert_eq!(found.caller.subject.as_str(), "alice");
        for other in ["a.b.d", "a.b.", "A.b.c", "a.b.cc"] {
            assert!(cache.find(&digest(other)).is_none(), "{other}");
        }
        assert!(cache.find(&digest("a.b.c")).is_some());
        assert_eq!(
            cache.take_counted(),
            CacheCounts {
                hits: 2,
                misses: 4,
                ..CacheCounts::default()
            }
        );
        assert_eq!(cache.take_counted(), CacheCounts::default());
    }

    #[test]
    fn stays_bounded_and_keeps_tokens_in_use() {
        let mut cache = TokenCache::default();
        let in_use = digest("in_use");
        cache.insert(in_use, cached("alice"));
        for number in 0..10 * MAX_TOKENS {
            cache.insert(digest(&number.to_string()), cached("bob"));
            assert!(cache.find(&in_use).is_some(), "{number}");
            assert!(cache.young.tokens.len() + cache.old.tokens.len() <= 2 * MAX_TOKENS);
        }
        assert!(cache.find(&digest("0")).is_none());
    }

    #[test]
    fn keeps_the_tokens_of_some_issuers() {
        let mut cache = TokenCache::default();
        for number in 0..MAX_TOKENS + 10 {
            let token = CachedToken {
                issuer: IssuerId(number % 2),
                ..cached("alice")
            };
            cache.insert(digest(&number.to_string()), token);
        }
        cache.retain_issuers(|issuer| issuer == IssuerId(1));
        let kept = (0..MAX_TOKENS + 10).filter(|number| {
            let digest = digest(&number.to_string());
            cache.young.tokens.contains_key(&digest) || cache.old.tokens.contains_key(&digest)
        });
        assert!(kept.clone().all(|number| number % 2 == 1));
        assert_eq!(kept.count(), MAX_TOKENS / 2 + 5);
        assert_eq!(
            cache.young.bytes,
            cache.young.tokens.len() * size(&cached("alice"))
        );
    }

    #[test]
    fn large_callers_fill_a_generation_sooner() {
        let mut cache = TokenCache::default();
        let large = "x".repeat(256);
        let mut largest = cached(&large);
        let value = http::HeaderValue::from_str(&"y".repeat(8000)).unwrap();
        Arc::make_mut(&mut largest.caller).headers = vec![(http::header::COOKIE, value); 4].into();
        for number in 0..MAX_TOKENS {
            cache.insert(digest(&number.to_string()), largest.clone());
            assert!(cache.young.bytes <= MAX_BYTES + size(&largest));
        }
    }

    #[test]
    fn large_claims_fill_a_generation_sooner() {
        let objects = vec![r#"{"":0}"#; 800].join(",");
        let claims = Claims::parse(format!(r#"{{"role":[{objects}]}}"#).as_bytes()).unwrap();
        let largest = CachedToken {
            claims: Arc::new(claims),
            ..cached("alice")
        };
        let mut cache = TokenCache::default();
        for number in 0..100 {
            cache.insert(digest(&number.to_string()), largest.clone());
            assert!(cache.young.tokens.len() < 16, "{number}");
        }
    }

    #[test]
    fn debug_output_contains_no_token() {
        let mut cache = TokenCache::default();
        cache.insert(digest("a.b.c"), cached("alice"));
        assert_eq!(format!("{cache:?}"), "TokenCache(1 tokens)");
    }
}
