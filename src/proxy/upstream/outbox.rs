//! Batches the first write of each request: the ready clients are served first, and then their requests are written
//! together. Written at once, each request would wake the upstream alone.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use tokio::task::spawn_local;

use super::http1::socket::Socket;

/// Requests of one worker to one upstream that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: RefCell<Vec<Rc<Socket>>>,
    /// Task that writes; none before the first request.
    writer: RefCell<Option<Waker>>,
}

impl Outbox {
    /// Writes the output of a socket after the tasks that are ready now.
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
                let outbox = Rc::downgrade(self);
                spawn_local(poll_fn(move |context| poll_write(&outbox, context)));
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

fn poll_write(outbox: &Weak<Outbox>, context: &Context<'_>) -> Poll<()> {
    let Some(outbox) = outbox.upgrade() else {
        return Poll::Ready(());
    };
    let mut writer = outbox.writer.borrow_mut();
    if writer.is_none() {
        *writer = Some(context.waker().clone());
    }
    drop(writer);
    for socket in outbox.waiting.borrow_mut().drain(..) {
        socket.write_queued();
    }
    Poll::Pending
}
