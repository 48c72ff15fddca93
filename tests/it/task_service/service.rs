//! Executable of the task service, started for one test, and requests to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{SECRET, TIMEOUT};

/// Running task service.
pub(super) struct Service {
    process: Child,
    address: Address,
    lines: Mutex<Receiver<String>>,
    pub(super) log: String,
    directory: TempDir,
}

pub(super) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

pub(super) trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// Command with default settings for a test, overridden by `settings`.
pub(super) fn command(directory: &Path, settings: &[(&str, &str)]) -> Command {
    let given = |name| settings.iter().any(|(given, _)| *given == name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_task-service"));
    command
        .env_clear()
        .env("BCRYPT_COST", "4")
        .current_dir(directory);
    if !given("PORT") {
        command.env("TASK_SERVICE_ADDRESS", "127.0.0.1:0");
    }
    if !given("BETTER_AUTH_SECRET_FILE") {
        command.env("BETTER_AUTH_SECRET", SECRET);
    }
    command.envs(settings.iter().copied()).stdin(Stdio::null());
    command
}

/// Starts the service with invalid settings; returns the exit code and the log.
pub(super) fn start_rejected(settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    let output = command(directory.path(), settings).output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

impl Service {
    pub(super) fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), settings)
    }

    pub(super) fn start_in(directory: TempDir, settings: &[(&str, &str)]) -> Self {
        let mut process = command(directory.path(), settings)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut service = Self {
            lines: Mutex::new(read_lines(process.stderr.take().unwrap())),
            process,
            address: Address::Unix(PathBuf::new()),
            log: String::new(),
            directory,
        };
        let line = service.wait_for_line("listening on ");
        let (_, address) = line.split_once("listening on ").unwrap();
        service.address = match address.strip_prefix("unix:") {
            Some(path) => Address::Unix(path.into()),
            None => Address::Tcp(address.parse().unwrap()),
        };
        service
    }

    pub(super) fn wait_for_line(&mut self, text: &str) -> String {
        loop {
            let Ok(line) = self.lines.get_mut().unwrap().recv_timeout(TIMEOUT) else {
                panic!("`{text}` was never logged:\n{}", self.log);
            };
            self.log.push_str(&line);
            self.log.push('\n');
            if line.contains(text) {
                return line;
            }
        }
    }

    pub(super) fn tcp_address(&self) -> SocketAddr {
        match self.address {
            Address::Tcp(address) => address,
            Address::Unix(_) => panic!("a Unix socket has no TCP address"),
        }
    }

    pub(super) fn connect(&self) -> Box<dyn Stream> {
        match &self.address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(TIMEOUT)).unwrap();
                Box::new(stream)
            }
            Address::Unix(path) => Box::new(UnixStream::connect(path).unwrap()),
        }
    }

    pub(super) fn stop(self) -> (ExitStatus, TempDir) {
        self.signal("TERM");
        self.wait()
    }

    pub(super) fn signal(&self, name: &str) {
        send_signal(self.process.id(), name);
    }

    /// Waits for the exit of the process; returns its directory for another start.
    pub(super) fn wait(mut self) -> (ExitStatus, TempDir) {
        let status = self.process.wait().unwrap();
        let directory = std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap());
        (status, directory)
    }

    pub(super) fn stop_and_start_again(self, settings: &[(&str, &str)]) -> (ExitStatus, Self) {
        let (status, directory) = self.stop();
        (status, Self::start_in(directory, settings))
    }

    pub(super) fn call(&self, method: &str, target: &str) -> Call<'_> {
        let line = format!("{method} {target}");
        let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        Call {
            service: self,
            line,
            head: head.into_bytes(),
            body: Vec::new(),
        }
    }

    pub(super) fn make_task(&self, user: &str, title: &str) -> Value {
        self.call("POST", &format!("/api/{user}/tasks"))
            .user(user)
            .json(&json!({ "title": title }))
            .returned(201)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Fails only if the process has exited already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads lines in a thread, so that the writer never blocks.
pub(super) fn read_lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            eprintln!("{line}");
            // Continues without a receiver.
            let _ = sender.send(line);
        }
    });
    receiver
}

pub(super) fn send_signal(process: u32, signal: &str) {
    let status = Command::new("sh")
        .args(["-c", &format!("kill -{signal} {process}")])
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}

/// Request under construction.
pub(super) struct Call<'a> {
    service: &'a Service,
    line: String,
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Call<'_> {
    pub(super) fn header(mut self, name: &str, value: &[u8]) -> Self {
        self.head.extend_from_slice(name.as_bytes());
        self.head.extend_from_slice(b": ");
        self.head.extend_from_slice(value);
        self.head.extend_from_slice(b"\r\n");
        self
    }

    pub(super) fn user(self, user: &str) -> Self {
        self.header("X-User-Id", user.as_bytes())
    }

    pub(super) fn bearer(self, token: &str) -> Self {
        self.header("Authorization", format!("Bearer {token}").as_bytes())
    }

    pub(super) fn json(self, body: &Value) -> Self {
        self.body(body.to_string())
    }

    pub(super) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self.header("Content-Type", b"application/json")
    }

    pub(super) fn send(self) -> Response {
        let length = self.body.len().to_string();
        let call = self.header("Content-Length", length.as_bytes());
        let mut stream = call.service.connect();
        let message = [call.head.as_slice(), b"\r\n", &call.body].concat();
        stream.write_all(&message).unwrap();
        let mut response = Response::read(&mut *stream);
        response.of = call.line;
        response
    }

    /// Sends the request, checks the status, and returns the JSON of the response.
    #[track_caller]
    pub(super) fn returned(self, status: u16) -> Value {
        let response = self.send();
        assert_eq!(response.status, status, "{response:?}");
        response.json()
    }

    /// Sends the request, checks for an error response with `status`, and returns its detail.
    #[track_caller]
    pub(super) fn rejected(self, status: u16) -> String {
        self.send().rejected(status)
    }
}

/// Response, read to its end.
pub(super) struct Response {
    of: String,
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Response {
    pub(super) fn read(stream: &mut dyn Stream) -> Self {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .expect("a head");
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Self {
            of: String::new(),
            status: status.parse().unwrap(),
            headers,
            body: bytes[end + 4..].to_vec(),
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(found, _)| found == name)?;
        Some(value)
    }

    #[track_caller]
    pub(super) fn json(&self) -> Value {
        assert_eq!(
            self.header("content-type"),
            Some("application/json"),
            "{self:?}"
        );
        serde_json::from_slice(&self.body).unwrap()
    }

    #[track_caller]
    pub(super) fn rejected(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("www-authenticate").is_some(),
            status == 401,
            "{self:?}"
        );
        let body = self.json();
        let detail = body["detail"].as_str().expect("a detail").to_owned();
        assert!(!detail.is_empty(), "{self:?}");
        assert_eq!(body, json!({ "detail": detail }), "{self:?}");
        detail
    }
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        write!(
            f,
            "`{}` returned {} {:?} {body}",
            self.of, self.status, self.headers
        )
    }
}
