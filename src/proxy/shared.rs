//! State shared by all threads: every worker reads it, the control thread alone writes it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::{Clock, Ticks, UnixTime};
use crate::gate::Gate;
use crate::gate::issuer_id::IssuerId;
use crate::gate::rate_limit::RateLimitTable;
use crate::gate::routes::Route;
use crate::gate::stop::NeedsExchange;
use crate::keys::credential::CredentialForm;
use crate::keys::exchange::Exchanger;
use crate::keys::on_demand_refresh::{RefreshOutcome, Refresher};
use crate::observe::traces::Tracing;

use super::forwarding::Forwarding;
use super::headers::HeaderPolicy;
use super::inbound::client_connections::{ClientConnections, ClientSlot};
use super::inbound::limits::{ConnectionLimits, MAX_REJECTED_WITH_RESPONSE};
use super::redis::Redis;
use super::replays::ReplayStore;
use super::upstream::SharedUpstream;

/// Compiled configuration and keys, for the decision and the forwarding of requests. Immutable and swapped as a whole.
#[derive(Debug, Clone)]
pub struct Policy {
    pub gate: Gate,
    pub headers: HeaderPolicy,
    /// Redis for shared rate limits; `None` counts in this process.
    pub redis: Option<Arc<Redis>>,
    /// In the order of [`UpstreamId`](super::upstream::UpstreamId).
    pub upstreams: Vec<SharedUpstream>,
    /// In the order of the routes' [`RouteId`](crate::gate::routes::RouteId).
    pub forwarding: Arc<[Forwarding]>,
    /// Largest request body in bytes, for routes without their own limit; 0 is unlimited.
    pub max_body_bytes: u64,
    pub limits: ConnectionLimits,
    /// Limit of open connections.
    pub max_connections: usize,
    /// Limit of open connections of one client; `None` is half of all, 0 is unlimited.
    pub max_connections_per_client: Option<usize>,
    /// Grace period of requests in flight during shutdown.
    pub grace: Duration,
    /// Logged share of successful exchanges, 0 to 1.
    pub log_sample: f64,
    /// Span export; `None` disables traces.
    pub tracing: Option<Arc<Tracing>>,
    /// In the order of [`IssuerId`]; `None` for keys that are not fetched.
    pub refreshers: Vec<Option<Arc<Refresher>>>,
    /// In the order of [`IssuerId`].
    pub exchangers: Vec<Exchangers>,
}

/// Exchanges with one issuer.
#[derive(Debug, Clone, Default)]
pub struct Exchangers {
    /// Exchange of session credentials.
    pub sessions: Option<Arc<Exchanger>>,
    /// Introspection of access tokens.
    pub introspection: Option<Arc<Exchanger>>,
}

impl Exchangers {
    /// Keeps the results of the earlier exchanges with the same settings.
    #[must_use]
    pub fn continue_from(&self, earlier: &Self) -> Self {
        let same = |own: &Option<Arc<Exchanger>>, earlier: &Option<Arc<Exchanger>>| {
            let own = own.as_ref()?;
            Some(match earlier {
                Some(earlier) => own.continue_from(earlier),
                None => Arc::clone(own),
            })
        };
        Self {
            sessions: same(&self.sessions, &earlier.sessions),
            introspection: same(&self.introspection, &earlier.introspection),
        }
    }
}

impl Policy {
    #[expect(
        clippy::indexing_slicing,
        reason = "the gate and the forwarding of a policy have the same routes"
    )]
    pub fn forwarding(&self, route: &Route) -> &Forwarding {
        &self.forwarding[route.id.0]
    }

    /// Name of the upstream of a route.
    pub fn upstream_name(&self, route: &Route) -> &str {
        let upstream = self.upstreams.get(self.forwarding(route).upstream.0);
        upstream.map_or("", |upstream| &upstream.policy.name)
    }

    /// Fetches the keys of an issuer and waits for the result for a bounded time.
    pub async fn fetch_keys(
        &self,
        issuer: IssuerId,
        kid: Option<&str>,
        since: &mut Option<u64>,
    ) -> RefreshOutcome {
        match self.refresher(issuer) {
            Some(refresher) => refresher.refresh(kid, since).await,
            // Local keys never change without a newer policy.
            None => RefreshOutcome::Fetched,
        }
    }

    /// Exchanger for a credential; `None` if a reload has removed it.
    pub fn exchanger(&self, needs: &NeedsExchange) -> Option<&Arc<Exchanger>> {
        let exchangers = self.exchangers.get(needs.issuer.0)?;
        match needs.credential.form() {
            CredentialForm::SessionCookie(_) | CredentialForm::SessionToken => {
                exchangers.sessions.as_ref()
            }
            CredentialForm::AccessToken => exchangers.introspection.as_ref(),
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "the gate and the refreshers of a policy have the same issuers"
    )]
    fn refresher(&self, issuer: IssuerId) -> Option<&Arc<Refresher>> {
        self.refreshers[issuer.0].as_ref()
    }
}

/// Phase in the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Serving,
    /// Not ready, but still serving new requests.
    Draining,
    /// Finishing requests in flight.
    Stopping,
}

/// Current policy of a worker, which is loaded again only after a change.
pub(super) type PolicyCache = Cache<Arc<ArcSwap<Policy>>, Arc<Policy>>;

/// State shared by the threads of the process.
#[derive(Debug)]
pub struct Shared {
    policy: Arc<ArcSwap<Policy>>,
    /// Copy of the value of `phases`, cheap enough to read on every request.
    phase: AtomicU8,
    phases: watch::Sender<Phase>,
    policies: watch::Sender<()>,
    connections: AtomicUsize,
    /// Most open connections that the file descriptors allow.
    capacity: usize,
    clients: Arc<ClientConnections>,
    room_requests: watch::Sender<()>,
    pub clock: Clock,
    /// Rate limit buckets. They outlive the policy.
    pub rate_limits: RateLimitTable,
    /// Proofs that were accepted. They outlive the policy.
    pub(super) replays: ReplayStore,
    started: Instant,
}

impl Shared {
    /// State with at most `capacity` open connections, whatever the policy allows.
    pub fn new(policy: Policy, clock: Clock, capacity: usize) -> Self {
        Self {
            policy: Arc::new(ArcSwap::from_pointee(policy)),
            phase: AtomicU8::new(Phase::Serving as u8),
            phases: watch::Sender::new(Phase::Serving),
            policies: watch::Sender::new(()),
            connections: AtomicUsize::new(0),
            capacity,
            clients: Arc::default(),
            room_requests: watch::Sender::new(()),
            clock,
            rate_limits: RateLimitTable::default(),
            replays: ReplayStore::default(),
            started: Instant::now(),
        }
    }

    /// Converts an instant to the time of the rate limits. A test's clock provides whole seconds here too.
    pub fn ticks(&self, instant: Instant) -> Ticks {
        let since = match &self.clock {
            Clock::System => instant.saturating_duration_since(self.started),
            Clock::Set(_) => self.clock.now().since(UnixTime(0)),
        };
        Ticks(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    /// Current policy.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    pub(super) fn policy_cache(&self) -> PolicyCache {
        Cache::new(Arc::clone(&self.policy))
    }

    /// Replaces the policy for all later requests.
    pub fn change_policy(&self, change: impl Fn(&Policy) -> Policy) {
        self.policy.rcu(|policy| change(policy));
        self.policies.send_replace(());
    }

    /// Subscribes to policy changes.
    pub fn policies(&self) -> watch::Receiver<()> {
        self.policies.subscribe()
    }

    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Serving,
            1 => Phase::Draining,
            _ => Phase::Stopping,
        }
    }

    /// Advances to a later phase. An earlier phase has no effect.
    pub fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::Relaxed);
        self.phases.send_if_modified(|current| {
            let is_later = phase > *current;
            *current = phase.max(*current);
            is_later
        });
    }

    /// Waits for this phase or a later one.
    pub async fn reaches(&self, phase: Phase) {
        let mut phases = self.phases.subscribe();
        // Infallible: the sender lives as long as `self`.
        let _reached = phases.wait_for(|now| *now >= phase).await;
    }

    /// Limits of a new connection.
    pub(super) fn limits(&self) -> ConnectionLimits {
        self.policy.load().limits
    }

    /// Limit of open connections: that of the policy, or fewer if the file descriptors do not allow it.
    pub fn max_connections(&self) -> usize {
        self.policy.load().max_connections.min(self.capacity)
    }

    /// Most connections above a limit that get a response. Each takes a descriptor.
    pub(super) fn max_rejected(&self) -> usize {
        MAX_REJECTED_WITH_RESPONSE.min(self.capacity)
    }

    /// Asks every worker to close idle connections.
    pub(super) fn request_room(&self) {
        self.room_requests.send_replace(());
    }

    /// Subscribes to requests to close idle connections.
    pub(super) fn room_requests(&self) -> watch::Receiver<()> {
        self.room_requests.subscribe()
    }

    /// Counts a connection of a client. Also returns how many more than its limit the client has. Returns `None` without a
    /// limit: for a trusted proxy, which has many clients, and on loopback, where proxies in the same pod connect from.
    pub(super) fn enter_client(&self, address: IpAddr) -> Option<(ClientSlot, usize)> {
        let policy = self.policy.load();
        let limit = match policy.max_connections_per_client {
            Some(limit) => limit,
            None => policy.max_connections.min(self.capacity).div_ceil(2),
        };
        if limit == 0 || address.is_loopback() || policy.headers.trusts(address) {
            return None;
        }
        let (slot, count) = self.clients.enter(address);
        Some((slot, count.saturating_sub(limit)))
    }

    pub(super) fn connection_opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Number of open connections.
    pub(super) fn open_connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub(super) fn connection_closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
