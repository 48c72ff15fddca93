//! `claimgate run`: serve until a signal says to stop.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, warn};

use crate::app::App;
use crate::clock::Clock;
use crate::observe::log;
use crate::observe::metrics::Metrics;

use super::{Failure, Outcome};

/// For listeners, key fetches and the log.
const SPARE_DESCRIPTORS: u64 = 64;

/// How long a signal to stop may come once more without meaning more: `timeout`, and others that start programs, send theirs
/// to the process and to its group.
const ECHO: Duration = Duration::from_secs(1);

pub(super) fn run(file: &Path) -> Outcome {
    let app = App::load(file)?;
    let (_log, dropped) = log::start(&app.config.log);
    for warning in &app.warnings {
        warn!("{warning}");
    }
    allow_descriptors(app.config.listen.max_connections);
    // Before anybody can know that it runs, and sends one.
    let mut signals = Signals::listen().map_err(Failure::other)?;
    let running = app.start(Clock::System).map_err(Failure::other)?;
    running.metrics().watch_log(dropped);
    count_panics(Arc::clone(running.metrics()));
    signals.wait(|| running.reload());
    running.stop();
    let stopped = Instant::now();
    std::thread::spawn(move || {
        loop {
            signals.wait(|| {});
            if stopped.elapsed() >= ECHO {
                break;
            }
        }
        // Another signal: whoever sent it does not want to wait.
        std::process::exit(130);
    });
    // Connections that had to be cut do not make it a failure: the grace is the operator's.
    running.wait();
    Ok(ExitCode::SUCCESS)
}

/// Asks the kernel for as many file descriptors as it grants: a connection takes two, its own and the upstream's.
fn allow_descriptors(max_connections: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!("failed to raise the limit of file descriptors: {error}");
    }
    let needed = (max_connections as u64)
        .saturating_mul(2)
        .saturating_add(SPARE_DESCRIPTORS);
    let granted = getrlimit(Resource::Nofile).current;
    if let Some(granted) = granted.filter(|granted| *granted < needed) {
        warn!(
            granted,
            needed,
            "the limit of file descriptors is too low for `max_connections = {max_connections}`"
        );
    }
}

/// A panic ends its connection, never the process; that it came to be is counted and logged.
fn count_panics(metrics: Arc<Metrics>) {
    std::panic::set_hook(Box::new(move |panic| {
        metrics.panics.fetch_add(1, Ordering::Relaxed);
        // The message may hold input of a client; the location is enough to find the fault.
        let location = panic.location().map(ToString::to_string);
        error!(location, "panic: connection closed");
    }));
}

/// The signals that ask for a stop, and the one that asks to look at the configuration.
pub(super) struct Signals {
    runtime: tokio::runtime::Runtime,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn listen() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (terminate, interrupt, hangup) = {
            let _guard = runtime.enter();
            (
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::hangup())?,
            )
        };
        Ok(Self {
            runtime,
            terminate,
            interrupt,
            hangup,
        })
    }

    /// Waits for the next one that asks for a stop, and calls `reload` for each that does not.
    pub(super) fn wait(&mut self, reload: impl Fn()) {
        let (terminate, interrupt) = (&mut self.terminate, &mut self.interrupt);
        let hangup = &mut self.hangup;
        self.runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = terminate.recv() => return,
                    _ = interrupt.recv() => return,
                    _ = hangup.recv() => reload(),
                }
            }
        });
    }

    /// Waits for the next one, or until `other` is done. Gives what `other` gave, if it did.
    pub(super) fn wait_or<T>(&mut self, other: impl Future<Output = T>) -> Option<T> {
        let (terminate, interrupt) = (&mut self.terminate, &mut self.interrupt);
        let hangup = &mut self.hangup;
        self.runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => None,
                _ = interrupt.recv() => None,
                // The terminal is gone.
                _ = hangup.recv() => None,
                done = other => Some(done),
            }
        })
    }

    /// Where futures of `other` may be made.
    pub(super) fn runtime(&self) -> &tokio::runtime::Runtime {
        &self.runtime
    }
}
