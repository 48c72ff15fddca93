//! Response bodies on their way to the client: counted and timed, never collected.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::gate::refusal::Refusal;

use super::stream_deadlines::StreamDeadlines;

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
