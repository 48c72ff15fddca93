//! Accept loop of a worker: accepts and limits connections, and shuts down without losing one.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::task::{spawn_local, yield_now};
use tokio::time::{Instant, interval, sleep};
use tracing::warn;

use crate::config::Address;
use crate::gate::refusal::Refusal;
use crate::observe::metrics::{ConnectionLimit, WorkerMetrics};
use crate::proxy::Proxy;
use crate::proxy::shared::{Phase, Shared};
use crate::proxy::transport::Wire;

use super::connection::Connection;
use super::listener::{Listener, ListenerConfig};
use super::open_connections::OpenConnections;
use super::serve::AcceptedConnection;
use super::served_connections::ServedConnections;
use super::service::Server;

/// Most idle connections closed at once to make room. Finding them takes a look at every connection.
const MAX_EVICTED: usize = 32;

/// Checks whether other workers have closed idle connections, and their interval.
const EVICTION_CHECKS: usize = 5;
const EVICTION_CHECK_INTERVAL: Duration = Duration::from_millis(1);

/// Pause of the search for idle connections after one that found none.
const EVICTION_PAUSE: Duration = Duration::from_millis(20);

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
    /// Time of the next search for idle connections.
    next_eviction: Cell<Option<Instant>>,
}

#[derive(Debug)]
struct AcceptedStream {
    listener: Arc<ListenerConfig>,
    wire: Wire,
    address: Option<IpAddr>,
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
            next_eviction: Cell::new(None),
        }
    }

    /// Serves until the process stops and every connection of every worker has closed. The caller bounds that time.
    pub async fn serve(self) {
        let (mut draining, mut stopping) = (false, false);
        let mut drain = pin!(self.shared.reaches(Phase::Draining));
        let mut stop = pin!(self.shared.reaches(Phase::Stopping));
        let mut pool_sample = interval(POOL_SAMPLE_INTERVAL);
        let mut room_requests = self.shared.room_requests();
        loop {
            tokio::select! {
                accepted = self.accept(stopping) => self.admit(accepted, stopping).await,
                _ = pool_sample.tick() => self.server.proxy.note_pools(),
                Ok(()) = room_requests.changed() => {
                    self.evict_idle(1);
                }
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
            Ok(accepted) => self.open(accepted, stopping).await,
            // The client disconnected before the accept.
            Err(error) if is_aborted_accept(&error) => {}
            Err(error) => {
                warn!("failed to accept a connection: {error}");
                sleep(ACCEPT_ERROR_PAUSE).await;
            }
        }
    }

    async fn open(&self, accepted: AcceptedStream, stopping: bool) {
        let before = self.open.count();
        let registration = self.open.register(stopping);
        let mut above = self.above_limit(before);
        if above > 0 && !stopping {
            self.make_room(before).await;
            above = self.above_limit(before);
        }
        let client = accepted.client_address();
        let client = client.and_then(|address| self.shared.enter_client(address));
        let above_client = client.as_ref().map_or(0, |(_, above)| *above);
        let metrics = &self.server.metrics;
        if above > 0 {
            metrics.connection_rejected(ConnectionLimit::Total);
        } else if above_client > 0 {
            metrics.connection_rejected(ConnectionLimit::PerClient);
        }
        if above.max(above_client) > self.shared.max_rejected() {
            return;
        }
        let refuses_all = match (above.max(above_client) > 0, stopping) {
            (true, _) => Some(Refusal::Overloaded),
            (false, true) => Some(Refusal::Draining),
            (false, false) => None,
        };
        let connection = Rc::new(Connection::new(
            registration,
            accepted.listener,
            refuses_all,
        ));
        if let Some((slot, _)) = client {
            connection.set_client(slot);
        }
        let entry = self.served.begin();
        let (number, weak) = (entry.number, Rc::downgrade(&connection));
        let accepted = AcceptedConnection {
            wire: accepted.wire,
            address: accepted.address,
            connection,
        };
        let server = Rc::clone(&self.server);
        let task = spawn_local(async move {
            accepted.serve(server).await;
            drop(entry);
        });
        self.served.add(number, weak, task.abort_handle());
    }

    /// Number of open connections above the limit. `before` is that of this worker before the newest one.
    fn above_limit(&self, before: usize) -> usize {
        let open = before.max(self.shared.open_connections());
        let open = open.saturating_sub(self.served.evicted());
        open.saturating_sub(self.shared.max_connections())
    }

    /// Closes the oldest idle connections of this worker, or if it has none, lets the other workers close theirs.
    async fn make_room(&self, before: usize) {
        let now = Instant::now();
        if self.next_eviction.get().is_some_and(|next| now < next) {
            return;
        }
        if self.evict_idle(self.above_limit(before)) {
            // The tasks of the evicted connections run, and free their descriptors.
            yield_now().await;
            return;
        }
        self.shared.request_room();
        for _ in 0..EVICTION_CHECKS {
            sleep(EVICTION_CHECK_INTERVAL).await;
            if self.above_limit(before) == 0 {
                return;
            }
        }
        self.next_eviction.set(Some(now + EVICTION_PAUSE));
    }

    /// Closes the oldest idle connections of this worker, `above` at least: rejected ones, which stay open until they are
    /// read or time out, would otherwise cause further rejections. Returns whether there was one.
    fn evict_idle(&self, above: usize) -> bool {
        let count = (self.shared.max_connections() / 64)
            .clamp(1, MAX_EVICTED)
            .max(above);
        let evicted = self.served.evict(count);
        self.server.metrics.connections_evicted(evicted);
        evicted > 0
    }
}

impl AcceptedStream {
    /// Client address, if the connection alone tells it.
    fn client_address(&self) -> Option<IpAddr> {
        self.address.filter(|_| !self.listener.proxy_protocol)
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
