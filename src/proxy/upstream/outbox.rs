//! Batches the first write of each request: the ready clients are served first, and then their requests are written
//! together. Written at once, each request would wake the upstream alone.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

use tokio::task::{spawn_local, yield_now};

use super::http1::socket::Socket;

/// Requests of one worker to one upstream that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: RefCell<Vec<Rc<Socket>>>,
    /// Task that writes; none before the first request.
    writer: RefCell<Option<Waker>>,
}

impl Outbox {
    /// Writes the output of a socket after the tasks that are ready now, and after the runtime has looked for new events.
    pub(super) fn push(self: &Rc<Self>, socket: Rc<Socket>) {
        let mut waiting = self.waiting.borrow_mut();
        waiting.push(socket);
        if waiting.len() > 1 {
            // The writer is already woken.
            return;
        }
        match &*self.writer.borrow() {
            Some(writer) => writer.wake_by_ref(),
            None => {
                spawn_local(write(Rc::downgrade(self)));
            }
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.get_mut() {
            // It finds the outbox gone.
            writer.wake_by_ref();
        }
    }
}

/// Writes the waiting requests until the outbox is dropped.
async fn write(outbox: Weak<Outbox>) {
    loop {
        let is_waiting = poll_fn(|context| {
            let Some(outbox) = outbox.upgrade() else {
                return Poll::Ready(false);
            };
            let mut writer = outbox.writer.borrow_mut();
            if writer.is_none() {
                *writer = Some(context.waker().clone());
            }
            if outbox.waiting.borrow().is_empty() {
                Poll::Pending
            } else {
                Poll::Ready(true)
            }
        });
        if !is_waiting.await {
            return;
        }
        // The runtime serves the other ready tasks, and then asks the kernel for events, before it continues this one: a
        // socket that is to be reused and is not quiet has become readable by now.
        yield_now().await;
        if let Some(outbox) = outbox.upgrade() {
            for socket in outbox.waiting.borrow_mut().drain(..) {
                socket.write_queued();
            }
        }
    }
}
