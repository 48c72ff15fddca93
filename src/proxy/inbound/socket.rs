//! A client's socket that keeps its deadlines itself: hyper waits for a silent client as long as it takes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::connection::{Connection, ConnectionDeadlines, LINGER};
use super::limits::Timeouts;
use crate::proxy::deadline_timer::DeadlineTimer;
use crate::proxy::informational::InformationalQueue;
use crate::proxy::transport::{self, Stream};

/// What a connection over HTTP/2 begins with (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client's socket with its deadlines.
#[derive(Debug)]
pub struct Socket {
    stream: Stream,
    pace: Arc<ConnectionDeadlines>,
    informational: Arc<InformationalQueue>,
    /// What is left of interim answers that have begun to go out.
    interim_rest: Vec<u8>,
    /// Whether hyper still has something of what it wanted to write.
    is_in_write: bool,
    timeouts: Timeouts,
    read_timer: DeadlineTimer,
    write_timer: DeadlineTimer,
    blocked_since: Option<Instant>,
    shut_since: Option<Instant>,
    is_shut: bool,
}

impl Socket {
    /// Takes a stream just accepted.
    pub fn new(stream: Stream, connection: &Connection, timeouts: Timeouts) -> Self {
        Self {
            stream,
            pace: connection.pace(),
            informational: connection.informational(),
            interim_rest: Vec::new(),
            is_in_write: false,
            timeouts,
            read_timer: DeadlineTimer::default(),
            write_timer: DeadlineTimer::default(),
            blocked_since: None,
            shut_since: None,
            is_shut: false,
        }
    }

    /// Reads until it is clear whether the client speaks HTTP/2, and puts what was read back.
    pub(super) async fn speaks_http2(&mut self) -> io::Result<bool> {
        let mut read = Vec::new();
        let speaks_http2 = loop {
            let so_far = read.len().min(HTTP2_PREFACE.len());
            if !HTTP2_PREFACE.starts_with(read.get(..so_far).unwrap_or_default()) {
                break false;
            }
            if so_far == HTTP2_PREFACE.len() {
                break true;
            }
            if transport::read_more(self, &mut read).await? == 0 {
                break false;
            }
        };
        self.stream.put_back(read);
        Ok(speaks_http2)
    }

    fn stream(&mut self) -> Pin<&mut Stream> {
        Pin::new(&mut self.stream)
    }

    /// Writes the interim answers that wait, if hyper has written all of what came before. They belong to the exchange
    /// that is under way, whose answer has not begun.
    fn write_informational(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.interim_rest.is_empty() && !self.is_in_write {
            self.interim_rest = self.informational.take();
        }
        while !self.interim_rest.is_empty() {
            let rest = std::mem::take(&mut self.interim_rest);
            let written = self.stream().poll_write(context, &rest);
            let count = match &written {
                Poll::Ready(Ok(count)) => *count,
                Poll::Ready(Err(_)) | Poll::Pending => 0,
            };
            self.interim_rest = rest.get(count..).unwrap_or_default().to_vec();
            self.note_write(context, &written)?;
            ready!(written)?;
        }
        Poll::Ready(Ok(()))
    }

    fn note_write<T>(
        &mut self,
        context: &mut Context<'_>,
        written: &Poll<io::Result<T>>,
    ) -> io::Result<()> {
        if written.is_ready() {
            self.blocked_since = None;
            return Ok(());
        }
        let since = *self.blocked_since.get_or_insert_with(Instant::now);
        if self
            .write_timer
            .elapsed(since + self.timeouts.body, context)
        {
            return Err(io::ErrorKind::TimedOut.into());
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
        if let Poll::Ready(result) = self.stream().poll_read(context, buffer) {
            if buffer.filled().len() > before {
                self.pace.heard();
            }
            return Poll::Ready(result);
        }
        if self.pace.is_http2() {
            return Poll::Pending;
        }
        if let Some(deadline) = self.pace.deadline(self.timeouts)
            && self.read_timer.elapsed(deadline, context)
        {
            self.pace.note_timeout();
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        // A timer that is set rings soon enough, unless a head may take longer than a connection may be idle.
        let is_soon = self.read_timer.is_set() && self.timeouts.header <= self.timeouts.idle;
        if !self.pace.awaits_request() && !is_soon {
            // hyper does not read again when the exchange ends: the timer looks then what is awaited.
            let soon = Instant::now() + self.timeouts.idle.min(self.timeouts.header);
            self.read_timer.elapsed(soon, context);
        }
        Poll::Pending
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.write_informational(context))?;
        let written = self.stream().poll_write(context, bytes);
        self.is_in_write = !matches!(&written, Poll::Ready(Ok(count)) if *count == bytes.len());
        self.note_write(context, &written)?;
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_informational(context))?;
        // With TLS, what was written may still be here, and the client has to take it as well.
        let flushed = self.stream().poll_flush(context);
        self.note_write(context, &flushed)?;
        flushed
    }

    /// Ends the sending side, then reads what the client still sends and throws it away for a while: to close a
    /// socket with unread bytes resets it, and the client would lose the answer (RFC 9112 section 9.6).
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let since = *self.shut_since.get_or_insert_with(Instant::now);
        if !self.is_shut {
            if self.stream().poll_shutdown(context)?.is_pending() {
                return if self.read_timer.elapsed(since + LINGER, context) {
                    Poll::Ready(Ok(()))
                } else {
                    Poll::Pending
                };
            }
            self.is_shut = true;
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
