//! Running program, its output, and the secrets that must never appear in it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{OTHER_SECRET, SECRET, TIMEOUT};

/// Texts that no program may write: the signature of every token.
static CANARIES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Registers a token that no program may write from now on.
pub(super) fn keep_secret(token: &str) -> String {
    let signature = token.rsplit('.').next().unwrap();
    assert!(signature.len() > 20, "no signature: {token}");
    CANARIES.lock().unwrap().insert(signature.to_owned());
    token.to_owned()
}

/// Time to stop for a program left running by a failed test.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Running program.
pub(super) struct Program {
    process: Child,
    lines: Receiver<Line>,
    pub(super) stdout: String,
    pub(super) stderr: String,
    /// Whether the command may print tokens.
    may_print_tokens: bool,
}

enum Line {
    Stdout(String),
    Stderr(String),
}

/// Exit code and output of a program.
#[derive(Debug)]
pub(super) struct Ended {
    /// `None` after an exit by signal.
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Program {
    pub(super) fn start(
        executable: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
        directory: &Path,
    ) -> Self {
        let pipes = [Stdio::piped(), Stdio::piped()];
        Self::start_with(executable, arguments, environment, directory, pipes)
    }

    /// Like [`Program::start`], with the given standard input and output.
    pub(super) fn start_with(
        executable: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
        directory: &Path,
        [stdin, stdout]: [Stdio; 2],
    ) -> Self {
        let mut process = Command::new(executable)
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(environment.iter().copied())
            .current_dir(directory)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        if let Some(stdout) = process.stdout.take() {
            read_lines(stdout, sender.clone(), Line::Stdout);
        }
        read_lines(process.stderr.take().unwrap(), sender, Line::Stderr);
        Self {
            process,
            lines,
            stdout: String::new(),
            stderr: String::new(),
            may_print_tokens: matches!(arguments.first(), Some(&("dev" | "token"))),
        }
    }

    /// Writes to standard input and closes it.
    pub(super) fn write(&mut self, text: &str) {
        let mut stdin = self.process.stdin.take().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
    }

    /// Waits for a line that contains `text`.
    pub(super) fn wait_for_line(&mut self, text: &str) -> String {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match self.next_line(deadline) {
                Ok(line) if line.contains(text) => return line,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => panic!(
                    "`{text}` was never written:\n{}\n{}",
                    self.stdout, self.stderr
                ),
            }
        }
    }

    fn next_line(&mut self, deadline: Instant) -> Result<String, RecvTimeoutError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let (line, output) = match self.lines.recv_timeout(left)? {
            Line::Stdout(line) => (line, &mut self.stdout),
            Line::Stderr(line) => (line, &mut self.stderr),
        };
        output.push_str(&line);
        output.push('\n');
        Ok(line)
    }

    pub(super) fn signal(&self, name: &str) {
        self.signals(&[name]);
    }

    /// Sends several signals in order.
    pub(super) fn signals(&self, names: &[&str]) {
        let id = self.process.id();
        let sent = names.iter().map(|name| format!("kill -{name} {id}"));
        let sent = sent.collect::<Vec<_>>().join(" && ");
        assert!(shell(&sent));
    }

    /// Sends a signal repeatedly from a separate thread.
    pub(super) fn signal_until_it_ends(&self, name: &str) -> JoinHandle<()> {
        let send = format!("kill -{name} {} 2>&- && sleep 0.1", self.process.id());
        thread::spawn(move || {
            let deadline = Instant::now() + TIMEOUT;
            while shell(&send) && Instant::now() < deadline {}
        })
    }

    /// Waits until the program and its children have closed their output, which they do on exit.
    pub(super) fn wait(mut self) -> Ended {
        drop(self.process.stdin.take());
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match self.next_line(deadline) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!(
                        "the program did not exit:\n{}\n{}",
                        self.stdout, self.stderr
                    )
                }
            }
        }
        let ended = Ended {
            code: self.process.wait().unwrap().code(),
            stdout: std::mem::take(&mut self.stdout),
            stderr: std::mem::take(&mut self.stderr),
        };
        ended.shows_no_secret(self.may_print_tokens);
        ended
    }
}

impl Ended {
    fn shows_no_secret(&self, may_print_tokens: bool) {
        let mut canaries = vec![SECRET.to_owned(), OTHER_SECRET.to_owned()];
        if !may_print_tokens {
            canaries.extend(CANARIES.lock().unwrap().iter().cloned());
        }
        for canary in canaries {
            for output in [&self.stdout, &self.stderr] {
                assert!(!output.contains(&canary), "`{canary}` is in:\n{output}");
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // After a failed test: SIGTERM before SIGKILL, so that the program stops its own children.
        let runs = |process: &mut Child| matches!(process.try_wait(), Ok(None));
        if runs(&mut self.process) {
            self.signal("TERM");
        }
        let began = Instant::now();
        while began.elapsed() < STOP_TIMEOUT && runs(&mut self.process) {
            thread::park_timeout(Duration::from_millis(10));
        }
        // Fails only if the program has exited already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads lines in a thread, so that the writer never blocks.
fn read_lines(from: impl Read + Send + 'static, to: Sender<Line>, of: fn(String) -> Line) {
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            // Continues without a receiver.
            let _ = to.send(of(line));
        }
    });
}

fn shell(command: &str) -> bool {
    let status = Command::new("sh").args(["-c", command]).status();
    status.unwrap().success()
}
