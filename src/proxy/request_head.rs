//! Head of a request to an upstream, as text.

use std::fmt;
use std::io::Write;

use http::header::{HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Uri};

/// Head of a request to an upstream, written once as HTTP/1.1 (RFC 9112 section 2.1). A resend is the same bytes.
pub struct RequestHead {
    /// Request line, fields and the empty line.
    text: Vec<u8>,
    method: Method,
    length: RequestLength,
    is_upgrade: bool,
}

/// Length of a request body, as its head announces it (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestLength {
    /// No body, and no length in the head.
    None,
    /// `Content-Length`.
    Exact(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// Head in progress. Writes every field once, in the order of the calls.
#[derive(Debug)]
pub struct RequestHeadWriter(RequestHead);

impl RequestHead {
    /// Begins a head. `target` is the whole request target; `capacity` is the expected size in bytes.
    pub fn begin(method: &Method, target: &str, capacity: usize) -> RequestHeadWriter {
        let mut text = Vec::with_capacity(capacity);
        text.extend_from_slice(method.as_str().as_bytes());
        text.push(b' ');
        text.extend_from_slice(target.as_bytes());
        text.extend_from_slice(b" HTTP/1.1\r\n");
        RequestHeadWriter(Self {
            text,
            method: method.clone(),
            length: RequestLength::None,
            is_upgrade: false,
        })
    }

    /// Head of a GET request without a body.
    pub fn get(target: &str, host: &HeaderValue, fields: &[(HeaderName, HeaderValue)]) -> Self {
        let mut head = Self::begin(&Method::GET, target, 128 + target.len() + host.len());
        head.field(&HOST, host.as_bytes());
        for (name, value) in fields {
            head.field(name, value.as_bytes());
        }
        head.finish(RequestLength::None)
    }

    /// Bytes to send.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Takes the bytes, to send them without a copy. [`Self::put_text`] returns them for a resend.
    pub fn take_text(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.text)
    }

    /// Returns the bytes that [`Self::take_text`] took.
    pub fn put_text(&mut self, text: Vec<u8>) {
        self.text = text;
    }

    pub fn method(&self) -> &Method {
        &self.method
    }

    pub fn length(&self) -> RequestLength {
        self.length
    }

    pub fn is_chunked(&self) -> bool {
        self.length == RequestLength::Chunked
    }

    /// Returns whether the request opens a WebSocket.
    pub fn is_upgrade(&self) -> bool {
        self.is_upgrade
    }

    /// Reads the text back, for an HTTP/2 upstream. Fields that cannot be read are omitted; the writer writes none.
    pub fn to_parts(&self) -> Parts {
        let mut parts = Request::new(()).into_parts().0;
        parts.method = self.method.clone();
        let mut lines = self.text.split(|byte| *byte == b'\n');
        let mut words = lines.next().unwrap_or_default().split(|byte| *byte == b' ');
        let target = words.nth(1).unwrap_or_default();
        parts.uri = Uri::try_from(target).unwrap_or_default();
        for line in lines {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                break;
            };
            let (name, value) = line.split_at(colon);
            let value = value.strip_prefix(b": ").unwrap_or_default();
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            {
                parts.headers.append(name, value);
            }
        }
        parts
    }
}

impl RequestHeadWriter {
    /// Writes a field. The value is that of a [`HeaderValue`], which has no line break.
    pub fn field(&mut self, name: &HeaderName, value: &[u8]) {
        self.lines(name.as_str());
        self.0.text.extend_from_slice(b": ");
        self.0.text.extend_from_slice(value);
        self.lines("\r\n");
    }

    /// Writes text that begins or continues a line.
    pub(super) fn lines(&mut self, text: &str) {
        self.0.text.extend_from_slice(text.as_bytes());
    }

    /// Writes part of a value.
    pub(super) fn value(&mut self, value: &[u8]) {
        self.0.text.extend_from_slice(value);
    }

    /// Writes the fields that open a WebSocket (RFC 6455 section 4.1).
    pub(super) fn upgrade(&mut self) {
        self.0.is_upgrade = true;
        self.lines("connection: upgrade\r\nupgrade: websocket\r\n");
    }

    /// Writes the message length and the end of the head.
    pub fn finish(mut self, length: RequestLength) -> RequestHead {
        self.0.length = length;
        match length {
            RequestLength::None => {}
            RequestLength::Exact(length) => {
                // Infallible: the text grows.
                let _written = write!(self.0.text, "content-length: {length}\r\n");
            }
            RequestLength::Chunked => {
                self.lines(TRANSFER_ENCODING.as_str());
                self.lines(": chunked\r\n");
            }
        }
        self.lines("\r\n");
        self.0
    }
}

/// Size of an HTTP/1.1 head in its usual spelling: one space after each colon, and CRLF.
pub(super) fn wire_size(head: &Parts) -> usize {
    let uri = &head.uri;
    let target = uri.path_and_query().map_or(0, |it| it.as_str().len());
    let scheme = uri.scheme_str().map_or(0, |it| it.len() + "://".len());
    let authority = uri.authority().map_or(0, |it| it.as_str().len());
    let fields = head.headers.iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    let line = head.method.as_str().len() + "  HTTP/1.1\r\n\r\n".len();
    line + scheme + authority + target + fields.sum::<usize>()
}

/// Without field values and the target: they may hold a token.
impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            text,
            method,
            length,
            is_upgrade,
        } = self;
        f.debug_struct("RequestHead")
            .field("method", method)
            .field("bytes", &text.len())
            .field("length", length)
            .field("is_upgrade", is_upgrade)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(length: RequestLength) -> RequestHead {
        let mut head = RequestHead::begin(&Method::POST, "/a?b=c", 0);
        head.field(&HOST, b"a.example");
        head.field(&HeaderName::from_static("x-secret"), b" hush \xff");
        head.finish(length)
    }

    #[test]
    fn writes_one_line_a_field_and_the_message_length() {
        for (length, line) in [
            (RequestLength::None, ""),
            (RequestLength::Exact(0), "content-length: 0\r\n"),
            (
                RequestLength::Exact(u64::MAX),
                "content-length: 18446744073709551615\r\n",
            ),
            (RequestLength::Chunked, "transfer-encoding: chunked\r\n"),
        ] {
            let head = written(length);
            let start = b"POST /a?b=c HTTP/1.1\r\nhost: a.example\r\nx-secret:  hush \xff\r\n";
            let expected = [start, line.as_bytes(), b"\r\n"].concat();
            assert_eq!(head.text(), expected, "{length:?}");
            assert_eq!(head.length(), length);
            assert_eq!(head.is_chunked(), length == RequestLength::Chunked);
        }
    }

    #[test]
    fn reads_its_text_back() {
        let parts = written(RequestLength::Exact(3)).to_parts();
        assert_eq!(parts.method, Method::POST);
        assert_eq!(parts.uri, "/a?b=c");
        let mut fields: Vec<_> = parts
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        fields.sort_unstable();
        let expected: [(&str, &[u8]); 3] = [
            ("content-length", b"3"),
            ("host", b"a.example"),
            ("x-secret", b" hush \xff"),
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn a_resend_is_the_same_bytes() {
        let mut head = written(RequestLength::None);
        let sent = head.take_text();
        assert!(head.text().is_empty());
        head.put_text(sent.clone());
        assert_eq!(head.text(), sent);
    }

    #[test]
    fn debug_output_has_no_field_value_and_no_target() {
        let shown = format!("{:?}", written(RequestLength::Chunked));
        assert!(!shown.contains("hush") && !shown.contains("b=c"), "{shown}");
        assert!(shown.contains("POST"), "{shown}");
    }
}
