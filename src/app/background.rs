//! What goes on beside the requests for the policy in force: keys are fetched, upstreams are asked how they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::{JoinHandle, spawn_local};

use crate::keys::KeyRing;
use crate::keys::refresh::Refresher;
use crate::keys::remote::RemoteKeys;
use crate::observe::metrics::{IssuerMetrics, Metrics};
use crate::proxy::shared::{Policy, Shared};
use crate::proxy::upstream::{Common, health};

/// The tasks of the policy in force.
#[derive(Debug)]
pub(super) struct BackgroundTasks {
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    fetches: BTreeMap<Arc<str>, Fetching>,
    checks: Vec<Checking>,
}

/// The keys of one issuer are fetched.
#[derive(Debug)]
struct Fetching {
    remote: RemoteKeys,
    refresher: Arc<Refresher>,
    task: JoinHandle<()>,
}

/// An upstream is asked how it is.
#[derive(Debug)]
struct Checking {
    common: Common,
    task: JoinHandle<()>,
}

impl BackgroundTasks {
    /// Begins with the policy that the process has started with.
    pub(super) fn begin(
        shared: Arc<Shared>,
        metrics: Arc<Metrics>,
        remote_keys: &[Option<RemoteKeys>],
    ) -> Self {
        let mut background = Self {
            shared,
            metrics,
            fetches: BTreeMap::new(),
            checks: Vec::new(),
        };
        background.reconcile(remote_keys);
        background
    }

    /// Puts another policy in force. What has not changed goes on: connections to upstreams and what is known about
    /// them, the keys of issuers and the fetches of them.
    pub(super) fn change(&mut self, mut policy: Policy, remote_keys: &[Option<RemoteKeys>]) {
        let before = self.shared.policy();
        for upstream in &mut policy.upstreams {
            let mut known = before.upstreams.iter();
            if let Some(known) = known.find(|known| known.name == upstream.name) {
                upstream.succeed(known);
            } else if let Some(metrics) = self.metrics.upstreams.find(&upstream.name) {
                upstream.count_in(metrics);
            }
        }
        if let (Some(redis), Some(known)) = (&policy.redis, &before.redis)
            && redis.read == known.read
        {
            policy.redis = Some(Arc::clone(known));
        }
        for (place, remote) in remote_keys.iter().enumerate() {
            let Some(issuer) = policy.gate.issuers().get(place) else {
                continue;
            };
            let fetching = self.fetches.get(&issuer.name);
            let same = |fetching: &&Fetching| {
                remote
                    .as_ref()
                    .is_some_and(|remote| remote.has_same_source(&fetching.remote))
            };
            let (Some(fetching), Some(remote)) = (fetching.filter(same), remote) else {
                continue;
            };
            let mut issuers = before.gate.issuers().iter();
            if let Some(known) = issuers.find(|known| known.name == issuer.name) {
                let ring = if remote.max_stale == fetching.remote.max_stale {
                    Arc::clone(&known.ring)
                } else {
                    Arc::new(known.ring.with_max_stale(remote.max_stale))
                };
                policy.gate = policy.gate.with_ring(place, ring);
            }
            if let Some(refresher) = policy.refreshers.get_mut(place) {
                *refresher = Some(Arc::clone(&fetching.refresher));
            }
        }
        register(&self.metrics, &policy, remote_keys);
        self.shared.change_policy(|_| policy.clone());
        self.reconcile(remote_keys);
    }

    /// Begins what the policy in force needs, and ends what it does not need any more.
    fn reconcile(&mut self, remote_keys: &[Option<RemoteKeys>]) {
        let policy = self.shared.policy();
        self.reconcile_fetches(&policy, remote_keys);
        self.reconcile_health_checks(&policy);
    }

    fn reconcile_fetches(&mut self, policy: &Policy, remote_keys: &[Option<RemoteKeys>]) {
        let mut before = std::mem::take(&mut self.fetches);
        let issuers = policy.gate.issuers().iter().zip(&policy.refreshers);
        for ((issuer, refresher), remote) in issuers.zip(remote_keys) {
            let metrics = self.metrics.issuers.find(&issuer.name);
            let (Some(remote), Some(refresher), Some(metrics)) = (remote, refresher, metrics)
            else {
                continue;
            };
            let name = Arc::clone(&issuer.name);
            if let Some(fetching) = before.remove(&name) {
                if fetching.remote.has_same_settings(remote) {
                    self.fetches.insert(name, fetching);
                    continue;
                }
                fetching.task.abort();
                if !Arc::ptr_eq(&fetching.refresher, refresher) {
                    fetching.refresher.release_waiters();
                }
            }
            let task = remote.clone().keep_fresh(
                Arc::clone(&issuer.ring),
                Arc::clone(refresher),
                metrics,
                self.shared.clock.clone(),
                publisher(Arc::clone(&self.shared), Arc::clone(&name)),
            );
            let fetching = Fetching {
                remote: remote.clone(),
                refresher: Arc::clone(refresher),
                task: spawn_local(task),
            };
            self.fetches.insert(name, fetching);
        }
        for gone in before.into_values() {
            gone.task.abort();
            gone.refresher.release_waiters();
        }
    }

    fn reconcile_health_checks(&mut self, policy: &Policy) {
        let mut before = std::mem::take(&mut self.checks);
        for upstream in &policy.upstreams {
            let Some(check) = upstream.health_check.clone() else {
                continue;
            };
            let is_same = |checking: &mut Checking| checking.common == upstream.common;
            let same = before.extract_if(.., is_same).next();
            self.checks.push(same.unwrap_or_else(|| Checking {
                common: upstream.common.clone(),
                task: spawn_local(health::watch(upstream.clone(), check)),
            }));
        }
        for gone in before {
            gone.task.abort();
        }
    }
}

/// Has everything counted that this policy has, where it was counted before if it was.
pub(super) fn register(metrics: &Metrics, policy: &Policy, remote_keys: &[Option<RemoteKeys>]) {
    let upstreams = policy.upstreams.iter();
    let upstreams = upstreams.map(|upstream| Arc::clone(&upstream.common.metrics));
    metrics.upstreams.replace(upstreams.collect());
    let issuers = policy.gate.issuers().iter().zip(remote_keys);
    let issuers = issuers.map(|(issuer, remote)| {
        let known = metrics.issuers.find(&issuer.name);
        let metrics = known.unwrap_or_else(|| {
            Arc::new(IssuerMetrics {
                name: issuer.name.to_string(),
                ..IssuerMetrics::default()
            })
        });
        let held = issuer.ring.keys().len() as u64;
        metrics.keys.store(held, Ordering::Relaxed);
        let until = issuer.ring.usable_until().map_or(0, |until| until.0);
        metrics.usable_until.store(until, Ordering::Relaxed);
        metrics.is_remote.store(remote.is_some(), Ordering::Relaxed);
        metrics
    });
    metrics.issuers.replace(issuers.collect());
}

/// Puts a policy with every new ring of this issuer in force, wherever the issuer stands in it by then.
fn publisher(shared: Arc<Shared>, name: Arc<str>) -> impl Fn(Arc<KeyRing>) {
    move |ring| {
        shared.change_policy(|policy| {
            let place = policy
                .gate
                .issuers()
                .iter()
                .position(|issuer| issuer.name == name);
            let mut policy = policy.clone();
            if let Some(place) = place {
                policy.gate = policy.gate.with_ring(place, Arc::clone(&ring));
            }
            policy
        });
    }
}
