//! Socket of an HTTP/1.1 connection and the bytes to write to it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, IoSlice};
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};

use crate::proxy::transport::Stream;

/// Socket of one connection, shared by the exchange that holds the connection, the outbox and an upload that outlives
/// the response head.
#[derive(Debug)]
pub(in crate::proxy::upstream) struct Socket {
    /// Borrowed for one system call at a time. `None` after [`Self::take`].
    stream: RefCell<Option<Stream>>,
    output: RefCell<Output>,
    /// Bytes before the first byte of the request belong to another exchange.
    must_be_quiet: Cell<bool>,
    /// The output waits in the outbox.
    is_queued: Cell<bool>,
    /// The kernel has accepted bytes of the current request.
    has_written: Cell<bool>,
    /// Result of a write by the outbox that the exchange has to learn of.
    failure: RefCell<Option<io::Error>>,
    /// The exchange continues when the outbox has written the output.
    wakes: Cell<bool>,
    /// Exchange to wake when the outbox could not write all of the output.
    waker: RefCell<Option<Waker>>,
}

/// End of a chunk that is the last with data, and the end of its body (RFC 9112 section 7.1).
const END_OF_LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// Bytes to write: text, then a chunk of the body, then the end of the chunk.
#[derive(Debug, Default)]
pub(super) struct Output {
    text: Vec<u8>,
    /// Bytes of `text` that are written.
    written: usize,
    chunk: Bytes,
    end: &'static [u8],
    /// A TLS stream may hold records back.
    is_unflushed: bool,
}

impl Output {
    /// Appends text. Only while there is no chunk.
    pub(super) fn push_text(&mut self, text: &[u8]) {
        if self.written > 0 && self.written == self.text.len() {
            self.text.clear();
            self.written = 0;
        }
        self.text.extend_from_slice(text);
    }

    /// Appends the end of the body, behind the end of a chunk if there is one.
    pub(super) fn push_end(&mut self, end: &'static [u8]) {
        if self.chunk.is_empty() {
            self.push_text(end);
        } else {
            self.end = END_OF_LAST_CHUNK;
        }
    }

    /// Sets the chunk that follows the text, and the bytes after it.
    pub(super) fn set_chunk(&mut self, chunk: Bytes, end: &'static [u8]) {
        self.chunk = chunk;
        self.end = end;
    }

    /// Bytes that are not written.
    pub(super) fn len(&self) -> usize {
        self.rest().len() + self.chunk.len() + self.end.len()
    }

    fn rest(&self) -> &[u8] {
        self.text.get(self.written..).unwrap_or_default()
    }

    fn advance(&mut self, count: usize) {
        let text = self.rest().len().min(count);
        self.written += text;
        let chunk = self.chunk.len().min(count - text);
        self.chunk.advance(chunk);
        self.end = self.end.get(count - text - chunk..).unwrap_or_default();
    }
}

impl Socket {
    pub(super) fn new(stream: Stream) -> Self {
        Self::with(Some(stream))
    }

    fn with(stream: Option<Stream>) -> Self {
        Self {
            stream: RefCell::new(stream),
            output: RefCell::default(),
            must_be_quiet: Cell::new(false),
            is_queued: Cell::new(false),
            has_written: Cell::new(false),
            failure: RefCell::default(),
            wakes: Cell::new(false),
            waker: RefCell::default(),
        }
    }

    /// Begins a request with this text, on a connection that must be quiet if it is reused.
    pub(super) fn begin(&self, text: Vec<u8>, is_reused: bool) {
        self.must_be_quiet.set(is_reused);
        *self.output.borrow_mut() = Output {
            text,
            ..Output::default()
        };
        self.has_written.set(false);
        self.wakes.set(false);
    }

    /// Takes the text of the request back.
    pub(super) fn take_text(&self) -> Vec<u8> {
        let mut output = self.output.borrow_mut();
        output.written = 0;
        mem::take(&mut output.text)
    }

    /// Changes the output.
    pub(super) fn write(&self, change: impl FnOnce(&mut Output)) {
        change(&mut self.output.borrow_mut());
    }

    /// Number of bytes that are not written.
    pub(super) fn unwritten(&self) -> usize {
        self.output.borrow().len()
    }

    /// Notes that the outbox will write the output.
    pub(super) fn queue(&self) {
        self.is_queued.set(true);
    }

    /// Makes the outbox wake the exchange.
    pub(super) fn wake_after_write(&self) {
        self.wakes.set(true);
    }

    /// Returns true while the output waits in the outbox, which then wakes this task if it could not write all of it.
    pub(super) fn is_queued(&self, context: &Context<'_>) -> bool {
        if self.is_queued.get() {
            let mut waker = self.waker.borrow_mut();
            match &mut *waker {
                Some(waker) => waker.clone_from(context.waker()),
                None => *waker = Some(context.waker().clone()),
            }
        }
        self.is_queued.get()
    }

    /// Returns true if the kernel has accepted bytes of the current request.
    pub(super) fn has_written(&self) -> bool {
        self.has_written.get()
    }

    /// Writes the output from the outbox.
    pub(in crate::proxy::upstream) fn write_queued(&self) {
        self.is_queued.set(false);
        // The exchange registers its own task if the socket is full.
        let mut context = Context::from_waker(Waker::noop());
        let written = if self.must_be_quiet.get() && self.is_readable() {
            Poll::Ready(Err(io::Error::other("unread bytes before the request")))
        } else {
            self.poll_write(&mut context)
        };
        match written {
            Poll::Ready(Ok(())) if !self.wakes.get() => return,
            Poll::Ready(Ok(())) | Poll::Pending => {}
            Poll::Ready(Err(error)) => *self.failure.borrow_mut() = Some(error),
        }
        self.wakes.set(false);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Writes the output.
    pub(super) fn poll_write(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.failure.borrow_mut().take() {
            return Poll::Ready(Err(error));
        }
        let mut stream = self.stream.borrow_mut();
        let Some(stream) = &mut *stream else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let mut output = self.output.borrow_mut();
        while output.len() > 0 {
            let written = if output.chunk.is_empty() && output.end.is_empty() {
                Pin::new(&mut *stream).poll_write(context, output.rest())
            } else {
                let parts = [output.rest(), &output.chunk, output.end].map(IoSlice::new);
                Pin::new(&mut *stream).poll_write_vectored(context, &parts)
            };
            let count = ready!(written)?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            output.advance(count);
            output.is_unflushed = matches!(stream, Stream::Tls(_));
            self.has_written.set(true);
        }
        if output.is_unflushed {
            ready!(Pin::new(stream).poll_flush(context))?;
            output.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads into the spare capacity of the buffer, up to `limit` bytes. Returns 0 at the end of the stream.
    pub(super) fn poll_read(
        &self,
        buffer: &mut BytesMut,
        limit: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut stream = self.stream.borrow_mut();
        let Some(stream) = &mut *stream else {
            return Poll::Ready(Ok(0));
        };
        let mut limited = buffer.limit(limit);
        pin!(stream.read_buf(&mut limited)).poll(context)
    }

    /// Registers the task for unread bytes. Ready if there may be some.
    pub(super) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        match &*self.stream.borrow() {
            Some(stream) => stream.poll_read_ready(context),
            None => Poll::Ready(()),
        }
    }

    /// Returns true if the runtime knows of unread bytes, or of the end of the stream.
    fn is_readable(&self) -> bool {
        match &*self.stream.borrow() {
            Some(stream) => stream.is_readable(),
            None => true,
        }
    }

    /// See [`Stream::peek`].
    pub(super) fn peek(&self, bytes: &mut [u8]) -> io::Result<Option<usize>> {
        match &*self.stream.borrow() {
            Some(stream) => stream.peek(bytes),
            None => Ok(Some(0)),
        }
    }

    /// Returns true over TLS, where unread bytes may be a session ticket.
    pub(super) fn is_tls(&self) -> bool {
        matches!(&*self.stream.borrow(), Some(Stream::Tls(_)))
    }

    /// Takes the stream out: nothing more is written or read.
    pub(super) fn take(&self) -> Option<Stream> {
        self.stream.borrow_mut().take()
    }

    /// Socket without a stream.
    #[cfg(test)]
    pub(super) fn detached() -> Self {
        Self::with(None)
    }

    /// Takes the output as if it were written.
    #[cfg(test)]
    pub(super) fn take_output(&self) -> Vec<u8> {
        let mut output = self.output.borrow_mut();
        let taken = [output.rest(), &output.chunk, output.end].concat();
        let count = taken.len();
        output.advance(count);
        taken
    }
}
