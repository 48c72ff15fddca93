//! Sending one request over one connection: failures, and the copy for a retry.

use http::{Method, Request};

use crate::proxy::request_body::RequestBody;

/// Size limit of a response head, in bytes.
pub(super) const MAX_RESPONSE_HEAD_BYTES: usize = 64 * 1024;

/// Most fields of a response head. Some APIs set many cookies.
pub const MAX_RESPONSE_FIELDS: usize = 256;

/// Failure to send a request or to receive its response head.
#[derive(Debug)]
pub(super) enum SendError {
    /// The connection had closed before the request was sent.
    NotSent(Box<Request<RequestBody>>),
    /// The upstream refused the stream without processing the request.
    NotProcessed {
        error: hyper::Error,
        /// The same request; none if its body is not buffered completely.
        retry: Option<Box<Request<RequestBody>>>,
    },
    /// The upstream may have processed the request.
    MaybeProcessed {
        error: hyper::Error,
        /// The same request, if it is replayable.
        retry: Option<Box<Request<RequestBody>>>,
    },
}

/// Returns true if a request may be sent twice: its method is idempotent (RFC 9110 section 9.2.2) and its body empty.
pub(super) fn is_replayable(request: &Request<RequestBody>) -> bool {
    let is_idempotent = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
    );
    is_idempotent && request.body().is_empty()
}

pub(super) fn with_body(head: Request<()>, body: RequestBody) -> Box<Request<RequestBody>> {
    Box::new(head.map(|()| body))
}

pub(super) fn clone_head(request: &Request<RequestBody>) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.headers_mut() = request.headers().clone();
    head
}
