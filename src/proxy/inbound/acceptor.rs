//! Accept loop of a worker: accepts and limits connections, and shuts down without losing one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::{interval, sleep};
use tracing::warn;

use crate::config::Address;
use crate::gate::refusal::Refusal;
use crate::observe::metrics::WorkerMetrics;
use crate::proxy::Proxy;
use crate::proxy::shared::{Phase, Shared};
use crate::proxy::transport::Wire;

use super::connection::Connection;
use super::listener::{Listener, ListenerConfig};
use super::open_connections::OpenConnections;
use super::serve::AcceptedConnection;
use super::service::Server;

/// Connections above the limit that get a 503 response; the rest are closed at once.
const MAX_REJECTED_WITH_RESPONSE: usize = 64;

/// Interval at which a stopping worker checks for open connections of other workers.
const SHUTDOWN_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Interval at which upstream connections are counted, outside the request path.
const POOL_SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// Pause after an accept error, such as a lack of file descriptors.
const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(50);

/// Listeners of one worker and their connections.
#[derive(Debug)]
pub struct Acceptor {
    listeners: Vec<(Arc<ListenerConfig>, Listener)>,
    /// Listener polled first; rotates, so that a busy listener does not starve another.
    next: Cell<usize>,
    server: Rc<Server>,
    shared: Arc<Shared>,
    open: Rc<OpenConnections>,
    served: Rc<ServedConnections>,
}

#[derive(Debug)]
struct AcceptedStream {
    listener: Arc<ListenerConfig>,
    wire: Wire,
    address: Option<IpAddr>,
}

/// Connections being served, for closing them on drain and shutdown.
#[derive(Debug, Default)]
struct ServedConnections {
    last_number: Cell<u64>,
    by_number: RefCell<HashMap<u64, Weak<Connection>>>,
}

/// Removes one connection from [`ServedConnections`] on drop.
struct ServedConnection {
    number: u64,
    served: Rc<ServedConnections>,
}

impl ServedConnections {
    fn add(self: &Rc<Self>, connection: &Rc<Connection>) -> ServedConnection {
        let number = self.last_number.get() + 1;
        self.last_number.set(number);
        let mut by_number = self.by_number.borrow_mut();
        by_number.insert(number, Rc::downgrade(connection));
        ServedConnection {
            number,
            served: Rc::clone(self),
        }
    }

    fn close(&self, predicate: impl Fn(&Connection) -> bool) {
        let connections: Vec<_> = self.by_number.borrow().values().cloned().collect();
        for connection in connections.iter().filter_map(Weak::upgrade) {
            if predicate(&connection) {
                connection.close();
            }
        }
    }
}

impl Drop for ServedConnection {
    fn drop(&mut self) {
        self.served.by_number.borrow_mut().remove(&self.number);
    }
}

impl Acceptor {
    pub fn new(
        listeners: Vec<(Arc<ListenerConfig>, Listener)>,
        shared: Arc<Shared>,
        metrics: Arc<WorkerMetrics>,
    ) -> Self {
        Self {
            listeners,
            next: Cell::new(0),
            server: Rc::new(Server {
                proxy: Proxy::new(Arc::clone(&shared), Arc::clone(&metrics)),
                metrics: Arc::clone(&metrics),
            }),
            open: Rc::new(OpenConnections::new(Arc::clone(&shared), metrics)),
            shared,
            served: Rc::default(),
        }
    }

    /// Serves until the process stops and every connection of every worker has closed. The caller bounds that time.
    pub async fn serve(self) {
        let (mut draining, mut stopping) = (false, false);
        let mut drain = pin!(self.shared.reaches(Phase::Draining));
        let mut stop = pin!(self.shared.reaches(Phase::Stopping));
        let mut pool_sample = interval(POOL_SAMPLE_INTERVAL);
        loop {
            tokio::select! {
                accepted = self.accept(stopping) => self.admit(accepted, stopping).await,
                _ = pool_sample.tick() => self.server.proxy.note_pools(),
                () = &mut drain, if !draining => {
                    draining = true;
                    // An HTTP/1.1 client gets `Connection: close` in its next response.
                    self.served.close(Connection::is_http2);
                }
                () = &mut stop, if !stopping => {
                    stopping = true;
                    self.admit_queued().await;
                    self.served.close(|_| true);
                }
                () = self.open.closed(), if stopping => {}
                () = sleep(SHUTDOWN_POLL_INTERVAL), if stopping => {}
            }
            // While another worker has open connections, this one keeps accepting to reject: the kernel would reset the
            // connections of a closed listener.
            if stopping && self.shared.open_connections() == 0 {
                return;
            }
        }
    }

    /// Serves the connections that the kernel queued before the shutdown began.
    async fn admit_queued(&self) {
        loop {
            tokio::select! {
                biased;
                accepted = self.accept(true) => self.admit(accepted, false).await,
                () = std::future::ready(()) => return,
            }
        }
    }

    /// Accepts from every listener in turn. During shutdown, skips sockets passed by the service manager: their queued
    /// connections belong to the next process.
    async fn accept(&self, stopping: bool) -> io::Result<AcceptedStream> {
        poll_fn(|context| {
            let next = self.next.get();
            let (before, after) = self.listeners.split_at(next.min(self.listeners.len()));
            for (config, listener) in after.iter().chain(before) {
                self.next.set((self.next.get() + 1) % self.listeners.len());
                if stopping && matches!(config.address, Address::Passed(_)) {
                    continue;
                }
                if let Poll::Ready(accepted) = listener.poll_accept(context) {
                    return Poll::Ready(accepted.map(|(wire, address)| AcceptedStream {
                        listener: Arc::clone(config),
                        wire,
                        address,
                    }));
                }
            }
            Poll::Pending
        })
        .await
    }

    async fn admit(&self, accepted: io::Result<AcceptedStream>, stopping: bool) {
        match accepted {
            Ok(accepted) => self.open(accepted, stopping),
            // The client disconnected before the accept.
            Err(error) if is_aborted_accept(&error) => {}
            Err(error) => {
                warn!("failed to accept a connection: {error}");
                sleep(ACCEPT_ERROR_PAUSE).await;
            }
        }
    }

    fn open(&self, accepted: AcceptedStream, stopping: bool) {
        let before = self.open.count();
        let registration = self.open.register(stopping);
        let connections = before.max(self.shared.open_connections());
        let above = connections.saturating_sub(self.shared.max_connections());
        if above > MAX_REJECTED_WITH_RESPONSE {
            return;
        }
        let refuses_all = match (above > 0, stopping) {
            (true, _) => Some(Refusal::Overloaded),
            (false, true) => Some(Refusal::Draining),
            (false, false) => None,
        };
        let connection = Rc::new(Connection::new(
            registration,
            accepted.listener,
            refuses_all,
        ));
        let entry = self.served.add(&connection);
        let accepted = AcceptedConnection {
            wire: accepted.wire,
            address: accepted.address,
            connection,
        };
        let server = Rc::clone(&self.server);
        spawn_local(async move {
            accepted.serve(server).await;
            drop(entry);
        });
    }
}

/// Returns true if a client disconnected before it was accepted.
fn is_aborted_accept(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
    )
}
