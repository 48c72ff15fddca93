//! `claimgate man`: manual pages.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_mangen::Man;

use super::{Arguments, Failure, Outcome};

#[derive(Debug, Args)]
pub(super) struct ManPages {
    /// Existing directory for the pages of all commands; without it, the main page is printed.
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
}

impl ManPages {
    pub(super) fn run(self) -> Outcome {
        let command = Arguments::command();
        if let Some(directory) = &self.dir {
            let written = clap_mangen::generate_to(command, directory);
            written.map_err(|error| {
                let directory = directory.display();
                Failure::other(format_args!("write manual pages to {directory}: {error}"))
            })?;
        } else {
            let mut page = Vec::new();
            Man::new(command)
                .render(&mut page)
                .map_err(Failure::other)?;
            // A closed pipe is not a failure.
            let _closed = std::io::stdout().write_all(&page);
        }
        Ok(ExitCode::SUCCESS)
    }
}
