//! Errors of an exchange with an upstream.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::gate::refusal::Refusal;

use super::address::EndpointAddress;
use super::fault::ExchangeFault;
use super::send::MAX_RESPONSE_FIELDS;

/// Upstream without a usable response. The text completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("connect to {target}")]
    Connect {
        target: Arc<EndpointAddress>,
        #[source]
        source: std::io::Error,
    },
    #[error("connect to {target} within {waited:?}")]
    ConnectTimeout {
        target: Arc<EndpointAddress>,
        /// `connect_timeout`.
        waited: Duration,
    },
    #[error("receive a response from {target} within {waited:?}")]
    ResponseTimeout {
        target: Arc<EndpointAddress>,
        /// Response timeout, counted from the end of the request.
        waited: Duration,
    },
    /// Connection error, or malformed HTTP.
    #[error("read the response of {target}")]
    InvalidResponse {
        target: Arc<EndpointAddress>,
        #[source]
        source: ExchangeFault,
    },
    /// Every connection closes before the request is sent.
    #[error("send the request to {target}: it closes every connection")]
    ConnectionClosed { target: Arc<EndpointAddress> },
    #[error("read the response of {target}: ambiguous message length")]
    AmbiguousLength { target: Arc<EndpointAddress> },
    #[error("read the response of {target}: unexpected 101 Switching Protocols")]
    UnexpectedUpgrade { target: Arc<EndpointAddress> },
    #[error("open a WebSocket to {target}: its response is {status}, not 101 Switching Protocols")]
    NotSwitched {
        target: Arc<EndpointAddress>,
        status: StatusCode,
    },
    #[error(
        "read the response of {target}: {fields} header fields, more than {MAX_RESPONSE_FIELDS}"
    )]
    TooManyFields {
        target: Arc<EndpointAddress>,
        fields: usize,
    },
    #[error(
        "send the request to the upstream `{name}`: `max_connections` is reached and the queue is full or timed out"
    )]
    QueueFull { name: String },
    #[error("open a WebSocket to {target}: the upstream uses HTTP/2")]
    WebSocketOverHttp2 { target: Arc<EndpointAddress> },
}

impl UpstreamError {
    /// Refusal to respond with.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::QueueFull { .. } => Refusal::Overloaded,
            Self::Connect { .. } => Refusal::UpstreamUnreachable,
            Self::ConnectTimeout { .. } | Self::ResponseTimeout { .. } => Refusal::UpstreamTimeout,
            Self::InvalidResponse { .. }
            | Self::ConnectionClosed { .. }
            | Self::AmbiguousLength { .. }
            | Self::UnexpectedUpgrade { .. }
            | Self::NotSwitched { .. }
            | Self::TooManyFields { .. }
            | Self::WebSocketOverHttp2 { .. } => Refusal::UpstreamInvalidResponse,
        }
    }

    pub(super) fn is_connect_timeout(&self) -> bool {
        matches!(self, Self::ConnectTimeout { .. })
    }
}
