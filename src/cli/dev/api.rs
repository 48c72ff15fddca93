//! The API that `claimgate dev` runs: its process, its output, and the wait for its port.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, timeout};

use crate::proxy::upstream::Target;

use super::super::terminal::{BOLD, COPY, DIM, WARNING};
use super::super::{Failure, say, warn};
use super::{SECRET, listening};

/// Time between SIGTERM and SIGKILL for the API.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Interval between connection attempts to the API.
const CONNECT_INTERVAL: Duration = Duration::from_millis(50);

/// Time after which the search for the port of the API begins, and interval between searches.
const SEARCH_INTERVAL: Duration = Duration::from_secs(5);

/// Longest wait for the last output of an API that has exited.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest line that is printed as one.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// Running API.
pub(super) struct Api {
    child: Child,
    output: Vec<JoinHandle<()>>,
    /// The command as written.
    command: Vec<String>,
}

impl Api {
    /// Runs the command. `{port}` in its arguments, `PORT` and `UVICORN_PORT` are the port.
    pub(super) fn spawn(
        command: &[String],
        port: Option<u16>,
        secret: &str,
    ) -> Result<Self, Failure> {
        let (program, arguments) = command
            .split_first()
            .ok_or_else(|| Failure::other("read the command: it is empty"))?;
        let mut child = Command::new(program);
        // A separate process group, so that stopping it also stops the children of the command.
        child
            .env(SECRET, secret)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .process_group(0);
        // Its output is a pipe: without this, Python would hold it back.
        child.env("PYTHONUNBUFFERED", "1");
        if anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never {
            child.env("FORCE_COLOR", "1").env("CLICOLOR_FORCE", "1");
        }
        let port = port.map(|port| port.to_string()).unwrap_or_default();
        if !port.is_empty() {
            child.env("PORT", &port).env("UVICORN_PORT", &port);
        }
        let arguments = arguments.iter();
        child.args(arguments.map(|argument| argument.replace("{port}", &port)));
        let mut child = child
            .spawn()
            .map_err(|error| Failure::other(format_args!("run `{program}`: {error}")))?;
        let stdout = child
            .stdout
            .take()
            .map(|output| spawn_local(print(output, false)));
        let stderr = child
            .stderr
            .take()
            .map(|output| spawn_local(print(output, true)));
        Ok(Self {
            child,
            output: stdout.into_iter().chain(stderr).collect(),
            command: command.to_vec(),
        })
    }

    /// Waits until the API exits and its output is printed.
    pub(super) async fn wait(&mut self) -> ExitCode {
        let status = self.child.wait().await;
        let printed = async {
            for output in self.output.drain(..) {
                let _ended = output.await;
            }
        };
        // A child of the API may keep the output open.
        let _printed = timeout(OUTPUT_TIMEOUT, printed).await;
        exit_code(status)
    }

    /// Waits until the API accepts connections. Returns its exit code if it exits first.
    pub(super) async fn wait_until_listening(&mut self, upstream: &Target) -> Option<ExitCode> {
        warn(format_args!("waiting for the API to listen on {upstream}"));
        let mut search = Instant::now() + SEARCH_INTERVAL;
        let mut reported = None;
        loop {
            let listens = match upstream {
                Target::Tcp(host, port) => {
                    TcpStream::connect((host.trim_matches(['[', ']']), *port))
                        .await
                        .is_ok()
                }
                Target::Unix(path) => UnixStream::connect(path).await.is_ok(),
            };
            if listens {
                return None;
            }
            if timeout(CONNECT_INTERVAL, self.child.wait()).await.is_ok() {
                let code = self.wait().await;
                warn(format_args!(
                    "the API exited before it listened on {upstream}"
                ));
                return Some(code);
            }
            if Instant::now() >= search {
                search = Instant::now() + SEARCH_INTERVAL;
                let found = self
                    .child
                    .id()
                    .map(listening::addresses)
                    .unwrap_or_default();
                if reported.as_ref() != Some(&found) {
                    self.report(upstream, &found);
                    reported = Some(found);
                }
            }
        }
    }

    /// Prints where the API listens instead, and the fix.
    fn report(&self, upstream: &Target, found: &BTreeSet<SocketAddr>) {
        let Some(address) = found.first() else {
            warn(format_args!(
                "{WARNING}still waiting:{WARNING:#} the API does not listen on {upstream} yet, and on no other port"
            ));
            return;
        };
        let named: Vec<_> = found.iter().map(SocketAddr::to_string).collect();
        warn(format_args!(
            "{WARNING}wrong port:{WARNING:#} the API listens on {BOLD}{}{BOLD:#}, but the gate expects it on {upstream}",
            named.join(", ")
        ));
        let command = self.command.join(" ");
        warn(format_args!(
            "  fix: pass the port: {COPY}claimgate dev -- {}{COPY:#}",
            with_port(&command)
        ));
        warn(format_args!(
            "  or:  name the port: {COPY}claimgate dev --port {} -- {command}{COPY:#}",
            address.port()
        ));
    }

    /// Warns if other machines reach the API past the gate.
    pub(super) fn warn_of_open_port(&self, upstream: &Target) {
        let found = self
            .child
            .id()
            .map(listening::addresses)
            .unwrap_or_default();
        let Target::Tcp(_, port) = upstream else {
            return;
        };
        let mut open = found.iter().filter(|address| address.port() == *port);
        if let Some(address) = open.find(|address| !address.ip().is_loopback()) {
            warn(format_args!(
                "{WARNING}warning:{WARNING:#} the API listens on {address}: other machines reach it past the gate; listen on \
                 127.0.0.1"
            ));
        }
    }

    /// Sends SIGTERM to the process group, and SIGKILL after [`STOP_TIMEOUT`].
    pub(super) async fn stop(&mut self) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        let Some(id) = id.and_then(Pid::from_raw) else {
            return;
        };
        let _exited = kill_process_group(id, Signal::TERM);
        if timeout(STOP_TIMEOUT, self.wait()).await.is_err() {
            let _exited = kill_process_group(id, Signal::KILL);
            let _code = self.wait().await;
        }
    }
}

/// The command with its port as an argument, as the framework in it takes it.
fn with_port(command: &str) -> String {
    let has = |word: &str| command.split([' ', '/']).any(|part| part == word);
    if has("npm") || has("pnpm") {
        format!("{command} -- --port {{port}}")
    } else if has("runserver") {
        format!("{command} 127.0.0.1:{{port}}")
    } else if has("artisan") {
        format!("{command} --host=127.0.0.1 --port={{port}}")
    } else if has("dotnet") {
        format!("{command} --urls http://127.0.0.1:{{port}}")
    } else if has("http.server") {
        format!("{command} --bind 127.0.0.1 {{port}}")
    } else {
        format!("{command} --port {{port}}")
    }
}

/// Prints each line of the API, apart from those of the gate.
async fn print(output: impl AsyncRead + Unpin, is_error: bool) {
    let mut output = BufReader::with_capacity(MAX_LINE_BYTES, output);
    let mut line = Vec::new();
    loop {
        let (taken, is_end) = match output.fill_buf().await {
            Ok([]) | Err(_) => (0, true),
            Ok(bytes) => {
                let end = bytes.iter().position(|byte| *byte == b'\n');
                let room = MAX_LINE_BYTES.saturating_sub(line.len()).max(1);
                let taken = end.map_or(bytes.len(), |end| end + 1).min(room);
                line.extend(bytes.iter().take(taken));
                (taken, false)
            }
        };
        output.consume(taken);
        let is_complete = line.last() == Some(&b'\n') || line.len() >= MAX_LINE_BYTES;
        if is_complete || (is_end && !line.is_empty()) {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\r', '\n']);
            let text = format_args!("{DIM}api │{DIM:#} {text}");
            if is_error {
                warn(text);
            } else {
                say(text);
            }
            line.clear();
        }
        if is_end {
            return;
        }
    }
}

fn exit_code(status: std::io::Result<std::process::ExitStatus>) -> ExitCode {
    let code = status.ok().and_then(|status| status.code());
    code.and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_the_port_as_each_framework_takes_it() {
        for (command, expected) in [
            ("npm run dev", "npm run dev -- --port {port}"),
            ("uvicorn app:app", "uvicorn app:app --port {port}"),
            (
                "python manage.py runserver",
                "python manage.py runserver 127.0.0.1:{port}",
            ),
            ("npx next dev", "npx next dev --port {port}"),
            (
                "php artisan serve",
                "php artisan serve --host=127.0.0.1 --port={port}",
            ),
        ] {
            assert_eq!(with_port(command), expected);
        }
    }
}
