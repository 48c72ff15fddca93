//! The gate as a process: startup, drain and graceful shutdown of all parts.

mod background;
mod certificates;
mod changes;
pub mod compile;
pub mod config_source;
mod config_watcher;
mod control_thread;
mod descriptors;
mod listen_error;
mod sockets;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config::Address;
use crate::observe::metrics::Metrics;
use crate::proxy::shared::{Phase, Shared};

pub use compile::App;
use config_watcher::ConfigWatcher;
use control_thread::Control;
use descriptors::Capacity;
pub use listen_error::ListenError;
use sockets::{SocketFile, SocketOpener};

/// Longest time to flush spans to the collector at shutdown.
const SPAN_FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Startup error.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A listener could not be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A thread could not be spawned, or a socket not be configured.
    #[error("start a thread: {0}")]
    Thread(#[from] io::Error),
}

/// Handle of the running gate.
#[derive(Debug)]
pub struct Running {
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    address: Address,
    addresses: Vec<Address>,
    socket_files: Vec<SocketFile>,
    admin_address: SocketAddr,
    workers: Vec<JoinHandle<worker::WorkerExit>>,
    reload_request: Arc<Notify>,
}

impl App {
    /// Binds all sockets and starts all threads. Requests are served when it returns.
    pub fn start(self, clock: Clock) -> Result<Running, AppError> {
        let Self {
            config,
            listeners,
            policy,
            remote_keys,
            warnings,
            source,
        } = self;
        let listen = &config.listen;
        let count = match listen.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        let capacity = Capacity::of_process(listen.max_connections, count, listeners.len());
        let expiries = certificates::expiries(&listeners);
        let reloaders = certificates::reloaders(&listeners);
        let mut worker_sockets: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
        let mut sockets = SocketOpener::new();
        let mut addresses = Vec::with_capacity(listeners.len());
        let mut socket_files = Vec::new();
        for (index, mut listener) in listeners.into_iter().enumerate() {
            let (address, opened) =
                sockets
                    .listen(&listener.address, count)
                    .map_err(|source| ListenError {
                        address: listener.address.clone(),
                        setting: setting(index),
                        source,
                    })?;
            socket_files.extend(SocketFile::of(&address));
            addresses.push(address.clone());
            listener.address = address;
            let listener = Arc::new(listener);
            for (sockets_of_worker, socket) in worker_sockets.iter_mut().zip(opened) {
                sockets_of_worker.push((Arc::clone(&listener), socket));
            }
        }
        let admin =
            std::net::TcpListener::bind(config.admin.address).map_err(|source| ListenError {
                address: Address::Tcp(config.admin.address),
                setting: "`address` of [admin]".to_owned(),
                source,
            })?;
        admin.set_nonblocking(true)?;
        let admin_address = admin.local_addr()?;

        let metrics = Arc::new(Metrics::new(count, expiries));
        metrics.config.started(clock.now());
        background::register(&metrics, &policy, &remote_keys);
        let watcher = source.map(|source| ConfigWatcher {
            source,
            started: config.clone(),
            warnings,
            metrics: Arc::clone(&metrics),
            clock: clock.clone(),
        });
        let shared = Arc::new(Shared::new(policy, clock, capacity.clients));
        let reload_request = Arc::<Notify>::default();
        let control = Control {
            admin,
            max_admin_connections: capacity.admin,
            remote_keys,
            reloaders,
            watcher,
            reload_request: Arc::clone(&reload_request),
            shared: Arc::clone(&shared),
            metrics: Arc::clone(&metrics),
        };
        control.start()?;
        let mut workers = Vec::with_capacity(count);
        for (number, (listeners, metrics)) in
            worker_sockets.into_iter().zip(&metrics.workers).enumerate()
        {
            let worker = worker::Worker {
                number,
                listeners,
                shared: Arc::clone(&shared),
                metrics: Arc::clone(metrics),
            };
            workers.push(worker.start()?);
        }
        let named: Vec<String> = addresses.iter().map(Address::to_string).collect();
        info!(address = %named.join(" "), admin = %admin_address, workers = count, "serving");
        Ok(Running {
            shared,
            metrics,
            address: addresses.first().unwrap_or(&listen.address).clone(),
            addresses,
            socket_files,
            admin_address,
            workers,
            reload_request,
        })
    }
}

/// Setting of a listener's address: `[listen]` is the first listener, and `[[listeners]]` has the others.
fn setting(index: usize) -> String {
    match index.checked_sub(1) {
        None => "`address` of [listen]".to_owned(),
        Some(additional) => format!("`address` of listeners[{additional}]"),
    }
}

impl Running {
    /// Bound address of `[listen]`.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Bound addresses of all listeners: `[listen]` first, then `[[listeners]]`.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Bound address of the admin listener.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// State shared by all threads.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Requests a configuration reload, as SIGHUP does. The log states if the configuration is unchanged.
    pub fn reload(&self) {
        self.reload_request.notify_one();
    }

    /// Begins graceful shutdown: rejects new requests, finishes those in flight.
    pub fn stop(&self) {
        let grace = self.shared.policy().grace;
        info!(?grace, "shutting down: finishing requests in flight");
        self.shared.advance(Phase::Stopping);
    }

    /// Waits for all connections to end, at most for the grace period. Returns the number of connections closed at
    /// its end.
    pub fn wait(self) -> usize {
        let mut closed = 0;
        for worker in self.workers {
            match worker.join() {
                Ok(stopped) => closed += stopped.closed,
                Err(_) => closed += 1,
            }
        }
        self.metrics.spans.finish(SPAN_FLUSH_TIMEOUT);
        // A stale socket file would suggest a running gate.
        self.socket_files.iter().for_each(SocketFile::remove);
        if closed > 0 {
            warn!(
                closed,
                "stopped; closed connections still open at the end of the grace period"
            );
        } else {
            info!("stopped");
        }
        closed
    }
}
