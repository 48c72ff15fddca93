//! Tasks of hyper on the worker that started them.

use std::future::Future;

use hyper::rt::Executor;
use tokio::task::spawn_local;

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
