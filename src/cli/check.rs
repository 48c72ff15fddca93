//! `claimgate check`: compiles the configuration as `run` does, and prints every problem and warning.

use std::process::ExitCode;

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use crate::app::App;
use crate::config::Problems;
use crate::openapi::{Audit, Finding};

use super::openapi::Source;
use super::terminal::{BOLD, DIM, OK, WARNING};
use super::{ConfigFile, Failure, Outcome, Output, OutputFormat, counted, say, warn};

#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigFile,
    /// OpenAPI document of the API, a file or a URL: name each operation without a route, public by accident, or with a
    /// user in its path and no owner.
    #[arg(long, value_name = "FILE|URL")]
    openapi: Option<Source>,
    /// Allow plaintext HTTP to another machine for --openapi.
    #[arg(long, requires = "openapi")]
    allow_http: bool,
    /// Exit with code 2 if --openapi finds anything.
    #[arg(long, requires = "openapi")]
    strict: bool,
    #[command(flatten)]
    format: OutputFormat,
}

impl Check {
    pub(super) fn run(self) -> Outcome {
        let compiled = self.config.compile();
        let audit = match (&compiled, &self.openapi) {
            (Ok(app), Some(source)) => Some(self.audit(app, source)?),
            (Ok(_), None) | (Err(_), _) => None,
        };
        let is_rejected = self.strict
            && audit
                .as_ref()
                .is_some_and(|(_, audit)| !audit.findings.is_empty());
        if self.format.output == Output::Json {
            self.print_json(&compiled, audit.as_ref());
            let is_rejected = is_rejected || compiled.is_err();
            return Ok(exit_code(is_rejected));
        }
        let app = compiled?;
        for warning in &app.warnings {
            warn(format_args!("{WARNING}warning:{WARNING:#} {warning}"));
        }
        if let Some((_, audit)) = &audit {
            print_audit(audit);
        }
        let parts = counts(&app);
        let parts = parts.map(|(noun, count)| counted(count, noun));
        let warnings = counted(app.warnings.len(), "warning");
        say(format_args!(
            "{BOLD}{}{BOLD:#}: {OK}valid{OK:#}: {}, {warnings}",
            self.config.place()?,
            parts.join(", ")
        ));
        if let (Some(source), Some((operations, audit))) = (&self.openapi, &audit) {
            let operations = counted(*operations, "operation");
            let paths = counted(audit.findings.len(), "finding");
            let style = if audit.findings.is_empty() {
                OK
            } else {
                WARNING
            };
            say(format_args!(
                "{BOLD}{source}{BOLD:#}: {operations}, {style}{paths}{style:#}"
            ));
        }
        Ok(exit_code(is_rejected))
    }

    /// Number of operations of the document, and the audit of the routes.
    fn audit(&self, app: &App, source: &Source) -> Result<(usize, Audit), Failure> {
        let operations = source.operations(self.allow_http)?;
        let audit = Audit::of(&operations, app.policy.gate.routes());
        Ok((operations.len(), audit))
    }

    fn print_json(&self, compiled: &Result<App, Problems>, audit: Option<&(usize, Audit)>) {
        let file = self.config.place().map_or_else(
            |problems| problems.file.display().to_string(),
            |place| place.to_string(),
        );
        let mut report = match compiled {
            Ok(app) => {
                let [routes, issuers, upstreams] = counts(app).map(|(_, count)| count);
                json!({
                    "file": file,
                    "valid": true,
                    "routes": routes,
                    "issuers": issuers,
                    "upstreams": upstreams,
                    "warnings": app.warnings,
                    "problems": [],
                })
            }
            Err(problems) => {
                let problems = problems.all.iter().map(|problem| {
                    json!({
                        "line": problem.line,
                        "key": problem.path.to_string(),
                        "message": problem.message,
                    })
                });
                json!({
                    "file": file,
                    "valid": false,
                    "warnings": [],
                    "problems": problems.collect::<Vec<_>>(),
                })
            }
        };
        if let (Some((operations, audit)), Value::Object(report)) = (audit, &mut report) {
            let findings: Vec<Value> = audit.findings.iter().map(finding_json).collect();
            let audit = json!({
                "operations": operations,
                "findings": findings,
                "unused_routes": audit.unused,
            });
            report.insert("openapi".to_owned(), audit);
        }
        say(format_args!("{report:#}"));
    }
}

fn exit_code(is_rejected: bool) -> ExitCode {
    if is_rejected {
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    }
}

/// Prints the findings with their fixes, then the routes without an operation.
fn print_audit(audit: &Audit) {
    for finding in &audit.findings {
        warn(format_args!(
            "{WARNING}warning:{WARNING:#} {BOLD}{} {}{BOLD:#} {}; {}{}",
            methods(finding).join(", "),
            finding.path,
            finding.message,
            finding.fix,
            if finding.lines.is_empty() { "" } else { ":" }
        ));
        for line in finding.lines.lines() {
            warn(format_args!("  {line}"));
        }
    }
    for route in &audit.unused {
        warn(format_args!(
            "{DIM}note:{DIM:#} the route `{route}` serves no operation of the document"
        ));
    }
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "kind": finding.kind.name(),
        "methods": methods(finding),
        "path": finding.path,
        "route": finding.route,
        "message": finding.message,
        "fix": finding.fix,
        "lines": finding.lines,
    })
}

fn methods(finding: &Finding) -> Vec<&str> {
    finding.methods.iter().map(Method::as_str).collect()
}

fn counts(app: &App) -> [(&'static str, usize); 3] {
    let gate = &app.policy.gate;
    [
        ("route", gate.routes().routes().count()),
        ("issuer", gate.issuers().len()),
        ("upstream", app.policy.upstreams.len()),
    ]
}
