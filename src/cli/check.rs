//! `claimgate check`: everything that `run` builds, and what is wrong with it.

use std::path::Path;
use std::process::ExitCode;

use super::{Outcome, compile, say, warn};

pub(super) fn check(file: &Path) -> Outcome {
    let app = compile(file)?;
    for warning in &app.warnings {
        warn(format_args!("warning: {warning}"));
    }
    let gate = &app.policy.gate;
    say(format_args!(
        "{}: good: {} routes, {} issuers, {} upstreams, {} warnings",
        file.display(),
        gate.routes().routes().count(),
        gate.issuers().len(),
        app.policy.upstreams.len(),
        app.warnings.len()
    ));
    Ok(ExitCode::SUCCESS)
}
