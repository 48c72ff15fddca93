//! Rate limits: the buckets of a route's callers, and the response fields that report them.
//!
//! A bucket drains steadily (GCRA, the generic cell rate algorithm of ITU-T I.371). Its state is one number: the time
//! at which it is empty again.

mod table;

use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::clock::Ticks;
use crate::config::RateKey;

use super::refusal::Refusal;

pub use table::{MAX_BUCKETS, RateLimitTable};

/// Remaining quota (draft-ietf-httpapi-ratelimit-headers-10 section 4).
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// Quota policy (draft-ietf-httpapi-ratelimit-headers-10 section 3).
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

const MICROS: u64 = 1_000_000;

/// A number of requests per time window. Times are in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    name: String,
    id: [u8; 16],
    requests: u64,
    window: u64,
    /// Time that one request takes to drain.
    interval: u64,
    /// Capacity of the bucket.
    capacity: u64,
}

/// Rate limits of one route.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RouteLimits {
    by_client: Vec<RateLimit>,
    by_subject: Vec<RateLimit>,
    policy: Option<HeaderValue>,
}

/// State of one bucket after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimitStatus {
    pub is_allowed: bool,
    /// Requests that may follow at once.
    pub remaining: u64,
    /// Microseconds until the next request may pass if this one may not, else until the bucket is empty.
    pub wait: u64,
}

/// Owner of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BucketOwner<'a> {
    /// Every client without an address, as over a Unix socket.
    NoAddress,
    V4(Ipv4Addr),
    /// An IPv6 network of 64 bits: the least that a provider assigns to one customer.
    V6(u64),
    /// The subject of a token.
    Subject {
        issuer: &'a str,
        subject: &'a str,
    },
}

/// Buckets that one request draws from.
#[derive(Debug, Clone, Copy)]
pub struct Buckets<'a> {
    /// One limit per bucket, all with the same key.
    pub limits: &'a [RateLimit],
    pub owner: BucketOwner<'a>,
}

/// Rate limits of one request as counted so far.
#[derive(Debug, Default)]
pub struct RequestLimits {
    /// `RateLimit` field of the response.
    field: String,
    is_client_counted: bool,
}

impl RateLimit {
    /// A limit of `requests` per window, of which `burst` may come at once. Equal limits of the same route share their
    /// buckets; `route` names it.
    pub fn new(route: &str, key: RateKey, requests: u64, per: Duration, burst: u64) -> Self {
        let window = u64::try_from(per.as_micros()).unwrap_or(u64::MAX);
        let interval = (window / requests.max(1)).max(1);
        let name = format!("{}-{}s", key.name(), per.as_secs());
        let mut id = [0; 16];
        let digest = digest(&[format!("{route} {name} {requests} {burst}").as_bytes()]);
        id.copy_from_slice(digest.split_at(16).0);
        Self {
            name,
            id,
            requests,
            window,
            interval,
            capacity: interval.saturating_mul(burst),
        }
    }

    /// Adds a request to a bucket that is empty at `empty`. Returns the new time and the status; a request that may not
    /// pass leaves the bucket as it is.
    fn add(&self, empty: u64, now: Ticks) -> (u64, RateLimitStatus) {
        let filled = empty.max(now.0).saturating_add(self.interval);
        let level = filled - now.0;
        if level > self.capacity {
            (empty, RateLimitStatus::refused(level - self.capacity))
        } else {
            (filled, self.allowed(level))
        }
    }

    /// Status of a bucket that now holds `level` microseconds.
    pub fn allowed(&self, level: u64) -> RateLimitStatus {
        RateLimitStatus {
            is_allowed: true,
            remaining: self.capacity.saturating_sub(level) / self.interval,
            wait: level,
        }
    }

    fn burst(&self) -> u64 {
        self.capacity / self.interval
    }

    /// Drain time of one request and capacity of the bucket, in microseconds.
    pub fn interval_and_capacity(&self) -> [u64; 2] {
        [self.interval, self.capacity]
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (requests, seconds) = (self.requests, self.window / MICROS);
        write!(f, "{requests} in {seconds}s")?;
        match self.burst() {
            burst if burst < requests => write!(f, ", {burst} at once"),
            _ => Ok(()),
        }
    }
}

impl RateLimitStatus {
    /// Status of a full bucket. The next request may pass after `wait` microseconds.
    pub fn refused(wait: u64) -> Self {
        Self {
            is_allowed: false,
            remaining: 0,
            wait,
        }
    }
}

impl RouteLimits {
    pub fn new(by_client: Vec<RateLimit>, by_subject: Vec<RateLimit>) -> Self {
        let mut policy = String::new();
        for limit in by_client.iter().chain(&by_subject) {
            let (name, window) = (&limit.name, limit.window / MICROS);
            push_item(
                &mut policy,
                format_args!("\"{name}\";q={};w={window}", limit.requests),
            );
        }
        let policy = (!policy.is_empty()).then(|| HeaderValue::from_str(&policy).ok());
        Self {
            by_client,
            by_subject,
            policy: policy.flatten(),
        }
    }

    /// Limits by client address, counted before the token is read.
    pub fn by_client(&self) -> &[RateLimit] {
        &self.by_client
    }

    /// Limits by issuer and subject of the token.
    pub fn by_subject(&self) -> &[RateLimit] {
        &self.by_subject
    }

    /// Writes `RateLimit` and `RateLimit-Policy` of a counted request.
    pub fn write_headers(&self, request: &RequestLimits, headers: &mut HeaderMap) {
        if request.field.is_empty() {
            return;
        }
        let field = HeaderValue::from_str(&request.field).ok();
        if let (Some(field), Some(policy)) = (field, &self.policy) {
            headers.append(RATE_LIMIT_POLICY, policy.clone());
            headers.append(RATE_LIMIT, field);
        }
    }
}

impl Buckets<'_> {
    /// Key of each bucket in a shared store: the same in every process, and without a readable address or subject. The
    /// part in braces is equal for all of them, which keeps them in one hash slot of a Redis cluster.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        let owner = match self.owner {
            BucketOwner::NoAddress => digest(&[b"nowhere"]),
            BucketOwner::V4(address) => digest(&[b"4", &address.octets()]),
            BucketOwner::V6(network) => digest(&[b"6", &network.to_be_bytes()]),
            BucketOwner::Subject { issuer, subject } => {
                digest(&[b"s", issuer.as_bytes(), b"\0", subject.as_bytes()])
            }
        };
        let owner = URL_SAFE_NO_PAD.encode(owner.split_at(16).0);
        let name = |limit: &RateLimit| {
            let id = URL_SAFE_NO_PAD.encode(limit.id);
            format!("{prefix}:{{{owner}}}:{id}")
        };
        self.limits.iter().map(name).collect()
    }

    /// Kind of the owner.
    pub fn key(&self) -> RateKey {
        match self.owner {
            BucketOwner::NoAddress | BucketOwner::V4(_) | BucketOwner::V6(_) => {
                RateKey::ClientAddress
            }
            BucketOwner::Subject { .. } => RateKey::Subject,
        }
    }
}

impl RequestLimits {
    /// Returns whether the request was counted for its client. It is counted once, even if its decision starts over.
    pub fn is_client_counted(&self) -> bool {
        self.is_client_counted
    }

    /// Notes that the request was counted for its client.
    pub fn set_client_counted(&mut self) {
        self.is_client_counted = true;
    }

    /// Records the statuses of the buckets, one per limit up to the first that refuses.
    pub fn record(
        &mut self,
        buckets: Buckets<'_>,
        statuses: &[RateLimitStatus],
    ) -> Result<(), Refusal> {
        for (limit, status) in buckets.limits.iter().zip(statuses) {
            let (name, remaining) = (&limit.name, status.remaining);
            let wait = status.wait.div_ceil(MICROS);
            if !status.is_allowed {
                // The limit that refuses is the one that matters.
                self.field.clear();
                push_item(&mut self.field, format_args!("\"{name}\";r=0;t={wait}"));
                return Err(Refusal::RateLimited {
                    by: buckets.key(),
                    wait,
                });
            }
            push_item(
                &mut self.field,
                format_args!("\"{name}\";r={remaining};t={wait}"),
            );
        }
        Ok(())
    }
}

impl fmt::Display for BucketOwner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress => f.write_str("every client without an address"),
            Self::V4(address) => write!(f, "the address {address}"),
            Self::V6(network) => {
                let network = Ipv6Addr::from(u128::from(*network) << 64);
                write!(f, "the network {network}/64")
            }
            Self::Subject { issuer, subject } => {
                write!(f, "the subject `{subject}` of `{issuer}`")
            }
        }
    }
}

impl BucketOwner<'_> {
    /// Owner for a client address; an IPv4-mapped IPv6 address is the IPv4 address.
    pub fn address(address: Option<IpAddr>) -> Self {
        match address.map(|address| address.to_canonical()) {
            None => Self::NoAddress,
            Some(IpAddr::V4(address)) => Self::V4(address),
            Some(IpAddr::V6(address)) => {
                let [network @ .., _, _, _, _, _, _, _, _] = address.octets();
                Self::V6(u64::from_be_bytes(network))
            }
        }
    }
}

/// Appends an item to a list (RFC 9651 section 3.1).
fn push_item(list: &mut String, item: fmt::Arguments<'_>) {
    if !list.is_empty() {
        list.push_str(", ");
    }
    // Writing to a string cannot fail.
    let _infallible = list.write_fmt(item);
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut digest = [0; 32];
    for (to, from) in digest.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    digest
}

#[cfg(test)]
mod tests;
