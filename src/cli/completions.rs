//! `claimgate completions`: shell completions.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Arguments;

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// Shell to generate completions for.
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> ExitCode {
        let mut command = Arguments::command();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "claimgate", &mut script);
        // `generate` panics if a write fails. A closed pipe is not a failure.
        let _closed = std::io::stdout().write_all(&script);
        ExitCode::SUCCESS
    }
}
