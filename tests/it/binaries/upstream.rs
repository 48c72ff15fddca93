//! Upstream that responds with the received request head, and the client side of a request.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use serde_json::Value;

use super::TIMEOUT;

/// Responds to every request with its own head; holds a path that ends in `/held` until released.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    heads: Receiver<String>,
    open: Arc<(Mutex<bool>, Condvar)>,
}

impl Upstream {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, heads) = channel();
        let open = Arc::new((Mutex::new(false), Condvar::new()));
        let shared = Arc::clone(&open);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, sender, shared) =
                    (stream.unwrap(), sender.clone(), Arc::clone(&shared));
                thread::spawn(move || serve(&stream, &sender, &shared));
            }
        });
        Self {
            address,
            heads,
            open,
        }
    }

    /// Head of the next received request.
    pub(super) fn next_head(&self) -> String {
        self.heads.recv_timeout(TIMEOUT).expect("a request")
    }

    /// Whether no further request was received.
    pub(super) fn has_received_nothing(&self) -> bool {
        self.heads.try_recv().is_err()
    }

    /// Responds to held requests, and from now on without holding.
    pub(super) fn release(&self) {
        *self.open.0.lock().unwrap() = true;
        self.open.1.notify_all();
    }
}

fn serve(stream: &TcpStream, heads: &Sender<String>, (open, opened): &(Mutex<bool>, Condvar)) {
    let mut reader = BufReader::new(stream);
    while let Some(head) = read_head(&mut reader) {
        let target = head.split(' ').nth(1).unwrap_or_default();
        let is_held = target.ends_with("/held");
        // Fails after the end of the test.
        let _ = heads.send(head.clone());
        if is_held {
            let wait =
                opened.wait_timeout_while(open.lock().unwrap(), TIMEOUT, |is_open| !*is_open);
            drop(wait.unwrap());
        }
        let body = if head.starts_with("HEAD ") { "" } else { &head };
        let response = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            head.len()
        );
        if (&mut &*stream).write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}

/// Lines of a head up to the empty line; `None` at the end of the connection.
fn read_head(reader: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

/// Request line and header fields of a head, sorted, with lowercase names.
pub(super) fn fields(head: &str) -> (String, Vec<String>) {
    let mut lines = head.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines.next().unwrap_or_default().to_owned();
    let fields = lines.map(|line| {
        let (name, value) = line.split_once(':').expect("a field");
        format!("{}: {}", name.to_ascii_lowercase(), value.trim())
    });
    let mut fields: Vec<String> = fields.collect();
    fields.sort();
    (line, fields)
}

/// Request as written on the wire, on its own connection.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
    body: String,
}

impl Request {
    pub(super) fn new(method: &'static str, target: impl Into<String>) -> Self {
        Self {
            method,
            target: target.into(),
            headers: Vec::new(),
            body: String::new(),
        }
    }

    pub(super) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn bearer(self, token: &str) -> Self {
        self.header("Authorization", format!("Bearer {token}"))
    }

    pub(super) fn json(mut self, body: &Value) -> Self {
        self.body = body.to_string();
        let length = self.body.len().to_string();
        self.header("Content-Type", "application/json")
            .header("Content-Length", length)
    }

    /// Writes the request, and returns the connection to read the response from.
    pub(super) fn send(&self, to: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.headers.iter().any(|(name, _)| name == "Host") {
            text.push_str("Host: localhost\r\n");
        }
        for (name, value) in &self.headers {
            text.extend([name, ": ", value, "\r\n"]);
        }
        if !self.headers.iter().any(|(name, _)| name == "Connection") {
            text.push_str("Connection: close\r\n");
        }
        text.push_str("\r\n");
        text.push_str(&self.body);
        stream.write_all(text.as_bytes()).unwrap();
        stream
    }

    pub(super) fn response(&self, to: SocketAddr) -> Response {
        Response::read(&mut self.send(to))
    }
}

/// Response, read to the end of its connection.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) fields: Vec<String>,
    pub(super) body: String,
}

impl Response {
    pub(super) fn read(stream: &mut TcpStream) -> Self {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let (line, fields) = fields(head);
        Self {
            status: line.split(' ').nth(1).unwrap().parse().unwrap(),
            fields,
            body: body.to_owned(),
        }
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Checks the status and reason of a rejected request, and returns the detail.
    #[track_caller]
    pub(super) fn assert_rejected(&self, status: u16, reason: &str) -> String {
        assert_eq!(self.status, status, "{self:?}");
        let body = self.json();
        assert_eq!(body["reason"], reason, "{self:?}");
        body["detail"].as_str().expect("a detail").to_owned()
    }
}
