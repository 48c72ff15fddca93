//! One worker's view of a policy, with its own token cache and upstream connections.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::gate::cache::TokenCache;
use crate::observe::metrics::WorkerMetrics;

use super::redis::RedisLimiter;
use super::shared::Policy;
use super::upstream::{SharedUpstream, Upstream, UpstreamId};

/// An immutable policy and the worker's state for it. One snapshot decides about a request and forwards it.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) policy: Arc<Policy>,
    /// Tokens that this policy has verified.
    pub(super) tokens: RefCell<TokenCache>,
    /// In the order of [`UpstreamId`].
    upstreams: Vec<Rc<Upstream>>,
    /// Shared rate limits; `None` counts them in this process.
    pub(super) redis: Option<Rc<RedisLimiter>>,
}

impl Snapshot {
    /// A snapshot of the first policy.
    pub(super) fn first(policy: Arc<Policy>, metrics: &Arc<WorkerMetrics>) -> Self {
        Self::with(policy, TokenCache::default(), &[], None, metrics)
    }

    /// A snapshot of a newer policy. Keeps the connections to unchanged upstreams and to the same Redis, and the tokens
    /// that the newer policy would verify alike.
    pub(super) fn next(&self, policy: Arc<Policy>, metrics: &Arc<WorkerMetrics>) -> Self {
        let verified = self.tokens.take();
        let tokens = policy.gate.inherit_tokens(&self.policy.gate, verified);
        let redis = self.redis.as_ref();
        Self::with(policy, tokens, &self.upstreams, redis, metrics)
    }

    fn with(
        policy: Arc<Policy>,
        tokens: TokenCache,
        before: &[Rc<Upstream>],
        redis: Option<&Rc<RedisLimiter>>,
        metrics: &Arc<WorkerMetrics>,
    ) -> Self {
        let pool = |configured: &SharedUpstream| {
            let kept = before
                .iter()
                .find(|upstream| upstream.can_serve(configured));
            kept.map_or_else(|| Rc::new(Upstream::new(configured.clone())), Rc::clone)
        };
        let upstreams = policy.upstreams.iter().map(pool).collect();
        let redis = policy.redis.as_ref().map(|configured| {
            let kept = redis.filter(|limiter| limiter.is_for(configured));
            kept.map_or_else(
                || RedisLimiter::new(Arc::clone(configured), Arc::clone(metrics)),
                Rc::clone,
            )
        });
        Self {
            policy,
            tokens: RefCell::new(tokens),
            upstreams,
            redis,
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "an id is made for an upstream of the same configuration"
    )]
    pub(super) fn upstream(&self, id: UpstreamId) -> &Rc<Upstream> {
        &self.upstreams[id.0]
    }

    pub(super) fn upstreams(&self) -> &[Rc<Upstream>] {
        &self.upstreams
    }
}
