//! Connection checked out by one exchange.

use http::{Request, Response};
use hyper::body::Incoming;

use crate::proxy::request_body::RequestBody;

use super::http1::Http1;
use super::http2::Http2Stream;
use super::send::SendError;

/// HTTP/1.1 connection, or one stream of an HTTP/2 connection. Dropping it closes the connection or resets the stream.
#[derive(Debug)]
pub(super) enum Connection {
    Http1(Http1),
    Http2(Http2Stream),
}

impl Connection {
    pub(super) async fn send(
        &mut self,
        request: Box<Request<RequestBody>>,
    ) -> Result<Response<Incoming>, SendError> {
        match self {
            Self::Http1(connection) => connection.send(request).await,
            Self::Http2(stream) => stream.send(request).await,
        }
    }
}
