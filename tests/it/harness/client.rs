//! HTTP/1.1 client that sends bytes unchanged.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::wire::{Head, Wire};

/// Client connection.
pub(crate) struct Client {
    pub(crate) wire: Wire,
}

/// Request builder: header lines and a body.
#[derive(Clone)]
pub(crate) struct Request {
    line: String,
    lines: Vec<String>,
    host: Option<String>,
    body: Vec<u8>,
}

/// Complete response.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

pub(crate) fn request(method: &str, target: &str) -> Request {
    Request {
        line: format!("{method} {target} HTTP/1.1"),
        lines: Vec::new(),
        host: Some("gate.test".to_owned()),
        body: Vec::new(),
    }
}

pub(crate) fn get(target: &str) -> Request {
    request("GET", target)
}

/// Builds a CORS preflight.
pub(crate) fn preflight(origin: &str, method: &str, target: &str) -> Request {
    request("OPTIONS", target)
        .line(&format!("Access-Control-Request-Method: {method}"))
        .line(&format!("Origin: {origin}"))
}

/// Builds a POST with `Content-Length`.
pub(crate) fn post(target: &str, body: &[u8]) -> Request {
    let length = format!("Content-Length: {}", body.len());
    request("POST", target).line(&length).body(body)
}

impl Request {
    /// Appends a header line.
    pub(crate) fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.line(&format!("Authorization: Bearer {token}"))
    }

    /// Adds the header lines of a WebSocket handshake, with the example key of RFC 6455 section 1.3.
    pub(crate) fn websocket(self) -> Self {
        self.line("Connection: Upgrade")
            .line("Upgrade: websocket")
            .line("Sec-WebSocket-Version: 13")
            .line("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    }

    /// Replaces `Host`, or removes it.
    pub(crate) fn host(mut self, host: Option<&str>) -> Self {
        self.host = host.map(str::to_owned);
        self
    }

    /// Sets the bytes after the head.
    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        body.clone_into(&mut self.body);
        self
    }

    /// Sets a body of one chunk, and trailers.
    pub(crate) fn chunked(self, body: &[u8], trailers: &str) -> Self {
        let mut framed = format!("{:x}\r\n", body.len()).into_bytes();
        framed.extend_from_slice(body);
        framed.extend_from_slice(format!("\r\n0\r\n{trailers}\r\n").as_bytes());
        self.line("Transfer-Encoding: chunked").body(&framed)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.line);
        if let Some(host) = &self.host {
            text.extend(["Host: ", host, "\r\n"]);
        }
        for line in &self.lines {
            text.push_str(line);
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    fn is_head(&self) -> bool {
        self.line.starts_with("HEAD ")
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self {
            wire: Wire::tcp(TcpStream::connect(address).unwrap()),
        }
    }

    /// Sends bytes. Reading the response reports a closed connection.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _gone = self.wire.write(bytes.as_ref());
        self
    }

    /// Sends a request and reads its response.
    pub(crate) fn call(&mut self, request: &Request) -> Response {
        self.send(request.bytes());
        self.read(request.is_head()).unwrap()
    }

    pub(crate) fn response(&mut self) -> Response {
        self.read(false).unwrap()
    }

    /// Reads a response, or the error that truncated it. A response to HEAD has no body.
    pub(crate) fn read(&mut self, to_head: bool) -> io::Result<Response> {
        let head = self.wire.read_head()?;
        let head = head.ok_or_else(|| io::Error::from(ErrorKind::UnexpectedEof))?;
        let status: u16 = head.line().split(' ').nth(1).unwrap().parse().unwrap();
        let has_body = !to_head && status >= 200 && status != 204 && status != 304;
        let is_framed =
            head.value("content-length").is_some() || head.value("transfer-encoding").is_some();
        let body = match (has_body, is_framed) {
            (false, _) => Vec::new(),
            (true, true) => self.wire.read_body(&head)?.0,
            (true, false) => self.wire.read_to_end()?,
        };
        Ok(Response { status, head, body })
    }

    /// Reads up to and including these bytes, or to the end of the connection.
    pub(crate) fn until_closed_or(&mut self, end: &[u8]) -> Vec<u8> {
        let mut read = Vec::new();
        while !read.ends_with(end) {
            match self.wire.read_exact(1) {
                Ok(byte) => read.extend(byte),
                Err(_) => break,
            }
        }
        read
    }

    /// Waits until the gate closes the connection. Returns the bytes received until then.
    pub(crate) fn until_closed(&mut self) -> Vec<u8> {
        self.wire.until_closed()
    }
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.head.value(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        let json = serde_json::from_slice(&self.body);
        json.unwrap_or_else(|_| panic!("not JSON:\n{}{}", self.head.text(), self.text()))
    }

    /// Reason of a refusal, empty if the response is none.
    pub(crate) fn reason(&self) -> String {
        if self.header("content-type").as_deref() != Some("application/problem+json") {
            return String::new();
        }
        self.json()["reason"].as_str().unwrap().to_owned()
    }

    /// Status and reason.
    pub(crate) fn outcome(&self) -> (u16, String) {
        (self.status, self.reason())
    }

    /// Asserts a refusal.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, reason: &str) {
        assert_eq!(
            (self.status, self.reason().as_str()),
            (status, reason),
            "\n{}{}",
            self.head.text(),
            String::from_utf8_lossy(&self.body)
        );
    }
}
