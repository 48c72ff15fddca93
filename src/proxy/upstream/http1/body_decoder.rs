//! Decoder of response bodies (RFC 9112 sections 6 and 7).

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::SizeHint;
use httparse::{EMPTY_HEADER, Status};

use crate::proxy::upstream::send::{MAX_RESPONSE_FIELDS, MAX_RESPONSE_HEAD_BYTES};

use super::field_section::{EndSearch, copy_fields};
use super::response_fault::ResponseFault;
use super::response_head::BodyLength;

/// Longest line with a chunk size and its extensions, in bytes.
const MAX_CHUNK_LINE: usize = 1024;

/// Most bytes of chunk extensions of a body, so that they cannot be a body that no limit counts.
const MAX_EXTENSIONS: usize = 16 * 1024;

/// Most digits of a chunk size.
const MAX_SIZE_DIGITS: usize = 16;

/// Decoder of one body.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
}

/// Part of a body.
pub enum Decoded {
    /// Content, without a copy from the buffer. Never empty.
    Data(Bytes),
    /// Trailer fields, which complete the body.
    Trailers(HeaderMap),
    /// The body is complete; the buffer starts with the byte after it.
    Complete,
    /// The buffer holds no further part.
    NeedsMore,
}

#[derive(Debug)]
enum State {
    Exact { remaining: u64 },
    Chunked(Chunks),
    UntilClose,
    Complete,
}

#[derive(Debug, Default)]
struct Chunks {
    position: Position,
    /// Bytes of extensions so far.
    extensions: usize,
}

#[derive(Debug)]
enum Position {
    /// Before the line of a chunk; `searched` bytes of it hold no LF.
    Size {
        searched: usize,
    },
    Data {
        remaining: u64,
    },
    /// Before the CRLF that ends a chunk.
    DataEnd,
    /// After the last chunk.
    Trailers(EndSearch),
}

impl Default for Position {
    fn default() -> Self {
        Self::Size { searched: 0 }
    }
}

impl BodyDecoder {
    pub fn new(length: BodyLength) -> Self {
        let state = match length {
            BodyLength::Empty | BodyLength::Exact(0) => State::Complete,
            BodyLength::Exact(remaining) => State::Exact { remaining },
            BodyLength::Chunked => State::Chunked(Chunks::default()),
            BodyLength::UntilClose => State::UntilClose,
        };
        Self { state }
    }

    /// Takes the next part from the start of the buffer.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, ResponseFault> {
        let decoded = match &mut self.state {
            State::Complete => return Ok(Decoded::Complete),
            State::UntilClose => {
                let mut unlimited = u64::MAX;
                take_data(buffer, &mut unlimited)
            }
            State::Exact { remaining } => {
                let data = take_data(buffer, remaining);
                if *remaining == 0 {
                    self.state = State::Complete;
                }
                data
            }
            State::Chunked(chunks) => chunks.decode(buffer)?,
        };
        if matches!(decoded, Decoded::Trailers(_) | Decoded::Complete) {
            self.state = State::Complete;
        }
        Ok(decoded)
    }

    /// Returns true after the last part of the body. The byte after it belongs to no response of this exchange.
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete)
    }

    /// Size of the rest of the body.
    pub fn size_hint(&self) -> SizeHint {
        match self.state {
            State::Exact { remaining } => SizeHint::with_exact(remaining),
            State::Complete => SizeHint::with_exact(0),
            State::Chunked(_) | State::UntilClose => SizeHint::default(),
        }
    }

    /// Handles the end of the connection, after every part of the buffer: completes a body without a length; any other
    /// must be complete.
    pub fn end_of_input(&mut self) -> Result<(), ResponseFault> {
        match self.state {
            State::Complete | State::UntilClose => {
                self.state = State::Complete;
                Ok(())
            }
            State::Exact { .. } | State::Chunked(_) => Err(ResponseFault::IncompleteBody),
        }
    }
}

impl Chunks {
    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Decoded, ResponseFault> {
        loop {
            match &mut self.position {
                Position::Size { searched } => {
                    let new = buffer.get(*searched..).unwrap_or_default();
                    let new = new.get(..MAX_CHUNK_LINE - *searched).unwrap_or(new);
                    let Some(end) = new.iter().position(|byte| *byte == b'\n') else {
                        *searched += new.len();
                        if *searched >= MAX_CHUNK_LINE {
                            return Err(ResponseFault::ChunkExtensionsTooLong);
                        }
                        return Ok(Decoded::NeedsMore);
                    };
                    let end = *searched + end;
                    let line = ChunkLine::parse(buffer.get(..end).unwrap_or_default())?;
                    self.extensions += line.extensions;
                    if self.extensions > MAX_EXTENSIONS {
                        return Err(ResponseFault::ChunkExtensionsTooLong);
                    }
                    buffer.advance(end + 1);
                    self.position = match line.size {
                        0 => Position::Trailers(EndSearch::default()),
                        remaining => Position::Data { remaining },
                    };
                }
                Position::Data { remaining } => {
                    let data = take_data(buffer, remaining);
                    if *remaining == 0 {
                        self.position = Position::DataEnd;
                    }
                    return Ok(data);
                }
                Position::DataEnd => {
                    if !take_line_end(buffer)? {
                        return Ok(Decoded::NeedsMore);
                    }
                    self.position = Position::default();
                }
                Position::Trailers(search) => {
                    // Nearly every body ends without trailers.
                    if matches!(buffer.first(), None | Some(b'\r')) {
                        let is_complete = take_line_end(buffer)?;
                        return Ok(if is_complete {
                            Decoded::Complete
                        } else {
                            Decoded::NeedsMore
                        });
                    }
                    let trailers = take_trailers(buffer, search)?;
                    return Ok(trailers.map_or(Decoded::NeedsMore, Decoded::Trailers));
                }
            }
        }
    }
}

/// Line before a chunk.
struct ChunkLine {
    size: u64,
    /// Bytes after the size.
    extensions: usize,
}

impl ChunkLine {
    /// Parses a line without its LF.
    fn parse(line: &[u8]) -> Result<Self, ResponseFault> {
        let Some((b'\r', line)) = line.split_last() else {
            return Err(ResponseFault::BareLineFeed);
        };
        let digits = line.iter().take_while(|it| it.is_ascii_hexdigit()).count();
        if !(1..=MAX_SIZE_DIGITS).contains(&digits) {
            return Err(ResponseFault::ChunkSize);
        }
        let (digits, extensions) = line.split_at(digits);
        // Some servers pad the size with spaces.
        let start = extensions.trim_ascii_start().first();
        if !matches!(start, None | Some(b';')) {
            return Err(ResponseFault::ChunkSize);
        }
        let is_text = |byte: &u8| *byte == b'\t' || !byte.is_ascii_control();
        if !extensions.iter().all(is_text) {
            return Err(ResponseFault::ChunkExtension);
        }
        let size = digits.iter().fold(0_u64, |size, digit| {
            let digit = char::from(*digit).to_digit(16).unwrap_or_default();
            size << 4 | u64::from(digit)
        });
        Ok(Self {
            size,
            extensions: extensions.len(),
        })
    }
}

/// Takes at most `remaining` bytes, and subtracts them.
fn take_data(buffer: &mut BytesMut, remaining: &mut u64) -> Decoded {
    if buffer.is_empty() {
        return Decoded::NeedsMore;
    }
    let limit = usize::try_from(*remaining).unwrap_or(usize::MAX);
    let data = buffer.split_to(limit.min(buffer.len())).freeze();
    *remaining -= data.len() as u64;
    Decoded::Data(data)
}

/// Takes a CRLF; returns false if only its start has arrived.
fn take_line_end(buffer: &mut BytesMut) -> Result<bool, ResponseFault> {
    match **buffer {
        [] | [b'\r'] => Ok(false),
        [b'\r', b'\n', ..] => {
            buffer.advance(2);
            Ok(true)
        }
        [b'\r', ..] => Err(ResponseFault::BareCarriageReturn),
        [b'\n', ..] => Err(ResponseFault::BareLineFeed),
        [_, ..] => Err(ResponseFault::ChunkEnd),
    }
}

/// Takes a complete trailer section with at least one field.
fn take_trailers(
    buffer: &mut BytesMut,
    search: &mut EndSearch,
) -> Result<Option<HeaderMap>, ResponseFault> {
    if search.is_without_end(buffer) {
        return search.postpone(buffer);
    }
    let mut fields = [EMPTY_HEADER; MAX_RESPONSE_FIELDS];
    let (length, fields) = match httparse::parse_headers(buffer, &mut fields) {
        Ok(Status::Complete(parsed)) => parsed,
        Ok(Status::Partial) => return search.postpone(buffer),
        Err(error) => return Err(ResponseFault::of(error, &[])),
    };
    // hyper, on the client's side of the gate, refuses trailers of the limit itself.
    if length >= MAX_RESPONSE_HEAD_BYTES {
        return Err(ResponseFault::TooLong);
    }
    let section = buffer.get(..length).unwrap_or_default();
    let trailers = copy_fields(section, fields, |_name, _value| {})?;
    buffer.advance(length);
    Ok(Some(trailers))
}

impl fmt::Debug for Decoded {
    /// Leaves the content out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(data) => write!(f, "Data({} bytes)", data.len()),
            Self::Trailers(fields) => write!(f, "Trailers({} fields)", fields.len()),
            Self::Complete => f.write_str("Complete"),
            Self::NeedsMore => f.write_str("NeedsMore"),
        }
    }
}

#[cfg(test)]
mod tests;
