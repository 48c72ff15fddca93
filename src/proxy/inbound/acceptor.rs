//! Listening: accept, limit, serve each connection, and stop without losing one.

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

use super::connection::Connection;
use super::listener::{Listener, ListenerConfig};
use super::open_connections::OpenConnections;
use super::serve::AcceptedConnection;
use super::service::Server;
use crate::proxy::Proxy;
use crate::proxy::shared::{Phase, Shared};
use crate::proxy::transport::Wire;

/// How many connections above the limit are told that they are too many; the rest are closed at once.
const TURNED_AWAY: usize = 64;

/// How often a stopping worker looks whether the others are done.
const SHUTDOWN_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// How often the connections to the upstreams are counted: never by a request.
const POOL_SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// How long accepting rests when the process has no file descriptor left.
const EXHAUSTED_REST: Duration = Duration::from_millis(50);

/// The listeners of one worker with all their connections.
#[derive(Debug)]
pub struct Acceptor {
    entries: Vec<(Arc<ListenerConfig>, Listener)>,
    /// Which is asked first, so that none has to wait for another.
    first: Cell<usize>,
    server: Rc<Server>,
    shared: Arc<Shared>,
    open: Rc<OpenConnections>,
    served: Rc<ServedConnections>,
}

/// A stream just accepted.
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
    /// A door that nobody has come through yet.
    pub fn new(
        entries: Vec<(Arc<ListenerConfig>, Listener)>,
        shared: Arc<Shared>,
        metrics: Arc<WorkerMetrics>,
    ) -> Self {
        Self {
            entries,
            first: Cell::new(0),
            server: Rc::new(Server {
                proxy: Proxy::new(Arc::clone(&shared), Arc::clone(&metrics)),
                metrics: Arc::clone(&metrics),
            }),
            open: Rc::new(OpenConnections::new(Arc::clone(&shared), metrics)),
            shared,
            served: Rc::default(),
        }
    }

    /// Serves until the process stops and every connection of every worker has ended. Whoever calls it bounds that time.
    pub async fn serve(self) {
        let (mut draining, mut stopping) = (false, false);
        let mut drain = pin!(self.shared.reaches(Phase::Draining));
        let mut stop = pin!(self.shared.reaches(Phase::Stopping));
        let mut look = interval(POOL_SAMPLE_INTERVAL);
        loop {
            tokio::select! {
                accepted = self.accept(stopping) => self.admit(accepted, stopping).await,
                _ = look.tick() => self.server.proxy.note_pools(),
                () = &mut drain, if !draining => {
                    draining = true;
                    // A client over HTTP/1.1 is sent away in its next answer.
                    self.served.close(Connection::is_http2);
                }
                () = &mut stop, if !stopping => {
                    stopping = true;
                    self.admit_waiting().await;
                    self.served.close(|_| true);
                }
                () = self.open.closed(), if stopping => {}
                () = sleep(SHUTDOWN_POLL_INTERVAL), if stopping => {}
            }
            // As long as another worker is not done, this one turns away what comes: with its listener closed, the
            // kernel would reset it.
            if stopping && self.shared.open_connections() == 0 {
                return;
            }
        }
    }

    /// Lets in what came before the stop and was not accepted yet.
    async fn admit_waiting(&self) {
        loop {
            tokio::select! {
                biased;
                accepted = self.accept(true) => self.admit(accepted, false).await,
                () = std::future::ready(()) => return,
            }
        }
    }

    /// Accepts at every entry in turn; while the gate stops, not where the next one takes over what waits.
    async fn accept(&self, stopping: bool) -> io::Result<AcceptedStream> {
        poll_fn(|context| {
            let first = self.first.get();
            let (before, after) = self.entries.split_at(first.min(self.entries.len()));
            for (config, listener) in after.iter().chain(before) {
                self.first.set((self.first.get() + 1) % self.entries.len());
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
            // The client was gone before it was accepted.
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                warn!("failed to accept a connection: {error}");
                sleep(EXHAUSTED_REST).await;
            }
        }
    }

    fn open(&self, accepted: AcceptedStream, stopping: bool) {
        let before = self.open.count();
        let registration = self.open.register(stopping);
        let connections = before.max(self.shared.open_connections());
        let above = connections.saturating_sub(self.shared.max_connections());
        if above > TURNED_AWAY {
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
        let served = self.served.add(&connection);
        let arrival = AcceptedConnection {
            wire: accepted.wire,
            address: accepted.address,
            connection,
        };
        let server = Rc::clone(&self.server);
        spawn_local(async move {
            arrival.serve(server).await;
            drop(served);
        });
    }
}

fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
    )
}
