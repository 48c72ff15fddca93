//! What every worker reads and nobody but the control thread writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::{Clock, Ticks, UnixTime};
use crate::gate::Gate;
use crate::gate::rate_limit::RateLimitTable;
use crate::gate::routes::Route;
use crate::gate::verify::IssuerId;
use crate::keys::refresh::{RefreshOutcome, Refresher};
use crate::observe::traces::Tracing;

use super::forwarding::Forwarding;
use super::headers::HeaderPolicy;
use super::inbound::limits::ConnectionLimits;
use super::redis::Redis;
use super::upstream::SharedUpstream;

/// All that decides about a request: one immutable value, swapped whole.
#[derive(Debug, Clone)]
pub struct Policy {
    /// What judges it.
    pub gate: Gate,
    /// What becomes of its headers.
    pub headers: HeaderPolicy,
    /// Where it is counted together with other gates, if anywhere.
    pub redis: Option<Arc<Redis>>,
    /// In the order of [`UpstreamId`](super::upstream::UpstreamId).
    pub upstreams: Vec<SharedUpstream>,
    /// In the order of the routes' [`RouteId`](crate::gate::routes::RouteId).
    pub forwarding: Arc<[Forwarding]>,
    /// The largest body in bytes, unless its route says otherwise; 0 is no limit.
    pub max_body_bytes: u64,
    /// What a connection is held to from its start to its end.
    pub limits: ConnectionLimits,
    /// How many connections may be open at once.
    pub max_connections: usize,
    /// How long what is in flight may take to finish when the gate stops.
    pub grace: Duration,
    /// The share of good answers that are logged.
    pub log_sample: f64,
    /// Where the spans of requests go, if anywhere.
    pub tracing: Option<Arc<Tracing>>,
    /// Who fetches the keys of each issuer, in their order; none for keys that are not fetched.
    pub refreshers: Vec<Option<Arc<Refresher>>>,
}

impl Policy {
    #[expect(
        clippy::indexing_slicing,
        reason = "the gate and the forwarding of a policy have the same routes"
    )]
    pub fn forwarding(&self, route: &Route) -> &Forwarding {
        &self.forwarding[route.id.0]
    }

    /// Has the keys of an issuer fetched, and waits for that a bounded time.
    pub async fn fetch_keys(
        &self,
        issuer: IssuerId,
        kid: Option<&str>,
        since: &mut Option<u64>,
    ) -> RefreshOutcome {
        match self.refresher(issuer) {
            Some(refresher) => refresher.ask(kid, since).await,
            // Local keys never change without a newer policy.
            None => RefreshOutcome::Fetched,
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

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Everything is as it should be.
    Serving,
    /// Not ready for more, but serving all that comes.
    Draining,
    /// Finishing what is in flight.
    Stopping,
}

/// What the threads of the process share.
#[derive(Debug)]
pub struct Shared {
    policy: ArcSwap<Policy>,
    /// The same as the last of `phases`, for every request to read.
    phase: AtomicU8,
    phases: watch::Sender<Phase>,
    policies: watch::Sender<()>,
    connections: AtomicUsize,
    /// The time of day.
    pub clock: Clock,
    /// How often callers have come to routes with a limit. It outlives every policy.
    pub rate_limits: RateLimitTable,
    started: Instant,
}

impl Shared {
    /// Begins with a policy.
    pub fn new(policy: Policy, clock: Clock) -> Self {
        Self {
            policy: ArcSwap::from_pointee(policy),
            phase: AtomicU8::new(Phase::Serving as u8),
            phases: watch::Sender::new(Phase::Serving),
            policies: watch::Sender::new(()),
            connections: AtomicUsize::new(0),
            clock,
            rate_limits: RateLimitTable::default(),
            started: Instant::now(),
        }
    }

    /// A moment, for what is counted. A clock that a test sets goes by whole seconds here too.
    pub fn ticks(&self, moment: Instant) -> Ticks {
        let since = match &self.clock {
            Clock::System => moment.saturating_duration_since(self.started),
            Clock::Set(_) => self.clock.now().since(UnixTime(0)),
        };
        Ticks(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Puts another policy in force for every request that begins from now on.
    pub fn change_policy(&self, change: impl Fn(&Policy) -> Policy) {
        self.policy.rcu(|policy| change(policy));
        self.policies.send_replace(());
    }

    /// Says when another policy is in force.
    pub fn policies(&self) -> watch::Receiver<()> {
        self.policies.subscribe()
    }

    /// Where the process is in its life.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Serving,
            1 => Phase::Draining,
            _ => Phase::Stopping,
        }
    }

    /// Goes on to a later phase; never back.
    pub fn advance(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::Relaxed);
        self.phases.send_if_modified(|current| {
            let is_later = phase > *current;
            *current = phase.max(*current);
            is_later
        });
    }

    /// Waits until it is in this phase or a later one.
    pub async fn reaches(&self, phase: Phase) {
        let mut phases = self.phases.subscribe();
        // It cannot fail: the sender lives as long as `self`.
        let _reached = phases.wait_for(|now| *now >= phase).await;
    }

    /// What a connection that begins now is held to.
    pub(super) fn limits(&self) -> ConnectionLimits {
        self.policy.load().limits
    }

    /// How many connections may be open at once.
    pub(super) fn max_connections(&self) -> usize {
        self.policy.load().max_connections
    }

    /// Counts a connection more.
    pub(super) fn connection_opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// How many connections there are.
    pub(super) fn open_connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Counts a connection less.
    pub(super) fn connection_closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
