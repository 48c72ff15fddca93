//! The executables as shipped: started with arguments, an environment and a directory, used over sockets, stopped with
//! signals.
//!
//! After each program exits, its output is searched for every secret and every token of these tests.

mod commands;
mod descriptors;
#[cfg(feature = "task-service")]
mod dev;
mod environment;
mod exchanges;
mod explain;
mod log_levels;
mod openapi;
mod passed_sockets;
mod program;
mod reloading;
mod sampling;
mod stopping;
mod upstream;
mod warnings;
mod why;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use program::{Ended, Program};

const SECRET: &str = "a secret of these tests that no log may show";
const OTHER_SECRET: &str = "another secret of these tests that no log may show";

/// Far above the time of any operation here: reached only by a failure.
const TIMEOUT: Duration = Duration::from_mins(1);

/// The smallest complete configuration.
const EIGHT_LINES: &str = include_str!("../fixtures/config/valid/eight-lines.toml");

/// Working directory of the programs, with only a configuration.
struct Directory(TempDir);

impl Directory {
    fn with(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("config.toml"), config).unwrap();
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Starts the gate with these arguments and the secret in its environment.
    fn claimgate(&self, arguments: &[&str]) -> Program {
        self.claimgate_with(arguments, &[("BETTER_AUTH_SECRET", SECRET)])
    }

    fn claimgate_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Program {
        let executable = env!("CARGO_BIN_EXE_claimgate");
        Program::start(executable, arguments, environment, self.0.path())
    }

    /// Runs a command to its end.
    fn call(&self, arguments: &[&str]) -> Ended {
        self.claimgate(arguments).wait()
    }

    /// Starts a gate and waits until it serves.
    fn serve(&self, arguments: &[&str]) -> Gate {
        Gate::of(self.claimgate(arguments))
    }

    /// Mints a token for `subject` with the first issuer of the configuration.
    fn token(&self, subject: &str, more: &[&str]) -> String {
        let arguments = [&["token", "mint", "--subject", subject], more].concat();
        let ended = self.call(&arguments);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        program::keep_secret(ended.stdout.trim())
    }
}

/// Running gate.
struct Gate {
    program: Program,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Gate {
    fn of(mut program: Program) -> Self {
        let line = program.wait_for_line("\"serving\"");
        let line: Value = serde_json::from_str(&line).unwrap();
        let address = |name: &str| line[name].as_str().unwrap().parse().unwrap();
        Self {
            address: address("address"),
            admin: address("admin"),
            program,
        }
    }

    fn stop(self) -> Ended {
        self.program.signal("TERM");
        self.program.wait()
    }
}

/// The smallest configuration with free ports and the upstream at `address`.
fn eight_lines(address: SocketAddr) -> String {
    let lines = EIGHT_LINES.replace("127.0.0.1:3000", &address.to_string());
    assert_ne!(
        lines, EIGHT_LINES,
        "the configuration names another upstream"
    );
    format!(
        "[listen]\naddress = \"127.0.0.1:0\"\nworkers = 2\n\n[admin]\naddress = \"127.0.0.1:0\"\n\n\
         [log]\nlevel = \"debug\"\n\n{lines}"
    )
}
