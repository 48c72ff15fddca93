//! A client's socket that keeps its deadlines itself: hyper waits for a silent client as long as it takes.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::gate::refusal::Refusal;

use super::interim::Interim;
use super::listen::{Entry, Registration};
use super::stream::{self, Stream};

/// The longest a closing connection is still read, so that the last answer is not lost.
const LINGER: Duration = Duration::from_secs(2);

/// What a connection over HTTP/2 begins with (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a client may take for each step.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a whole head.
    pub header: Duration,
    /// Without progress of a body.
    pub body: Duration,
    /// Between requests.
    pub idle: Duration,
}

/// What a connection is waiting for, and since when: told by the exchange, read by the socket.
///
/// hyper wants a socket that could move to another thread, so this is an atomic word though only one thread uses it.
#[derive(Debug)]
struct Pace {
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

impl Pace {
    /// A moment, in milliseconds since `start`.
    fn at(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX >> 2)
    }

    fn set(&self, awaits: Awaits, now: Instant) {
        self.word
            .store(self.at(now) << 2 | awaits as u64, Ordering::Relaxed);
    }

    fn is_http2(&self) -> bool {
        self.is_http2.load(Ordering::Relaxed)
    }

    fn heard(&self) {
        if self.is_http2() {
            self.heard.store(self.at(Instant::now()), Ordering::Relaxed);
        } else if self.awaits_request() {
            self.set(Awaits::Head, Instant::now());
        }
    }

    fn note_timeout(&self) {
        let is_head = self.word.load(Ordering::Relaxed) & 3 == Awaits::Head as u64;
        self.head_was_late.store(is_head, Ordering::Relaxed);
    }

    fn awaits_request(&self) -> bool {
        self.word.load(Ordering::Relaxed) & 3 == Awaits::Request as u64
    }

    fn deadline(&self, timeouts: Timeouts) -> Option<Instant> {
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
    pace: Arc<Pace>,
    interim: Arc<Interim>,
    /// How many exchanges there are at once.
    exchanges: Cell<usize>,
    closing: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    entry: Arc<Entry>,
    refuses_all: Option<Refusal>,
    _registration: Registration,
}

impl Connection {
    /// A connection just accepted: its first head is awaited. If it is to be turned away, that is how.
    pub(super) fn new(
        registration: Registration,
        entry: Arc<Entry>,
        refuses_all: Option<Refusal>,
    ) -> Self {
        Self {
            pace: Arc::new(Pace {
                start: Instant::now(),
                word: AtomicU64::new(Awaits::Head as u64),
                head_was_late: AtomicBool::new(false),
                is_http2: AtomicBool::new(false),
                heard: AtomicU64::new(0),
            }),
            interim: Arc::default(),
            exchanges: Cell::new(0),
            closing: Cell::new(false),
            waker: RefCell::new(None),
            entry,
            refuses_all,
            _registration: registration,
        }
    }

    /// Where it came in.
    pub(super) fn entry(&self) -> &Entry {
        &self.entry
    }

    /// How every request of this connection is answered, if all alike.
    pub(super) fn refuses_all(&self) -> Option<Refusal> {
        self.refuses_all.clone()
    }

    /// A head has arrived.
    pub(super) fn begin_exchange(&self, now: Instant) {
        self.exchanges.set(self.exchanges.get() + 1);
        self.pace.set(Awaits::Exchange, now);
    }

    /// The answer is out.
    pub(super) fn end_exchange(&self, now: Instant) {
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
    pub(super) fn is_http2(&self) -> bool {
        self.pace.is_http2()
    }

    /// When the connection is to end because nothing happens; never during an exchange.
    pub(super) fn deadline(&self, timeouts: Timeouts) -> Option<Instant> {
        self.pace.deadline(timeouts)
    }

    /// When a connection over HTTP/2 that was told to end is left, if its client does not end it: soon after it was last
    /// heard of; never during an exchange.
    pub(super) fn farewell_deadline(&self, told: Instant, timeouts: Timeouts) -> Option<Instant> {
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
    pub(super) fn send_away(&self, answer: &mut HeaderMap) {
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
    pub(super) fn interim(&self) -> Arc<Interim> {
        Arc::clone(&self.interim)
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

/// A client's socket with its deadlines.
#[derive(Debug)]
pub struct Socket {
    stream: Stream,
    pace: Arc<Pace>,
    interim: Arc<Interim>,
    /// What is left of interim answers that have begun to go out.
    interim_rest: Vec<u8>,
    /// Whether hyper still has something of what it wanted to write.
    is_in_write: bool,
    timeouts: Timeouts,
    read_timer: Alarm,
    write_timer: Alarm,
    blocked_since: Option<Instant>,
    shut_since: Option<Instant>,
    is_shut: bool,
}

impl Socket {
    /// Takes a stream just accepted.
    pub fn new(stream: Stream, connection: &Connection, timeouts: Timeouts) -> Self {
        Self {
            stream,
            pace: Arc::clone(&connection.pace),
            interim: connection.interim(),
            interim_rest: Vec::new(),
            is_in_write: false,
            timeouts,
            read_timer: Alarm::default(),
            write_timer: Alarm::default(),
            blocked_since: None,
            shut_since: None,
            is_shut: false,
        }
    }

    /// Reads until it is clear whether the client speaks HTTP/2, and puts what was read back.
    pub(super) async fn speaks_http2(&mut self) -> io::Result<bool> {
        let mut read = Vec::new();
        let speaks_http2 = loop {
            let so_far = read.len().min(HTTP2_PREFACE.len());
            if !HTTP2_PREFACE.starts_with(read.get(..so_far).unwrap_or_default()) {
                break false;
            }
            if so_far == HTTP2_PREFACE.len() {
                break true;
            }
            if stream::read_more(self, &mut read).await? == 0 {
                break false;
            }
        };
        self.stream.put_back(read);
        Ok(speaks_http2)
    }

    fn stream(&mut self) -> Pin<&mut Stream> {
        Pin::new(&mut self.stream)
    }

    /// Writes the interim answers that wait, if hyper has written all of what came before. They belong to the exchange
    /// that is under way, whose answer has not begun.
    fn write_interim(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.interim_rest.is_empty() && !self.is_in_write {
            self.interim_rest = self.interim.take();
        }
        while !self.interim_rest.is_empty() {
            let rest = std::mem::take(&mut self.interim_rest);
            let written = self.stream().poll_write(context, &rest);
            let count = match &written {
                Poll::Ready(Ok(count)) => *count,
                Poll::Ready(Err(_)) | Poll::Pending => 0,
            };
            self.interim_rest = rest.get(count..).unwrap_or_default().to_vec();
            self.note_write(context, &written)?;
            ready!(written)?;
        }
        Poll::Ready(Ok(()))
    }

    fn note_write<T>(
        &mut self,
        context: &mut Context<'_>,
        written: &Poll<io::Result<T>>,
    ) -> io::Result<()> {
        if written.is_ready() {
            self.blocked_since = None;
            return Ok(());
        }
        let since = *self.blocked_since.get_or_insert_with(Instant::now);
        if self.write_timer.rings(since + self.timeouts.body, context) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if let Poll::Ready(result) = self.stream().poll_read(context, buffer) {
            if buffer.filled().len() > before {
                self.pace.heard();
            }
            return Poll::Ready(result);
        }
        if self.pace.is_http2() {
            return Poll::Pending;
        }
        if let Some(deadline) = self.pace.deadline(self.timeouts)
            && self.read_timer.rings(deadline, context)
        {
            self.pace.note_timeout();
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if !self.pace.awaits_request() && !self.read_timer.is_set() {
            // hyper does not read again when the exchange ends: the timer looks then what is awaited.
            let soon = Instant::now() + self.timeouts.idle.min(self.timeouts.header);
            self.read_timer.rings(soon, context);
        }
        Poll::Pending
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.write_interim(context))?;
        let written = self.stream().poll_write(context, bytes);
        self.is_in_write = !matches!(&written, Poll::Ready(Ok(count)) if *count == bytes.len());
        self.note_write(context, &written)?;
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write_interim(context))?;
        // With TLS, what was written may still be here, and the client has to take it as well.
        let flushed = self.stream().poll_flush(context);
        self.note_write(context, &flushed)?;
        flushed
    }

    /// Ends the sending side, then reads what the client still sends and throws it away for a while: to close a
    /// socket with unread bytes resets it, and the client would lose the answer (RFC 9112 section 9.6).
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let since = *self.shut_since.get_or_insert_with(Instant::now);
        if !self.is_shut {
            if self.stream().poll_shutdown(context)?.is_pending() {
                return if self.read_timer.rings(since + LINGER, context) {
                    Poll::Ready(Ok(()))
                } else {
                    Poll::Pending
                };
            }
            self.is_shut = true;
        }
        let mut scratch = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match self.stream().poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) if since.elapsed() < LINGER => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending if self.read_timer.rings(since + LINGER, context) => {
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// A timer whose deadline mostly moves away: it is only set again when it rings too early.
#[derive(Debug, Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Whether the task is going to be woken by it.
    fn is_set(&self) -> bool {
        self.0.as_ref().is_some_and(|sleep| !sleep.is_elapsed())
    }

    /// Whether `deadline` has passed; if not, the task is woken when it has.
    pub(super) fn rings(&mut self, deadline: Instant, context: &mut Context<'_>) -> bool {
        let sleep = self
            .0
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(context).is_ready() {
            if sleep.deadline() >= deadline {
                return true;
            }
            sleep.as_mut().reset(deadline);
        }
        false
    }
}
