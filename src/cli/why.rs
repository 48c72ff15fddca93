//! `claimgate why`: explains why the running gate rejected a request.

use std::process::ExitCode;

use clap::Args;

use crate::observe::log::printable;
use crate::proxy::headers::is_request_id;

use super::admin::RunningGate;
use super::{Failure, Outcome, say, warn};

#[derive(Debug, Args)]
pub(super) struct Why {
    #[command(flatten)]
    gate: RunningGate,
    /// `X-Request-Id` of the response, or `request_id` of the log line.
    request_id: String,
}

impl Why {
    pub(super) fn run(self) -> Outcome {
        if !is_request_id(self.request_id.as_bytes()) {
            return Err(Failure::other(format_args!(
                "look up the request: `{}` is not a request ID; copy `X-Request-Id` of the response or `request_id` of \
                 the log line",
                printable(&self.request_id)
            )));
        }
        let path = format!("/why/{}", self.request_id);
        let response = self.gate.request("GET", &path)?;
        if response.has_status(200) {
            say(response.body.trim_end());
            return Ok(ExitCode::SUCCESS);
        }
        if response.has_status(404) {
            warn(response.body.trim_end());
            return Ok(ExitCode::FAILURE);
        }
        Err(Failure::other(format_args!(
            "query the gate at {}: response `{}`",
            response.address, response.status
        )))
    }
}
