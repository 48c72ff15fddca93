//! Drives an HTTP/2 connection and reports the peer's limit of concurrent streams.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use hyper::client::conn::http2::Connection;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::spawn_local;

use crate::proxy::tasks::LocalTasks;
use crate::proxy::transport::Stream;

use super::revocable_body::RevocableBody;

/// Task that waits for the settings of the peer.
type SettingsWaker = Rc<RefCell<Option<Waker>>>;

#[derive(Debug)]
pub(super) struct Driver {
    connection: RefCell<Option<Connection<TokioIo<WakeOnRead>, RevocableBody, LocalTasks>>>,
    failure: RefCell<Option<hyper::Error>>,
    waker: SettingsWaker,
}

impl Driver {
    /// Spawns the task that polls the connection.
    pub(super) fn start(
        connection: Connection<TokioIo<WakeOnRead>, RevocableBody, LocalTasks>,
        waker: SettingsWaker,
    ) -> Rc<Self> {
        let driver = Rc::new(Self {
            connection: RefCell::new(Some(connection)),
            failure: RefCell::default(),
            waker,
        });
        spawn_local({
            let driver = Rc::clone(&driver);
            poll_fn(move |context| driver.poll(context))
        });
        driver
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut connection = self.connection.borrow_mut();
        if let Some(open) = connection.as_mut() {
            match Pin::new(open).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(ended) => *self.failure.borrow_mut() = ended.err(),
            }
        }
        // Dropping the connection returns the queued requests unsent.
        *connection = None;
        wake(&self.waker);
        Poll::Ready(())
    }

    /// `SETTINGS_MAX_CONCURRENT_STREAMS` of the peer; 0 before its settings arrive or after the connection closed.
    pub(super) fn max_streams(&self) -> usize {
        let connection = self.connection.borrow();
        let allowed = connection
            .as_ref()
            .map(Connection::current_max_send_streams);
        allowed.unwrap_or_default()
    }

    /// Waits for the settings of the peer.
    pub(super) async fn wait_for_settings(&self) -> io::Result<()> {
        poll_fn(|context| {
            if self.max_streams() > 0 {
                return Poll::Ready(Ok(()));
            }
            if self.connection.borrow().is_none() {
                let failure = self.failure.borrow_mut().take();
                let closed = || io::ErrorKind::UnexpectedEof.into();
                let failure = failure.map_or_else(closed, io::Error::other);
                return Poll::Ready(Err(failure));
            }
            *self.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

fn wake(waker: &RefCell<Option<Waker>>) {
    if let Some(waker) = waker.borrow_mut().take() {
        waker.wake();
    }
}

/// Stream that wakes the [`Driver`]'s waiting task after each read: hyper does not report received settings.
#[derive(Debug)]
pub(super) struct WakeOnRead {
    stream: Stream,
    waker: SettingsWaker,
}

impl WakeOnRead {
    pub(super) fn new(stream: Stream) -> (Self, SettingsWaker) {
        let waker = SettingsWaker::default();
        let stream = Self {
            stream,
            waker: Rc::clone(&waker),
        };
        (stream, waker)
    }
}

impl AsyncRead for WakeOnRead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if polled.is_ready() {
            wake(&self.waker);
        }
        polled
    }
}

impl AsyncWrite for WakeOnRead {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
