//! `claimgate check`: compiles the configuration as `run` does, and prints every problem and warning.

use std::path::Path;
use std::process::ExitCode;

use super::{Outcome, compile, counted, say, warn};

pub(super) fn check(file: &Path) -> Outcome {
    let app = compile(file)?;
    for warning in &app.warnings {
        warn(format_args!("warning: {warning}"));
    }
    let gate = &app.policy.gate;
    let parts = [
        (gate.routes().routes().count(), "route"),
        (gate.issuers().len(), "issuer"),
        (app.policy.upstreams.len(), "upstream"),
        (app.warnings.len(), "warning"),
    ];
    let parts = parts.map(|(count, noun)| counted(count, noun)).join(", ");
    say(format_args!("{}: valid: {parts}", file.display()));
    Ok(ExitCode::SUCCESS)
}
