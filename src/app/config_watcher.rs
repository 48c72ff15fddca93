//! Hot reload of the configuration: a new one replaces the current one completely or not at all.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::config::{Config, Problems};
use crate::observe::metrics::Metrics;

use super::background::BackgroundTasks;
use super::changes;
use super::compile::App;
use super::config_source::{ConfigSource, PollOutcome};

/// Interval of file polls. A change is applied at the second poll that finds it.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Watches a configuration file and applies its changes.
#[derive(Debug)]
pub(super) struct ConfigWatcher {
    pub(super) source: ConfigSource,
    /// Configuration at start.
    pub(super) started: Config,
    /// Warnings logged at start.
    pub(super) warnings: Vec<String>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
}

impl ConfigWatcher {
    /// Polls until the process ends. `reload_request` triggers a poll at once.
    pub(super) async fn run(self, reload_request: Arc<Notify>, mut background: BackgroundTasks) {
        let Self {
            mut source,
            started,
            warnings: mut logged_warnings,
            metrics,
            clock,
        } = self;
        let mut current = started.clone();
        let mut polls = interval(POLL_INTERVAL);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let requested = tokio::select! {
                _ = polls.tick() => false,
                () = reload_request.notified() => true,
            };
            // On a blocking thread: a slow disk must not delay the probes.
            let polling = spawn_blocking(move || {
                let outcome = source.poll(requested, App::compile);
                (source, outcome)
            });
            let Ok((returned, outcome)) = polling.await else {
                return error!("configuration watcher stopped: the polling thread panicked");
            };
            source = returned;
            match outcome {
                PollOutcome::Unchanged if requested => match source.problems() {
                    None => info!("configuration unchanged"),
                    Some(problems) => log_failed(problems, metrics.config.generation()),
                },
                PollOutcome::Unchanged | PollOutcome::Unstable => {}
                PollOutcome::Changed {
                    result: Ok(app),
                    files,
                } => {
                    let App {
                        config,
                        listeners: _,
                        policy,
                        remote_keys,
                        warnings,
                        source: _,
                    } = app;
                    background.apply(policy, &remote_keys);
                    let generation = metrics.config.reloaded(clock.now());
                    log_reloaded(generation, &current, &config, &files);
                    let restarts = changes::restart_required(&started, &config);
                    let changed = changes::restart_required(&current, &config);
                    for key in restarts.iter().filter(|key| changed.contains(key)) {
                        warn!("`{key}` changed; restart to apply it");
                    }
                    for warning in warnings
                        .iter()
                        .filter(|warning| !logged_warnings.contains(warning))
                    {
                        warn!("{warning}");
                    }
                    (current, logged_warnings) = (config, warnings);
                }
                PollOutcome::Changed {
                    result: Err(problems),
                    ..
                } => {
                    let first = problems.lines().next();
                    log_failed(&problems, metrics.config.reload_failed(first));
                }
            }
        }
    }
}

fn log_reloaded(generation: u64, before: &Config, after: &Config, files: &[PathBuf]) {
    let changes = changes::differences(before, after, files);
    let changes = if changes.is_empty() {
        "none that take effect".to_owned()
    } else {
        changes.join(", ")
    };
    info!(generation, changes, "configuration reloaded");
}

fn log_failed(problems: &Problems, generation: u64) {
    for problem in problems.lines() {
        error!(
            generation,
            "configuration reload failed, keeping generation {generation}: {problem}"
        );
    }
}
