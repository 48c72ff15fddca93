//! Byte streams to clients and upstreams: TCP or Unix socket, plain or TLS.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

/// Stream that carries HTTP.
#[derive(Debug)]
pub enum Stream {
    Plain(Wire),
    /// Boxed because of its size.
    Tls(Box<TlsStream<Wire>>),
}

/// TCP or Unix socket. Bytes put back are read first.
#[derive(Debug)]
pub struct Wire {
    transport: Transport,
    put_back: Bytes,
    /// Bytes that the kernel has accepted.
    written: u64,
}

#[derive(Debug)]
enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl From<TcpStream> for Wire {
    fn from(stream: TcpStream) -> Self {
        Self {
            transport: Transport::Tcp(stream),
            put_back: Bytes::new(),
            written: 0,
        }
    }
}

impl From<UnixStream> for Wire {
    fn from(stream: UnixStream) -> Self {
        Self {
            transport: Transport::Unix(stream),
            put_back: Bytes::new(),
            written: 0,
        }
    }
}

/// Size of one read before HTTP, in bytes: large enough for most first requests.
const FIRST_READ_BYTES: usize = 2048;

/// Appends the bytes of one read and returns their number; 0 at the end of the stream.
pub(super) async fn read_more<S: AsyncRead + Unpin>(
    stream: &mut S,
    bytes: &mut Vec<u8>,
) -> io::Result<usize> {
    poll_fn(|context| poll_read_more(stream, context, bytes)).await
}

/// See [`read_more`].
pub(super) fn poll_read_more<S: AsyncRead + Unpin>(
    stream: &mut S,
    context: &mut Context<'_>,
    bytes: &mut Vec<u8>,
) -> Poll<io::Result<usize>> {
    let mut scratch = [0; FIRST_READ_BYTES];
    let mut buffer = ReadBuf::new(&mut scratch);
    ready!(Pin::new(stream).poll_read(context, &mut buffer))?;
    bytes.extend_from_slice(buffer.filled());
    Poll::Ready(Ok(buffer.filled().len()))
}

impl Wire {
    /// See [`read_more`].
    pub(in crate::proxy) async fn read_more(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        read_more(self, bytes).await
    }

    /// Puts bytes back, to be read again first.
    pub(in crate::proxy) fn put_back(&mut self, bytes: Vec<u8>) {
        self.put_back = bytes.into();
    }

    fn count(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &written {
            self.written += *count as u64;
        }
        written
    }

    /// Registers the task for unread bytes. Ready if the runtime knows of some, or of the end of the stream.
    fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        let polled = match &self.transport {
            Transport::Tcp(stream) => stream.poll_read_ready(context),
            Transport::Unix(stream) => stream.poll_read_ready(context),
        };
        // A read reports the error.
        polled.map(|_| ())
    }

    /// Returns true if the runtime knows of unread bytes or of the end of the stream, and the kernel has them still. Changes no
    /// registration of a task.
    fn is_readable(&self) -> bool {
        let check = || match self.peek(&mut [0]) {
            Ok(None) => Err(io::ErrorKind::WouldBlock.into()),
            Ok(Some(_)) | Err(_) => Ok(()),
        };
        let checked = match &self.transport {
            Transport::Tcp(stream) => stream.try_io(Interest::READABLE, check),
            Transport::Unix(stream) => stream.try_io(Interest::READABLE, check),
        };
        checked.is_ok()
    }

    /// Copies the first unread bytes and returns their number; 0 at the end of the stream, `None` if there are none yet.
    /// Asks the kernel: the runtime learns of new bytes only when it next waits for events.
    fn peek(&self, bytes: &mut [u8]) -> io::Result<Option<usize>> {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = match &self.transport {
            Transport::Tcp(stream) => recv(stream, bytes, flags),
            Transport::Unix(stream) => recv(stream, bytes, flags),
        };
        match peeked {
            Ok((_, count)) => Ok(Some(count)),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Stream {
    /// Bytes that the kernel has accepted, TLS records included.
    pub(super) fn written(&self) -> u64 {
        match self {
            Self::Plain(wire) => wire.written,
            Self::Tls(stream) => stream.get_ref().0.written,
        }
    }

    /// See [`Wire::poll_read_ready`]. Over TLS, the bytes are encrypted.
    pub(super) fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Plain(wire) => wire.poll_read_ready(context),
            Self::Tls(stream) => stream.get_ref().0.poll_read_ready(context),
        }
    }

    /// See [`Wire::is_readable`]. Over TLS, the bytes are encrypted.
    pub(super) fn is_readable(&self) -> bool {
        match self {
            Self::Plain(wire) => wire.is_readable(),
            Self::Tls(stream) => stream.get_ref().0.is_readable(),
        }
    }

    /// See [`Wire::peek`]. Over TLS, the bytes are encrypted.
    pub(super) fn peek(&self, bytes: &mut [u8]) -> io::Result<Option<usize>> {
        match self {
            Self::Plain(wire) => wire.peek(bytes),
            Self::Tls(stream) => stream.get_ref().0.peek(bytes),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.put_back.is_empty() {
            let count = self.put_back.len().min(buffer.remaining());
            buffer.put_slice(self.put_back.get(..count).unwrap_or_default());
            self.put_back.advance(count);
            if self.put_back.is_empty() {
                self.put_back = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Transport::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Transport::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        };
        self.count(written)
    }

    /// rustls writes several records at once. The last may be an alert, so all of them must go out.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Transport::Unix(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        };
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Transport::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Transport::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_write_vectored(context, parts),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(wire) => wire.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
