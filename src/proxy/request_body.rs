//! Request bodies on their way to the upstream: counted, limited and timed, never collected.

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

/// After waiting this long for a body in all, its client must keep up [`SLOWEST`].
const PATIENCE: Duration = Duration::from_secs(10);

/// The slowest accepted upload, in bytes a second.
const SLOWEST: u64 = 1024;

/// How much of a body is kept to be sent again, in bytes.
const KEPT: usize = 64 * 1024;

/// The body of a request on its way to the upstream. Trailers are not passed on: they could carry a managed name.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Option<Incoming>,
    limit: u64,
    /// How long it may stand still; none where a body is a stream, which may.
    timeout: Option<Duration>,
    upload: Rc<Upload>,
    timer: DeadlineTimer,
    waiting_since: Option<Instant>,
    waited: Duration,
    /// What has passed, as long as all of it is kept: a copy, because a piece holds all of the buffer it was read into.
    kept: Option<Vec<u8>>,
    /// What passes once more, before anything else.
    again: Bytes,
}

/// What is known about an upload while it runs and after.
#[derive(Debug, Default)]
pub struct Upload {
    bytes: Cell<u64>,
    awaits_client: Cell<bool>,
    over_since: Cell<Option<Instant>>,
    fault: Cell<Option<UploadFault>>,
}

/// Why the body of a client could not be passed on whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadFault {
    /// It is larger than allowed.
    TooLarge,
    /// It is not framed as it was announced, or broke off.
    Malformed,
    /// It came too slowly.
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
    /// How much has come, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Whether the client has to send more before anything moves. Otherwise the upstream has to read.
    pub fn awaits_client(&self) -> bool {
        self.awaits_client.get()
    }

    /// When all of it had come, if it has.
    pub fn over_since(&self) -> Option<Instant> {
        self.over_since.get()
    }

    /// What went wrong, if something did.
    pub fn fault(&self) -> Option<UploadFault> {
        self.fault.get()
    }
}

impl RequestBody {
    /// A body of at most `limit` bytes (0: any) that may stand still for `timeout`, or if there is none, may come as it
    /// will.
    pub fn new(incoming: Incoming, limit: u64, timeout: Option<Duration>) -> Self {
        if incoming.is_end_stream() {
            return Self::empty();
        }
        Self {
            incoming: Some(incoming),
            limit,
            timeout,
            ..Self::unfinished()
        }
    }

    /// A body without anything in it.
    pub fn empty() -> Self {
        let body = Self::unfinished();
        body.upload.over_since.set(Some(Instant::now()));
        body
    }

    fn unfinished() -> Self {
        Self {
            incoming: None,
            limit: 0,
            timeout: None,
            upload: Rc::default(),
            timer: DeadlineTimer::default(),
            waiting_since: None,
            waited: Duration::ZERO,
            kept: None,
            again: Bytes::new(),
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.incoming.is_none() && self.again.is_empty()
    }

    /// Keeps what passes from now on, if it is not too much, so that it can be sent again.
    pub fn keep(&mut self) {
        self.kept = Some(Vec::new());
    }

    /// It will not be sent again.
    pub fn forget(&mut self) {
        self.kept = None;
    }

    /// The same from its beginning; nothing if more has passed than was kept.
    pub fn rewound(mut self) -> Option<Self> {
        let mut again = self.kept.take()?;
        again.extend_from_slice(&self.again);
        self.again = again.into();
        // Until it has passed again, nobody waits for the client.
        self.upload.awaits_client.set(false);
        self.stop_waiting();
        Some(self)
    }

    /// What can be asked about it after it is gone.
    pub fn upload(&self) -> Rc<Upload> {
        Rc::clone(&self.upload)
    }

    fn pass(&mut self, data: Bytes) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        match &mut self.kept {
            Some(kept) if kept.len() + data.len() <= KEPT => kept.extend_from_slice(&data),
            Some(_) | None => self.kept = None,
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn fail(&mut self, fault: UploadFault) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        self.incoming = None;
        self.upload.fault.set(Some(fault));
        Poll::Ready(Some(Err(fault)))
    }

    fn stop_waiting(&mut self) {
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
        }
    }

    fn count(&mut self, data: Bytes) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        self.stop_waiting();
        let bytes = self.upload.bytes.get().saturating_add(data.len() as u64);
        self.upload.bytes.set(bytes);
        if self.limit > 0 && bytes > self.limit {
            return self.fail(UploadFault::TooLarge);
        }
        if self.timeout.is_some()
            && self.waited > PATIENCE
            && bytes < SLOWEST.saturating_mul(self.waited.as_secs())
        {
            return self.fail(UploadFault::TooSlow);
        }
        self.pass(data)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = UploadFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        if !self.again.is_empty() {
            let again = std::mem::take(&mut self.again);
            return self.pass(again);
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
                            self.upload.over_since.set(Some(Instant::now()));
                        }
                        return self.count(data);
                    }
                }
                Poll::Ready(Some(Err(_))) => return self.fail(UploadFault::Malformed),
                Poll::Ready(None) => {
                    self.incoming = None;
                    self.upload.over_since.set(Some(Instant::now()));
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    let since = *self.waiting_since.get_or_insert_with(Instant::now);
                    let deadline = self.timeout.map(|timeout| since + timeout);
                    if deadline.is_some_and(|deadline| self.timer.elapsed(deadline, context)) {
                        return self.fail(UploadFault::TooSlow);
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.again.is_empty() && self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.incoming.as_ref();
        let rest = rest.map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint);
        let again = self.again.len() as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + again);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + again);
        }
        hint
    }
}
