//! One server of an upstream, as a worker sees it: the connections to it.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::observe::metrics::Pool;

use super::address::EndpointAddress;
use super::connect::{self, Opened};
use super::connection::Connection;
use super::http1::Http1;
use super::http2::{Http2, Http2Stream};
use super::outlier_detector::OutlierDetector;
use super::protocol::Protocol;

/// The most connections that one worker keeps open without a use.
const MAX_IDLE: usize = 256;

/// The connections of one worker to one server.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) address: Arc<EndpointAddress>,
    keep_alive: Duration,
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Vec<Rc<Http2>>>,
    /// Whoever opens a connection that others may share.
    opening: Mutex<()>,
    pub(super) outliers: OutlierDetector,
    pending: Cell<usize>,
    is_gone: Cell<bool>,
    /// Whether it has agreed on HTTP/1.1 before.
    prefers_http1: Cell<bool>,
}

#[derive(Debug)]
struct Idle {
    connection: Http1,
    since: Instant,
}

/// One exchange with an endpoint, until it has ended.
#[derive(Debug)]
pub(super) struct Pending(pub(super) Rc<Endpoint>);

impl Pending {
    pub(super) fn with(endpoint: &Rc<Endpoint>) -> Self {
        endpoint.pending.set(endpoint.pending.get() + 1);
        Self(Rc::clone(endpoint))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.set(self.0.pending.get() - 1);
    }
}

impl Endpoint {
    pub(super) fn new(address: Arc<EndpointAddress>, keep_alive: Duration) -> Self {
        Self {
            address,
            keep_alive,
            idle: RefCell::default(),
            shared: RefCell::default(),
            opening: Mutex::default(),
            outliers: OutlierDetector::default(),
            pending: Cell::new(0),
            is_gone: Cell::new(false),
            prefers_http1: Cell::new(false),
        }
    }

    /// An open connection, if there is one that is still good: the one that was used last.
    pub(super) async fn check_out(&self, upgrade: bool) -> Option<Connection> {
        if !upgrade && let Some(stream) = self.share() {
            return Some(Connection::Http2(stream));
        }
        loop {
            let Idle {
                mut connection,
                since,
            } = self.idle.borrow_mut().pop()?;
            if since.elapsed() < self.keep_alive && connection.is_ready().await {
                return Some(Connection::Http1(connection));
            }
        }
    }

    /// A stream of a connection that has room for one more.
    fn share(&self) -> Option<Http2Stream> {
        let mut shared = self.shared.borrow_mut();
        let is_outdated = |idle: Option<Duration>| idle.is_some_and(|idle| idle > self.keep_alive);
        shared.retain(|open| !open.is_closed() && !is_outdated(open.idle()));
        shared
            .iter()
            .find(|open| open.has_room())
            .map(Http2Stream::of)
    }

    /// Opens a connection, or shares one that somebody else has just opened. Says whether it is new.
    pub(super) async fn open(
        &self,
        protocol: &Protocol,
        upgrade: bool,
    ) -> io::Result<(Connection, bool)> {
        let mut turn = None;
        if !upgrade && !protocol.is_http1() && !self.prefers_http1.get() {
            turn = Some(self.opening.lock().await);
            if let Some(stream) = self.share() {
                return Ok((Connection::Http2(stream), false));
            }
            if self.prefers_http1.get() {
                turn = None;
            }
        }
        let opened = connect::open(&self.address, protocol, upgrade).await?;
        let connection = match opened {
            Opened::Http1(connection) => {
                if !upgrade {
                    self.prefers_http1.set(true);
                }
                Connection::Http1(connection)
            }
            Opened::Http2(connection) => {
                self.prefers_http1.set(false);
                let connection = Rc::new(connection);
                let stream = Http2Stream::of(&connection);
                self.shared.borrow_mut().push(connection);
                Connection::Http2(stream)
            }
        };
        drop(turn);
        Ok((connection, true))
    }

    /// Takes a connection back: its exchange has ended in order.
    pub(super) fn check_in(&self, connection: Connection) {
        match connection {
            Connection::Http2(stream) => stream.end(),
            Connection::Http1(connection) => self.keep(connection),
        }
    }

    /// How many exchanges it has.
    pub(super) fn pending(&self) -> usize {
        self.pending.get()
    }

    /// What it has at the moment. A connection over HTTP/1.1 that is being opened counts as one in use.
    pub(super) fn pool(&self) -> Pool {
        let shared = self.shared.borrow();
        let streams: usize = shared.iter().map(|open| open.streams()).sum();
        let (used, free): (Vec<_>, Vec<_>) = shared.iter().partition(|open| open.streams() > 0);
        let free = free.iter().filter(|open| !open.is_closed());
        let idle = self.idle.borrow();
        let kept = idle.iter().filter(|idle| !idle.connection.is_closed());
        Pool {
            requests: self.pending() as u64,
            active: (used.len() + self.pending().saturating_sub(streams)) as u64,
            idle: (free.count() + kept.count()) as u64,
        }
    }

    /// Ends what nobody uses: the upstream is not here any more.
    pub(super) fn retire(&self) {
        self.is_gone.set(true);
        self.idle.borrow_mut().clear();
        self.shared.borrow_mut().clear();
    }

    /// Whether it is not here any more, and holds no connection.
    #[cfg(test)]
    pub(super) fn is_retired(&self) -> bool {
        self.is_gone.get() && self.idle.borrow().is_empty() && self.shared.borrow().is_empty()
    }

    fn keep(&self, connection: Http1) {
        if self.is_gone.get() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let now = Instant::now();
        // The first is the one that was longest without a use.
        let outdated = idle.first().is_some_and(|first| {
            first.connection.is_closed()
                || now - first.since > self.keep_alive
                || idle.len() >= MAX_IDLE
        });
        if outdated {
            idle.remove(0);
        }
        idle.push(Idle {
            connection,
            since: now,
        });
    }
}
