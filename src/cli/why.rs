//! `claimgate why`: why the running gate has not served a request.

use std::process::ExitCode;

use clap::Args;

use crate::proxy::headers::is_request_id;

use super::admin::RunningGate;
use super::{Failure, Outcome, say, warn};

#[derive(Debug, Args)]
pub(super) struct Why {
    #[command(flatten)]
    gate: RunningGate,
    /// The `X-Request-Id` of the answer, or the `request_id` of the log.
    request_id: String,
}

impl Why {
    pub(super) fn run(self) -> Outcome {
        if !is_request_id(self.request_id.as_bytes()) {
            return Err(Failure::other(
                "ask for this request: no request can have such a name",
            ));
        }
        let path = format!("/why/{}", self.request_id);
        let answered = self.gate.ask("GET", &path)?;
        if answered.has_status(200) {
            say(answered.body.trim_end());
            return Ok(ExitCode::SUCCESS);
        }
        if answered.has_status(404) {
            warn(answered.body.trim_end());
            return Ok(ExitCode::FAILURE);
        }
        Err(Failure::other(format_args!(
            "ask the gate at {}: it answered {}",
            answered.address, answered.status
        )))
    }
}
