//! Client socket with deadlines: hyper itself would wait for a stalled client forever.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::proxy::deadline_timer::DeadlineTimer;
use crate::proxy::informational::InformationalQueue;
use crate::proxy::rate_floor::RateFloor;
use crate::proxy::transport::{Stream, poll_read_more, read_more};

use super::connection::Connection;
use super::deadlines::{ConnectionDeadlines, LINGER};
use super::flush_signal::FlushSignal;
use super::limits::Timeouts;
use super::unread_head;

/// Connection preface of HTTP/2 (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// State of the responses on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ResponseState {
    /// Responses of the gate may be unwritten.
    Pending,
    /// Every response of the gate is written. What hyper writes next, before another exchange, is its own response to a
    /// head that it cannot read.
    Complete,
    /// A response to such a head is written in place of hyper's.
    Replacing,
}

/// Client socket that fails with `TimedOut` at its deadlines.
#[derive(Debug)]
pub struct Socket {
    stream: Stream,
    /// Bytes put back, to be read first.
    put_back: Bytes,
    deadlines: Arc<ConnectionDeadlines>,
    informational: Arc<InformationalQueue>,
    /// The client has closed its sending side.
    is_at_end: bool,
    /// Unwritten rest of informational responses, or of a response to an unread head.
    informational_rest: Vec<u8>,
    response: ResponseState,
    hsts: Option<HeaderValue>,
    /// Set after a partial write of hyper.
    is_in_write: bool,
    timeouts: Timeouts,
    read_timer: DeadlineTimer,
    write_timer: DeadlineTimer,
    rate_floor: RateFloor,
    /// [`Stream::written`] at the last write.
    written: u64,
    flush_signal: Arc<FlushSignal>,
    shutdown_since: Option<Instant>,
    is_shutdown: bool,
}

impl Socket {
    pub fn new(stream: Stream, connection: &Connection, timeouts: Timeouts) -> Self {
        Self {
            stream,
            put_back: Bytes::new(),
            is_at_end: false,
            deadlines: connection.deadlines(),
            informational: connection.informational(),
            informational_rest: Vec::new(),
            response: ResponseState::Complete,
            hsts: connection.listener().hsts.clone(),
            is_in_write: false,
            timeouts,
            read_timer: DeadlineTimer::default(),
            write_timer: DeadlineTimer::default(),
            rate_floor: RateFloor::default(),
            written: 0,
            flush_signal: connection.flush_signal(),
            shutdown_since: None,
            is_shutdown: false,
        }
    }

    /// Detects HTTP/2 with prior knowledge. Puts the bytes read back.
    pub(super) async fn begins_with_http2_preface(&mut self) -> io::Result<bool> {
        let mut read = Vec::new();
        let is_http2 = loop {
            let so_far = read.len().min(HTTP2_PREFACE.len());
            if !HTTP2_PREFACE.starts_with(read.get(..so_far).unwrap_or_default()) {
                break false;
            }
            if so_far == HTTP2_PREFACE.len() {
                break true;
            }
            if read_more(self, &mut read).await? == 0 {
                break false;
            }
        };
        self.put_back(read.into());
        Ok(is_http2)
    }

    /// Puts bytes back, to be received again first.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        self.deadlines.note_read(None);
        self.put_back = bytes;
    }

    /// Receives the first bytes of a request, and puts them back. Returns false at the end of the stream.
    pub(super) fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut bytes = Vec::new();
        let count = ready!(poll_read_more(self, context, &mut bytes))?;
        self.put_back(bytes.into());
        Poll::Ready(Ok(count > 0))
    }

    fn stream(&mut self) -> Pin<&mut Stream> {
        Pin::new(&mut self.stream)
    }

    /// Writes the queued informational responses between two writes of hyper. They belong to the exchange in flight, and
    /// its response has not begun.
    fn write_informational(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.informational_rest.is_empty() && !self.is_in_write {
            self.informational_rest = self.informational.take();
        }
        while !self.informational_rest.is_empty() {
            let rest = std::mem::take(&mut self.informational_rest);
            let written = self.stream().poll_write(context, &rest);
            let count = match &written {
                Poll::Ready(Ok(count)) => *count,
                Poll::Ready(Err(_)) | Poll::Pending => 0,
            };
            self.informational_rest = rest.get(count..).unwrap_or_default().to_vec();
            self.note_write(context, &written)?;
            ready!(written)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Returns whether the client sends nothing more, and everything has been read: closing such a socket loses no
    /// response. TLS needs a `close_notify` first.
    fn has_read_all(&mut self, context: &mut Context<'_>) -> bool {
        if !matches!(self.stream, Stream::Plain(_)) {
            return false;
        }
        if self.is_at_end {
            return true;
        }
        if !self.deadlines.has_read_all() || !self.put_back.is_empty() {
            return false;
        }
        // Without new bytes since the last read, the runtime knows that there are none, and makes no system call.
        let mut scratch = [0; 1];
        let mut buffer = ReadBuf::new(&mut scratch);
        let polled = self.stream().poll_read(context, &mut buffer);
        polled.is_pending() || buffer.filled().is_empty()
    }

    /// Notes the outcome of a write or a flush. Fails if the client reads too slowly.
    fn note_write<T>(
        &mut self,
        context: &mut Context<'_>,
        written: &Poll<io::Result<T>>,
    ) -> io::Result<()> {
        self.deadlines.set_write_blocked(written.is_pending());
        let before = std::mem::replace(&mut self.written, self.stream.written());
        let bytes = self.written - before;
        if bytes > 0 || written.is_ready() {
            self.rate_floor.progress(bytes);
        }
        if written.is_pending() {
            let deadline = self.rate_floor.wait(self.timeouts.body);
            if self.write_timer.elapsed(deadline, context) {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if !self.put_back.is_empty() {
            let count = self.put_back.len().min(buffer.remaining());
            buffer.put_slice(&self.put_back.split_to(count));
            if self.put_back.is_empty() {
                self.put_back = Bytes::new();
            }
            self.deadlines.note_received(count);
            return Poll::Ready(Ok(()));
        }
        if let Poll::Ready(result) = self.stream().poll_read(context, buffer) {
            let received = buffer.filled().len() - before;
            if received > 0 {
                self.deadlines.note_received(received);
            } else if buffer.remaining() > 0 {
                self.is_at_end = true;
            }
            return Poll::Ready(result);
        }
        if self.deadlines.is_http2() {
            return Poll::Pending;
        }
        self.deadlines.note_read_nothing();
        if let Some(deadline) = self.deadlines.deadline(self.timeouts)
            && self.read_timer.elapsed(deadline, context)
        {
            self.deadlines.note_timeout();
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        // A timer already set fires early enough, unless the header timeout is longer than the idle timeout.
        let is_soon = self.read_timer.is_set() && self.timeouts.header <= self.timeouts.idle;
        if !self.deadlines.is_idle() && !is_soon {
            // hyper does not read again when the exchange ends, so the timer wakes the task to check the new deadline.
            let wake_up = Instant::now() + self.timeouts.idle.min(self.timeouts.header);
            self.read_timer.elapsed(wake_up, context);
        }
        Poll::Pending
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    /// Writes a head and the start of its body at once, without a copy of the body.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = parts.iter().map(|part| part.len()).sum();
        if self.response == ResponseState::Complete {
            self.response = ResponseState::Pending;
            // hyper's own response has no body.
            if let [head] = parts
                && !self.deadlines.is_in_exchange()
                && let Some(response) = unread_head::response(head, self.hsts.as_ref())
            {
                self.informational_rest = response;
                self.response = ResponseState::Replacing;
            }
        }
        ready!(self.write_informational(context))?;
        if self.response == ResponseState::Replacing {
            self.response = ResponseState::Pending;
            return Poll::Ready(Ok(length));
        }
        let written = match parts {
            [one] => self.stream().poll_write(context, one),
            parts => self.stream().poll_write_vectored(context, parts),
        };
        self.is_in_write = !matches!(&written, Poll::Ready(Ok(count)) if *count == length);
        self.note_write(context, &written)?;
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_informational(context))?;
        // With TLS, written bytes may still be buffered here, and the deadline covers them too.
        let flushed = self.stream().poll_flush(context);
        self.note_write(context, &flushed)?;
        // hyper flushes the socket only when it has written everything.
        if flushed.is_ready() {
            self.flush_signal.flushed();
            if !self.deadlines.is_in_exchange() {
                self.response = ResponseState::Complete;
            }
        }
        flushed
    }

    /// Shuts down the sending side, then reads and discards for `LINGER`: closing a socket with unread bytes resets the
    /// connection, and the client would lose the response (RFC 9112 section 9.6).
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shutdown && self.has_read_all(context) {
            return Poll::Ready(Ok(()));
        }
        let since = *self.shutdown_since.get_or_insert_with(Instant::now);
        if !self.is_shutdown {
            // An error means that the client has closed the connection; it must not hide the error of the head.
            if self.stream().poll_shutdown(context).is_pending() {
                return if self.read_timer.elapsed(since + LINGER, context) {
                    Poll::Ready(Ok(()))
                } else {
                    Poll::Pending
                };
            }
            self.is_shutdown = true;
        }
        let mut scratch = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match self.stream().poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) if since.elapsed() < LINGER => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending if self.read_timer.elapsed(since + LINGER, context) => {
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
