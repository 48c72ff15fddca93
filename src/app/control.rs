//! The control thread: key fetches, changed certificates, health checks and the admin listener, so that a busy gate
//! still answers its probes.

use std::io;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;
use tracing::error;

use crate::keys::KeyRing;
use crate::keys::remote::RemoteKeys;
use crate::observe::admin::{Admin, Status};
use crate::observe::metrics::Metrics;
use crate::proxy::shared::{Phase, Policy, Shared};
use crate::proxy::upstream::health;
use crate::tls::server::Reloader;

use super::certificates;

/// What the admin listener reports.
#[derive(Debug)]
struct Report(Arc<Shared>);

impl Status for Report {
    fn awaits(&self) -> Vec<String> {
        let mut awaits = Vec::new();
        if self.0.phase() != Phase::Serving {
            awaits.push("draining".to_owned());
        }
        let now = self.0.clock.now();
        for issuer in self.0.policy().gate.issuers() {
            if !issuer.ring.is_usable(now) {
                awaits.push(format!(
                    "waiting for the keys of the issuer `{}`",
                    issuer.name
                ));
            }
        }
        for upstream in &self.0.policy().upstreams {
            if upstream.health_check.is_some() && !upstream.common.health.some_are_healthy() {
                awaits.push(format!("waiting for the upstream `{}`", upstream.name));
            }
        }
        awaits
    }

    fn drain(&self) {
        self.0.advance(Phase::Draining);
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
                    let admin = Arc::new(Admin::new(Report(shared), metrics));
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
