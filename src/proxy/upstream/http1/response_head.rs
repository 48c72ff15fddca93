//! Parser of response heads (RFC 9112).
//!
//! Stricter than a client has to be: a response with two readings is a fault, because the bytes after the wrong end of a
//! response would be the response to another user's request.

use std::fmt;
use std::mem::MaybeUninit;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::{HeaderMap, StatusCode};
use httparse::{ParserConfig, Response, Status};

use crate::proxy::upstream::send::{MAX_RESPONSE_FIELDS, MAX_RESPONSE_HEAD_BYTES};

pub use super::response_fault::ResponseFault;

use super::field_section::{EndSearch, copy_fields};

/// Most digits of a `Content-Length`: every number with as many fits into 64 bits, and into the signed 63 of other parsers.
const MAX_LENGTH_DIGITS: usize = 18;

/// Head of a response.
pub struct ResponseHead {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub length: BodyLength,
    pub keep_alive: KeepAlive,
}

/// Length of a response body (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    /// No body by definition, whatever the fields state.
    Empty,
    /// `Content-Length`.
    Exact(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The body ends with the connection.
    UntilClose,
}

/// Persistence of the connection after the response, and the `Keep-Alive: timeout` of the upstream if it states one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeepAlive {
    pub is_kept: bool,
    pub timeout: Option<Duration>,
}

/// Facts of a request that decide how its response is parsed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestKind {
    /// The method is HEAD.
    pub is_head: bool,
    /// The request asks for a WebSocket.
    pub is_upgrade: bool,
}

/// Parser of the heads of one connection.
#[derive(Debug, Default)]
pub struct HeadParser {
    search: EndSearch,
}

impl HeadParser {
    /// Takes the next head from the start of the buffer; none if the buffer has no complete head. An informational
    /// response (1xx) has a head of its own.
    pub fn parse(
        &mut self,
        buffer: &mut BytesMut,
        request: RequestKind,
    ) -> Result<Option<ResponseHead>, ResponseFault> {
        // httparse skips empty lines. Here, they are the rest of another response.
        if matches!(buffer.first(), Some(b'\r' | b'\n')) {
            return Err(ResponseFault::LeadingEmptyLine);
        }
        if self.search.is_without_end(buffer) {
            return self.search.postpone(buffer);
        }
        let mut fields = [const { MaybeUninit::uninit() }; MAX_RESPONSE_FIELDS];
        let mut response = Response::new(&mut []);
        let parsed = ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            buffer,
            &mut fields,
        );
        let length = match parsed {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) => return self.search.postpone(buffer),
            Err(error) => return Err(ResponseFault::of(error, buffer)),
        };
        let (Some(version), Some(code)) = (response.version, response.code) else {
            return Err(ResponseFault::of(httparse::Error::Status, buffer));
        };
        if length > MAX_RESPONSE_HEAD_BYTES {
            return Err(ResponseFault::TooLong);
        }
        let status =
            StatusCode::from_u16(code).map_err(|_invalid| ResponseFault::StatusCode { code })?;
        let mut framing = Framing::default();
        let text = buffer.get(..length).unwrap_or_default();
        let headers = copy_fields(text, response.headers, |name, value| {
            framing.read(name, value);
        })?;
        let is_http10 = version == 0;
        let body = framing.length(status, is_http10, request)?;
        let is_open = body != BodyLength::UntilClose && status != StatusCode::SWITCHING_PROTOCOLS;
        buffer.advance(length);
        self.search = EndSearch::default();
        Ok(Some(ResponseHead {
            status,
            headers,
            length: body,
            keep_alive: KeepAlive {
                is_kept: is_open && framing.is_kept(is_http10),
                timeout: framing.timeout,
            },
        }))
    }
}

/// Fields that decide the length of the body and the reuse of the connection.
#[derive(Debug, Default)]
struct Framing {
    length: LengthField,
    coding: CodingField,
    /// `Connection: close`, or `Keep-Alive: max=0`.
    is_closed: bool,
    /// `Connection: keep-alive`.
    is_kept_alive: bool,
    /// Shortest `Keep-Alive: timeout`.
    timeout: Option<Duration>,
}

/// All `Content-Length` fields.
#[derive(Debug, Default)]
enum LengthField {
    #[default]
    Absent,
    Valid(u64),
    Invalid,
    Repeated,
}

/// All `Transfer-Encoding` fields.
#[derive(Debug, Default)]
enum CodingField {
    #[default]
    Absent,
    Chunked,
    Other,
}

impl Framing {
    fn read(&mut self, name: &str, value: &[u8]) {
        // The length of the name comes first: it excludes nearly every field in one comparison.
        match name.len() {
            10 if name.eq_ignore_ascii_case("connection") => self.read_connection(value),
            10 if name.eq_ignore_ascii_case("keep-alive") => self.read_keep_alive(value),
            14 if name.eq_ignore_ascii_case("content-length") => {
                self.length = match self.length {
                    LengthField::Absent => match parse_length(value) {
                        Some(length) => LengthField::Valid(length),
                        None => LengthField::Invalid,
                    },
                    LengthField::Valid(_) | LengthField::Invalid | LengthField::Repeated => {
                        LengthField::Repeated
                    }
                };
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                self.coding = match self.coding {
                    CodingField::Absent if value.eq_ignore_ascii_case(b"chunked") => {
                        CodingField::Chunked
                    }
                    CodingField::Absent | CodingField::Chunked | CodingField::Other => {
                        CodingField::Other
                    }
                };
            }
            _ => {}
        }
    }

    fn read_connection(&mut self, value: &[u8]) {
        for option in members(value) {
            self.is_closed |= option.eq_ignore_ascii_case(b"close");
            self.is_kept_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// Reads `timeout=5, max=100` (RFC 2068 section 19.7.1). Another parameter or an invalid number has no effect.
    fn read_keep_alive(&mut self, value: &[u8]) {
        for parameter in members(value) {
            let mut parts = parameter.splitn(2, |byte| *byte == b'=');
            let name = parts.next().unwrap_or_default().trim_ascii_end();
            let Some(number) = parts.next().and_then(|it| parse_length(it.trim_ascii())) else {
                continue;
            };
            if name.eq_ignore_ascii_case(b"timeout") {
                let timeout = Duration::from_secs(number);
                self.timeout = Some(self.timeout.map_or(timeout, |it| it.min(timeout)));
            } else if name.eq_ignore_ascii_case(b"max") {
                self.is_closed |= number == 0;
            }
        }
    }

    fn length(
        &self,
        status: StatusCode,
        is_http10: bool,
        request: RequestKind,
    ) -> Result<BodyLength, ResponseFault> {
        if status == StatusCode::SWITCHING_PROTOCOLS && !request.is_upgrade {
            return Err(ResponseFault::UnrequestedUpgrade);
        }
        if request.is_head || has_no_content(status) {
            return Ok(BodyLength::Empty);
        }
        match (&self.coding, &self.length) {
            (CodingField::Chunked | CodingField::Other, _) if is_http10 => {
                Err(ResponseFault::TransferEncodingInHttp10)
            }
            (CodingField::Other, _) => Err(ResponseFault::TransferEncoding),
            (CodingField::Chunked, LengthField::Absent) => Ok(BodyLength::Chunked),
            (CodingField::Chunked, _) => Err(ResponseFault::TwoLengths),
            (CodingField::Absent, LengthField::Absent) => Ok(BodyLength::UntilClose),
            (CodingField::Absent, LengthField::Valid(length)) => Ok(BodyLength::Exact(*length)),
            (CodingField::Absent, LengthField::Invalid) => Err(ResponseFault::ContentLength),
            (CodingField::Absent, LengthField::Repeated) => {
                Err(ResponseFault::RepeatedContentLength)
            }
        }
    }

    fn is_kept(&self, is_http10: bool) -> bool {
        !self.is_closed && (self.is_kept_alive || !is_http10)
    }
}

impl fmt::Debug for ResponseHead {
    /// Leaves the fields out: `Set-Cookie` is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseHead")
            .field("status", &self.status)
            .field("length", &self.length)
            .field("keep_alive", &self.keep_alive)
            .finish_non_exhaustive()
    }
}

/// Returns true if a response with this status never has content (RFC 9110 sections 15.2, 15.3.5 and 15.4.5).
fn has_no_content(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Members of a comma-separated list (RFC 9110 section 5.6.1).
fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Parses a number of digits alone: no sign, no list, nothing around it.
fn parse_length(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > MAX_LENGTH_DIGITS {
        return None;
    }
    text.iter().try_fold(0_u64, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests;
