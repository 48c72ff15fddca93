//! Command line interface, one file per command.

mod admin;
mod check;
mod completions;
mod dev;
mod doctor;
mod drain;
mod explain;
mod key_sets;
mod run;
mod secret_encodings;
mod signals;
mod token;
mod verdict;
mod why;

use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::app::App;
use crate::config::{ConfigDocument, Problems};

/// Reverse-proxy sidecar: verifies the bearer JWT, binds its subject to the path, and forwards the request.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: ConfigFile,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve requests (default).
    Run(ConfigFile),
    /// Validate the configuration, and print every problem and warning.
    Check(ConfigFile),
    /// Explain the decision for one request, without a server.
    Explain(explain::Explain),
    /// Run an API behind the gate on this machine, with a development secret and token.
    Dev(dev::Dev),
    /// Mint or inspect a token.
    #[command(subcommand)]
    Token(token::Token),
    /// Fetch every key set, connect to every upstream, and report problems with them or with a token.
    Doctor(doctor::Doctor),
    /// Make the running gate report not ready; it still serves requests.
    Drain(drain::Drain),
    /// Explain why the running gate rejected a request.
    Why(why::Why),
    /// Print completions for a shell.
    Completions(completions::Completions),
}

#[derive(Debug, Clone, Args)]
struct ConfigFile {
    /// Configuration file.
    #[arg(long, short, value_name = "FILE", default_value = "config.toml")]
    config: PathBuf,
}

/// Failure of a command.
#[derive(Debug)]
enum Failure {
    /// Invalid configuration: every problem, exit code 2.
    Config(Problems),
    /// Any other failure: a fragment that completes "failed to …", exit code 1.
    Other(String),
}

impl Failure {
    fn other(message: impl Display) -> Self {
        Self::Other(message.to_string())
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Config(problems)
    }
}

/// Exit code of a command that has printed its output.
type Outcome = Result<ExitCode, Failure>;

impl Arguments {
    /// Runs the command, and prints its failure to standard error.
    pub fn run(self) -> ExitCode {
        let command = self.command.unwrap_or(Command::Run(self.config));
        let outcome = match command {
            Command::Run(config) => run::run(&config.config),
            Command::Check(config) => check::check(&config.config),
            Command::Explain(explain) => explain.run(),
            Command::Dev(dev) => dev.run(),
            Command::Token(token) => token.run(),
            Command::Doctor(doctor) => doctor.run(),
            Command::Drain(drain) => drain.run(),
            Command::Why(why) => why.run(),
            Command::Completions(completions) => Ok(completions.run()),
        };
        match outcome {
            Ok(code) => code,
            Err(Failure::Config(problems)) => {
                let count = counted(problems.all.len(), "problem");
                warn(format_args!("{problems}\n{count}: nothing was started"));
                ExitCode::from(2)
            }
            Err(Failure::Other(message)) => {
                warn(format_args!("failed to {message}"));
                ExitCode::FAILURE
            }
        }
    }
}

/// Loads and compiles a configuration.
fn compile(file: &Path) -> Result<App, Failure> {
    Ok(App::compile(ConfigDocument::load(file)?)?)
}

/// Count with a noun, as in `2 routes`.
fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// Prints a line to standard output. A closed pipe is not a failure.
fn say(line: impl Display) {
    let _closed = writeln!(std::io::stdout(), "{line}");
}

/// Prints a line to standard error.
fn warn(line: impl Display) {
    let _closed = writeln!(std::io::stderr(), "{line}");
}
