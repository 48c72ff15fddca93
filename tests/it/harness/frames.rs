//! HTTP/2 frames on the wire, with as little parsing as the tests need.

use std::io;
use std::net::{SocketAddr, TcpStream};

use super::wire::Wire;

/// Connection preface (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// Setting of the initial stream window.
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;

/// Error codes (RFC 9113 section 7).
pub(crate) const CANCEL: u32 = 8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// HTTP/2 connection with prior knowledge.
pub(crate) struct Frames {
    pub(crate) wire: Wire,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Self {
        let payload = payload.to_vec();
        Self {
            kind,
            flags,
            stream,
            payload,
        }
    }

    /// Builds SETTINGS from identifiers and values.
    pub(crate) fn settings(settings: &[(u16, u32)]) -> Self {
        let bytes = settings
            .iter()
            .flat_map(|(setting, value)| {
                let value = value.to_be_bytes();
                setting.to_be_bytes().into_iter().chain(value)
            })
            .collect::<Vec<u8>>();
        Self::new(SETTINGS, 0, 0, &bytes)
    }

    /// Builds a complete GET request.
    pub(crate) fn get(stream: u32, path: &str) -> Self {
        let head = head(&[(":method", "GET"), (":path", path)]);
        Self::new(HEADERS, END_STREAM | END_HEADERS, stream, &head)
    }

    /// Response status in a `HEADERS` frame: indexed, or a literal with the name from the static table (RFC 7541
    /// appendix A).
    #[track_caller]
    pub(crate) fn response_status(&self) -> u16 {
        let known = [200, 204, 206, 304, 400, 404, 500];
        // A dynamic table size update may come first (RFC 7541 section 6.3).
        let mut rest = self.payload.iter().skip_while(|byte| **byte & 0xe0 == 0x20);
        let first = *rest.next().unwrap();
        if first >= 0x80 {
            return known[usize::from(first - 0x88)];
        }
        assert_eq!(first & 0x0f, 8, "the first field is not `:status`");
        let length = *rest.next().unwrap();
        let text: Vec<u8> = rest.take(usize::from(length & 0x7f)).copied().collect();
        if length & 0x80 == 0 {
            return String::from_utf8(text).unwrap().parse().unwrap();
        }
        huffman_digits(&text)
    }

    /// Error code of a `RST_STREAM` or a `GOAWAY`.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap().to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }
}

/// Decodes a number of three digits in the Huffman code (RFC 7541 appendix B).
fn huffman_digits(bytes: &[u8]) -> u16 {
    let bits = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| (byte >> at) & 1));
    let (mut code, mut length, mut number) = (0, 0, 0);
    let mut digits = 0;
    for bit in bits {
        code = code << 1 | u16::from(bit);
        length += 1;
        // 0 to 2 have five bits, 3 to 9 have six.
        let digit = match (length, code) {
            (5, 0..=2) => code,
            (6, 0x19..=0x1f) => code - 0x16,
            _ => continue,
        };
        number = number * 10 + digit;
        digits += 1;
        (code, length) = (0, 0);
        if digits == 3 {
            break;
        }
    }
    number
}

/// Encodes header fields, after `:scheme` and `:authority`.
pub(crate) fn head(headers: &[(&str, &str)]) -> Vec<u8> {
    let always = [(":scheme", "http"), (":authority", "gate.test")];
    let all: Vec<_> = always.iter().chain(headers).copied().collect();
    literal_head(&all)
}

/// Encodes header fields as literals without indexing (RFC 7541 section 6.2.2).
pub(crate) fn literal_head(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "the length does not fit in a byte");
            bytes.push(u8::try_from(text.len()).unwrap());
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

impl Frames {
    /// Connects and sends the preface.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &[])
    }

    /// Like [`Frames::connect`], with settings.
    pub(crate) fn connect_with(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        Self::over(Wire::tcp(TcpStream::connect(address).unwrap()), settings)
    }

    /// Like [`Frames::connect_with`], over an existing connection.
    pub(crate) fn over(mut wire: Wire, settings: &[(u16, u32)]) -> Self {
        wire.write(PREFACE).unwrap();
        let mut frames = Self { wire };
        frames.send(&Frame::settings(settings));
        frames
    }

    /// Server side: reads the client's preface and sends settings.
    pub(crate) fn accept(stream: TcpStream) -> Self {
        let mut wire = Wire::tcp(stream);
        assert_eq!(wire.read_exact(PREFACE.len()).unwrap(), PREFACE);
        let mut frames = Self { wire };
        frames.send(&Frame::settings(&[]));
        frames
    }

    /// Sends a frame. Reading reports a closed connection.
    pub(crate) fn send(&mut self, frame: &Frame) {
        let _gone = self.wire.write(&frame.bytes());
    }

    /// Reads a frame and acknowledges a PING; `None` at the end.
    pub(crate) fn read(&mut self) -> io::Result<Option<Frame>> {
        let frame = self.read_only()?;
        if let Some(ping) = frame.as_ref().filter(|frame| frame.kind == PING) {
            self.send(&Frame::new(PING, ACK, 0, &ping.payload));
        }
        Ok(frame)
    }

    /// Reads a frame without acknowledging it; `None` at the end.
    pub(crate) fn read_only(&mut self) -> io::Result<Option<Frame>> {
        let head = match self.wire.read_exact(9) {
            Ok(head) => head,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        let payload = self.wire.read_exact(length.try_into().unwrap())?;
        Ok(Some(Frame::new(head[3], head[4], stream, &payload)))
    }

    /// Reads frames until one matches.
    #[track_caller]
    pub(crate) fn until(&mut self, matches: impl Fn(&Frame) -> bool) -> Frame {
        let mut before = Vec::new();
        loop {
            let Some(frame) = self.read().unwrap() else {
                panic!("the connection ended after {before:?}");
            };
            if matches(&frame) {
                return frame;
            }
            before.push((frame.kind, frame.flags, frame.stream, frame.payload.len()));
        }
    }

    /// Reads frames until one has this kind.
    #[track_caller]
    pub(crate) fn next(&mut self, kind: u8) -> Frame {
        self.until(|frame| frame.kind == kind)
    }

    /// Response status of a stream, if it is in the static table (RFC 7541 appendix A).
    #[track_caller]
    pub(crate) fn status(&mut self, stream: u32) -> u16 {
        let head = self.until(|frame| frame.kind == HEADERS && frame.stream == stream);
        let statuses = [200, 204, 206, 304, 400, 404, 500];
        // A dynamic table size update may come first (RFC 7541 section 6.3).
        let field = head.payload.iter().find(|byte| **byte >= 0x80).unwrap();
        statuses[usize::from(field - 0x88)]
    }

    /// Reads the complete body of a stream.
    #[track_caller]
    pub(crate) fn body(&mut self, stream: u32) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let frame = self.until(|frame| frame.kind == DATA && frame.stream == stream);
            body.extend(frame.payload);
            if frame.flags & END_STREAM != 0 {
                return body;
            }
        }
    }

    /// Extends the flow-control window of a stream.
    pub(crate) fn open_window(&mut self, stream: u32, bytes: u32) {
        let bytes = bytes.to_be_bytes();
        self.send(&Frame::new(WINDOW_UPDATE, 0, stream, &bytes));
    }

    /// Reads frames until one matches; `None` if the connection ends before.
    pub(crate) fn rest_until(&mut self, matches: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            match self.read() {
                Ok(Some(frame)) if matches(&frame) => return Some(frame),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Reads every frame to the end of the connection.
    pub(crate) fn rest(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            match self.read() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return frames,
                Err(error) => {
                    assert_ne!(
                        error.kind(),
                        io::ErrorKind::TimedOut,
                        "the connection stayed open"
                    );
                    return frames;
                }
            }
        }
    }
}
