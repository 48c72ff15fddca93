//! Why an upstream gave no answer.

use std::sync::Arc;
use std::time::Duration;

use crate::gate::refusal::Refusal;

use super::address::EndpointAddress;

/// Why the upstream gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection could be opened.
    #[error("connect to {target}")]
    Connect {
        /// Where to.
        target: Arc<EndpointAddress>,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A connection took too long to open.
    #[error("connect to {target} within {waited:?}")]
    ConnectTimeout {
        /// Where to.
        target: Arc<EndpointAddress>,
        /// How long it was tried.
        waited: Duration,
    },
    /// The answer took too long.
    #[error("wait for the answer of {target} longer than {waited:?}")]
    Silent {
        /// Whose.
        target: Arc<EndpointAddress>,
        /// How long was waited after the whole request.
        waited: Duration,
    },
    /// The connection broke, or what came was not HTTP.
    #[error("read the answer of {target}")]
    Broken {
        /// Whose.
        target: Arc<EndpointAddress>,
        /// What was wrong.
        #[source]
        source: hyper::Error,
    },
    /// It ends every connection before a request.
    #[error("send to {target}: it closes every connection")]
    Closes {
        /// Who.
        target: Arc<EndpointAddress>,
    },
    /// Its answer has more than one end.
    #[error("read the answer of {target}: it says in two ways where it ends")]
    Ends {
        /// Whose.
        target: Arc<EndpointAddress>,
    },
    /// It switched protocols without being asked.
    #[error("read the answer of {target}: it switched protocols without being asked")]
    Switched {
        /// Whose.
        target: Arc<EndpointAddress>,
    },
    /// Too many requests are with it already.
    #[error("send to the upstream `{name}`: too many requests are with it or wait")]
    Full {
        /// Its name.
        name: String,
    },
    /// It was asked for a WebSocket, and speaks HTTP/2.
    #[error("open a WebSocket with {target}: it is spoken to in HTTP/2")]
    NoWebSocket {
        /// Who.
        target: Arc<EndpointAddress>,
    },
}

impl UpstreamError {
    /// Refusal to respond with.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Full { .. } => Refusal::Overloaded,
            Self::Connect { .. } => Refusal::UpstreamUnreachable,
            Self::ConnectTimeout { .. } | Self::Silent { .. } => Refusal::UpstreamTimeout,
            Self::Broken { .. }
            | Self::Closes { .. }
            | Self::Ends { .. }
            | Self::Switched { .. }
            | Self::NoWebSocket { .. } => Refusal::UpstreamInvalidResponse,
        }
    }

    /// Whether it took the whole time for a connection.
    pub(super) fn is_slow_to_connect(&self) -> bool {
        matches!(self, Self::ConnectTimeout { .. })
    }
}
