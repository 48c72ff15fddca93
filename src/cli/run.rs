//! `claimgate run`: serves requests until SIGTERM or SIGINT.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use crate::app::App;
use crate::clock::Clock;
use crate::observe::log;
use crate::observe::metrics::Metrics;

use super::signals::Signals;
use super::{ConfigFile, ConfigPlace, Failure, Outcome};

/// Time in which a repeated stop signal counts as the first one: `timeout` and other launchers send a signal to the process
/// and to its group.
const REPEAT_WINDOW: Duration = Duration::from_secs(1);

pub(super) fn run(config: &ConfigFile) -> Outcome {
    let place = config.place()?;
    let app = match &place {
        ConfigPlace::File(file) => App::load(file)?,
        ConfigPlace::Environment | ConfigPlace::Dev(_) => config.compile()?,
    };
    let (_log, dropped) = log::start(&app.config.log)
        .map_err(|error| Failure::other(format_args!("start the log writer: {error}")))?;
    for warning in &app.warnings {
        warn!("{warning}");
    }
    info!(source = %place, "configuration loaded");
    // Before the gate is visible as running, so that no signal is lost.
    let mut signals = Signals::listen().map_err(Failure::other)?;
    let running = app.start(Clock::System).map_err(Failure::other)?;
    running.metrics().watch_log(dropped);
    count_panics(Arc::clone(running.metrics()));
    signals.wait(|| match &place {
        ConfigPlace::File(_) => running.reload(),
        ConfigPlace::Environment | ConfigPlace::Dev(_) => {
            info!("no reload: the environment of a process does not change");
        }
    });
    running.stop();
    let stopped = Instant::now();
    std::thread::spawn(move || {
        loop {
            signals.wait(|| {});
            if stopped.elapsed() >= REPEAT_WINDOW {
                break;
            }
        }
        // A later signal ends the graceful shutdown.
        log::flush();
        std::process::exit(130);
    });
    // Connections closed at the end of the grace period are no failure: the operator sets the period.
    running.wait();
    Ok(ExitCode::SUCCESS)
}

/// Counts and logs panics. A panic ends its connection, never the process.
fn count_panics(metrics: Arc<Metrics>) {
    std::panic::set_hook(Box::new(move |panic| {
        metrics.panics.fetch_add(1, Ordering::Relaxed);
        // The message may hold input of a client; the location is enough to find the fault.
        let location = panic.location().map(ToString::to_string);
        error!(location, "panic: connection closed");
    }));
}
