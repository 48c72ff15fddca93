//! Connection checked out by one exchange.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame};
use hyper::body::Incoming;

use super::fault::{ExchangeFault, SendError};
use super::http1::{Http1, Http1Body};
use super::http2::Http2Stream;
use super::request::UpstreamRequest;

/// HTTP/1.1 connection, or one stream of an HTTP/2 connection. Dropping it closes the connection or resets the stream.
#[derive(Debug)]
pub(super) enum Connection {
    Http1(Box<Http1>),
    Http2(Http2Stream),
}

/// Body of a response and the connection that it comes from.
#[derive(Debug)]
pub(super) enum BodySource {
    Http1(Http1Body),
    Http2(Incoming, Http2Stream),
}

impl Connection {
    pub(super) fn is_http1(&self) -> bool {
        matches!(self, Self::Http1(_))
    }

    /// Sends a request and waits for the response head.
    pub(super) async fn send(
        self,
        request: &mut UpstreamRequest,
    ) -> Result<Response<BodySource>, SendError> {
        match self {
            Self::Http1(connection) => {
                let response = connection.send(request).await?;
                Ok(response.map(BodySource::Http1))
            }
            Self::Http2(stream) => {
                // Boxed: most upstreams speak HTTP/1.1, and the future would enlarge that of every request.
                let (response, stream) = Box::pin(stream.send(request)).await?;
                Ok(response.map(|body| BodySource::Http2(body, stream)))
            }
        }
    }
}

impl BodySource {
    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ExchangeFault>>> {
        match self {
            Self::Http1(body) => body.poll_frame(context),
            Self::Http2(body, _) => Pin::new(body)
                .poll_frame(context)
                .map_err(ExchangeFault::Http2),
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_complete(),
            Self::Http2(body, _) => body.is_end_stream(),
        }
    }
}
