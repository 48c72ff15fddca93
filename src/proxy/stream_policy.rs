//! How long what was let through may stay: until its token expires, until the gate stops, until another policy would
//! not let it through.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use tokio::time::{Instant, timeout_at};

use crate::clock::UnixTime;
use crate::gate::Decision;
use crate::gate::cache::TokenCache;
use crate::gate::permit::{Caller, Permit};
use crate::gate::refusal::Refusal;

use super::body::BodyKind;
use super::shared::{Phase, Policy, Shared};
use super::stream_deadlines::StreamDeadlines;

/// What a stream needs to know of the decision that let it through.
#[derive(Debug)]
pub(super) struct StreamPolicy {
    /// From when on its token does not allow it any more.
    expires: Option<UnixTime>,
    /// In a box, because few routes want it, and every request would have to carry the room for it.
    judged: Option<Box<RecheckedRequest>>,
}

/// A request that is judged again when the policy changes.
#[derive(Debug)]
struct RecheckedRequest {
    head: Parts,
    /// The last second in which its token is good.
    last: Option<UnixTime>,
    /// The policy that let it through.
    policy: Arc<Policy>,
}

impl StreamPolicy {
    /// What the permit for this head, as it came, says about the end.
    pub(super) fn of(permit: &Permit, head: &Parts, policy: &Arc<Policy>) -> Self {
        let expires = match permit.caller() {
            Caller::Known(caller) => Some(caller.expires),
            Caller::Anonymous => None,
        };
        let streams = permit.route().streams;
        Self {
            expires: expires.filter(|_| streams.end_at_expiry),
            judged: streams.end_at_change.then(|| {
                Box::new(RecheckedRequest {
                    head: head.clone(),
                    last: expires.map(|expires| UnixTime(expires.0 - 1)),
                    policy: Arc::clone(policy),
                })
            }),
        }
    }

    /// When its token expires. From here on the time that passes counts, and not what somebody sets the clock to.
    pub(super) fn expiry(&self, shared: &Shared) -> Option<Instant> {
        let left = self.expires?.since(shared.clock.now());
        Some(Instant::now() + left)
    }

    /// For an answer without an end in sight.
    pub(super) fn stream(
        self,
        shared: &Arc<Shared>,
        kind: BodyKind,
        idle: Duration,
        overdue: Option<Instant>,
    ) -> StreamDeadlines {
        // Whoever reads events comes back by itself, to another instance; the rest is given the time of the drain.
        self.lifetime(shared, kind == BodyKind::Events, idle, overdue)
    }

    /// For a WebSocket.
    pub(super) fn websocket(
        self,
        shared: &Arc<Shared>,
        idle: Duration,
        overdue: Option<Instant>,
    ) -> StreamDeadlines {
        self.lifetime(shared, true, idle, overdue)
    }

    fn lifetime(
        self,
        shared: &Arc<Shared>,
        ends_at_stop: bool,
        idle: Duration,
        overdue: Option<Instant>,
    ) -> StreamDeadlines {
        let mut lifetime = StreamDeadlines::new(idle, overdue);
        lifetime.expiry = self.expiry(shared);
        if ends_at_stop || self.judged.is_some() {
            let revocation = revocation(Arc::clone(shared), ends_at_stop, self.judged);
            lifetime.revocation = Some(Box::pin(revocation));
        }
        lifetime
    }
}

async fn revocation(
    shared: Arc<Shared>,
    ends_at_stop: bool,
    judged: Option<Box<RecheckedRequest>>,
) -> Refusal {
    let stop = async {
        if !ends_at_stop {
            std::future::pending::<()>().await;
        }
        shared.reaches(Phase::Stopping).await;
        Refusal::Draining
    };
    let change = async {
        match judged {
            Some(judged) => judged.revoked(&shared).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        refusal = stop => refusal,
        refusal = change => refusal,
    }
}

impl RecheckedRequest {
    /// Waits for a policy that would not let the request through.
    async fn revoked(mut self, shared: &Shared) -> Refusal {
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

    /// Why this policy would not let the request through. That its token has expired since is another matter.
    fn refusal(&self, policy: &Policy, now: UnixTime) -> Option<Refusal> {
        let now = self.last.map_or(now, |last| last.min(now));
        match policy
            .gate
            .decide(&self.head, now, &mut TokenCache::default())
        {
            // A preflight is no stream.
            Decision::Forward(_) | Decision::Allow(_) => None,
            Decision::Refuse(refused)
            | Decision::NeedsKeys {
                otherwise: refused, ..
            } => Some(refused.refusal).filter(|refusal| *refusal != Refusal::KeysUnavailable),
        }
    }
}

/// Waits for `work`, but not past a deadline, if there is one.
pub(super) async fn within<T>(
    expiry: Option<Instant>,
    overdue: Option<Instant>,
    work: impl Future<Output = T>,
) -> Result<T, Refusal> {
    let Some(deadline) = [expiry, overdue].into_iter().flatten().min() else {
        return Ok(work.await);
    };
    timeout_at(deadline, work).await.map_err(|_| {
        if expiry == Some(deadline) {
            Refusal::TokenExpired
        } else {
            Refusal::UpstreamTimeout
        }
    })
}
