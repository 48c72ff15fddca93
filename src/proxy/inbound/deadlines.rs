//! Deadlines of a client connection, shared by its exchanges and its socket.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::limits::Timeouts;

/// Longest time to read from a closing connection, so that the client receives the last response.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// State of a connection and the time it was entered: written by the exchange, read by the socket.
///
/// hyper requires a `Send` socket, hence atomics, although a single thread uses them.
#[derive(Debug)]
pub(super) struct ConnectionDeadlines {
    start: Instant,
    /// Milliseconds since `start`, with the [`State`] in the two lowest bits.
    word: AtomicU64,
    head_timed_out: AtomicBool,
    /// HTTP/2: received bytes do not mark the start of a request head, and http2.rs enforces the deadlines.
    is_http2: AtomicBool,
    /// HTTP/1.1: received bytes that no complete request accounts for, as far as its parsed form tells.
    unread: AtomicU64,
    /// HTTP/2: time of the last received bytes, in milliseconds since `start`.
    last_received: AtomicU64,
    /// Bytes of a response wait for the client to read.
    is_write_blocked: AtomicBool,
    /// HTTP/1.1: the client sends nothing after the request that has begun, and the request is complete.
    is_last_request: AtomicBool,
    /// HTTP/1.1: hyper has tried to read since the last check, and there was nothing.
    has_read_nothing: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    ReadingHead = 0,
    Idle = 1,
    /// Waiting for the gate, the upstream or a body.
    InExchange = 2,
}

impl ConnectionDeadlines {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            word: AtomicU64::new(State::ReadingHead as u64),
            head_timed_out: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
            unread: AtomicU64::new(0),
            last_received: AtomicU64::new(0),
            is_write_blocked: AtomicBool::new(false),
            is_last_request: AtomicBool::new(false),
            has_read_nothing: AtomicBool::new(false),
        }
    }

    /// Notes a read that has to wait.
    pub(super) fn note_read_nothing(&self) {
        self.has_read_nothing.store(true, Ordering::Relaxed);
    }

    /// Returns whether a read had to wait since the last call.
    pub(super) fn take_read_nothing(&self) -> bool {
        self.has_read_nothing.swap(false, Ordering::Relaxed)
    }

    /// Notes whether the client sends nothing more.
    pub(super) fn set_last_request(&self, is_last: bool) {
        self.is_last_request.store(is_last, Ordering::Relaxed);
    }

    /// Returns whether every byte of the client has been read, and it has announced to send no more.
    pub(super) fn has_read_all(&self) -> bool {
        self.is_last_request.load(Ordering::Relaxed) && self.unread.load(Ordering::Relaxed) == 0
    }

    pub(super) fn begin_exchange(&self, now: Instant) {
        self.set(State::InExchange, now);
    }

    /// Ends an exchange. If the client has sent more than its request, the next head has begun.
    pub(super) fn end_exchange(&self, now: Instant) {
        let has_begun = self.unread.load(Ordering::Relaxed) > 0;
        self.set(
            if has_begun {
                State::ReadingHead
            } else {
                State::Idle
            },
            now,
        );
    }

    /// Accounts for bytes of a request. `None` is a body of unknown size on the wire.
    pub(super) fn note_read(&self, bytes: Option<u64>) {
        let unread = self.unread.load(Ordering::Relaxed);
        let rest = bytes.map_or(0, |bytes| unread.saturating_sub(bytes));
        self.unread.store(rest, Ordering::Relaxed);
    }

    pub(super) fn set_http2(&self) {
        self.is_http2.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_http2(&self) -> bool {
        self.is_http2.load(Ordering::Relaxed)
    }

    pub(super) fn note_received(&self, bytes: usize) {
        if self.is_http2() {
            let now = self.milliseconds(Instant::now());
            self.last_received.store(now, Ordering::Relaxed);
            return;
        }
        if self.is_idle() {
            self.set(State::ReadingHead, Instant::now());
        }
        let unread = self.unread.load(Ordering::Relaxed);
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.unread
            .store(unread.saturating_add(bytes), Ordering::Relaxed);
    }

    pub(super) fn note_timeout(&self) {
        let is_head = self.is(State::ReadingHead);
        self.head_timed_out.store(is_head, Ordering::Relaxed);
    }

    /// Returns true if the connection ended because a request head did not arrive in time.
    pub(super) fn head_timed_out(&self) -> bool {
        self.head_timed_out.load(Ordering::Relaxed)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.is(State::Idle)
    }

    pub(super) fn is_in_exchange(&self) -> bool {
        self.is(State::InExchange)
    }

    /// End of the current state; none during an exchange.
    pub(super) fn deadline(&self, timeouts: Timeouts) -> Option<Instant> {
        let (since, state) = self.since();
        match state {
            0 => Some(since + timeouts.header),
            1 => Some(since + timeouts.idle),
            _ => None,
        }
    }

    /// Notes whether bytes wait for the client to read.
    pub(super) fn set_write_blocked(&self, is_blocked: bool) {
        self.is_write_blocked.store(is_blocked, Ordering::Relaxed);
    }

    /// Time since which the connection waits for a request head; `None` during an exchange, and until its response is
    /// written.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        let (since, state) = self.since();
        let is_waiting = state != State::InExchange as u64;
        (is_waiting && !self.is_write_blocked.load(Ordering::Relaxed)).then_some(since)
    }

    /// Time to close an HTTP/2 connection without exchanges if its client does not close it after the GOAWAY of
    /// `goaway_sent`: soon after the last received bytes, and soon enough for a client that goes on sending.
    pub(super) fn goaway_deadline(&self, goaway_sent: Instant, timeouts: Timeouts) -> Instant {
        let (idle_since, _) = self.since();
        let last_received = self.last_received.load(Ordering::Relaxed);
        let last_received = self.start + Duration::from_millis(last_received);
        let since = idle_since.max(goaway_sent);
        (since.max(last_received) + LINGER).min(since + timeouts.header.clamp(LINGER, 2 * LINGER))
    }

    fn milliseconds(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX >> 2)
    }

    fn set(&self, state: State, now: Instant) {
        let word = self.milliseconds(now) << 2 | state as u64;
        self.word.store(word, Ordering::Relaxed);
    }

    fn is(&self, state: State) -> bool {
        self.since().1 == state as u64
    }

    fn since(&self) -> (Instant, u64) {
        let word = self.word.load(Ordering::Relaxed);
        (self.start + Duration::from_millis(word >> 2), word & 3)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Listen;

    use super::*;

    /// The ten patterns of slow clients, with the time after which the defaults close their connection.
    #[test]
    fn the_defaults_close_every_stalled_client_within_forty_seconds() {
        let listen = Listen::default();
        let (head, body) = (listen.header_timeout, listen.body_timeout);
        let last_response = LINGER;
        // After GOAWAY, a client that goes on sending.
        let goaway = 2 * LINGER;
        let between_requests = listen.idle_timeout + goaway;
        for (pattern, closes_after) in [
            ("silent", head),
            ("half an HTTP/2 preface or TLS handshake", head),
            ("half a head", head + last_response),
            ("dripped head", head + last_response),
            ("stalled body", body + last_response),
            // A byte per second reduces the lag by a thousandth.
            ("dripped body", body + body / 1000 + last_response),
            ("idle HTTP/2", head + goaway),
            ("HEADERS without END_HEADERS", head + goaway),
            ("stalled HTTP/2 body", body + goaway),
            ("dripped HTTP/2 body", body + body / 1000 + goaway),
            ("stalled after a response or a refusal", between_requests),
            ("reads nothing", body + goaway),
        ] {
            assert!(
                closes_after <= Duration::from_secs(40),
                "{pattern}: {closes_after:?}"
            );
        }
    }
}
