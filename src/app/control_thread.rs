//! Control thread: key refreshes, hot reload, health checks, span export and the admin listener. Separate from the
//! workers, so that a busy gate still responds to probes.

use std::io;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, Semaphore};
use tokio::task::spawn_local;
use tokio::time::Instant;
use tracing::error;

use crate::clock::UnixTime;
use crate::keys::remote::RemoteKeys;
use crate::observe::admin::{Admin, Probe, Status};
use crate::observe::explanation;
use crate::observe::metrics::Metrics;
use crate::observe::status::RouteLine;
use crate::observe::traces::export;
use crate::proxy::shared::{Phase, Shared};
use crate::proxy::upstream::health;
use crate::tls::server::Reloader;

use super::background::BackgroundTasks;
use super::certificates;
use super::config_watcher::ConfigWatcher;

/// Most concurrent upstream probes: any client of the admin listener can start them.
const MAX_CONCURRENT_PROBES: usize = 8;

/// State that the admin listener reports.
#[derive(Debug)]
struct Report {
    shared: Arc<Shared>,
    probes: Arc<Semaphore>,
}

impl Status for Report {
    fn not_ready(&self) -> Vec<String> {
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
            if upstream.policy.health_check.is_some() && !upstream.state.health.any_healthy() {
                awaits.push(format!(
                    "waiting for the upstream `{}`",
                    upstream.policy.name
                ));
            }
        }
        awaits
    }

    fn routes(&self) -> Vec<RouteLine> {
        let policy = self.shared.policy();
        let routes = policy.gate.routes().routes();
        let routes = routes.map(|route| RouteLine {
            route: route.pattern.to_string(),
            rule: explanation::describe_route(route, policy.gate.issuers()),
            upstream: policy.upstream_name(route).to_owned(),
        });
        routes.collect()
    }

    fn now(&self) -> UnixTime {
        self.shared.clock.now()
    }

    fn update_gauges(&self, metrics: &Metrics) {
        let now = self.shared.ticks(Instant::now());
        let (kept, forgotten) = self.shared.rate_limits.used_and_evicted(now);
        metrics.set_rate_limit_buckets(kept, forgotten);
        metrics.set_connection_limit(self.shared.max_connections());
    }

    fn drain(&self) {
        self.shared.advance(Phase::Draining);
    }

    fn probe(&self, path: &str) -> Option<Probe> {
        let policy = self.shared.policy();
        let targets = policy.upstreams.iter().filter_map(|upstream| {
            let check = upstream.policy.health_check.as_ref()?;
            (check.path == path).then(|| (upstream.clone(), check.clone()))
        });
        let targets: Vec<_> = targets.collect();
        if targets.is_empty() {
            return None;
        }
        let probes = Arc::clone(&self.probes);
        Some(Box::pin(async move {
            let _permit = probes.acquire().await.ok()?;
            let mut status = None;
            for (upstream, check) in targets {
                status = health::probe(&upstream, &check).await;
                if !status.is_some_and(health::is_healthy) {
                    break;
                }
            }
            status
        }))
    }
}

/// Tasks of the control thread.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) admin: std::net::TcpListener,
    /// Most connections of the admin listener.
    pub(super) max_admin_connections: usize,
    pub(super) remote_keys: Vec<Option<RemoteKeys>>,
    pub(super) reloaders: Vec<Reloader>,
    /// Set if the configuration is a file to watch.
    pub(super) watcher: Option<ConfigWatcher>,
    /// Triggers a poll of the configuration at once.
    pub(super) reload_request: Arc<Notify>,
    pub(super) shared: Arc<Shared>,
    pub(super) metrics: Arc<Metrics>,
}

impl Control {
    /// Spawns the thread, which runs until the process ends.
    pub(super) fn start(self) -> io::Result<()> {
        let thread = std::thread::Builder::new().name("control".to_owned());
        thread.spawn(move || {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => runtime.block_on(self.run()),
                Err(error) => error!("failed to start the control thread: {error}"),
            }
        })?;
        Ok(())
    }

    async fn run(self) {
        let Self {
            admin,
            max_admin_connections,
            remote_keys,
            reloaders,
            watcher,
            reload_request,
            shared,
            metrics,
        } = self;
        let background =
            BackgroundTasks::start(Arc::clone(&shared), Arc::clone(&metrics), &remote_keys);
        spawn_local(certificates::watch(reloaders, Arc::clone(&metrics)));
        let tracing = {
            let shared = Arc::clone(&shared);
            move || shared.policy().tracing.clone()
        };
        let (spans, clock) = (Arc::clone(&metrics.spans), shared.clock.clone());
        spawn_local(export::run(spans, clock, tracing));
        if let Some(watcher) = watcher {
            spawn_local(watcher.run(reload_request, background));
        }
        match TcpListener::from_std(admin) {
            Ok(listener) => {
                let probes = Arc::new(Semaphore::new(MAX_CONCURRENT_PROBES));
                let report = Report { shared, probes };
                let admin = Arc::new(Admin::new(report, metrics));
                admin.serve(listener, max_admin_connections).await;
            }
            Err(error) => error!("failed to serve the admin listener: {error}"),
        }
    }
}
