//! `claimgate drain`: makes the running gate report not ready, as the preStop hook of a pod.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::admin::RunningGate;
use super::{Failure, Outcome, say};

#[derive(Debug, Args)]
pub(super) struct Drain {
    #[command(flatten)]
    gate: RunningGate,
    /// Time to wait before exiting, as in "10s", to delay the end of a preStop hook, also after a failure.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "0s")]
    wait: Duration,
}

impl Drain {
    pub(super) fn run(self) -> Outcome {
        let drained = self.drain();
        // After a failure too: in a preStop hook, the wait alone keeps requests from being lost.
        std::thread::sleep(self.wait);
        drained
    }

    fn drain(&self) -> Outcome {
        let response = self.gate.request("POST", "/drain", "text/plain")?;
        if !response.has_status(200) {
            return Err(Failure::other(format_args!(
                "drain the gate at {}: response `{}`",
                response.address, response.status
            )));
        }
        say("draining");
        Ok(ExitCode::SUCCESS)
    }
}
