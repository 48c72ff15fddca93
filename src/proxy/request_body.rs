//! Request bodies, streamed to the upstream: counted, limited and timed, never collected.

use std::cell::Cell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::gate::refusal::Refusal;

use super::deadline_timer::DeadlineTimer;
use super::rate_floor::{MIN_RATE, RateFloor};

/// Total wait for a client's body before its mean rate must be [`MIN_RATE`].
const RATE_GRACE_PERIOD: Duration = Duration::from_secs(10);

/// Size limit of the replay buffer, in bytes.
const REPLAY_LIMIT: usize = 64 * 1024;

/// Body of a request to the upstream. Trailers are not forwarded: they could carry a managed header.
///
/// Most requests have none, which costs nothing.
#[derive(Debug, Default)]
pub struct RequestBody(Option<Box<ReceivedBody>>);

/// Body received from the client.
#[derive(Debug)]
struct ReceivedBody {
    incoming: Option<Incoming>,
    limit: u64,
    /// Longest lag behind the minimum rate; `None` for a stream, which may pause.
    timeout: Option<Duration>,
    upload: Rc<Upload>,
    timer: DeadlineTimer,
    rate_floor: RateFloor,
    waited: Duration,
    /// Copy of all data sent so far; `None` if replay is disabled or the data exceeds [`REPLAY_LIMIT`]. A copy, because
    /// each chunk keeps the whole buffer alive that it was read into.
    replay_buffer: Option<Vec<u8>>,
    /// Data to send again before any further data.
    replay: Bytes,
}

/// Progress of an upload, readable after its body is gone.
#[derive(Debug, Default)]
pub struct Upload {
    bytes: Cell<u64>,
    awaits_client: Cell<bool>,
    finished_at: Cell<Option<Instant>>,
    fault: Cell<Option<UploadFault>>,
}

/// Fault of a client that ended its upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadFault {
    /// Larger than the limit.
    TooLarge,
    /// Invalid framing, or incomplete.
    Malformed,
    /// Idle for longer than the timeout, or slower than the minimum rate.
    TooSlow,
}

impl From<UploadFault> for Refusal {
    fn from(fault: UploadFault) -> Self {
        match fault {
            UploadFault::TooLarge => Self::BodyTooLarge,
            UploadFault::Malformed => Self::RequestMalformed,
            UploadFault::TooSlow => Self::RequestTimeout,
        }
    }
}

impl fmt::Display for UploadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Refusal::from(*self).reason())
    }
}

impl std::error::Error for UploadFault {}

impl Upload {
    /// Bytes received.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Returns whether the upload waits for data from the client. Otherwise it waits for the upstream to read.
    pub fn awaits_client(&self) -> bool {
        self.awaits_client.get()
    }

    /// Time at which the last byte arrived.
    pub fn finished_at(&self) -> Option<Instant> {
        self.finished_at.get()
    }

    pub fn fault(&self) -> Option<UploadFault> {
        self.fault.get()
    }
}

impl RequestBody {
    /// Body of at most `limit` bytes, 0 for unlimited. `timeout` limits the wait for each read and the lag behind
    /// the minimum rate.
    pub fn new(incoming: Incoming, limit: u64, timeout: Option<Duration>) -> Self {
        if incoming.is_end_stream() {
            return Self::empty();
        }
        Self(Some(Box::new(ReceivedBody {
            incoming: Some(incoming),
            limit,
            timeout,
            upload: Rc::default(),
            timer: DeadlineTimer::default(),
            rate_floor: RateFloor::default(),
            waited: Duration::ZERO,
            replay_buffer: None,
            replay: Bytes::new(),
        })))
    }

    pub fn empty() -> Self {
        Self(None)
    }

    /// Returns whether the body never had any data.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Keeps a copy of all further data, up to 64 KiB, for [`Self::rewind`].
    pub fn enable_replay(&mut self) {
        if let Some(body) = &mut self.0 {
            body.replay_buffer = Some(Vec::new());
        }
    }

    /// Frees the replay buffer.
    pub fn disable_replay(&mut self) {
        if let Some(body) = &mut self.0 {
            body.replay_buffer = None;
        }
    }

    /// Returns the body from its start, or `None` if the replay buffer does not hold all data sent so far.
    pub fn rewind(mut self) -> Option<Self> {
        if let Some(body) = &mut self.0 {
            let mut replay = body.replay_buffer.take()?;
            replay.extend_from_slice(&body.replay);
            body.replay = replay.into();
            // The replay does not wait for the client.
            body.upload.awaits_client.set(false);
            body.waited += body.rate_floor.progress(0);
        }
        Some(self)
    }

    /// Puts back data that was taken last and not sent.
    pub fn put_back(&mut self, unsent: &[Bytes]) {
        if let Some(body) = &mut self.0
            && !unsent.is_empty()
        {
            let mut replay = unsent.concat();
            replay.extend_from_slice(&body.replay);
            body.replay = replay.into();
        }
    }

    /// Progress of the upload; `None` for an empty body.
    pub fn upload(&self) -> Option<Rc<Upload>> {
        self.0.as_ref().map(|body| Rc::clone(&body.upload))
    }
}

type Polled = Poll<Option<Result<Frame<Bytes>, UploadFault>>>;

impl ReceivedBody {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Polled {
        if !self.replay.is_empty() {
            let replay = std::mem::take(&mut self.replay);
            return self.send(replay);
        }
        loop {
            let Some(incoming) = &mut self.incoming else {
                return Poll::Ready(None);
            };
            let polled = Pin::new(incoming).poll_frame(context);
            self.upload.awaits_client.set(polled.is_pending());
            match polled {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        if self.is_end_stream() {
                            self.upload.finished_at.set(Some(Instant::now()));
                        }
                        return self.count(data);
                    }
                }
                Poll::Ready(Some(Err(_))) => return self.fail(UploadFault::Malformed),
                Poll::Ready(None) => {
                    self.incoming = None;
                    self.upload.finished_at.set(Some(Instant::now()));
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    if let Some(timeout) = self.timeout {
                        let deadline = self.rate_floor.wait(timeout);
                        if self.timer.elapsed(deadline, context) {
                            return self.fail(UploadFault::TooSlow);
                        }
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn send(&mut self, data: Bytes) -> Polled {
        match &mut self.replay_buffer {
            Some(buffer) if buffer.len() + data.len() <= REPLAY_LIMIT => {
                buffer.extend_from_slice(&data);
            }
            Some(_) | None => self.replay_buffer = None,
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn fail(&mut self, fault: UploadFault) -> Polled {
        self.incoming = None;
        self.upload.fault.set(Some(fault));
        Poll::Ready(Some(Err(fault)))
    }

    fn count(&mut self, data: Bytes) -> Polled {
        self.waited += self.rate_floor.progress(data.len() as u64);
        let bytes = self.upload.bytes.get().saturating_add(data.len() as u64);
        self.upload.bytes.set(bytes);
        if self.limit > 0 && bytes > self.limit {
            return self.fail(UploadFault::TooLarge);
        }
        if self.timeout.is_some()
            && self.waited > RATE_GRACE_PERIOD
            && bytes < MIN_RATE.saturating_mul(self.waited.as_secs())
        {
            return self.fail(UploadFault::TooSlow);
        }
        self.send(data)
    }

    fn is_end_stream(&self) -> bool {
        self.replay.is_empty() && self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.incoming.as_ref();
        let rest = rest.map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint);
        let replay = self.replay.len() as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + replay);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + replay);
        }
        hint
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = UploadFault;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        match &mut self.0 {
            Some(body) => body.poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.0.as_ref();
        body.map_or_else(|| SizeHint::with_exact(0), |body| body.size_hint())
    }
}
