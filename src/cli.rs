//! The commands, one file each.

mod admin;
mod check;
mod completions;
mod dev;
mod doctor;
mod drain;
mod explain;
mod run;
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

/// A sidecar that verifies the bearer JWT, binds its subject to the path, and forwards.
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
    /// Serve (the default).
    Run(ConfigFile),
    /// Build everything that `run` would, and print every problem and every warning.
    Check(ConfigFile),
    /// Say what would become of one request, and why, without a server.
    Explain(explain::Explain),
    /// Run an API behind the gate on this machine, with a throw-away secret and a token to try it with.
    Dev(dev::Dev),
    /// Make a development token, or take one apart.
    #[command(subcommand)]
    Token(token::Token),
    /// Fetch every key set once, and say what is wrong with it, or with a token.
    Doctor(doctor::Doctor),
    /// Tell the running gate not to be ready any more; it goes on serving.
    Drain(drain::Drain),
    /// Say why the running gate has not served a request.
    Why(why::Why),
    /// Print the completions for a shell.
    Completions(completions::Completions),
}

/// Which configuration.
#[derive(Debug, Clone, Args)]
struct ConfigFile {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE", default_value = "config.toml")]
    config: PathBuf,
}

/// How a command ended, if not well.
#[derive(Debug)]
enum Failure {
    /// The configuration cannot be used: every problem, and exit code 2.
    Config(Problems),
    /// Anything else: a sentence, and exit code 1.
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

/// The exit code of a command that has said what it has to say.
type Outcome = Result<ExitCode, Failure>;

impl Arguments {
    /// Runs the command, and says what went wrong if something did.
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

/// Reads and builds a configuration.
fn compile(file: &Path) -> Result<App, Failure> {
    Ok(App::compile(ConfigDocument::load(file)?)?)
}

/// So many of them.
fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// A line on standard output. A reader that has gone away is not a failure.
fn say(line: impl Display) {
    let _gone = writeln!(std::io::stdout(), "{line}");
}

/// A line on standard error.
fn warn(line: impl Display) {
    let _gone = writeln!(std::io::stderr(), "{line}");
}
