//! A connection that has been given to one exchange.

use http::{Method, Request, Response};
use hyper::body::Incoming;

use crate::proxy::request_body::RequestBody;

use super::http1::Http1;
use super::http2::OneStream;

/// All of a connection, or one stream of it. It is cut when it is dropped.
#[derive(Debug)]
pub(super) enum Connection {
    /// Over HTTP/1.1.
    Http1(Http1),
    /// Over HTTP/2.
    Http2(OneStream),
}

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was not sent: the connection had ended.
    Unsent(Box<Request<RequestBody>>),
    /// It was sent, and the upstream has refused to look at it.
    Refused {
        /// How it said so.
        error: hyper::Error,
        /// The same request, if so much of its body is kept.
        again: Option<Box<Request<RequestBody>>>,
    },
    /// It may have been looked at.
    Sent {
        /// What went wrong.
        error: hyper::Error,
        /// The same request, if repeating it is harmless.
        again: Option<Box<Request<RequestBody>>>,
    },
}

impl Connection {
    pub(super) async fn send(
        &mut self,
        request: Box<Request<RequestBody>>,
    ) -> Result<Response<Incoming>, Failure> {
        match self {
            Self::Http1(connection) => connection.send(request).await,
            Self::Http2(stream) => stream.send(request).await,
        }
    }
}

/// Whether sending it twice is as good as sending it once (RFC 9110 section 9.2.2), and it can be sent twice.
pub(super) fn is_harmless(request: &Request<RequestBody>) -> bool {
    let is_idempotent = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
    );
    is_idempotent && request.body().is_empty()
}

/// The same request with another body.
pub(super) fn with_body(head: Request<()>, body: RequestBody) -> Box<Request<RequestBody>> {
    Box::new(head.map(|()| body))
}

/// A copy of the head.
pub(super) fn head_of(request: &Request<RequestBody>) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.headers_mut() = request.headers().clone();
    head
}
