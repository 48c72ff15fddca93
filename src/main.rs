//! The `claimgate` program: parses the arguments, runs the command, returns its exit code.

use std::process::ExitCode;

use claimgate::cli::Arguments;
use clap::Parser;

fn main() -> ExitCode {
    Arguments::parse().run()
}
