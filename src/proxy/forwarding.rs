//! Forwarding settings of a route.

use std::time::Duration;

use super::headers::edits::HeaderEdits;
use super::headers::path_rewrite::PrefixRewrite;
use super::upstream::UpstreamId;

/// Forwarding of one route, as configured.
#[derive(Debug, Default)]
pub struct Forwarding {
    pub upstream: UpstreamId,
    /// Response timeout; `None` is the upstream's.
    pub timeout: Option<Duration>,
    /// Largest request body in bytes; `None` is the listener's, 0 is unlimited.
    pub max_body_bytes: Option<u64>,
    /// Time for the whole exchange, to the end of the response; `None` is unlimited.
    pub request_timeout: Option<Duration>,
    pub streams: StreamEnds,
    /// Replacement of the start of the path.
    pub path_rewrite: Option<PrefixRewrite>,
    /// True if headers that override the method are forwarded.
    pub forward_method_override: bool,
    /// True if gRPC calls over HTTP/2 may pause their upload.
    pub grpc: bool,
    pub request_headers: HeaderEdits,
    pub response_headers: HeaderEdits,
}

/// Events that end a stream (a response of unknown length, or a WebSocket) before either side closes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamEnds {
    /// Expiry of the token.
    pub at_expiry: bool,
    /// A newer policy that denies the request.
    pub at_change: bool,
}

impl Default for StreamEnds {
    fn default() -> Self {
        Self {
            at_expiry: true,
            at_change: false,
        }
    }
}
