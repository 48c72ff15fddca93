//! Connection pool of one worker for one endpoint.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::warn;

use crate::config::Reuse;
use crate::observe::metrics::Pool;

use super::address::EndpointAddress;
use super::connect::{self, Opened};
use super::connection::Connection;
use super::http1::{Http1, SharedHttp1};
use super::http2::{Http2, Http2Stream};
use super::idle::IdleConnections;
use super::outbox::Outbox;
use super::outlier_detector::OutlierDetector;
use super::policy::UpstreamPolicy;
use super::protocol::Protocol;

/// Time without reuse of HTTP/1.1 connections after surplus bytes: the endpoint sends more than one response to a request,
/// and the next surplus may arrive when it is indistinguishable from a response.
const DISTRUST: Duration = Duration::from_hours(1);

#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) address: Arc<EndpointAddress>,
    keep_alive: Duration,
    reuse: Reuse,
    http1: Rc<SharedHttp1>,
    idle: Rc<IdleConnections>,
    shared: RefCell<Vec<Rc<Http2>>>,
    /// Held while opening a connection that other exchanges may share.
    opening: Mutex<()>,
    pub(super) outliers: OutlierDetector,
    pending: Cell<usize>,
    is_retired: Cell<bool>,
    /// The last TLS handshake negotiated HTTP/1.1.
    prefers_http1: Cell<bool>,
    distrusted_until: Cell<Option<Instant>>,
}

/// Counts one exchange with an endpoint until it is dropped.
#[derive(Debug)]
pub(super) struct PendingGuard(pub(super) Rc<Endpoint>);

impl PendingGuard {
    pub(super) fn new(endpoint: &Rc<Endpoint>) -> Self {
        endpoint.pending.set(endpoint.pending.get() + 1);
        endpoint.idle.note_demand(endpoint.pending.get());
        Self(Rc::clone(endpoint))
    }
}

impl Drop for PendingGuard {
    fn drop(&mut self) {
        self.0.pending.set(self.0.pending.get() - 1);
    }
}

impl Endpoint {
    pub(super) fn new(
        address: Arc<EndpointAddress>,
        policy: &UpstreamPolicy,
        outbox: &Rc<Outbox>,
    ) -> Self {
        Self {
            address,
            keep_alive: policy.keep_alive,
            reuse: policy.reuse,
            http1: Rc::new(SharedHttp1::new(Rc::clone(outbox))),
            idle: Rc::default(),
            shared: RefCell::default(),
            opening: Mutex::default(),
            outliers: OutlierDetector::default(),
            pending: Cell::new(0),
            is_retired: Cell::new(false),
            prefers_http1: Cell::new(false),
            distrusted_until: Cell::new(None),
        }
    }

    /// Checks out a pooled connection: a stream of a shared HTTP/2 connection, or the most recently used idle HTTP/1.1
    /// connection. An `upgrade` gets HTTP/1.1 only.
    pub(super) fn check_out(&self, upgrade: bool) -> Option<Connection> {
        if !upgrade && let Some(stream) = self.open_stream() {
            return Some(Connection::Http2(stream));
        }
        if self.is_distrusted() {
            return None;
        }
        self.idle.pop().map(Connection::Http1)
    }

    fn open_stream(&self) -> Option<Http2Stream> {
        let mut shared = self.shared.borrow_mut();
        let is_expired = |idle: Option<Duration>| idle.is_some_and(|idle| idle > self.keep_alive);
        shared.retain(|open| !open.is_closed() && !is_expired(open.idle()));
        shared
            .iter()
            .find(|open| open.has_capacity())
            .map(Http2Stream::new)
    }

    /// Opens a connection, or shares one that another exchange has just opened. The flag is true for a new connection.
    pub(super) async fn open(
        &self,
        protocol: &Protocol,
        upgrade: bool,
    ) -> io::Result<(Connection, bool)> {
        let mut opening = None;
        if !upgrade && !protocol.is_http1() && !self.prefers_http1.get() {
            opening = Some(self.opening.lock().await);
            if let Some(stream) = self.open_stream() {
                return Ok((Connection::Http2(stream), false));
            }
            if self.prefers_http1.get() {
                opening = None;
            }
        }
        let opened = connect::open(&self.address, protocol, upgrade).await?;
        let connection = match opened {
            Opened::Http1(stream) => {
                if !upgrade {
                    self.prefers_http1.set(true);
                }
                Connection::Http1(Box::new(Http1::new(stream, Rc::clone(&self.http1))))
            }
            Opened::Http2(connection) => {
                self.prefers_http1.set(false);
                let connection = Rc::new(connection);
                let stream = Http2Stream::new(&connection);
                self.shared.borrow_mut().push(connection);
                Connection::Http2(stream)
            }
        };
        drop(opening);
        Ok((connection, true))
    }

    /// Returns an HTTP/1.1 connection after a complete exchange.
    pub(super) fn check_in(&self, mut connection: Box<Http1>) {
        let may_reuse = connection.check_in(self.reuse);
        if may_reuse && !self.is_distrusted() && !self.is_retired.get() {
            let timeout = connection.keep_alive_timeout();
            let timeout = timeout.map_or(self.keep_alive, |timeout| timeout.min(self.keep_alive));
            self.idle.push(connection, timeout, self.pending());
        }
    }

    /// Returns true if HTTP/1.1 connections are not reused because of surplus bytes on one of them.
    fn is_distrusted(&self) -> bool {
        if self.http1.surplus.take() && self.reuse == Reuse::Safe {
            self.idle.clear();
            let before = self
                .distrusted_until
                .replace(Some(Instant::now() + DISTRUST));
            if before.is_none() {
                let address = &self.address;
                warn!(
                    "endpoint {address} sent bytes after a complete response; for an hour, each request to it opens a \
                     connection"
                );
            }
        }
        match self.distrusted_until.get() {
            Some(until) if Instant::now() < until => true,
            Some(_) => {
                self.distrusted_until.set(None);
                false
            }
            None => false,
        }
    }

    /// Number of exchanges in flight.
    pub(super) fn pending(&self) -> usize {
        self.pending.get()
    }

    /// Snapshot for metrics. An HTTP/1.1 connection that is being opened counts as active.
    pub(super) fn pool(&self) -> Pool {
        let shared = self.shared.borrow();
        let streams: usize = shared.iter().map(|open| open.streams()).sum();
        let (used, unused): (Vec<_>, Vec<_>) = shared.iter().partition(|open| open.streams() > 0);
        let unused = unused.iter().filter(|open| !open.is_closed());
        Pool {
            requests: self.pending() as u64,
            active: (used.len() + self.pending().saturating_sub(streams)) as u64,
            idle: (unused.count() + self.idle.len()) as u64,
        }
    }

    /// Closes idle connections and pools no more: DNS no longer returns this endpoint.
    pub(super) fn retire(&self) {
        self.is_retired.set(true);
        self.idle.clear();
        self.shared.borrow_mut().clear();
    }

    /// Returns true if the endpoint is retired and holds no connection.
    #[cfg(test)]
    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.get() && self.idle.len() == 0 && self.shared.borrow().is_empty()
    }
}
