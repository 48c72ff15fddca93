//! Signals: SIGTERM and SIGINT begin the graceful shutdown, SIGHUP requests a hot reload.

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT, which stop the gate, and SIGHUP, which reloads the configuration.
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

    /// Waits for SIGTERM or SIGINT, and calls `reload` for each SIGHUP.
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

    /// Waits for a signal or for the output of `other`; returns `None` for a signal.
    pub(super) fn wait_or<T>(&mut self, other: impl Future<Output = T>) -> Option<T> {
        let (terminate, interrupt) = (&mut self.terminate, &mut self.interrupt);
        let hangup = &mut self.hangup;
        self.runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => None,
                _ = interrupt.recv() => None,
                // The terminal closed.
                _ = hangup.recv() => None,
                output = other => Some(output),
            }
        })
    }

    /// Runtime for the futures passed to [`Self::wait_or`].
    pub(super) fn runtime(&self) -> &tokio::runtime::Runtime {
        &self.runtime
    }
}
