//! State of one client connection, shared by its exchanges and its socket.

use std::cell::{Cell, OnceCell, RefCell};
use std::sync::Arc;
use std::task::{Context, Waker};

use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

use crate::gate::refusal::Refusal;
use crate::proxy::informational::InformationalQueue;

use super::client_connections::ClientSlot;
use super::deadlines::ConnectionDeadlines;
use super::flush_signal::FlushSignal;
use super::limits::Timeouts;
use super::listener::ListenerConfig;
use super::open_connections::Registration;

/// Client connection.
#[derive(Debug)]
pub struct Connection {
    deadlines: Arc<ConnectionDeadlines>,
    informational: Arc<InformationalQueue>,
    flush_signal: Arc<FlushSignal>,
    /// Number of concurrent exchanges.
    exchanges: Cell<usize>,
    /// The request body of the last exchange was incomplete when its response ended.
    leaves_body_unread: Cell<bool>,
    /// A request asked to switch protocols.
    may_switch: Cell<bool>,
    closing: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    listener: Arc<ListenerConfig>,
    refuses_all: OnceCell<Refusal>,
    client: OnceCell<ClientSlot>,
    _registration: Registration,
}

impl Connection {
    /// Accepted connection that waits for its first request head.
    pub(super) fn new(
        registration: Registration,
        listener: Arc<ListenerConfig>,
        refuses_all: Option<Refusal>,
    ) -> Self {
        Self {
            deadlines: Arc::new(ConnectionDeadlines::new()),
            informational: Arc::default(),
            flush_signal: Arc::default(),
            exchanges: Cell::new(0),
            leaves_body_unread: Cell::new(false),
            may_switch: Cell::new(false),
            closing: Cell::new(false),
            waker: RefCell::new(None),
            listener,
            refuses_all: refuses_all.map_or_else(OnceCell::new, OnceCell::from),
            client: OnceCell::new(),
            _registration: registration,
        }
    }

    pub(super) fn deadlines(&self) -> Arc<ConnectionDeadlines> {
        Arc::clone(&self.deadlines)
    }

    pub(in crate::proxy) fn listener(&self) -> &ListenerConfig {
        &self.listener
    }

    /// Refusal that every request of this connection gets, on overload or shutdown.
    pub(in crate::proxy) fn refuses_all(&self) -> Option<Refusal> {
        self.refuses_all.get().cloned()
    }

    /// Rejects every request of this connection.
    pub(super) fn refuse_all(&self, refusal: Refusal) {
        let _first = self.refuses_all.set(refusal);
    }

    /// Counts the connection for its client.
    pub(super) fn set_client(&self, slot: ClientSlot) {
        let _once = self.client.set(slot);
    }

    /// Time since which the connection waits for a request head, if it may be closed to make room for another.
    pub(super) fn evictable_since(&self) -> Option<Instant> {
        // A rejected connection is about to close anyway, with a response.
        if self.exchanges.get() > 0 || self.refuses_all.get().is_some() {
            return None;
        }
        self.deadlines.waiting_since()
    }

    /// Time since which the connection is between two exchanges: the last response is written, the last request is read,
    /// and the next one has not begun, as far as the parsed form of the requests tells.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let is_idle =
            self.exchanges.get() == 0 && !self.leaves_body_unread.get() && self.deadlines.is_idle();
        is_idle.then(|| self.deadlines.waiting_since()).flatten()
    }

    /// Returns whether hyper had to wait for bytes of the client since the last call.
    pub(super) fn take_read_nothing(&self) -> bool {
        self.deadlines.take_read_nothing()
    }

    /// Notes that a request head has arrived.
    pub(in crate::proxy) fn begin_exchange(&self, now: Instant) {
        self.exchanges.set(self.exchanges.get() + 1);
        self.leaves_body_unread.set(false);
        self.deadlines.begin_exchange(now);
    }

    /// Notes whether the client closes the connection after the request that begins.
    pub(super) fn set_last_request(&self, is_last: bool) {
        self.deadlines.set_last_request(is_last);
    }

    /// Notes a request to switch protocols.
    pub(super) fn set_may_switch(&self) {
        self.may_switch.set(true);
    }

    pub(super) fn may_switch(&self) -> bool {
        self.may_switch.get()
    }

    /// Notes that the exchange ends before its request body.
    pub(in crate::proxy) fn leave_body_unread(&self) {
        self.leaves_body_unread.set(true);
        self.deadlines.set_last_request(false);
    }

    /// Notes that a request head of this size was read.
    pub(in crate::proxy) fn note_head(&self, bytes: usize) {
        self.deadlines.note_read(u64::try_from(bytes).ok());
    }

    /// Notes that a request body was read. `None` if its size on the wire is unknown.
    pub(in crate::proxy) fn note_body(&self, bytes: Option<u64>) {
        self.deadlines.note_read(bytes);
    }

    /// Notes that the response of an exchange is complete.
    pub(in crate::proxy) fn end_exchange(&self, now: Instant) {
        let others = self.exchanges.get().saturating_sub(1);
        self.exchanges.set(others);
        if others > 0 {
            return;
        }
        self.deadlines.end_exchange(now);
        if self.is_http2() {
            // The task of the connection computes the idle deadline.
            self.wake();
        }
    }

    pub(super) fn set_http2(&self) {
        self.deadlines.set_http2();
    }

    pub(in crate::proxy) fn is_http2(&self) -> bool {
        self.deadlines.is_http2()
    }

    /// Deadline for the next request head; none during an exchange.
    pub(super) fn deadline(&self, timeouts: Timeouts) -> Option<Instant> {
        self.deadlines.deadline(timeouts)
    }

    /// Time to close an HTTP/2 connection if its client does not close it after GOAWAY; none during an exchange.
    pub(super) fn goaway_deadline(
        &self,
        goaway_sent: Instant,
        timeouts: Timeouts,
    ) -> Option<Instant> {
        let is_idle = self.exchanges.get() == 0;
        is_idle.then(|| self.deadlines.goaway_deadline(goaway_sent, timeouts))
    }

    pub(super) fn note_timeout(&self) {
        self.deadlines.note_timeout();
    }

    /// Announces the end of this connection: with `Connection: close` in this response, or over HTTP/2, where the
    /// header does not exist (RFC 9113 section 8.2.2), with GOAWAY.
    pub(in crate::proxy) fn close_connection(&self, headers: &mut HeaderMap) {
        if self.is_http2() {
            self.close();
        } else {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// Returns true if the connection ended because a request head did not arrive in time.
    pub(super) fn head_timed_out(&self) -> bool {
        self.deadlines.head_timed_out()
    }

    /// Informational responses to write before the next response.
    pub(in crate::proxy) fn informational(&self) -> Arc<InformationalQueue> {
        Arc::clone(&self.informational)
    }

    pub(super) fn flush_signal(&self) -> Arc<FlushSignal> {
        Arc::clone(&self.flush_signal)
    }

    /// Closes an HTTP/2 connection after a stream that its client does not read, unless it has other exchanges.
    pub(in crate::proxy) fn close_if_unused(&self) {
        if self.exchanges.get() == 0 {
            self.close();
        }
    }

    /// Closes the connection after its exchanges in flight.
    pub(super) fn close(&self) {
        self.closing.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Returns true if [`Self::close`] was called; if not, it will wake the task.
    pub(super) fn is_closing(&self, context: &Context<'_>) -> bool {
        let mut waker = self.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(context.waker()))
        {
            *waker = Some(context.waker().clone());
        }
        self.closing.get()
    }
}
