//! Worker: one thread with an event loop, a socket per listener and its own upstream connections.

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
use crate::proxy::inbound::acceptor::Acceptor;
use crate::proxy::inbound::listener::{Listener, ListenerConfig};
use crate::proxy::shared::{Phase, Shared};

use super::sockets::ListenSocket;

/// Interval of the heartbeat, which shows that the event loop runs.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Parts of a worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) number: usize,
    pub(super) listeners: Vec<(Arc<ListenerConfig>, ListenSocket)>,
    pub(super) shared: Arc<Shared>,
    pub(super) metrics: Arc<WorkerMetrics>,
}

#[derive(Debug)]
pub(super) struct WorkerExit {
    /// Connections closed at the end of the grace period.
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
                // Dropping the runtime closes the remaining connections.
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
