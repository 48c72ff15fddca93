//! Executors that run hyper's tasks on the worker's own thread.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use hyper::rt::Executor;
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::deadline_timer::DeadlineTimer;
use super::inbound::connection::Connection;
use super::rate_floor::RateFloor;

/// Executor for upstream HTTP/2 connections. Its tasks need not be `Send`.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalTasks;

impl<F: Future + 'static> Executor<F> for LocalTasks {
    fn execute(&self, task: F) {
        spawn_local(async move {
            task.await;
        });
    }
}

/// Executor for client HTTP/2 connections, where each task serves one stream. Resets a stream if its client reads the
/// response too slowly, and then closes the connection unless it has other streams.
#[derive(Debug, Clone)]
pub struct StreamTasks {
    pub connection: Rc<Connection>,
    pub body_timeout: Duration,
}

/// Client HTTP/2 stream, shared by its task and its response body.
#[derive(Debug, Clone)]
pub struct StreamHandle(Rc<Stream>);

#[derive(Debug)]
struct Stream {
    body_timeout: Duration,
    rate_floor: RefCell<RateFloor>,
    /// Time at which the client is too slow; none while no response data waits for it.
    deadline: Cell<Option<Instant>>,
}

thread_local! {
    static CURRENT: RefCell<Option<StreamHandle>> = const { RefCell::new(None) };
}

impl StreamHandle {
    /// Stream of the running task; none over HTTP/1.1.
    pub fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    fn new(body_timeout: Duration) -> Self {
        Self(Rc::new(Stream {
            body_timeout,
            rate_floor: RefCell::default(),
            deadline: Cell::new(None),
        }))
    }

    /// Notes that the client has read all but the send buffer of the stream, `bytes` more than at the last call.
    pub(super) fn note_progress(&self, bytes: usize) {
        self.0.rate_floor.borrow_mut().progress(bytes as u64);
        self.0.deadline.set(None);
    }

    /// Notes that response data waits for the client to read.
    pub(super) fn note_blocked(&self) {
        let deadline = self.0.rate_floor.borrow_mut().wait(self.0.body_timeout);
        self.0.deadline.set(Some(deadline));
    }
}

/// Sets the current stream until it is dropped.
struct CurrentStream;

impl CurrentStream {
    fn set(stream: &StreamHandle) -> Self {
        CURRENT.set(Some(stream.clone()));
        Self
    }
}

impl Drop for CurrentStream {
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}

impl<F: Future + 'static> Executor<F> for StreamTasks {
    fn execute(&self, task: F) {
        let stream = StreamHandle::new(self.body_timeout);
        let connection = Rc::clone(&self.connection);
        spawn_local(async move {
            if serve(task, &stream).await.is_err() {
                connection.close_if_unused();
            }
        });
    }
}

/// The client of a stream reads too slowly.
struct TooSlow;

/// Runs the task of a stream. hyper resets the stream if its task is dropped before its end.
async fn serve(task: impl Future, stream: &StreamHandle) -> Result<(), TooSlow> {
    let mut task = pin!(task);
    let mut timer = DeadlineTimer::default();
    poll_fn(|context| {
        let current = CurrentStream::set(stream);
        let polled = task.as_mut().poll(context);
        drop(current);
        if polled.is_ready() {
            return Poll::Ready(Ok(()));
        }
        match stream.0.deadline.get() {
            Some(deadline) if timer.elapsed(deadline, context) => Poll::Ready(Err(TooSlow)),
            Some(_) | None => Poll::Pending,
        }
    })
    .await
}
