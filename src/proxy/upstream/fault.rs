//! Faults of an exchange over an open connection.

use std::io;

use super::http1::response_fault::ResponseFault;

/// Cause of a missing or incomplete response.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeFault {
    /// Failed to read from the connection.
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error("the upstream closed the connection before the end of its response")]
    Closed,
    /// Response that is not valid HTTP/1.1.
    #[error(transparent)]
    Response(#[from] ResponseFault),
    /// Fault of an HTTP/2 connection or stream.
    #[error(transparent)]
    Http2(#[from] hyper::Error),
    /// The client did not send the body that its head announced.
    #[error("the client's upload failed")]
    Upload,
}

/// Failure to send a request or to receive its response head. The request is as it was before, unless its retry is
/// excluded.
#[derive(Debug)]
pub(super) enum SendError {
    /// The connection had closed before the request was sent.
    NotSent,
    /// The upstream refused the stream without processing the request.
    NotProcessed {
        error: ExchangeFault,
        /// All of the body can be sent again.
        can_retry: bool,
    },
    /// The upstream may have processed the request.
    MaybeProcessed {
        error: ExchangeFault,
        /// The request may be sent twice.
        can_retry: bool,
    },
}
