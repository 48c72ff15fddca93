//! Background tasks of the current policy: key refreshes and health checks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::{JoinHandle, spawn_local};

use crate::gate::issuer_id::IssuerId;
use crate::keys::KeyRing;
use crate::keys::exchange::Exchanger;
use crate::keys::on_demand_refresh::Refresher;
use crate::keys::remote::RemoteKeys;
use crate::observe::metrics::{IssuerMetrics, Metrics};
use crate::proxy::shared::{Policy, Shared};
use crate::proxy::upstream::{UpstreamState, health};

/// Background tasks of the current policy.
#[derive(Debug)]
pub(super) struct BackgroundTasks {
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    key_refreshes: BTreeMap<Arc<str>, KeyRefreshTask>,
    health_checks: Vec<HealthCheckTask>,
}

/// Key refresh of one issuer.
#[derive(Debug)]
struct KeyRefreshTask {
    remote: RemoteKeys,
    refresher: Arc<Refresher>,
    task: JoinHandle<()>,
}

/// Health check of one upstream.
#[derive(Debug)]
struct HealthCheckTask {
    state: Arc<UpstreamState>,
    task: JoinHandle<()>,
}

impl BackgroundTasks {
    /// Starts the tasks of the initial policy.
    pub(super) fn start(
        shared: Arc<Shared>,
        metrics: Arc<Metrics>,
        remote_keys: &[Option<RemoteKeys>],
    ) -> Self {
        let mut background = Self {
            shared,
            metrics,
            key_refreshes: BTreeMap::new(),
            health_checks: Vec::new(),
        };
        background.reconcile(remote_keys);
        background
    }

    /// Replaces the policy. Unchanged upstreams keep their connections and health, unchanged issuers their keys and
    /// refreshes.
    pub(super) fn apply(&mut self, mut policy: Policy, remote_keys: &[Option<RemoteKeys>]) {
        let before = self.shared.policy();
        for upstream in &mut policy.upstreams {
            let mut known = before.upstreams.iter();
            if let Some(known) = known.find(|known| known.policy.name == upstream.policy.name) {
                upstream.inherit_state(known);
            } else if let Some(metrics) = self.metrics.upstreams.find(&upstream.policy.name) {
                upstream.continue_metrics(metrics);
            }
        }
        if let (Some(redis), Some(known)) = (&policy.redis, &before.redis)
            && redis.source == known.source
        {
            policy.redis = Some(Arc::clone(known));
        }
        for (issuer, exchangers) in policy.gate.issuers().iter().zip(&mut policy.exchangers) {
            let mut known = before.gate.issuers().iter().zip(&before.exchangers);
            if let Some((_, known)) = known.find(|(known, _)| known.name == issuer.name) {
                *exchangers = exchangers.continue_from(known);
            }
        }
        for (index, remote) in remote_keys.iter().enumerate() {
            let Some(issuer) = policy.gate.issuers().get(index) else {
                continue;
            };
            let key_refresh = self.key_refreshes.get(&issuer.name);
            let same = |key_refresh: &&KeyRefreshTask| {
                remote
                    .as_ref()
                    .is_some_and(|remote| remote.has_same_source(&key_refresh.remote))
            };
            let (Some(key_refresh), Some(remote)) = (key_refresh.filter(same), remote) else {
                continue;
            };
            let mut issuers = before.gate.issuers().iter();
            if let Some(known) = issuers.find(|known| known.name == issuer.name) {
                let ring = if remote.max_stale == key_refresh.remote.max_stale {
                    Arc::clone(&known.ring)
                } else {
                    Arc::new(known.ring.with_max_stale(remote.max_stale))
                };
                policy.gate = policy.gate.with_ring(IssuerId(index), ring);
            }
            if let Some(refresher) = policy.refreshers.get_mut(index) {
                *refresher = Some(Arc::clone(&key_refresh.refresher));
            }
        }
        register(&self.metrics, &policy, remote_keys);
        self.shared.change_policy(|_| policy.clone());
        self.reconcile(remote_keys);
    }

    /// Starts tasks that the policy needs and aborts those that it no longer needs.
    fn reconcile(&mut self, remote_keys: &[Option<RemoteKeys>]) {
        let policy = self.shared.policy();
        self.reconcile_key_refreshes(&policy, remote_keys);
        self.reconcile_health_checks(&policy);
    }

    fn reconcile_key_refreshes(&mut self, policy: &Policy, remote_keys: &[Option<RemoteKeys>]) {
        let mut before = std::mem::take(&mut self.key_refreshes);
        let issuers = policy.gate.issuers().iter().zip(&policy.refreshers);
        for ((issuer, refresher), remote) in issuers.zip(remote_keys) {
            let metrics = self.metrics.issuers.find(&issuer.name);
            let (Some(remote), Some(refresher), Some(metrics)) = (remote, refresher, metrics)
            else {
                continue;
            };
            let name = Arc::clone(&issuer.name);
            if let Some(key_refresh) = before.remove(&name) {
                if key_refresh.remote.has_same_settings(remote) {
                    self.key_refreshes.insert(name, key_refresh);
                    continue;
                }
                key_refresh.task.abort();
                if !Arc::ptr_eq(&key_refresh.refresher, refresher) {
                    key_refresh.refresher.release_waiters();
                }
            }
            let task = remote.clone().keep_fresh(
                Arc::clone(&issuer.ring),
                Arc::clone(refresher),
                metrics,
                self.shared.clock.clone(),
                publisher(Arc::clone(&self.shared), Arc::clone(&name)),
            );
            let key_refresh = KeyRefreshTask {
                remote: remote.clone(),
                refresher: Arc::clone(refresher),
                task: spawn_local(task),
            };
            self.key_refreshes.insert(name, key_refresh);
        }
        for removed in before.into_values() {
            removed.task.abort();
            removed.refresher.release_waiters();
        }
    }

    fn reconcile_health_checks(&mut self, policy: &Policy) {
        let mut before = std::mem::take(&mut self.health_checks);
        for upstream in &policy.upstreams {
            let Some(check) = upstream.policy.health_check.clone() else {
                continue;
            };
            let is_same = |health_check: &mut HealthCheckTask| {
                Arc::ptr_eq(&health_check.state, &upstream.state)
            };
            let same = before.extract_if(.., is_same).next();
            self.health_checks
                .push(same.unwrap_or_else(|| HealthCheckTask {
                    state: Arc::clone(&upstream.state),
                    task: spawn_local(health::watch(upstream.clone(), check)),
                }));
        }
        for removed in before {
            removed.task.abort();
        }
    }
}

/// Registers the metrics of all upstreams and issuers of a policy. Known names keep their counters.
pub(super) fn register(metrics: &Metrics, policy: &Policy, remote_keys: &[Option<RemoteKeys>]) {
    let upstreams = policy.upstreams.iter();
    let upstreams = upstreams.map(|upstream| Arc::clone(&upstream.state.metrics));
    metrics.upstreams.replace(upstreams.collect());
    let issuers = policy.gate.issuers().iter().zip(remote_keys);
    let issuers = issuers.zip(&policy.exchangers);
    let issuers = issuers.map(|((issuer, remote), exchangers)| {
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
        let of = |exchanger: &Option<Arc<Exchanger>>| {
            let metrics = exchanger.as_ref().map(|exchanger| exchanger.metrics());
            metrics.map(Arc::clone)
        };
        metrics.sessions.store(of(&exchangers.sessions));
        metrics.introspection.store(of(&exchangers.introspection));
        metrics
    });
    metrics.issuers.replace(issuers.collect());
}

/// Publishes new key rings of an issuer. The issuer is found by name, because a reload can move it.
fn publisher(shared: Arc<Shared>, name: Arc<str>) -> impl Fn(Arc<KeyRing>) {
    move |ring| {
        shared.change_policy(|policy| {
            let index = policy
                .gate
                .issuers()
                .iter()
                .position(|issuer| issuer.name == name);
            let mut policy = policy.clone();
            if let Some(index) = index {
                policy.gate = policy.gate.with_ring(IssuerId(index), Arc::clone(&ring));
            }
            policy
        });
    }
}
