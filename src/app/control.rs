//! The control thread: key fetches, changed certificates, health checks and the admin listener, so that a busy gate
//! still answers its probes.

use std::io;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tracing::error;

use crate::keys::KeyRing;
use crate::keys::remote::RemoteKeys;
use crate::observe::admin::{Admin, Probe, Status};
use crate::observe::metrics::Metrics;
use crate::proxy::shared::{Phase, Policy, Shared};
use crate::proxy::upstream::health;
use crate::tls::server::Reloader;

use super::certificates;

/// How many probes of upstreams may be under way: whoever reaches the admin listener can send any number.
const PROBES: usize = 8;

/// What the admin listener reports.
#[derive(Debug)]
struct Report {
    shared: Arc<Shared>,
    probes: Arc<Semaphore>,
}

impl Status for Report {
    fn awaits(&self) -> Vec<String> {
        let mut awaits = Vec::new();
        if self.shared.phase() != Phase::Serving {
            awaits.push("draining".to_owned());
        }
        let now = self.shared.clock.now();
        for issuer in self.shared.policy().gate.issuers() {
            if !issuer.ring.is_usable(now) {
                awaits.push(format!(
                    "waiting for the keys of the issuer `{}`",
                    issuer.name
                ));
            }
        }
        for upstream in &self.shared.policy().upstreams {
            if upstream.health_check.is_some() && !upstream.common.health.some_are_healthy() {
                awaits.push(format!("waiting for the upstream `{}`", upstream.name));
            }
        }
        awaits
    }

    fn drain(&self) {
        self.shared.advance(Phase::Draining);
    }

    fn probe(&self, path: &str) -> Option<Probe> {
        let policy = self.shared.policy();
        let asked = policy.upstreams.iter().filter_map(|upstream| {
            let check = upstream.health_check.as_ref()?;
            (check.path == path).then(|| (upstream.clone(), check.clone()))
        });
        let asked: Vec<_> = asked.collect();
        if asked.is_empty() {
            return None;
        }
        let probes = Arc::clone(&self.probes);
        Some(Box::pin(async move {
            let _turn = probes.acquire().await.ok()?;
            let mut status = None;
            for (upstream, check) in asked {
                status = health::ask_now(&upstream, &check).await;
                if !status.is_some_and(health::is_well) {
                    break;
                }
            }
            status
        }))
    }
}

/// Starts the thread. It ends with the process.
pub(super) fn start(
    admin: std::net::TcpListener,
    remote_keys: Vec<Option<RemoteKeys>>,
    reloaders: Vec<Reloader>,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("control".to_owned());
    thread.spawn(move || {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default());
        let run = async {
            for (issuer, remote) in remote_keys.into_iter().enumerate() {
                if let Some(remote) = remote {
                    keep(issuer, remote, &shared, &metrics);
                }
            }
            spawn_local(certificates::keep(reloaders, Arc::clone(&metrics)));
            for upstream in &shared.policy().upstreams {
                if let Some(check) = upstream.health_check.clone() {
                    spawn_local(health::watch(upstream.clone(), check));
                }
            }
            match TcpListener::from_std(admin) {
                Ok(listener) => {
                    let probes = Arc::new(Semaphore::new(PROBES));
                    let report = Report { shared, probes };
                    let admin = Arc::new(Admin::new(report, metrics));
                    admin.serve(listener).await;
                }
                Err(error) => error!("failed to serve the admin listener: {error}"),
            }
        };
        match runtime {
            Ok(runtime) => runtime.block_on(run),
            Err(error) => error!("failed to start the control thread: {error}"),
        }
    })?;
    Ok(())
}

/// Fetches the keys of one issuer, and puts a policy with every new ring in force.
fn keep(issuer: usize, remote: RemoteKeys, shared: &Arc<Shared>, metrics: &Arc<Metrics>) {
    let (Some(Some(refresher)), Some(metrics)) =
        (shared.refreshers.get(issuer), metrics.issuers.get(issuer))
    else {
        return;
    };
    let publish = {
        let shared = Arc::clone(shared);
        move |ring: KeyRing| {
            let ring = Arc::new(ring);
            shared.change_policy(|policy| Policy {
                gate: policy.gate.with_ring(issuer, Arc::clone(&ring)),
                ..policy.clone()
            });
        }
    };
    let clock = shared.clock.clone();
    spawn_local(remote.keep(Arc::clone(refresher), Arc::clone(metrics), clock, publish));
}
