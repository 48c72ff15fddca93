//! What the exchanges of one connection and its socket share: what it waits for, and since when.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

use crate::gate::refusal::Refusal;

use super::limits::Timeouts;
use super::listener::ListenerConfig;
use super::open_connections::Registration;
use crate::proxy::informational::InformationalQueue;

/// The longest a closing connection is still read, so that the last answer is not lost.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// What a connection is waiting for, and since when: told by the exchange, read by the socket.
///
/// hyper wants a socket that could move to another thread, so this is an atomic word though only one thread uses it.
#[derive(Debug)]
pub(super) struct ConnectionDeadlines {
    start: Instant,
    /// Milliseconds since `start`, and what is awaited in the two lowest bits.
    word: AtomicU64,
    head_was_late: AtomicBool,
    /// Over HTTP/2 the bytes that arrive say nothing about heads, and the connection keeps its deadlines itself.
    is_http2: AtomicBool,
    /// Over HTTP/2, when something has arrived: milliseconds since `start`.
    heard: AtomicU64,
}

/// What a connection is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaits {
    /// A whole head.
    Head = 0,
    /// The next request.
    Request = 1,
    /// The gate, the upstream or a body.
    Exchange = 2,
}

impl ConnectionDeadlines {
    /// A moment, in milliseconds since `start`.
    fn at(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX >> 2)
    }

    fn set(&self, awaits: Awaits, now: Instant) {
        self.word
            .store(self.at(now) << 2 | awaits as u64, Ordering::Relaxed);
    }

    pub(in crate::proxy) fn is_http2(&self) -> bool {
        self.is_http2.load(Ordering::Relaxed)
    }

    pub(super) fn heard(&self) {
        if self.is_http2() {
            self.heard.store(self.at(Instant::now()), Ordering::Relaxed);
        } else if self.awaits_request() {
            self.set(Awaits::Head, Instant::now());
        }
    }

    pub(super) fn note_timeout(&self) {
        let is_head = self.word.load(Ordering::Relaxed) & 3 == Awaits::Head as u64;
        self.head_was_late.store(is_head, Ordering::Relaxed);
    }

    pub(super) fn awaits_request(&self) -> bool {
        self.word.load(Ordering::Relaxed) & 3 == Awaits::Request as u64
    }

    pub(super) fn deadline(&self, timeouts: Timeouts) -> Option<Instant> {
        let word = self.word.load(Ordering::Relaxed);
        let since = self.start + Duration::from_millis(word >> 2);
        match word & 3 {
            0 => Some(since + timeouts.header),
            1 => Some(since + timeouts.idle),
            _ => None,
        }
    }
}

/// What the exchange and the worker share about one connection.
#[derive(Debug)]
pub struct Connection {
    pace: Arc<ConnectionDeadlines>,
    informational: Arc<InformationalQueue>,
    /// How many exchanges there are at once.
    exchanges: Cell<usize>,
    closing: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    listener: Arc<ListenerConfig>,
    refuses_all: Option<Refusal>,
    _registration: Registration,
}

impl Connection {
    /// A connection just accepted: its first head is awaited. If it is to be turned away, that is how.
    pub(super) fn new(
        registration: Registration,
        listener: Arc<ListenerConfig>,
        refuses_all: Option<Refusal>,
    ) -> Self {
        Self {
            pace: Arc::new(ConnectionDeadlines {
                start: Instant::now(),
                word: AtomicU64::new(Awaits::Head as u64),
                head_was_late: AtomicBool::new(false),
                is_http2: AtomicBool::new(false),
                heard: AtomicU64::new(0),
            }),
            informational: Arc::default(),
            exchanges: Cell::new(0),
            closing: Cell::new(false),
            waker: RefCell::new(None),
            listener,
            refuses_all,
            _registration: registration,
        }
    }

    /// What it waits for, for its socket.
    pub(super) fn pace(&self) -> Arc<ConnectionDeadlines> {
        Arc::clone(&self.pace)
    }

    /// Where it came in.
    pub(in crate::proxy) fn listener(&self) -> &ListenerConfig {
        &self.listener
    }

    /// How every request of this connection is answered, if all alike.
    pub(in crate::proxy) fn refuses_all(&self) -> Option<Refusal> {
        self.refuses_all.clone()
    }

    /// A head has arrived.
    pub(in crate::proxy) fn begin_exchange(&self, now: Instant) {
        self.exchanges.set(self.exchanges.get() + 1);
        self.pace.set(Awaits::Exchange, now);
    }

    /// The answer is out.
    pub(in crate::proxy) fn end_exchange(&self, now: Instant) {
        let others = self.exchanges.get().saturating_sub(1);
        self.exchanges.set(others);
        if others > 0 {
            return;
        }
        self.pace.set(Awaits::Request, now);
        if self.is_http2() {
            // From now on the connection is idle, and its task has to know until when.
            self.wake();
        }
    }

    /// The client has begun to speak HTTP/2.
    pub(super) fn speaks_http2(&self) {
        self.pace.is_http2.store(true, Ordering::Relaxed);
    }

    /// Whether there can be other exchanges at the same time.
    pub(in crate::proxy) fn is_http2(&self) -> bool {
        self.pace.is_http2()
    }

    /// When the connection is to end because nothing happens; never during an exchange.
    pub(super) fn deadline(&self, timeouts: Timeouts) -> Option<Instant> {
        self.pace.deadline(timeouts)
    }

    /// When a connection over HTTP/2 that was told to end is left, if its client does not end it: soon after it was last
    /// heard of; never during an exchange.
    pub(super) fn goaway_deadline(&self, told: Instant, timeouts: Timeouts) -> Option<Instant> {
        if self.exchanges.get() > 0 {
            return None;
        }
        let word = self.pace.word.load(Ordering::Relaxed);
        let idle = self.pace.start + Duration::from_millis(word >> 2);
        let heard = self.pace.heard.load(Ordering::Relaxed);
        let heard = self.pace.start + Duration::from_millis(heard);
        let began = idle.max(told);
        Some((began.max(heard) + LINGER).min(began + timeouts.header.max(LINGER)))
    }

    /// Notes that a deadline has passed.
    pub(super) fn note_timeout(&self) {
        self.pace.note_timeout();
    }

    /// Tells the client that no more is answered on this connection: in this answer, or over HTTP/2, where the header
    /// does not exist (RFC 9113 section 8.2.2), with GOAWAY.
    pub(in crate::proxy) fn close_connection(&self, answer: &mut HeaderMap) {
        if self.is_http2() {
            self.close();
        } else {
            answer.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// Whether it ended because a head did not arrive in time.
    pub(super) fn head_was_late(&self) -> bool {
        self.pace.head_was_late.load(Ordering::Relaxed)
    }

    /// What goes to the client before an answer.
    pub(in crate::proxy) fn informational(&self) -> Arc<InformationalQueue> {
        Arc::clone(&self.informational)
    }

    /// Asks the connection to end after what it is doing.
    pub(super) fn close(&self) {
        self.closing.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Whether it was asked to end; if not, the task is woken when it is.
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
