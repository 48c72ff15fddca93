//! HTTP/2 connection: concurrent exchanges.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use h2::Reason;
use http::uri::Scheme;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::ext::on_informational;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use crate::proxy::request_body::RequestBody;
use crate::proxy::tasks::LocalTasks;
use crate::proxy::transport::Stream;

use super::driver::{Driver, WakeOnRead};
use super::fault::SendError;
use super::head::to_http2;
use super::request::UpstreamRequest;
use super::revocable_body::RevocableBody;
use super::send::MAX_RESPONSE_HEAD_BYTES;

/// Concurrent streams of one connection.
const MAX_STREAMS: usize = 100;

/// Flow-control window of one response, in bytes.
const STREAM_WINDOW: u32 = 64 * 1024;

/// Flow-control window of a connection, in bytes: room for a full window of every stream, so that one stalled client
/// does not block the others.
const CONNECTION_WINDOW: u32 = 100 * STREAM_WINDOW;

/// Send buffer of one request, in bytes.
const SEND_BUFFER: usize = 64 * 1024;

/// Recently reset streams to remember: late frames for them are no error of the upstream.
const MAX_RESET_STREAMS: usize = 1024;

/// Silence of a connection in use after which a PING is sent.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Time to acknowledge a PING.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Open connection. Closes after the drop when its last stream has ended.
#[derive(Debug)]
pub(super) struct Http2 {
    sender: SendRequest<RevocableBody>,
    driver: Rc<Driver>,
    scheme: Scheme,
    streams: Cell<usize>,
    /// End of the last stream.
    idle_since: Cell<Instant>,
}

impl Http2 {
    /// Completes the handshake and waits for the settings of the upstream.
    pub(super) async fn open(stream: Stream, scheme: Scheme) -> io::Result<Self> {
        let mut builder = Builder::new(LocalTasks);
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(MAX_RESPONSE_HEAD_BYTES).unwrap_or(u32::MAX))
            .max_send_buf_size(SEND_BUFFER)
            // No streams before the SETTINGS frame: the upstream may refuse streams above its limit.
            .initial_max_send_streams(0)
            .max_concurrent_reset_streams(MAX_RESET_STREAMS)
            // Otherwise late frames for long-forgotten streams would close the connection eventually.
            .max_local_error_reset_streams(None);
        let (stream, settings) = WakeOnRead::new(stream);
        let handshake = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(io::Error::other)?;
        let driver = Driver::start(connection, settings);
        driver.wait_for_settings().await?;
        Ok(Self {
            sender,
            driver,
            scheme,
            streams: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(super) fn has_capacity(&self) -> bool {
        self.streams.get() < self.driver.max_streams().min(MAX_STREAMS)
    }

    /// Number of open streams.
    pub(super) fn streams(&self) -> usize {
        self.streams.get()
    }

    /// Time since the last stream ended; none while a stream is open.
    pub(super) fn idle(&self) -> Option<Duration> {
        (self.streams.get() == 0).then(|| self.idle_since.get().elapsed())
    }
}

/// One stream. Dropping it before its end resets the stream, so that the upstream stops working on an abandoned request.
#[derive(Debug)]
pub(super) struct Http2Stream {
    connection: Rc<Http2>,
    upload: Option<RevocableBody>,
}

impl Http2Stream {
    pub(super) fn new(connection: &Rc<Http2>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self {
            connection: Rc::clone(connection),
            upload: None,
        }
    }

    /// Sends a request and waits for the response head.
    pub(super) async fn send(
        mut self,
        request: &mut UpstreamRequest,
    ) -> Result<(Response<Incoming>, Self), SendError> {
        let is_replayable = request.is_replayable();
        let head = to_http2(request.head.to_parts(), &self.connection.scheme);
        let mut body = std::mem::take(&mut request.body);
        body.enable_replay();
        let upload = RevocableBody::new(body);
        self.upload = Some(upload.clone());
        let mut sender = self.connection.sender.clone();
        let mut sent = Request::from_parts(head, upload.clone());
        if let Some(informational) = request.informational.clone() {
            on_informational(&mut sent, move |response| {
                informational.forward(response.status(), response.headers().clone());
            });
        }
        let sent = sender.try_send_request(sent).await;
        let mut error = match sent {
            Ok(response) => {
                upload.disable_replay();
                return Ok((response, self));
            }
            Err(error) => error,
        };
        if error.take_message().is_some()
            && let Some(body) = upload.take()
        {
            request.body = body;
            return Err(SendError::NotSent);
        }
        let error = error.into_error();
        if was_not_processed(&error) {
            let body = upload.take().and_then(RequestBody::rewind);
            let can_retry = body.is_some();
            request.body = body.unwrap_or_default();
            return Err(SendError::NotProcessed {
                error: error.into(),
                can_retry,
            });
        }
        Err(SendError::MaybeProcessed {
            error: error.into(),
            can_retry: is_replayable,
        })
    }

    /// Ends the stream after a complete response. Only an unfinished request body is still reset.
    pub(super) fn finish(mut self) {
        self.upload.take_if(|upload| upload.is_end_stream());
    }
}

impl Drop for Http2Stream {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.streams.set(connection.streams.get() - 1);
        connection.idle_since.set(Instant::now());
        if let Some(upload) = self.upload.take() {
            upload.revoke();
        }
    }
}

/// Returns true if the upstream has not processed the request: its stream was refused, or is above the last stream ID of
/// a GOAWAY (RFC 9113 section 8.7). For streams up to that ID, h2 reports another error.
fn was_not_processed(error: &hyper::Error) -> bool {
    let cause =
        std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        let is_refused = cause.reason() == Some(Reason::REFUSED_STREAM);
        cause.is_remote() && (is_refused || cause.is_go_away())
    })
}
