//! Listening: accept, limit, serve each connection, and stop without losing one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::gate::refusal::Refusal;
use crate::observe::metrics::{HeadFault, WorkerMetrics};

use super::Proxy;
use super::headers::Peer;
use super::shared::{Phase, Shared};
use super::socket::{Connection, Socket, Stream, Timeouts};

/// How many connections above the limit are told that they are too many; the rest are closed at once.
const TURNED_AWAY: usize = 64;

/// How often a stopping worker looks whether the others are done.
const GLANCE: Duration = Duration::from_millis(10);

/// How long accepting rests when the process has no file descriptor left.
const EXHAUSTED_REST: Duration = Duration::from_millis(50);

/// Where one worker listens.
#[derive(Debug)]
pub enum Listener {
    /// Over TCP.
    Tcp(TcpListener),
    /// Over a Unix socket.
    Unix(UnixListener),
}

/// The limits of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a client may take.
    pub timeouts: Timeouts,
    /// The largest head, in bytes.
    pub max_header_bytes: usize,
}

/// The listener of one worker with all its connections.
#[derive(Debug)]
pub struct Door {
    listener: Listener,
    limits: Limits,
    proxy: Rc<Proxy>,
    shared: Arc<Shared>,
    metrics: Arc<WorkerMetrics>,
    open: Rc<OpenConnections>,
}

/// The connections of one worker that have not ended.
#[derive(Debug, Default)]
struct OpenConnections {
    last_number: Cell<u64>,
    by_number: RefCell<HashMap<u64, Weak<Connection>>>,
    changed: Notify,
}

/// Counts a connection as long as it lives, tunnels included.
#[derive(Debug)]
pub struct Registration {
    number: u64,
    /// It came after the stop began: it is turned away, and the stop does not wait for it.
    is_late: bool,
    open: Rc<OpenConnections>,
    shared: Arc<Shared>,
    metrics: Arc<WorkerMetrics>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.open.by_number.borrow_mut().remove(&self.number);
        self.open.changed.notify_one();
        if !self.is_late {
            self.shared.connection_closed();
        }
        self.metrics.connection_closed();
    }
}

impl Listener {
    async fn accept(&self) -> io::Result<(Stream, Option<IpAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Some(address.ip().to_canonical())))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), None))
            }
        }
    }
}

impl Door {
    /// A door that nobody has come through yet.
    pub fn new(
        listener: Listener,
        limits: Limits,
        shared: Arc<Shared>,
        metrics: Arc<WorkerMetrics>,
    ) -> Self {
        Self {
            listener,
            limits,
            proxy: Rc::new(Proxy::new(Arc::clone(&shared), Arc::clone(&metrics))),
            shared,
            metrics,
            open: Rc::default(),
        }
    }

    /// Serves until the process stops and every connection of every worker has ended. Whoever calls it bounds that time.
    pub async fn serve(self) {
        let mut stopping = false;
        let mut stop = pin!(self.shared.reaches(Phase::Stopping));
        loop {
            tokio::select! {
                accepted = self.listener.accept() => self.admit(accepted, stopping).await,
                () = &mut stop, if !stopping => {
                    stopping = true;
                    self.admit_waiting().await;
                    self.close_all();
                }
                () = self.open.changed.notified(), if stopping => {}
                () = sleep(GLANCE), if stopping => {}
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
                accepted = self.listener.accept() => self.admit(accepted, false).await,
                () = std::future::ready(()) => return,
            }
        }
    }

    fn close_all(&self) {
        let connections: Vec<_> = self.open.by_number.borrow().values().cloned().collect();
        for connection in connections {
            if let Some(connection) = connection.upgrade() {
                connection.close();
            }
        }
    }

    async fn admit(&self, accepted: io::Result<(Stream, Option<IpAddr>)>, stopping: bool) {
        match accepted {
            Ok((stream, address)) => self.open(stream, address, stopping),
            // The client was gone before it was accepted.
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                warn!("failed to accept a connection: {error}");
                sleep(EXHAUSTED_REST).await;
            }
        }
    }

    fn open(&self, stream: Stream, address: Option<IpAddr>, stopping: bool) {
        let registration = self.register(stopping);
        let connections = self
            .open
            .by_number
            .borrow()
            .len()
            .max(self.shared.open_connections());
        let above = connections.saturating_sub(self.shared.max_connections);
        if above > TURNED_AWAY {
            return;
        }
        let refuses_all = match (above > 0, stopping) {
            (true, _) => Some(Refusal::Overloaded),
            (false, true) => Some(Refusal::Draining),
            (false, false) => None,
        };
        let number = registration.number;
        let connection = Rc::new(Connection::new(registration, refuses_all));
        self.open
            .by_number
            .borrow_mut()
            .insert(number, Rc::downgrade(&connection));
        let socket = Socket::new(stream, &connection, self.limits.timeouts);
        let peer = Rc::new(Peer {
            address,
            ..Peer::default()
        });
        spawn_local(serve_connection(
            socket,
            connection,
            Rc::clone(&self.proxy),
            peer,
            self.limits,
            Arc::clone(&self.metrics),
        ));
    }

    fn register(&self, is_late: bool) -> Registration {
        let number = self.open.last_number.get() + 1;
        self.open.last_number.set(number);
        self.metrics.connection_opened();
        if !is_late {
            self.shared.connection_opened();
        }
        Registration {
            number,
            is_late,
            open: Rc::clone(&self.open),
            shared: Arc::clone(&self.shared),
            metrics: Arc::clone(&self.metrics),
        }
    }
}

async fn serve_connection(
    socket: Socket,
    connection: Rc<Connection>,
    proxy: Rc<Proxy>,
    peer: Rc<Peer>,
    limits: Limits,
    metrics: Arc<WorkerMetrics>,
) {
    let service = {
        let (connection, peer) = (Rc::clone(&connection), Rc::clone(&peer));
        service_fn(move |request| {
            let (proxy, connection) = (Rc::clone(&proxy), Rc::clone(&connection));
            let peer = Rc::clone(&peer);
            async move { Ok::<_, Infallible>(proxy.handle(request, connection, peer).await) }
        })
    };
    let mut builder = http1::Builder::new();
    // The socket keeps the deadlines. A head that is a little too large is still read, to be answered in words.
    builder
        .writev(false)
        .header_read_timeout(None)
        .max_buf_size(limits.max_header_bytes.saturating_mul(2).max(16 * 1024));
    let serving = builder
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    let mut serving = pin!(serving);
    let mut told = false;
    let served = poll_fn(|context| {
        loop {
            // What has arrived is read before an idle connection is closed, so that no request is lost.
            if let Poll::Ready(served) = serving.as_mut().poll(context) {
                return Poll::Ready(served);
            }
            if told || !connection.is_closing(context) {
                return Poll::Pending;
            }
            told = true;
            serving.as_mut().graceful_shutdown();
        }
    })
    .await;
    let (fault, cause) = match served {
        Err(error) if error.is_parse_too_large() => (HeadFault::TooLarge, Some(error.to_string())),
        Err(error) if error.is_parse() => (HeadFault::Malformed, Some(error.to_string())),
        Ok(()) | Err(_) if connection.head_was_late() => (HeadFault::TooLate, None),
        Ok(()) | Err(_) => return,
    };
    metrics.head_refused(fault);
    let client = peer.address.map(tracing::field::display);
    info!(client, reason = fault.reason(), cause, "refused a head");
}

fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected
    )
}
