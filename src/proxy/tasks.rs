//! Tasks of hyper on the worker that started them.

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

/// Runs what hyper starts for a connection over HTTP/2 on the thread of that connection: nothing has to be `Send`.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalTasks;

impl<F: Future + 'static> Executor<F> for LocalTasks {
    fn execute(&self, task: F) {
        spawn_local(async move {
            task.await;
        });
    }
}

/// As [`LocalTasks`], for a server, where each task is one stream: it has a handle, and a client that does not take what
/// the gate has for it is cut off after a while.
#[derive(Debug, Clone, Copy)]
pub struct StreamTasks {
    /// How long a client may take nothing of an answer.
    pub body_timeout: Duration,
}

/// The stream of a client over HTTP/2, as its task and the answer on it share it.
#[derive(Debug, Clone, Default)]
pub struct StreamHandle {
    waits_for_client_since: Rc<Cell<Option<Instant>>>,
}

thread_local! {
    static CURRENT: RefCell<Option<StreamHandle>> = const { RefCell::new(None) };
}

impl StreamHandle {
    /// The stream whose task is running. None over HTTP/1.1.
    pub fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Notes whether something of the answer waits for the client to take it.
    pub(super) fn waits_for_client(&self, waits: bool) {
        let since = waits.then(Instant::now);
        self.waits_for_client_since.set(since);
    }
}

/// Makes a stream the current one until it is dropped.
struct Running;

impl Running {
    fn begin(stream: &StreamHandle) -> Self {
        CURRENT.set(Some(stream.clone()));
        Self
    }
}

impl Drop for Running {
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
            // hyper resets a stream whose task is dropped before its end.
            poll_fn(|context| {
                let running = Running::begin(&stream);
                let polled = task.as_mut().poll(context);
                drop(running);
                let since = stream.waits_for_client_since.get();
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
