//! A worker: one thread, one event loop, a socket for each listener, its own connections to the upstreams.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;
use tokio::time::{interval, timeout};
use tracing::error;

use crate::observe::metrics::WorkerMetrics;
use crate::proxy::inbound::acceptor::{Acceptor, Listener, ListenerConfig};
use crate::proxy::shared::{Phase, Shared};

use super::sockets::ListenSocket;

/// How often a worker says that its event loop turns.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// What a worker is made of.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) number: usize,
    pub(super) listeners: Vec<(Arc<ListenerConfig>, ListenSocket)>,
    pub(super) shared: Arc<Shared>,
    pub(super) metrics: Arc<WorkerMetrics>,
}

/// How a worker ended.
#[derive(Debug)]
pub(super) struct WorkerExit {
    /// How many connections it had to cut.
    pub(super) closed: usize,
}

impl Worker {
    pub(super) fn start(self) -> io::Result<JoinHandle<WorkerExit>> {
        let name = format!("worker-{}", self.number);
        let runtime = || {
            Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default())
        };
        std::thread::Builder::new()
            .name(name)
            .spawn(move || match runtime() {
                // What is left when the runtime is dropped is cut.
                Ok(runtime) => runtime.block_on(self.serve()),
                Err(error) => {
                    error!("failed to start the event loop of a worker: {error}");
                    WorkerExit { closed: 0 }
                }
            })
    }

    async fn serve(self) -> WorkerExit {
        let listeners = self.listeners.into_iter();
        let listeners = listeners.map(|(listener, socket)| Ok((listener, socket.into_listener()?)));
        let listeners = match listeners.collect::<io::Result<Vec<_>>>() {
            Ok(listeners) => listeners,
            Err(error) => {
                error!("failed to listen in the event loop of a worker: {error}");
                return WorkerExit { closed: 0 };
            }
        };
        spawn_local(heartbeat(Arc::clone(&self.metrics)));
        let acceptor = Acceptor::new(
            listeners,
            Arc::clone(&self.shared),
            Arc::clone(&self.metrics),
        );
        let serving = acceptor.serve();
        tokio::pin!(serving);
        tokio::select! {
            () = &mut serving => return WorkerExit { closed: 0 },
            () = self.shared.reaches(Phase::Stopping) => {}
        }
        match timeout(self.shared.policy().grace, serving).await {
            Ok(()) => WorkerExit { closed: 0 },
            Err(_) => WorkerExit {
                closed: self.metrics.open_connections(),
            },
        }
    }
}

impl ListenSocket {
    fn into_listener(self) -> io::Result<Listener> {
        Ok(match self {
            Self::Tcp(socket) => Listener::Tcp(TcpListener::from_std(socket)?),
            Self::Unix(socket) => Listener::Unix(UnixListener::from_std(socket)?),
        })
    }
}

async fn heartbeat(metrics: Arc<WorkerMetrics>) {
    let mut ticks = interval(HEARTBEAT);
    loop {
        ticks.tick().await;
        metrics.beat();
    }
}
