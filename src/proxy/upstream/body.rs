//! Body of an upstream's response, with the connection that it comes from.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::proxy::transport::Stream;

use super::address::EndpointAddress;
use super::connection::BodySource;
use super::endpoint::PendingGuard;
use super::fault::ExchangeFault;
use super::queue::Slot;

/// Response body. Its complete end returns the connection to the pool; dropped earlier, it closes the connection or resets
/// the HTTP/2 stream, so that the upstream stops working on an abandoned request.
#[derive(Debug)]
pub struct UpstreamBody {
    source: Option<BodySource>,
    /// Until the end.
    exchange: Option<(PendingGuard, Option<Slot>)>,
    address: Arc<EndpointAddress>,
}

/// Upgraded connection. Counts as pending until it is dropped.
#[derive(Debug)]
pub struct Upgraded {
    pub stream: Stream,
    /// Bytes that the upstream sent behind its response head.
    pub read: Bytes,
    _exchange: Option<(PendingGuard, Option<Slot>)>,
}

impl UpstreamBody {
    pub(super) fn new(source: BodySource, pending: PendingGuard, slot: Option<Slot>) -> Self {
        Self {
            source: Some(source),
            address: Arc::clone(&pending.0.address),
            exchange: Some((pending, slot)),
        }
    }

    /// Address of the endpoint.
    pub fn address(&self) -> &Arc<EndpointAddress> {
        &self.address
    }

    /// Returns true if the message length was checked when the head was parsed.
    pub fn is_http1(&self) -> bool {
        matches!(self.source, Some(BodySource::Http1(_)))
    }

    /// Takes the upgraded connection of a 101 response; `None` over HTTP/2.
    pub fn into_upgraded(mut self) -> Option<Upgraded> {
        let Some(BodySource::Http1(body)) = self.source.take() else {
            return None;
        };
        let (stream, read) = body.into_upgraded()?;
        Some(Upgraded {
            stream,
            read,
            _exchange: self.exchange.take(),
        })
    }

    /// Returns the connection to the pool after a complete response. The client's upload must be complete too.
    pub fn release(&mut self) {
        let exchange = self.exchange.take();
        match (self.source.take(), &exchange) {
            (Some(BodySource::Http1(body)), Some((pending, _))) => {
                if let Some(connection) = body.into_connection() {
                    pending.0.check_in(connection);
                }
            }
            (Some(BodySource::Http2(_, stream)), _) => stream.finish(),
            (Some(BodySource::Http1(_)) | None, _) => {}
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = ExchangeFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ExchangeFault>>> {
        let Some(source) = &mut self.source else {
            return Poll::Ready(None);
        };
        let polled = ready!(source.poll_frame(context));
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.source.as_ref().is_none_or(BodySource::is_complete)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Some(BodySource::Http1(body)) => body.size_hint(),
            Some(BodySource::Http2(body, _)) => body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}
