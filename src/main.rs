//! The `claimgate` program: arguments in, a command run, an exit code out.

use std::process::ExitCode;

use claimgate::cli::Arguments;
use clap::Parser;

fn main() -> ExitCode {
    Arguments::parse().run()
}
