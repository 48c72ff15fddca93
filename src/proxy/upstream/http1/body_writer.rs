//! Writes a request body, as it arrives, in the framing that the head announces (RFC 9112 section 6).

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Body;

use crate::proxy::request_body::{RequestBody, UploadFault};
use crate::proxy::request_head::RequestLength;

use super::socket::{Output, Socket};

/// Data up to this size is copied behind the text before it, in bytes. Larger data is written from its own buffer.
const MAX_COPIED: usize = 8 * 1024;

/// State of one request: the head in the output of the socket, and the body.
#[derive(Debug)]
pub(super) struct BodyWriter {
    framing: Framing,
    /// The end of the body is in the output.
    is_ended: bool,
    /// Data in the output, while no byte of the request is written.
    unsent: Vec<Bytes>,
}

#[derive(Debug)]
enum Framing {
    /// Bytes until the announced length.
    Exact(u64),
    Chunked,
}

/// Early end of a request.
#[derive(Debug)]
pub(super) enum WriteFault {
    /// Fault of the client.
    Upload(UploadFault),
    /// The upstream does not take the rest of the request.
    Closed(std::io::Error),
}

impl BodyWriter {
    pub(super) fn new(length: RequestLength) -> Self {
        let framing = match length {
            RequestLength::None => Framing::Exact(0),
            RequestLength::Exact(length) => Framing::Exact(length),
            RequestLength::Chunked => Framing::Chunked,
        };
        Self {
            is_ended: matches!(framing, Framing::Exact(0)),
            framing,
            unsent: Vec::new(),
        }
    }

    /// Returns true if the complete request is in the output of the socket.
    pub(super) fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Data that was taken from the body and not written.
    pub(super) fn into_unsent(self) -> Vec<Bytes> {
        self.unsent
    }

    /// Writes as much of the request as the client has sent and the socket takes. Ready when all of it is written.
    pub(super) fn poll(
        &mut self,
        body: &mut RequestBody,
        socket: &Socket,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), WriteFault>> {
        loop {
            let is_queued = socket.is_queued(context);
            if !is_queued {
                match socket.poll_write(context) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(WriteFault::Closed(error))),
                    Poll::Pending => return Poll::Pending,
                }
            }
            if socket.has_written() {
                self.unsent.clear();
            }
            match (self.is_ended, is_queued) {
                (true, false) => return Poll::Ready(Ok(())),
                (true, true) => return Poll::Pending,
                (false, true) if socket.unwritten() > MAX_COPIED => {
                    socket.wake_after_write();
                    return Poll::Pending;
                }
                (false, _) => {}
            }
            // No borrow is held: the body may be anything.
            let polled = Pin::new(&mut *body).poll_frame(context);
            match polled {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    if data.is_empty() {
                        continue;
                    }
                    if !socket.has_written() {
                        self.unsent.push(data.clone());
                    }
                    self.push(data, socket)?;
                    if body.is_end_stream() {
                        self.end(socket)?;
                    }
                }
                Poll::Ready(Some(Err(fault))) => {
                    return Poll::Ready(Err(WriteFault::Upload(fault)));
                }
                Poll::Ready(None) => self.end(socket)?,
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn push(&mut self, data: Bytes, socket: &Socket) -> Result<(), WriteFault> {
        match &mut self.framing {
            Framing::Exact(left) => {
                // hyper delivers exactly the announced length; more would be read as another request.
                let rest = left.checked_sub(data.len() as u64);
                *left = rest.ok_or(WriteFault::Upload(UploadFault::Malformed))?;
                socket.write(|output| push_data(output, data, b""));
            }
            Framing::Chunked => socket.write(|output| {
                output.push_text(format!("{:x}\r\n", data.len()).as_bytes());
                push_data(output, data, b"\r\n");
            }),
        }
        Ok(())
    }

    fn end(&mut self, socket: &Socket) -> Result<(), WriteFault> {
        match self.framing {
            Framing::Exact(0) => {}
            Framing::Exact(_) => return Err(WriteFault::Upload(UploadFault::Malformed)),
            Framing::Chunked => socket.write(|output| output.push_end(b"0\r\n\r\n")),
        }
        self.is_ended = true;
        Ok(())
    }
}

fn push_data(output: &mut Output, data: Bytes, end: &'static [u8]) {
    if data.len() > MAX_COPIED {
        output.set_chunk(data, end);
    } else {
        output.push_text(&data);
        output.push_text(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Output for a body of these chunks, without a socket that takes it.
    fn written(length: RequestLength, chunks: &[&'static [u8]]) -> Result<Vec<u8>, UploadFault> {
        let socket = Socket::detached();
        socket.begin(b"head|".to_vec(), false);
        let mut writer = BodyWriter::new(length);
        let mut written = Vec::new();
        let mut take = || written.extend(socket.take_output());
        let fault = |fault| match fault {
            WriteFault::Upload(fault) => fault,
            WriteFault::Closed(error) => panic!("{error}"),
        };
        for chunk in chunks {
            writer
                .push(Bytes::from_static(chunk), &socket)
                .map_err(fault)?;
            take();
        }
        if !writer.is_ended() {
            writer.end(&socket).map_err(fault)?;
        }
        take();
        Ok(written)
    }

    #[test]
    fn frames_a_body_as_its_head_announces() {
        static LARGE: [u8; MAX_COPIED + 1] = [b'x'; MAX_COPIED + 1];
        let exact = written(RequestLength::Exact(5), &[b"ab", b"cde"]).unwrap();
        assert_eq!(exact, b"head|abcde");
        let chunked = written(RequestLength::Chunked, &[b"ab", &LARGE]).unwrap();
        let expected = [b"head|2\r\nab\r\n2001\r\n", &LARGE[..], b"\r\n0\r\n\r\n"].concat();
        assert_eq!(chunked, expected);
        assert_eq!(written(RequestLength::None, &[]).unwrap(), b"head|");
        assert_eq!(
            written(RequestLength::Chunked, &[]).unwrap(),
            b"head|0\r\n\r\n"
        );
    }

    #[test]
    fn writes_no_byte_beyond_or_short_of_the_announced_length() {
        for (length, chunks) in [
            (RequestLength::Exact(5), &[&b"abcdef"[..]][..]),
            (RequestLength::Exact(5), &[b"abcd"]),
            (RequestLength::Exact(5), &[]),
            (RequestLength::None, &[b"a"]),
        ] {
            let fault = written(length, chunks).unwrap_err();
            assert_eq!(fault, UploadFault::Malformed, "{length:?} {chunks:?}");
        }
    }
}
