//! Ends of a stream before its two sides close it: token expiry, shutdown, a policy change.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::clock::UnixTime;
use crate::gate::inbound::Inbound;
use crate::gate::permit::{Caller, Permit};
use crate::gate::refusal::Refusal;
use crate::gate::stop::Stop;

use super::forwarding::StreamEnds;
use super::response_body::BodyKind;
use super::shared::{Phase, Policy, Shared};
use super::stream_deadlines::StreamDeadlines;

/// Facts of a permit that limit the life of its stream.
#[derive(Debug)]
pub(super) struct StreamPolicy {
    /// Expiry of the token, leeway included.
    expires: Option<UnixTime>,
    /// Boxed: few routes recheck, and every request would carry its size.
    recheck: Option<Box<RecheckedRequest>>,
}

/// A request that is decided again when the policy changes.
#[derive(Debug)]
struct RecheckedRequest {
    inbound: Inbound,
    /// Last second in which the token is valid.
    last_valid: Option<UnixTime>,
    /// Policy that permitted the request.
    policy: Arc<Policy>,
}

impl StreamPolicy {
    pub(super) fn new(
        permit: &Permit,
        ends: StreamEnds,
        inbound: &Inbound,
        policy: &Arc<Policy>,
    ) -> Self {
        let expires = match permit.caller() {
            Caller::Known(caller) => Some(caller.expires),
            Caller::Anonymous => None,
        };
        Self {
            expires: expires.filter(|_| ends.at_expiry),
            recheck: ends.at_change.then(|| {
                Box::new(RecheckedRequest {
                    inbound: inbound.clone(),
                    last_valid: expires.map(|expires| UnixTime(expires.0.saturating_sub(1))),
                    policy: Arc::clone(policy),
                })
            }),
        }
    }

    /// Expiry of the token on the monotonic clock: a later change of the system time does not move it.
    pub(super) fn expiry(&self, shared: &Shared) -> Option<Instant> {
        let left = self.expires?.since(shared.clock.now());
        // A token that expires beyond the range of the clock never does.
        Instant::now().checked_add(left)
    }

    /// Deadlines of a response without a known length.
    pub(super) fn response(
        self,
        shared: &Arc<Shared>,
        kind: BodyKind,
        idle_timeout: Duration,
        deadline: Option<Instant>,
    ) -> StreamDeadlines {
        // Readers of events reconnect by themselves, to another instance; other streams get the drain period.
        self.deadlines(shared, kind == BodyKind::Events, idle_timeout, deadline)
    }

    /// Deadlines of a WebSocket.
    pub(super) fn websocket(
        self,
        shared: &Arc<Shared>,
        idle_timeout: Duration,
        deadline: Option<Instant>,
    ) -> StreamDeadlines {
        self.deadlines(shared, true, idle_timeout, deadline)
    }

    fn deadlines(
        self,
        shared: &Arc<Shared>,
        ends_at_shutdown: bool,
        idle_timeout: Duration,
        deadline: Option<Instant>,
    ) -> StreamDeadlines {
        let mut deadlines = StreamDeadlines::new(idle_timeout, deadline);
        deadlines.expiry = self.expiry(shared);
        if ends_at_shutdown || self.recheck.is_some() {
            let revocation = revocation(Arc::clone(shared), ends_at_shutdown, self.recheck);
            deadlines.revocation = Some(Box::pin(revocation));
        }
        deadlines
    }
}

/// Waits for the shutdown or for a policy that denies the request.
async fn revocation(
    shared: Arc<Shared>,
    ends_at_shutdown: bool,
    recheck: Option<Box<RecheckedRequest>>,
) -> Refusal {
    let shutdown = async {
        if !ends_at_shutdown {
            std::future::pending::<()>().await;
        }
        shared.reaches(Phase::Stopping).await;
        Refusal::Draining
    };
    let denied = async {
        match recheck {
            Some(request) => request.denied(&shared).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        refusal = shutdown => refusal,
        refusal = denied => refusal,
    }
}

impl RecheckedRequest {
    /// Waits for a policy that denies the request.
    async fn denied(mut self, shared: &Shared) -> Refusal {
        let mut policies = shared.policies();
        loop {
            let policy = shared.policy();
            if !Arc::ptr_eq(&policy, &self.policy) {
                if let Some(refusal) = self.refusal(&policy, shared.clock.now()) {
                    return refusal;
                }
                self.policy = policy;
            }
            if policies.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Refusal of the request under this policy. The token counts as valid even if it has expired since: expiry has a
    /// setting of its own. Missing keys deny nothing, and neither does a token that only its issuer can verify.
    fn refusal(&self, policy: &Policy, now: UnixTime) -> Option<Refusal> {
        let now = self.last_valid.map_or(now, |last| last.min(now));
        let stop = policy.gate.decide_again(&self.inbound, now).err()?;
        if matches!(stop, Stop::NeedsExchange(_)) {
            return None;
        }
        let refusal = &stop.refused()?.refusal;
        (*refusal != Refusal::KeysUnavailable).then(|| refusal.clone())
    }
}

/// Runs `work` until the token expires or the deadline of the exchange passes.
pub(super) async fn within<T>(
    expiry: Option<Instant>,
    deadline: Option<Instant>,
    work: impl Future<Output = T>,
) -> Result<T, Refusal> {
    let Some(earliest) = [expiry, deadline].into_iter().flatten().min() else {
        return Ok(work.await);
    };
    timeout_at(earliest, work).await.map_err(|_| {
        if expiry == Some(earliest) {
            Refusal::TokenExpired
        } else {
            Refusal::UpstreamTimeout
        }
    })
}
