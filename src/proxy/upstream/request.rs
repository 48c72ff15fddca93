//! Request to an upstream.

use http::Method;

use crate::proxy::informational::InformationalForwarder;
use crate::proxy::request_body::RequestBody;
use crate::proxy::request_head::RequestHead;

/// Usual [`UpstreamRequest::max_read`].
pub const MAX_READ: usize = 32 * 1024;

/// [`UpstreamRequest::max_read`] if no other buffer holds the data again: HTTP/1.1 without TLS.
pub const MAX_READ_UNBUFFERED: usize = 64 * 1024;

/// Request to an upstream. A retry sends the same head again.
#[derive(Debug)]
pub struct UpstreamRequest {
    pub head: RequestHead,
    pub body: RequestBody,
    /// Receives the informational responses; `None` drops them.
    pub informational: Option<InformationalForwarder>,
    /// Largest read of the response, in bytes: a client that does not read holds one.
    pub max_read: usize,
}

impl UpstreamRequest {
    /// Returns true if the request may be sent twice: its method is idempotent (RFC 9110 section 9.2.2) and its body
    /// empty.
    pub(super) fn is_replayable(&self) -> bool {
        let is_idempotent = matches!(
            *self.head.method(),
            Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
        );
        is_idempotent && self.body.is_empty()
    }
}
