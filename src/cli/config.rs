//! `claimgate config`: prints the effective configuration.

use std::process::ExitCode;

use clap::Args;

use crate::app::App;

use super::terminal::WARNING;
use super::{ConfigFile, Failure, Outcome, Output, OutputFormat, say, warn};

#[derive(Debug, Args)]
pub(super) struct Config {
    #[command(flatten)]
    source: ConfigFile,
    /// Print every key with its default, not only the configured ones.
    #[arg(long)]
    defaults: bool,
    #[command(flatten)]
    format: OutputFormat,
}

impl Config {
    pub(super) fn run(self) -> Outcome {
        let document = self.source.document()?;
        let effective = document
            .effective(self.defaults)
            .map_err(|error| Failure::other(format_args!("write the configuration: {error}")))?;
        // A configuration that does not start is not effective.
        App::compile(document)?;
        if effective.is_redacted {
            warn(format_args!(
                "{WARNING}warning:{WARNING:#} header values that look like secrets are redacted"
            ));
        }
        match self.format.output {
            Output::Text => {
                say(format_args!(
                    "# Effective configuration of {}.",
                    self.source.place()?
                ));
                say(format_args!("\n{}", effective.to_toml().trim_end()));
            }
            Output::Json => {
                let json = serde_json::to_string_pretty(&effective.sections);
                say(json.map_err(|error| Failure::other(format_args!("write JSON: {error}")))?);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
