//! How often a caller may come: the limits of a route, and what they say to one request.
//!
//! A limit is a bucket that empties steadily (GCRA, the generic cell rate algorithm of ITU-T I.371): of each caller one
//! number is kept, the time at which the bucket is empty again.

mod table;

use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::clock::Ticks;

use super::permit::KnownCaller;
use super::refusal::Refusal;
use super::routes::Route;

pub use table::{MAX_BUCKETS, RateLimitTable};

/// What is left (draft-ietf-httpapi-ratelimit-headers-10 section 4).
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// What is allowed (draft-ietf-httpapi-ratelimit-headers-10 section 3).
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

const MICROS: u64 = 1_000_000;

/// By what callers are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateLimitKey {
    /// The address that a request comes from.
    ClientAddress,
    /// Issuer and subject of its token.
    Subject,
}

/// So many requests in such a time. Times are in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    name: String,
    id: [u8; 16],
    requests: u64,
    window: u64,
    /// The time that one request takes to flow out.
    interval: u64,
    /// How much may be in the bucket.
    room: u64,
}

/// Every limit of one route.
#[derive(Debug, Default)]
pub struct RouteLimits {
    by_address: Vec<RateLimit>,
    by_subject: Vec<RateLimit>,
    policy: Option<HeaderValue>,
}

/// How a caller stands with one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimitStatus {
    /// Whether this request may pass.
    pub is_allowed: bool,
    /// How many more may follow at once.
    pub remaining: u64,
    /// The time until another may pass if this one may not, and else until all may.
    pub wait: u64,
}

/// Who is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BucketOwner<'a> {
    /// All who have no address: they came over a Unix socket.
    Nowhere,
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 network of 64 bits: what one customer of a provider has, at the least.
    V6(u64),
    /// The subject of a token.
    Subject {
        /// The issuer's name.
        issuer: &'a str,
        /// The subject.
        subject: &'a str,
    },
}

/// What the limits say to one request. It is counted once, however often the gate is asked.
#[derive(Debug, Default)]
pub struct Rates<'a> {
    counts: Option<&'a RateLimitTable>,
    is_elsewhere: bool,
    client: Option<IpAddr>,
    now: Ticks,
    of_client: Option<Result<(), Refusal>>,
    of_subject: Option<Result<(), Refusal>>,
    fields: String,
}

/// A request that is to be counted elsewhere before the gate can go on.
#[derive(Debug)]
pub struct Uncounted {
    route: Arc<Route>,
    client: Option<IpAddr>,
    /// None as long as it is about the client's address.
    caller: Option<Arc<KnownCaller>>,
}

/// Why the gate cannot go on with a request.
#[derive(Debug)]
pub(super) enum Held {
    Refused(Refusal),
    Uncounted(Box<Uncounted>),
}

impl RateLimitKey {
    /// The word in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientAddress => "client-address",
            Self::Subject => "subject",
        }
    }
}

impl RateLimit {
    /// `burst` of `requests` may come at once, the rest as the time `per` goes by. Limits of the same `place` that say
    /// the same share their counts.
    pub fn new(place: &str, by: RateLimitKey, requests: u64, per: Duration, burst: u64) -> Self {
        let window = u64::try_from(per.as_micros()).unwrap_or(u64::MAX);
        let interval = (window / requests.max(1)).max(1);
        let name = format!("{}-{}s", by.name(), per.as_secs());
        let mut id = [0; 16];
        let digest = digest(&[format!("{place} {name} {requests} {burst}").as_bytes()]);
        id.copy_from_slice(digest.split_at(16).0);
        Self {
            name,
            id,
            requests,
            window,
            interval,
            room: interval.saturating_mul(burst),
        }
    }

    /// What becomes of a bucket that is empty at `empty`, and how its caller stands. Nothing becomes of it if the
    /// request may not pass.
    fn judge(&self, empty: u64, now: Ticks) -> (u64, RateLimitStatus) {
        let filled = empty.max(now.0).saturating_add(self.interval);
        let held = filled - now.0;
        if held > self.room {
            (empty, RateLimitStatus::refused(held - self.room))
        } else {
            (filled, self.allowed(held))
        }
    }

    /// How the caller stands whose bucket now holds so much.
    pub fn allowed(&self, held: u64) -> RateLimitStatus {
        RateLimitStatus {
            is_allowed: true,
            remaining: self.room.saturating_sub(held) / self.interval,
            wait: held,
        }
    }

    /// How many may come at once.
    fn burst(&self) -> u64 {
        self.room / self.interval
    }

    /// The time that one request takes to flow out, and how much may be in the bucket: in microseconds.
    pub fn interval_and_room(&self) -> [u64; 2] {
        [self.interval, self.room]
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
    /// How the caller stands who may come again after this time.
    pub fn refused(wait: u64) -> Self {
        Self {
            is_allowed: false,
            remaining: 0,
            wait,
        }
    }
}

impl RouteLimits {
    /// Puts the limits of a route together.
    pub fn new(by_address: Vec<RateLimit>, by_subject: Vec<RateLimit>) -> Self {
        let mut policy = String::new();
        for limit in by_address.iter().chain(&by_subject) {
            let (name, window) = (&limit.name, limit.window / MICROS);
            add(
                &mut policy,
                format_args!("\"{name}\";q={};w={window}", limit.requests),
            );
        }
        let policy = (!policy.is_empty()).then(|| HeaderValue::from_str(&policy).ok());
        Self {
            by_address,
            by_subject,
            policy: policy.flatten(),
        }
    }

    /// Those that count a request for its client, before its token is looked at.
    pub fn by_address(&self) -> &[RateLimit] {
        &self.by_address
    }

    /// Those that count it for the subject of its token.
    pub fn by_subject(&self) -> &[RateLimit] {
        &self.by_subject
    }

    /// Tells the client how it stands. Only a request that was counted has `rate`.
    pub fn tell(&self, rate: Option<&HeaderValue>, headers: &mut HeaderMap) {
        if let (Some(rate), Some(policy)) = (rate, &self.policy) {
            headers.append(RATE_LIMIT_POLICY, policy.clone());
            headers.append(RATE_LIMIT, rate.clone());
        }
    }
}

impl Uncounted {
    /// The limits that it is to be counted for.
    pub fn limits(&self) -> &[RateLimit] {
        let limits = &self.route.limits;
        match &self.caller {
            None => &limits.by_address,
            Some(_) => &limits.by_subject,
        }
    }

    /// Who is counted, for each of the limits: the same in every process, and nothing of an address or a subject that can
    /// be read. What is in braces is the same for all of them, as a cluster of Redis needs it.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        let caller = match self.key() {
            BucketOwner::Nowhere => digest(&[b"nowhere"]),
            BucketOwner::V4(address) => digest(&[b"4", &address.octets()]),
            BucketOwner::V6(network) => digest(&[b"6", &network.to_be_bytes()]),
            BucketOwner::Subject { issuer, subject } => {
                digest(&[b"s", issuer.as_bytes(), b"\0", subject.as_bytes()])
            }
        };
        let caller = URL_SAFE_NO_PAD.encode(caller.split_at(16).0);
        let name = |limit: &RateLimit| {
            let id = URL_SAFE_NO_PAD.encode(limit.id);
            format!("{prefix}:{{{caller}}}:{id}")
        };
        self.limits().iter().map(name).collect()
    }

    fn key(&self) -> BucketOwner<'_> {
        match &self.caller {
            None => BucketOwner::address(self.client),
            Some(caller) => BucketOwner::subject(caller),
        }
    }
}

impl fmt::Display for BucketOwner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere => f.write_str("all who have no address"),
            Self::V4(address) => write!(f, "the address {address}"),
            Self::V6(network) => {
                let network = Ipv6Addr::from(u128::from(*network) << 64);
                write!(f, "the addresses {network}/64")
            }
            Self::Subject { issuer, subject } => {
                write!(f, "the subject `{subject}` of `{issuer}`")
            }
        }
    }
}

impl<'a> BucketOwner<'a> {
    fn subject(caller: &'a KnownCaller) -> Self {
        Self::Subject {
            issuer: &caller.issuer,
            subject: caller.subject.as_str(),
        }
    }

    /// Who is counted for a client address.
    pub fn address(address: Option<IpAddr>) -> Self {
        match address.map(|address| address.to_canonical()) {
            None => Self::Nowhere,
            Some(IpAddr::V4(address)) => Self::V4(address),
            Some(IpAddr::V6(address)) => {
                let [network @ .., _, _, _, _, _, _, _, _] = address.octets();
                Self::V6(u64::from_be_bytes(network))
            }
        }
    }
}

impl<'a> Rates<'a> {
    /// For a request of this client, at this time.
    pub fn new(counts: &'a RateLimitTable, client: Option<IpAddr>, now: Ticks) -> Self {
        Self {
            counts: Some(counts),
            client,
            now,
            ..Self::default()
        }
    }

    /// The same, counted by somebody else as long as that is possible.
    #[must_use]
    pub fn elsewhere(self, is_elsewhere: bool) -> Self {
        Self {
            is_elsewhere,
            ..self
        }
    }

    /// For what is no request: nothing is counted, and every rate is good.
    pub fn uncounted() -> Self {
        Self::default()
    }

    /// Counts the request for its client.
    pub(super) fn of_client(&mut self, route: &Arc<Route>) -> Result<(), Held> {
        if route.limits.by_address.is_empty() {
            return Ok(());
        }
        if self.of_client.is_none() {
            self.hold(route, None)?;
            let key = BucketOwner::address(self.client);
            self.of_client = Some(self.count(&route.limits.by_address, key));
        }
        self.of_client
            .clone()
            .unwrap_or(Ok(()))
            .map_err(Held::Refused)
    }

    /// Counts the request for the subject of its token.
    pub(super) fn of_subject(
        &mut self,
        route: &Arc<Route>,
        caller: &Arc<KnownCaller>,
    ) -> Result<(), Held> {
        if route.limits.by_subject.is_empty() {
            return Ok(());
        }
        if self.of_subject.is_none() {
            self.hold(route, Some(caller))?;
            self.of_subject =
                Some(self.count(&route.limits.by_subject, BucketOwner::subject(caller)));
        }
        self.of_subject
            .clone()
            .unwrap_or(Ok(()))
            .map_err(Held::Refused)
    }

    /// Whether the request was counted for its client.
    pub fn knows_the_client(&self) -> bool {
        self.of_client.is_some()
    }

    /// Whether the request was counted for its subject already.
    pub(super) fn knows_the_subject(&self) -> bool {
        self.of_subject.is_some()
    }

    fn hold(&self, route: &Arc<Route>, caller: Option<&Arc<KnownCaller>>) -> Result<(), Held> {
        if !self.is_elsewhere {
            return Ok(());
        }
        Err(Held::Uncounted(Box::new(Uncounted {
            route: Arc::clone(route),
            client: self.client,
            caller: caller.cloned(),
        })))
    }

    fn count(&mut self, limits: &[RateLimit], key: BucketOwner<'_>) -> Result<(), Refusal> {
        let Some(counts) = self.counts else {
            return Ok(());
        };
        let statuses = counts.take(limits, key, self.now);
        self.tell(limits, &statuses)
    }

    fn tell(&mut self, limits: &[RateLimit], statuses: &[RateLimitStatus]) -> Result<(), Refusal> {
        for (limit, status) in limits.iter().zip(statuses) {
            let (name, remaining) = (&limit.name, status.remaining);
            let wait = status.wait.div_ceil(MICROS);
            if !status.is_allowed {
                self.fields.clear();
                add(&mut self.fields, format_args!("\"{name}\";r=0;t={wait}"));
                return Err(Refusal::RateLimited(wait));
            }
            add(
                &mut self.fields,
                format_args!("\"{name}\";r={remaining};t={wait}"),
            );
        }
        Ok(())
    }

    /// It was counted elsewhere, and this is how its caller stands.
    pub fn counted(&mut self, uncounted: &Uncounted, statuses: &[RateLimitStatus]) {
        let said = self.tell(uncounted.limits(), statuses);
        self.settle(uncounted, said);
    }

    /// It could not be counted elsewhere, so it is counted here.
    pub fn count_here(&mut self, uncounted: &Uncounted) {
        let said = self.count(uncounted.limits(), uncounted.key());
        self.settle(uncounted, said);
    }

    /// It could not be counted at all, and this is what becomes of it.
    pub fn settle(&mut self, uncounted: &Uncounted, said: Result<(), Refusal>) {
        match &uncounted.caller {
            None => self.of_client = Some(said),
            Some(_) => self.of_subject = Some(said),
        }
    }

    /// What its answer says of it, if it was counted.
    pub fn into_field(self) -> Option<HeaderValue> {
        if self.fields.is_empty() {
            return None;
        }
        HeaderValue::try_from(self.fields).ok()
    }
}

/// Adds an item to a list (RFC 9651 section 3.1).
fn add(list: &mut String, item: fmt::Arguments<'_>) {
    if !list.is_empty() {
        list.push_str(", ");
    }
    // Text takes everything that is written to it.
    let _written = list.write_fmt(item);
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
