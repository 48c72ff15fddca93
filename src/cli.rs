//! Command line interface, one file per command.

mod admin;
mod check;
mod completions;
mod config;
mod dev;
mod doctor;
mod drain;
mod exchanges;
mod explain;
mod help;
mod init;
mod key_sets;
mod man;
mod openapi;
mod run;
mod schema;
mod secret_encodings;
mod signals;
mod spinner;
mod terminal;
mod token;
mod verdict;
mod why;

use std::fmt::Display;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::app::App;
use crate::config::{ConfigDocument, ENVIRONMENT, Problem, Problems};

use dev::DevSession;
use terminal::{DIM, FAIL};

/// Configuration files of the working directory, one of which is used without `--config`.
const DEFAULT_FILES: [&str; 2] = ["claimgate.toml", "config.toml"];

/// Reverse-proxy sidecar: verifies the bearer JWT, binds its subject to the path, and forwards the request.
#[derive(Debug, Parser)]
#[command(version, after_help = help::PROGRAM)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: ConfigFile,
    /// When to print in colour.
    #[arg(long, value_name = "WHEN", default_value = "auto", global = true)]
    color: clap::ColorChoice,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve requests (default).
    #[command(after_help = help::RUN)]
    Run(ConfigFile),
    /// Write a configuration file.
    #[command(after_help = help::INIT)]
    Init(init::Init),
    /// Validate the configuration, and print every problem and warning.
    #[command(after_help = help::CHECK)]
    Check(check::Check),
    /// Print the effective configuration, from a file or from the environment.
    #[command(after_help = help::CONFIG)]
    Config(config::Config),
    /// Explain the decision for one request, without a server.
    #[command(after_help = help::EXPLAIN)]
    Explain(explain::Explain),
    /// Run an API behind the gate on this machine, with a development secret and token.
    #[command(after_help = help::DEV)]
    Dev(dev::Dev),
    /// Mint or inspect a token.
    #[command(subcommand, after_help = help::TOKEN)]
    Token(token::Token),
    /// Test everything outside the gate: keys, upstreams, clock, certificates, and a token.
    #[command(after_help = help::DOCTOR)]
    Doctor(doctor::Doctor),
    /// Make the running gate report not ready; it still serves requests.
    #[command(after_help = help::DRAIN)]
    Drain(drain::Drain),
    /// Explain why the running gate rejected a request.
    #[command(after_help = help::WHY)]
    Why(why::Why),
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
    /// Print completions for a shell.
    Completions(completions::Completions),
    /// Print the manual page, or write the pages of all commands.
    Man(man::ManPages),
}

#[derive(Debug, Clone, Args)]
struct ConfigFile {
    /// Configuration file [default: claimgate.toml or config.toml; without them, the environment].
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Place of a configuration.
#[derive(Debug)]
enum ConfigPlace {
    File(PathBuf),
    Environment,
    /// The running `claimgate dev` of the folder.
    Dev(DevSession),
}

impl Display for ConfigPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(file) => file.display().fmt(f),
            Self::Environment => f.write_str(ENVIRONMENT),
            Self::Dev(_) => f.write_str("claimgate dev"),
        }
    }
}

impl ConfigPlace {
    fn document(&self) -> Result<ConfigDocument, Problems> {
        match self {
            Self::File(file) => ConfigDocument::load(file),
            Self::Environment => ConfigDocument::from_environment().map_err(no_file),
            Self::Dev(session) => session.document(),
        }
    }
}

impl ConfigFile {
    /// The file of `--config`, or the one of [`DEFAULT_FILES`] that exists. Fails if both exist.
    fn place(&self) -> Result<ConfigPlace, Problems> {
        if let Some(file) = &self.config {
            return Ok(ConfigPlace::File(file.clone()));
        }
        let files = DEFAULT_FILES.iter().map(PathBuf::from);
        let mut existing = files.filter(|file| file.exists() && !is_stdout(file));
        match (existing.next(), existing.next()) {
            (None, _) => Ok(ConfigPlace::Environment),
            (Some(file), None) => Ok(ConfigPlace::File(file)),
            (Some(file), Some(other)) => {
                let message = format!(
                    "{} exists as well; name one of them with `--config FILE`",
                    other.display()
                );
                Err(Problems::of_source(file, message))
            }
        }
    }

    /// Place of the configuration of the running gate: `claimgate dev` if it runs in this folder.
    fn running_place(&self) -> Result<ConfigPlace, Problems> {
        if self.config.is_none()
            && let Some(session) = DevSession::find()
        {
            warn(format_args!(
                "{DIM}using `claimgate dev`, which runs in this folder{DIM:#}"
            ));
            return Ok(ConfigPlace::Dev(session));
        }
        self.place()
    }

    /// Loads the configuration, without compiling it.
    fn document(&self) -> Result<ConfigDocument, Problems> {
        self.place()?.document()
    }

    /// Loads the configuration of the running gate.
    fn running_document(&self) -> Result<ConfigDocument, Problems> {
        self.running_place()?.document()
    }

    /// Loads and compiles the configuration of the running gate.
    fn running_compiled(&self) -> Result<App, Problems> {
        App::compile(self.running_document()?)
    }

    /// Loads and compiles the configuration.
    fn compile(&self) -> Result<App, Problems> {
        App::compile(self.document()?)
    }
}

/// True if a file is the standard output of this process: in `claimgate config > claimgate.toml`, the shell creates the
/// file first.
fn is_stdout(file: &Path) -> bool {
    let identity = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    let stdout = identity(Path::new("/dev/stdout"));
    stdout.is_some() && stdout == identity(file)
}

/// Adds the reason for reading the environment to its problems.
fn no_file(mut problems: Problems) -> Problems {
    let message = format!(
        "is the configuration, because this folder has no {}; `claimgate init` writes a file, and `--config FILE` names \
         another one",
        DEFAULT_FILES.join(" or ")
    );
    problems.all.push(Problem::of_source(message));
    problems
}

/// Format of a command's result on standard output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Text for people.
    #[default]
    Text,
    /// One JSON document for programs.
    Json,
}

#[derive(Debug, Clone, Copy, Args)]
struct OutputFormat {
    /// Format of the result.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Output,
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
        terminal::set_color(self.color);
        let command = match (self.command, self.config.config) {
            (None, config) => Command::Run(ConfigFile { config }),
            (Some(command), None) => command,
            (Some(_), Some(_)) => {
                let message = "write `--config FILE` after the command";
                let error = Self::command().error(ErrorKind::ArgumentConflict, message);
                let _closed = error.print();
                return ExitCode::from(2);
            }
        };
        let outcome = match command {
            Command::Run(config) => run::run(&config),
            Command::Init(init) => init.run(),
            Command::Check(check) => check.run(),
            Command::Config(config) => config.run(),
            Command::Explain(explain) => explain.run(),
            Command::Dev(dev) => dev.run(),
            Command::Token(token) => token.run(),
            Command::Doctor(doctor) => doctor.run(),
            Command::Drain(drain) => drain.run(),
            Command::Why(why) => why.run(),
            Command::Schema => Ok(schema::run()),
            Command::Completions(completions) => Ok(completions.run()),
            Command::Man(pages) => pages.run(),
        };
        match outcome {
            Ok(code) => code,
            Err(Failure::Config(problems)) => {
                let count = counted(problems.all.len(), "problem");
                warn(format_args!(
                    "{problems}\n{FAIL}{count}{FAIL:#}: nothing was started"
                ));
                ExitCode::from(2)
            }
            Err(Failure::Other(message)) => {
                warn(format_args!("{FAIL}failed{FAIL:#} to {message}"));
                ExitCode::FAILURE
            }
        }
    }
}

/// Count with a noun, as in `2 routes`.
fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// Prints a line to standard output, without its colours unless `--color` allows them. A closed pipe is not a failure.
fn say(line: impl Display) {
    let _closed = writeln!(anstream::stdout(), "{line}");
}

/// Prints a line to standard error, without its colours unless `--color` allows them.
fn warn(line: impl Display) {
    let _closed = writeln!(anstream::stderr(), "{line}");
}
