//! `claimgate drain`: the preStop hook of a pod.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::admin::RunningGate;
use super::{Failure, Outcome, say};

#[derive(Debug, Args)]
pub(super) struct Drain {
    #[command(flatten)]
    gate: RunningGate,
    /// How long to wait after that, as in "10s": for a preStop hook that must last.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "0s")]
    wait: Duration,
}

impl Drain {
    pub(super) fn run(self) -> Outcome {
        let answered = self.gate.ask("POST", "/drain")?;
        if !answered.has_status(200) {
            return Err(Failure::other(format_args!(
                "drain the gate at {}: it answered {}",
                answered.address, answered.status
            )));
        }
        say("draining");
        std::thread::sleep(self.wait);
        Ok(ExitCode::SUCCESS)
    }
}
