//! Conditions under which an HTTP/1.1 connection may carry another exchange: nothing of the last one can still arrive.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll};

use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::proxy::transport::Stream;

/// Size limit of one read, in bytes. hyper doubles its buffer after a read of a power of two, so that one byte less keeps
/// it at 16 KiB: a client that does not read holds two such buffers.
const MAX_READ: usize = 16 * 1024 - 1;

/// Status that many servers send on an idle connection before they close it (RFC 9110 section 15.5.9).
const REQUEST_TIMEOUT: &[u8] = b" 408";

/// Set once an endpoint has sent bytes that belong to no exchange.
#[derive(Debug, Default)]
pub(super) struct SurplusFlag(AtomicBool);

impl SurplusFlag {
    /// Clears the flag and returns its value.
    pub(super) fn take(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }

    fn note(&self, start: &[u8]) {
        // The status follows a version of eight bytes.
        let is_timeout = start.get(8..12) == Some(REQUEST_TIMEOUT);
        if !is_timeout {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// State of one connection: written by its stream and its pool.
///
/// hyper requires a `Send` stream, hence atomics, although a single thread uses them.
#[derive(Debug)]
pub(super) struct ReuseState {
    phase: AtomicU8,
    /// Request bytes were written after the first byte of the response.
    is_early: AtomicBool,
    /// Written bytes are not flushed.
    is_unflushed: AtomicBool,
}

/// Phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Opened, without an exchange.
    New = 0,
    Requesting = 1,
    Responding = 2,
    /// Returned to the pool.
    Idle = 3,
    /// Taken from the pool: the next read checks it.
    CheckedOut = 4,
    Upgraded = 5,
}

impl ReuseState {
    fn new() -> Self {
        Self {
            phase: AtomicU8::new(Phase::New as u8),
            is_early: AtomicBool::new(false),
            is_unflushed: AtomicBool::new(false),
        }
    }

    fn is(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Relaxed) == phase as u8
    }

    fn set(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Notes the end of an exchange. Returns false if the upstream responded before it had the complete request.
    pub(super) fn check_in(&self) -> bool {
        let may_reuse = self.is(Phase::Responding)
            && !self.is_early.load(Ordering::Relaxed)
            && !self.is_unflushed.load(Ordering::Relaxed);
        self.set(Phase::Idle);
        may_reuse
    }

    /// Makes hyper's next read, which precedes the write of a request, ask the kernel for unread bytes.
    pub(super) fn begin_reuse(&self) {
        if self.is(Phase::Idle) {
            self.set(Phase::CheckedOut);
        }
    }

    /// Notes that the connection has left HTTP.
    pub(super) fn upgrade(&self) {
        self.set(Phase::Upgraded);
    }

    fn note_write(&self) {
        if self.is(Phase::Responding) {
            self.is_early.store(true, Ordering::Relaxed);
        } else if !self.is(Phase::Upgraded) {
            self.set(Phase::Requesting);
        }
    }
}

/// Stream of an HTTP/1.1 connection that watches for bytes outside an exchange.
#[derive(Debug)]
pub(super) struct WatchedStream {
    stream: Stream,
    state: Arc<ReuseState>,
    surplus: Arc<SurplusFlag>,
    /// The upstream has closed its receiving side: nothing more is written, and the response is still read.
    is_write_closed: bool,
}

impl WatchedStream {
    pub(super) fn new(stream: Stream, surplus: Arc<SurplusFlag>) -> (Self, Arc<ReuseState>) {
        let state = Arc::new(ReuseState::new());
        let stream = Self {
            stream,
            state: Arc::clone(&state),
            surplus,
            is_write_closed: false,
        };
        (stream, state)
    }

    /// Fails if the kernel holds unread bytes or the end of the stream.
    fn check_unread(&self) -> io::Result<()> {
        let mut start = [0; 12];
        match self.stream.peek(&mut start)? {
            None => Ok(()),
            Some(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(count) => {
                // Over TLS, they may be a session ticket.
                if matches!(self.stream, Stream::Plain(_)) {
                    self.surplus.note(start.get(..count).unwrap_or_default());
                }
                Err(io::Error::other("unread bytes before the request"))
            }
        }
    }

    /// Turns an error of a write into a wait: hyper reads a response that preceded the error, or fails to read.
    fn unless_closed<T>(&mut self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &written
            && !self.state.is(Phase::Upgraded)
            && matches!(
                error.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            )
        {
            self.is_write_closed = true;
            return Poll::Pending;
        }
        written
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = {
            let mut limited = (&mut *buffer).limit(MAX_READ);
            let read = pin!(self.stream.read_buf(&mut limited));
            read.poll(context)
        };
        match polled {
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {
                if self.state.is(Phase::CheckedOut) {
                    self.state.set(Phase::Idle);
                    self.check_unread()?;
                }
                return Poll::Pending;
            }
        }
        let read = buffer.filled().get(before..).unwrap_or_default();
        if !read.is_empty() {
            if self.state.is(Phase::Requesting) {
                self.state.set(Phase::Responding);
            } else if self.state.is(Phase::Idle) || self.state.is(Phase::CheckedOut) {
                self.surplus.note(read);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.state.note_write();
        self.state.is_unflushed.store(true, Ordering::Relaxed);
        if self.is_write_closed {
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.unless_closed(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_write_closed {
            return Poll::Pending;
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.state.is_unflushed.store(false, Ordering::Relaxed);
        }
        self.unless_closed(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener as StdListener, TcpStream as StdStream};
    use std::task::Waker;

    use tokio::net::TcpStream;

    use super::*;

    /// Watched client side of a connection, with the server side.
    async fn connected() -> (WatchedStream, Arc<ReuseState>, Arc<SurplusFlag>, StdStream) {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (server, _) = listener.accept().unwrap();
        let surplus = Arc::<SurplusFlag>::default();
        let stream = Stream::Plain(stream.into());
        let (stream, state) = WatchedStream::new(stream, Arc::clone(&surplus));
        (stream, state, surplus, server)
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(test);
    }

    /// Reads once. The runtime waits for no events meanwhile.
    fn read(stream: &mut WatchedStream) -> Poll<io::Result<usize>> {
        let mut context = Context::from_waker(Waker::noop());
        let mut bytes = [0; 100];
        let mut buffer = ReadBuf::new(&mut bytes);
        let polled = Pin::new(stream).poll_read(&mut context, &mut buffer);
        polled.map_ok(|()| buffer.filled().len())
    }

    fn write(stream: &mut WatchedStream) {
        let mut context = Context::from_waker(Waker::noop());
        let written = Pin::new(&mut *stream).poll_write(&mut context, b"request");
        assert!(matches!(written, Poll::Ready(Ok(7))), "{written:?}");
        assert!(Pin::new(stream).poll_flush(&mut context).is_ready());
    }

    /// One complete exchange, after which the connection is checked in.
    async fn exchange(stream: &mut WatchedStream, state: &ReuseState, server: &mut StdStream) {
        write(stream);
        server.write_all(b"response").unwrap();
        assert_eq!(stream.read(&mut [0; 100]).await.unwrap(), 8);
        assert!(read(stream).is_pending());
        assert!(state.check_in());
    }

    #[test]
    fn a_check_out_finds_bytes_that_the_runtime_does_not_know_of() {
        run(async {
            for (surplus_bytes, is_surplus) in [
                (&b"HTTP/1.1 200 OK\r\n"[..], true),
                (b"x", true),
                (b"HTTP/1.1 408 Request Timeout\r\n", false),
                (b"HTTP/1.0 408 Request Time-out\r\n", false),
            ] {
                let (mut stream, state, surplus, mut server) = connected().await;
                exchange(&mut stream, &state, &mut server).await;
                server.write_all(surplus_bytes).unwrap();
                assert!(read(&mut stream).is_pending(), "the runtime knows of them");
                state.begin_reuse();
                let checked = read(&mut stream);
                assert!(matches!(checked, Poll::Ready(Err(_))), "{checked:?}");
                assert_eq!(surplus.take(), is_surplus, "{surplus_bytes:?}");
                assert!(!surplus.take());
            }
        });
    }

    #[test]
    fn a_check_out_finds_the_end_of_the_stream() {
        run(async {
            let (mut stream, state, surplus, mut server) = connected().await;
            exchange(&mut stream, &state, &mut server).await;
            drop(server);
            state.begin_reuse();
            let checked = read(&mut stream);
            assert!(matches!(checked, Poll::Ready(Err(_))), "{checked:?}");
            assert!(!surplus.take());
        });
    }

    #[test]
    fn a_quiet_connection_passes_its_check_out() {
        run(async {
            let (mut stream, state, surplus, mut server) = connected().await;
            for _ in 0..3 {
                exchange(&mut stream, &state, &mut server).await;
                state.begin_reuse();
                assert!(read(&mut stream).is_pending());
            }
            assert!(!surplus.take());
        });
    }

    #[test]
    fn a_write_during_the_response_prevents_reuse() {
        run(async {
            let (mut stream, state, _surplus, mut server) = connected().await;
            write(&mut stream);
            server.write_all(b"response").unwrap();
            assert_eq!(stream.read(&mut [0; 100]).await.unwrap(), 8);
            write(&mut stream);
            assert!(!state.check_in());
        });
    }

    #[test]
    fn a_connection_without_a_response_is_not_reused() {
        run(async {
            let (mut stream, state, _surplus, _server) = connected().await;
            assert!(!state.check_in());
            write(&mut stream);
            assert!(!state.check_in());
        });
    }
}
