//! HTTP/1.1 on the wire, with as little parsing as the tests need.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use rustls::{ClientConnection, HandshakeKind, StreamOwned};
use socket2::SockRef;

use super::TIMEOUT;

/// Connected socket with a read buffer.
pub(crate) struct Wire {
    stream: Stream,
    buffer: Vec<u8>,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream>),
}

/// Client side of a TLS connection.
pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// Message head or trailers, as received.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    pub(crate) raw: Vec<u8>,
}

impl Wire {
    pub(crate) fn tcp(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream: Stream::Tcp(stream),
            buffer: Vec::new(),
        }
    }

    pub(crate) fn unix(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        Self {
            stream: Stream::Unix(stream),
            buffer: Vec::new(),
        }
    }

    /// Wraps a TLS stream after its handshake.
    pub(crate) fn tls(stream: TlsStream) -> Self {
        Self {
            stream: Stream::Tls(Box::new(stream)),
            buffer: Vec::new(),
        }
    }

    /// Reports whether a TLS connection resumed an earlier session.
    pub(crate) fn is_resumed(&self) -> bool {
        let Stream::Tls(stream) = &self.stream else {
            panic!("the connection has no TLS");
        };
        stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Closes the connection with a reset instead of a FIN.
    pub(crate) fn reset(&self) {
        if let Stream::Tcp(stream) = &self.stream {
            let now = std::time::Duration::ZERO;
            SockRef::from(stream).set_linger(Some(now)).unwrap();
        }
    }

    /// Clones the connection, to write in another thread.
    pub(crate) fn try_clone(&self) -> Self {
        let stream = match &self.stream {
            Stream::Tcp(stream) => Stream::Tcp(stream.try_clone().unwrap()),
            Stream::Unix(stream) => Stream::Unix(stream.try_clone().unwrap()),
            Stream::Tls(_) => panic!("a TLS stream cannot be shared between threads"),
        };
        let buffer = Vec::new();
        Self { stream, buffer }
    }

    pub(crate) fn shut_sending(&self) {
        let _gone = match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(std::net::Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(std::net::Shutdown::Write),
            Stream::Tls(stream) => stream.sock.shutdown(std::net::Shutdown::Write),
        };
    }

    /// Reads at least one byte; empty at the end.
    pub(crate) fn read(&mut self) -> io::Result<Vec<u8>> {
        if !self.buffer.is_empty() {
            return Ok(std::mem::take(&mut self.buffer));
        }
        let mut bytes = vec![0; 16 * 1024];
        let count = loop {
            let read = match &mut self.stream {
                Stream::Tcp(stream) => stream.read(&mut bytes),
                Stream::Unix(stream) => stream.read(&mut bytes),
                Stream::Tls(stream) => stream.read(&mut bytes),
            };
            // A signal interrupts a read with a timeout, whatever its handler (signal(7)): tests start processes.
            if !matches!(&read, Err(error) if error.kind() == ErrorKind::Interrupted) {
                break read;
            }
        }
        .map_err(|error| {
            if error.kind() == ErrorKind::WouldBlock {
                io::Error::new(ErrorKind::TimedOut, "timed out")
            } else {
                error
            }
        })?;
        bytes.truncate(count);
        Ok(bytes)
    }

    /// Bytes that are buffered or can be read without waiting.
    pub(crate) fn buffered(&mut self) -> Vec<u8> {
        if self.buffer.is_empty()
            && let Stream::Tcp(stream) = &mut self.stream
        {
            stream.set_nonblocking(true).unwrap();
            let mut bytes = vec![0; 1024];
            let count = stream.read(&mut bytes).unwrap_or(0);
            self.buffer.extend_from_slice(&bytes[..count]);
            stream.set_nonblocking(false).unwrap();
        }
        self.buffer.clone()
    }

    fn more(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let read = self.read()?;
        if read.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        bytes.extend(read);
        Ok(())
    }

    fn read_until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        let mut bytes = std::mem::take(&mut self.buffer);
        loop {
            if let Some(at) = position(&bytes, end) {
                self.buffer = bytes.split_off(at + end.len());
                return Ok(bytes);
            }
            self.more(&mut bytes)?;
        }
    }

    /// Reads exactly `count` bytes.
    pub(crate) fn read_exact(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = std::mem::take(&mut self.buffer);
        while bytes.len() < count {
            self.more(&mut bytes)?;
        }
        self.buffer = bytes.split_off(count);
        Ok(bytes)
    }

    /// Reads a head; `None` if the connection ends before its first byte.
    pub(crate) fn read_head(&mut self) -> io::Result<Option<Head>> {
        if self.buffer.is_empty() {
            self.buffer = self.read()?;
            if self.buffer.is_empty() {
                return Ok(None);
            }
        }
        let raw = self.read_until(b"\r\n\r\n")?;
        Ok(Some(Head { raw }))
    }

    /// Reads the complete body of a message with this head, and its trailers.
    pub(crate) fn read_body(&mut self, head: &Head) -> io::Result<(Vec<u8>, Head)> {
        if head
            .value("transfer-encoding")
            .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
        {
            return self.read_chunks();
        }
        let length = head.value("content-length");
        let length = length.map_or(0, |length| length.parse().unwrap());
        Ok((self.read_exact(length)?, Head::default()))
    }

    fn read_chunks(&mut self) -> io::Result<(Vec<u8>, Head)> {
        let mut body = Vec::new();
        loop {
            let line = self.read_until(b"\r\n")?;
            let line = String::from_utf8(line).unwrap();
            let size = usize::from_str_radix(line.trim_end(), 16)
                .map_err(|_| io::Error::new(ErrorKind::InvalidData, line))?;
            if size == 0 {
                break;
            }
            let mut chunk = self.read_exact(size + 2)?;
            chunk.truncate(size);
            body.extend(chunk);
        }
        let mut trailers = Vec::new();
        loop {
            let line = self.read_until(b"\r\n")?;
            if line == b"\r\n" {
                return Ok((body, Head { raw: trailers }));
            }
            trailers.extend(line);
        }
    }

    /// Reads to the end of the connection.
    pub(crate) fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = std::mem::take(&mut self.buffer);
        loop {
            match self.more(&mut bytes) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(bytes),
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until the peer closes or resets the connection. Returns the bytes received until then.
    pub(crate) fn until_closed(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            match self.read() {
                Ok(read) if read.is_empty() => return bytes,
                Ok(read) => bytes.extend(read),
                Err(error) if error.kind() == ErrorKind::TimedOut => {
                    panic!("the peer keeps the connection open")
                }
                Err(_) => return bytes,
            }
        }
    }
}

impl Head {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.raw).into_owned()
    }

    /// First line.
    pub(crate) fn line(&self) -> String {
        let text = self.text();
        text.lines().next().unwrap_or_default().to_owned()
    }

    /// Every field in order, with its name as received.
    pub(crate) fn fields(&self) -> Vec<(String, String)> {
        let text = self.text();
        let fields = text.split("\r\n").filter_map(|line| line.split_once(':'));
        fields
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect()
    }

    /// Every value of a field.
    pub(crate) fn values(&self, name: &str) -> Vec<String> {
        let of_name =
            |(found, value): (String, String)| found.eq_ignore_ascii_case(name).then_some(value);
        self.fields().into_iter().filter_map(of_name).collect()
    }

    /// Value of a field that occurs at most once.
    pub(crate) fn value(&self, name: &str) -> Option<String> {
        let mut values = self.values(name);
        assert!(values.len() < 2, "{name} occurs twice:\n{}", self.text());
        values.pop()
    }
}

fn position(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
}
