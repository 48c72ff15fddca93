//! What moves a connection over HTTP/2, and knows how many streams the upstream takes.

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

/// Whoever waits until something has come.
type Waiting = Rc<RefCell<Option<Waker>>>;

/// A connection, until it has ended.
#[derive(Debug)]
pub(super) struct Driver {
    connection: RefCell<Option<Connection<TokioIo<Watched>, RevocableBody, LocalTasks>>>,
    failure: RefCell<Option<hyper::Error>>,
    waiting: Waiting,
}

impl Driver {
    /// Moves the connection from now on.
    pub(super) fn start(
        connection: Connection<TokioIo<Watched>, RevocableBody, LocalTasks>,
        waiting: Waiting,
    ) -> Rc<Self> {
        let driver = Rc::new(Self {
            connection: RefCell::new(Some(connection)),
            failure: RefCell::default(),
            waiting,
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
        // What still waits in it goes back unsent.
        *connection = None;
        wake(&self.waiting);
        Poll::Ready(())
    }

    /// How many streams the upstream takes; none before it has said so.
    pub(super) fn max_streams(&self) -> usize {
        let connection = self.connection.borrow();
        let allowed = connection
            .as_ref()
            .map(Connection::current_max_send_streams);
        allowed.unwrap_or_default()
    }

    /// Waits until the upstream has said how many streams it takes.
    pub(super) async fn settles(&self) -> io::Result<()> {
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
            *self.waiting.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

fn wake(waiting: &RefCell<Option<Waker>>) {
    if let Some(waker) = waiting.borrow_mut().take() {
        waker.wake();
    }
}

/// A stream that says when something has come: hyper does not say when settings have.
#[derive(Debug)]
pub(super) struct Watched {
    stream: Stream,
    waiting: Waiting,
}

impl Watched {
    pub(super) fn new(stream: Stream) -> (Self, Waiting) {
        let waiting = Waiting::default();
        let watched = Self {
            stream,
            waiting: Rc::clone(&waiting),
        };
        (watched, waiting)
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if polled.is_ready() {
            wake(&self.waiting);
        }
        polled
    }
}

impl AsyncWrite for Watched {
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
