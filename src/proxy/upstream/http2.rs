//! A connection over HTTP/2: many exchanges at a time.

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
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use crate::proxy::body::RequestBody;
use crate::proxy::tasks::LocalTasks;
use crate::proxy::transport::Stream;

use super::driver::{Driver, Watched};
use super::head::to_http2;
use super::revocable_body::RevocableBody;
use super::send::{MAX_RESPONSE_HEAD_BYTES, SendError, clone_head, is_replayable, with_body};

/// The most exchanges at a time over one connection.
const MAX_STREAMS: usize = 100;

/// How much of an answer may wait for its client, in bytes.
const STREAM_WINDOW: u32 = 64 * 1024;

/// The same for all of a connection: a client that does not read holds up no other.
const CONNECTION_WINDOW: u32 = 100 * STREAM_WINDOW;

/// How much of an upload may wait for the upstream, in bytes.
const MAX_SEND_BYTES: usize = 64 * 1024;

/// How many streams just given up are remembered: what still comes for them is no fault of the upstream.
const MAX_GIVEN_UP: usize = 1024;

/// How long a connection in use may be silent before it is asked whether it lives.
const PING: Duration = Duration::from_secs(10);

/// How long it may take to say so.
const PONG: Duration = Duration::from_secs(5);

/// An open connection. It ends by itself when it is dropped and its last stream has ended.
#[derive(Debug)]
pub(super) struct Http2 {
    sender: SendRequest<RevocableBody>,
    driver: Rc<Driver>,
    scheme: Scheme,
    streams: Cell<usize>,
    since: Cell<Instant>,
}

impl Http2 {
    /// Opens one, when the upstream has said how many streams it takes.
    pub(super) async fn open(stream: Stream, scheme: Scheme) -> io::Result<Self> {
        let mut builder = Builder::new(LocalTasks);
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(MAX_RESPONSE_HEAD_BYTES).unwrap_or(u32::MAX))
            .max_send_buf_size(MAX_SEND_BYTES)
            // What is sent before the upstream has said how much it takes, it may refuse.
            .initial_max_send_streams(0)
            .max_concurrent_reset_streams(MAX_GIVEN_UP)
            // What arrives for a stream that was given up long ago would end the connection some day.
            .max_local_error_reset_streams(None);
        let (stream, waiting) = Watched::new(stream);
        let handshake = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(io::Error::other)?;
        let driver = Driver::start(connection, waiting);
        driver.settles().await?;
        Ok(Self {
            sender,
            driver,
            scheme,
            streams: Cell::new(0),
            since: Cell::new(Instant::now()),
        })
    }

    /// Whether it has ended, as far as is known.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether the upstream takes another stream.
    pub(super) fn has_room(&self) -> bool {
        self.streams.get() < self.driver.max_streams().min(MAX_STREAMS)
    }

    /// How many exchanges it has.
    pub(super) fn streams(&self) -> usize {
        self.streams.get()
    }

    /// How long nobody has used it.
    pub(super) fn idle(&self) -> Option<Duration> {
        (self.streams.get() == 0).then(|| self.since.get().elapsed())
    }
}

/// The right to one stream. If it is dropped before it has ended, the upstream learns at once that nobody waits.
#[derive(Debug)]
pub(super) struct Http2Stream {
    connection: Rc<Http2>,
    upload: Option<RevocableBody>,
}

impl Http2Stream {
    pub(super) fn of(connection: &Rc<Http2>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self {
            connection: Rc::clone(connection),
            upload: None,
        }
    }

    pub(super) async fn send(
        &mut self,
        request: Box<Request<RequestBody>>,
    ) -> Result<Response<Incoming>, SendError> {
        let is_replayable = is_replayable(&request);
        let kept = clone_head(&request);
        let (head, mut body) = request.into_parts();
        body.keep();
        let head = to_http2(head, &self.connection.scheme);
        let loan = RevocableBody::of(body);
        self.upload = Some(loan.clone());
        let mut sender = self.connection.sender.clone();
        let sent = sender.try_send_request(Request::from_parts(head, loan.clone()));
        let sent = sent.await.inspect(|_| loan.forget());
        sent.map_err(|mut error| {
            if error.take_message().is_some()
                && let Some(body) = loan.take()
            {
                return SendError::NotSent(with_body(kept, body));
            }
            let error = error.into_error();
            if was_refused(&error) {
                let body = loan.take().and_then(RequestBody::rewound);
                return SendError::NotProcessed {
                    error,
                    retry: body.map(|body| with_body(kept, body)),
                };
            }
            SendError::MaybeProcessed {
                error,
                retry: is_replayable.then(|| with_body(kept, RequestBody::empty())),
            }
        })
    }

    /// The exchange has ended in order: nothing is left to give up, but what was not sent of a body.
    pub(super) fn end(mut self) {
        self.upload.take_if(|upload| upload.is_end_stream());
    }
}

impl Drop for Http2Stream {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.streams.set(connection.streams.get() - 1);
        connection.since.set(Instant::now());
        if let Some(upload) = self.upload.take() {
            upload.revoke();
        }
    }
}

/// RFC 9113 section 8.7: a stream that was refused has not been looked at, nor one behind the last that GOAWAY names. Of
/// those before it, h2 does not say that it was the GOAWAY.
fn was_refused(error: &hyper::Error) -> bool {
    let cause =
        std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        let is_refused = cause.reason() == Some(Reason::REFUSED_STREAM);
        cause.is_remote() && (is_refused || cause.is_go_away())
    })
}
