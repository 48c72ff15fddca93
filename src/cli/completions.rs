//! `claimgate completions`: shell completions.

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
        clap_complete::generate(
            self.shell,
            &mut command,
            "claimgate",
            &mut std::io::stdout(),
        );
        ExitCode::SUCCESS
    }
}
