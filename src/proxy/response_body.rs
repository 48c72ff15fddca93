//! Response bodies, streamed to the client: counted and timed, never collected.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body::{Body, Frame, SizeHint};

use crate::gate::refusal::Refusal;

use super::headers::is_media_type;
use super::stream_deadlines::StreamDeadlines;
use super::upstream::{ExchangeFault, UpstreamBody};

/// Body of a response: a local body of the gate, or a forwarded body of the upstream.
#[derive(Debug)]
pub struct ResponseBody<O: BodyObserver> {
    source: BodySource,
    observer: Option<O>,
    bytes: u64,
}

/// Notified when a response body ends. `bytes` is the number of bytes sent.
pub trait BodyObserver: Unpin {
    /// The body has ended. Not `complete` if its source or the client broke off.
    fn ended(self, bytes: u64, complete: bool);

    /// The gate has aborted the body for this reason.
    fn aborted(self, bytes: u64, refusal: &Refusal);

    /// Removes the fields of the upstream's trailers that a client must not receive.
    fn filter_trailers(&self, trailers: &mut HeaderMap);
}

/// Kind of a response body. Determines the form in which the gate can abort it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// Server-sent events: an end between two events is a normal end, and the client reconnects by itself.
    Events,
    /// gRPC: trailers carry the final status.
    Grpc,
    /// Any other body. Aborted, it must not look complete.
    Plain,
}

impl BodyKind {
    /// Kind of a body by the `Content-Type` of its response.
    pub fn of(headers: &HeaderMap) -> Self {
        let kind = headers.get(CONTENT_TYPE);
        let is = |name| kind.is_some_and(|kind| is_media_type(kind, name));
        if is(b"text/event-stream") {
            Self::Events
        } else if is(b"application/grpc") {
            Self::Grpc
        } else {
            Self::Plain
        }
    }
}

/// Cause of an incomplete response body.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error(transparent)]
    Upstream(#[from] ExchangeFault),
    #[error("response aborted by the gate")]
    Aborted,
}

#[derive(Debug)]
enum BodySource {
    Local(Option<Bytes>),
    Upstream {
        body: UpstreamBody,
        kind: BodyKind,
        deadlines: StreamDeadlines,
    },
}

type Polled = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

impl<O: BodyObserver> ResponseBody<O> {
    /// Body of a response of the gate.
    pub fn local(bytes: Bytes, observer: O) -> Self {
        let mut body = Self {
            source: BodySource::Local((!bytes.is_empty()).then_some(bytes)),
            observer: Some(observer),
            bytes: 0,
        };
        body.end_if_complete();
        body
    }

    /// Empty body without an observer.
    pub fn none() -> Self {
        Self {
            source: BodySource::Local(None),
            observer: None,
            bytes: 0,
        }
    }

    /// Body of the upstream, aborted at the first of the deadlines.
    pub fn upstream(
        body: UpstreamBody,
        kind: BodyKind,
        deadlines: StreamDeadlines,
        observer: O,
    ) -> Self {
        let mut body = Self {
            source: BodySource::Upstream {
                body,
                kind,
                deadlines,
            },
            observer: Some(observer),
            bytes: 0,
        };
        body.end_if_complete();
        body
    }

    fn end_if_complete(&mut self) {
        if self.is_end_stream() {
            self.end(true);
        }
    }

    fn end(&mut self, complete: bool) {
        if complete && let BodySource::Upstream { body, .. } = &mut self.source {
            body.release();
        }
        if let Some(observer) = self.observer.take() {
            observer.ended(self.bytes, complete);
        }
    }

    fn abort(&mut self, kind: BodyKind, refusal: &Refusal) -> Polled {
        self.source = BodySource::Local(None);
        if let Some(observer) = self.observer.take() {
            observer.aborted(self.bytes, refusal);
        }
        Poll::Ready(match kind {
            // A stream that exceeds a timeout may be inside an event.
            BodyKind::Events if *refusal != Refusal::UpstreamTimeout => None,
            BodyKind::Grpc => Some(Ok(Frame::trailers(refusal.grpc_trailers()))),
            BodyKind::Events | BodyKind::Plain => Some(Err(BodyError::Aborted)),
        })
    }
}

impl<O: BodyObserver> Body for ResponseBody<O> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        let mut polled = match &mut self.source {
            BodySource::Local(bytes) => {
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))))
            }
            BodySource::Upstream {
                body,
                kind,
                deadlines,
            } => {
                let polled = Pin::new(body).poll_frame(context);
                let ended_by = match &polled {
                    Poll::Ready(_) => deadlines.note_progress(),
                    Poll::Pending => match deadlines.poll_end(context) {
                        Poll::Ready(refusal) => Some(refusal),
                        Poll::Pending => None,
                    },
                };
                if let Some(refusal) = ended_by {
                    let kind = *kind;
                    return self.abort(kind, &refusal);
                }
                polled.map_err(BodyError::Upstream)
            }
        };
        match &mut polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(trailers), Some(observer)) = (frame.trailers_mut(), &self.observer) {
                    observer.filter_trailers(trailers);
                }
                self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                // hyper may not poll again after the last byte.
                self.end_if_complete();
            }
            Poll::Ready(Some(Err(_))) => self.end(false),
            Poll::Ready(None) => self.end(true),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            BodySource::Local(bytes) => bytes.is_none(),
            BodySource::Upstream { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            BodySource::Local(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            BodySource::Upstream { body, .. } => body.size_hint(),
        }
    }
}

impl<O: BodyObserver> Drop for ResponseBody<O> {
    fn drop(&mut self) {
        // hyper never polls the body of a HEAD response: such a body is complete.
        let complete = self.is_end_stream() || matches!(self.source, BodySource::Local(_));
        self.end(complete);
    }
}
