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

/// Executor for client HTTP/2 connections, where each task serves one stream. Resets a stream if its client does not read
/// the response for `body_timeout`.
#[derive(Debug, Clone, Copy)]
pub struct StreamTasks {
    pub body_timeout: Duration,
}

/// Client HTTP/2 stream, shared by its task and its response body.
#[derive(Debug, Clone, Default)]
pub struct StreamHandle {
    blocked_since: Rc<Cell<Option<Instant>>>,
}

thread_local! {
    static CURRENT: RefCell<Option<StreamHandle>> = const { RefCell::new(None) };
}

impl StreamHandle {
    /// Stream of the running task; none over HTTP/1.1.
    pub fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Notes whether response data waits for the client to read.
    pub(super) fn set_blocked(&self, is_blocked: bool) {
        let since = is_blocked.then(Instant::now);
        self.blocked_since.set(since);
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
        let body_timeout = self.body_timeout;
        let stream = StreamHandle::default();
        spawn_local(async move {
            let mut task = pin!(task);
            let mut timer = DeadlineTimer::default();
            // hyper resets the stream if its task is dropped before its end.
            poll_fn(|context| {
                let current = CurrentStream::set(&stream);
                let polled = task.as_mut().poll(context);
                drop(current);
                let since = stream.blocked_since.get();
                if polled.is_ready()
                    || since.is_some_and(|since| timer.elapsed(since + body_timeout, context))
                {
                    return Poll::Ready(());
                }
                Poll::Pending
            })
            .await;
        });
    }
}
