//! Bodies on their way: counted, limited and timed, never collected.

use std::cell::Cell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::gate::refusal::Refusal;

use super::deadline_timer::DeadlineTimer;
use super::stream_deadlines::StreamDeadlines;

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

/// The body of an answer: one of the gate's own, or the upstream's on its way.
#[derive(Debug)]
pub struct ResponseBody<E: BodyObserver> {
    source: BodySource,
    ending: Option<E>,
    bytes: u64,
}

/// What has a part in the end of an answer's body.
pub trait BodyObserver: Unpin {
    /// The body is out, whole or not, with this many bytes.
    fn ended(self, bytes: u64, whole: bool);

    /// The gate has ended the body after this many bytes, and why.
    fn cut(self, bytes: u64, refusal: &Refusal);

    /// Takes out of the trailers of the upstream what a client must not see.
    fn clean(&self, trailers: &mut HeaderMap);
}

/// What an answer is made of, which decides how it can be ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// Server-sent events: any end is a good end, and the client comes back by itself.
    Events,
    /// gRPC: trailers say how it ended.
    Grpc,
    /// Anything else. Cut short, it must not look whole.
    Plain,
}

impl BodyKind {
    /// The kind of an answer, by its head.
    pub fn of(headers: &HeaderMap) -> Self {
        let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        let is = |name: &[u8]| {
            let start = kind.and_then(|kind| kind.split_at_checked(name.len()));
            start.is_some_and(|(start, rest)| {
                start.eq_ignore_ascii_case(name)
                    && matches!(rest.first(), None | Some(b';' | b'+' | b' '))
            })
        };
        if is(b"text/event-stream") {
            Self::Events
        } else if is(b"application/grpc") {
            Self::Grpc
        } else {
            Self::Plain
        }
    }
}

/// Why the body of an answer broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The upstream broke off.
    #[error(transparent)]
    Upstream(#[from] hyper::Error),
    /// The gate did.
    #[error("the answer was cut short")]
    Cut,
}

#[derive(Debug)]
enum BodySource {
    Own(Option<Bytes>),
    Upstream {
        incoming: Incoming,
        kind: BodyKind,
        lifetime: StreamDeadlines,
    },
}

type Polled = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

impl<E: BodyObserver> ResponseBody<E> {
    /// A body of the gate's own.
    pub fn own(bytes: Bytes, ending: E) -> Self {
        let mut body = Self {
            source: BodySource::Own((!bytes.is_empty()).then_some(bytes)),
            ending: Some(ending),
            bytes: 0,
        };
        body.end_if_over();
        body
    }

    /// No body, and nobody to tell.
    pub fn none() -> Self {
        Self {
            source: BodySource::Own(None),
            ending: None,
            bytes: 0,
        }
    }

    /// A body of the upstream, for as long as `lifetime` lets it.
    pub fn upstream(
        incoming: Incoming,
        kind: BodyKind,
        lifetime: StreamDeadlines,
        ending: E,
    ) -> Self {
        let mut body = Self {
            source: BodySource::Upstream {
                incoming,
                kind,
                lifetime,
            },
            ending: Some(ending),
            bytes: 0,
        };
        body.end_if_over();
        body
    }

    fn end_if_over(&mut self) {
        if self.is_end_stream() {
            self.end(true);
        }
    }

    fn end(&mut self, whole: bool) {
        if let Some(ending) = self.ending.take() {
            ending.ended(self.bytes, whole);
        }
    }

    fn cut(&mut self, kind: BodyKind, refusal: &Refusal) -> Polled {
        self.source = BodySource::Own(None);
        if let Some(ending) = self.ending.take() {
            ending.cut(self.bytes, refusal);
        }
        Poll::Ready(match kind {
            // What stands still or takes too long may be half an event.
            BodyKind::Events if *refusal != Refusal::UpstreamTimeout => None,
            BodyKind::Grpc => Some(Ok(Frame::trailers(refusal.grpc_trailers()))),
            BodyKind::Events | BodyKind::Plain => Some(Err(BodyError::Cut)),
        })
    }
}

impl<E: BodyObserver> Body for ResponseBody<E> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        let mut polled = match &mut self.source {
            BodySource::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            BodySource::Upstream {
                incoming,
                kind,
                lifetime,
            } => {
                let polled = Pin::new(incoming).poll_frame(context);
                let too_late = match &polled {
                    Poll::Ready(_) => lifetime.moves(),
                    Poll::Pending => match lifetime.poll_end(context) {
                        Poll::Ready(refusal) => Some(refusal),
                        Poll::Pending => None,
                    },
                };
                if let Some(refusal) = too_late {
                    let kind = *kind;
                    return self.cut(kind, &refusal);
                }
                polled.map_err(BodyError::Upstream)
            }
        };
        match &mut polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(trailers), Some(ending)) = (frame.trailers_mut(), &self.ending) {
                    ending.clean(trailers);
                }
                self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                // hyper may not ask again after the last byte.
                self.end_if_over();
            }
            Poll::Ready(Some(Err(_))) => self.end(false),
            Poll::Ready(None) => self.end(true),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            BodySource::Own(bytes) => bytes.is_none(),
            BodySource::Upstream { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            BodySource::Own(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            BodySource::Upstream { incoming, .. } => incoming.size_hint(),
        }
    }
}

impl<E: BodyObserver> Drop for ResponseBody<E> {
    fn drop(&mut self) {
        // A body that hyper never asked for, as that of a HEAD, ends whole.
        let whole = self.is_end_stream() || matches!(self.source, BodySource::Own(_));
        self.end(whole);
    }
}
