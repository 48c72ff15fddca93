//! `claimgate schema`: prints the JSON Schema of the configuration.

use std::process::ExitCode;

use crate::config::CONFIG_SCHEMA;

use super::say;

pub(super) fn run() -> ExitCode {
    say(CONFIG_SCHEMA.trim_end());
    ExitCode::SUCCESS
}
