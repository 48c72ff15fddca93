//! `claimgate check`: compiles the configuration as `run` does, and prints every problem and warning.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::app::App;
use crate::config::Problems;

use super::terminal::{BOLD, OK, WARNING};
use super::{ConfigFile, Outcome, Output, OutputFormat, counted, say, warn};

#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    format: OutputFormat,
}

impl Check {
    pub(super) fn run(self) -> Outcome {
        let compiled = self.config.compile();
        if self.format.output == Output::Json {
            return Ok(self.print_json(&compiled));
        }
        let app = compiled?;
        for warning in &app.warnings {
            warn(format_args!("{WARNING}warning:{WARNING:#} {warning}"));
        }
        let parts = counts(&app);
        let parts = parts.map(|(noun, count)| counted(count, noun));
        let warnings = counted(app.warnings.len(), "warning");
        say(format_args!(
            "{BOLD}{}{BOLD:#}: {OK}valid{OK:#}: {}, {warnings}",
            self.config.place()?,
            parts.join(", ")
        ));
        Ok(ExitCode::SUCCESS)
    }

    fn print_json(&self, compiled: &Result<App, Problems>) -> ExitCode {
        let file = self.config.place().map_or_else(
            |problems| problems.file.display().to_string(),
            |place| place.to_string(),
        );
        let (report, code) = match compiled {
            Ok(app) => {
                let [routes, issuers, upstreams] = counts(app).map(|(_, count)| count);
                let report = json!({
                    "file": file,
                    "valid": true,
                    "routes": routes,
                    "issuers": issuers,
                    "upstreams": upstreams,
                    "warnings": app.warnings,
                    "problems": [],
                });
                (report, ExitCode::SUCCESS)
            }
            Err(problems) => {
                let problems = problems.all.iter().map(|problem| {
                    json!({
                        "line": problem.line,
                        "key": problem.path.to_string(),
                        "message": problem.message,
                    })
                });
                let report = json!({
                    "file": file,
                    "valid": false,
                    "warnings": [],
                    "problems": problems.collect::<Vec<_>>(),
                });
                (report, ExitCode::from(2))
            }
        };
        say(format_args!("{report:#}"));
        code
    }
}

fn counts(app: &App) -> [(&'static str, usize); 3] {
    let gate = &app.policy.gate;
    [
        ("route", gate.routes().routes().count()),
        ("issuer", gate.issuers().len()),
        ("upstream", app.policy.upstreams.len()),
    ]
}
