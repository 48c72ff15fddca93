//! HTTP/1.1 connection: one exchange at a time.

pub mod body_decoder;
mod field_section;
pub mod response_head;

use std::io;
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::{AbortHandle, spawn_local};

use crate::proxy::request_body::RequestBody;
use crate::proxy::transport::Stream;

use super::reuse::{ReuseState, SurplusFlag, WatchedStream};
use super::send::{
    MAX_RESPONSE_FIELDS, MAX_RESPONSE_HEAD_BYTES, SendError, clone_head, is_replayable, with_body,
};

/// Open connection. Closed on drop, so that the upstream stops working on an abandoned request.
#[derive(Debug)]
pub(super) struct Http1 {
    sender: SendRequest<RequestBody>,
    task: AbortHandle,
    reuse: Arc<ReuseState>,
    /// The last response had no content by definition: an upstream that sends some anyway sends it later.
    is_without_content: bool,
    is_detached: bool,
}

impl Http1 {
    pub(super) async fn open(stream: Stream, surplus: Arc<SurplusFlag>) -> io::Result<Self> {
        let mut builder = Builder::new();
        // Without vectored writes, a small head and body go out in one write.
        builder
            .writev(false)
            .max_buf_size(MAX_RESPONSE_HEAD_BYTES)
            .max_header_size(MAX_RESPONSE_HEAD_BYTES)
            .max_headers(MAX_RESPONSE_FIELDS);
        let (stream, reuse) = WatchedStream::new(stream, surplus);
        let handshake = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(io::Error::other)?;
        let connection = connection.with_upgrades();
        let task = spawn_local(async move {
            // The sender reports a failure to the exchange.
            let _result = connection.await;
        });
        Ok(Self {
            sender,
            task: task.abort_handle(),
            reuse,
            is_without_content: false,
            is_detached: false,
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Waits until the connection accepts a request or has closed.
    pub(super) async fn is_ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    pub(super) async fn send(
        &mut self,
        request: Box<Request<RequestBody>>,
    ) -> Result<Response<Incoming>, SendError> {
        let retry = is_replayable(&request).then(|| clone_head(&request));
        let is_head = request.method() == Method::HEAD;
        self.reuse.begin_reuse();
        let sent = self.sender.try_send_request(*request).await;
        let sent = sent.inspect(|response| {
            self.is_without_content = is_head || is_without_content(response.status());
        });
        sent.map_err(|mut error| match error.take_message() {
            Some(unsent) => SendError::NotSent(Box::new(unsent)),
            None => {
                let error = error.into_error();
                let retry = retry.filter(|_| !error.is_parse());
                SendError::MaybeProcessed {
                    retry: retry.map(|head| with_body(head, RequestBody::empty())),
                    error,
                }
            }
        })
    }

    /// Returns true if the connection may carry another exchange after a complete response.
    pub(super) fn check_in(&self) -> bool {
        self.reuse.check_in() && !self.is_without_content
    }

    /// Keeps the upgraded connection open after the drop.
    pub(super) fn detach(mut self) {
        self.reuse.upgrade();
        self.is_detached = true;
    }
}

/// Returns true if a response with this status never has content (RFC 9110 sections 15.3.5 and 15.4.5).
fn is_without_content(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

impl Drop for Http1 {
    fn drop(&mut self) {
        if !self.is_detached {
            self.task.abort();
        }
    }
}
