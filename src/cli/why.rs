//! `claimgate why`: explains why the running gate rejected a request.

use std::process::ExitCode;

use clap::Args;

use crate::observe::log::printable;
use crate::proxy::headers::is_request_id;

use super::admin::RunningGate;
use super::{Failure, Outcome, Output, OutputFormat, say, terminal, warn};

#[derive(Debug, Args)]
pub(super) struct Why {
    #[command(flatten)]
    gate: RunningGate,
    #[command(flatten)]
    format: OutputFormat,
    /// `X-Request-Id` of the response, or `request_id` of the log line; without it, the last refusal.
    request_id: Option<String>,
}

impl Why {
    pub(super) fn run(self) -> Outcome {
        let path = match &self.request_id {
            None => "/why".to_owned(),
            Some(id) if is_request_id(id.as_bytes()) => format!("/why/{id}"),
            Some(id) => {
                return Err(Failure::other(format_args!(
                    "look up the request: `{}` is not a request ID; copy `X-Request-Id` of the response or `request_id` \
                     of the log line",
                    printable(id)
                )));
            }
        };
        let accept = match self.format.output {
            Output::Text => "text/plain",
            Output::Json => "application/json",
        };
        let response = self.gate.request("GET", &path, accept)?;
        if response.has_status(200) {
            let body = response.body.trim_end();
            match self.format.output {
                Output::Text => body.lines().map(terminal::colored).for_each(say),
                Output::Json => say(body),
            }
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
