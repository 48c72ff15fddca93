//! HTTP/2: its limits, its deadlines, and the end of its connections.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use super::connection::Connection;
use super::socket::Socket;
use crate::proxy::body::{BodyError, ResponseBody};
use crate::proxy::deadline_timer::DeadlineTimer;
use crate::proxy::exchange::Exchange;
use crate::proxy::tasks::{StreamHandle, StreamTasks};

use super::limits::ConnectionLimits;
use super::serve::Client;

/// How many exchanges one connection may have at once.
const MAX_STREAMS: u32 = 100;

/// How much of a request body a client may send ahead, in bytes: in one exchange, and in all of a connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// How much of an answer waits for a client that does not take it, in bytes.
const SEND_BUFFER: usize = 64 * 1024;

/// The most that is taken of an answer at once, in bytes: hyper holds one such part for a client that takes nothing.
const PART: usize = 16 * 1024;

/// How many exchanges a client may have reset that the gate has not seen yet, before the connection ends
/// (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 20;

/// How many exchanges a client may have the gate reset by its own faults, before the connection ends (CVE-2025-8671).
const MAX_PROVOKED_RESETS: usize = 128;

/// How often a connection on which nothing arrives is asked whether the client is still there.
const PING: Duration = Duration::from_secs(30);

/// Serves a connection to its end. It ends in order when it is asked to, when it has been idle for its time, or when no
/// head has come in time.
pub(super) async fn serve(client: Client, socket: Box<Socket>) -> hyper::Result<()> {
    let limits = client.server.limits();
    let connection = Rc::clone(&client.connection);
    connection.speaks_http2();
    let service = service_fn(move |request| {
        let client = client.clone();
        async move {
            let in_flight = InFlight::begin(&client.connection);
            let answer = client.answer(request).await;
            Ok::<_, Infallible>(answer.map(|body| StreamBody::new(body, in_flight)))
        }
    });
    let mut serving = pin!(builder(limits).serve_connection(TokioIo::new(socket), service));
    let mut timer = DeadlineTimer::default();
    let mut told = None;
    poll_fn(|context| {
        loop {
            // What has arrived is read before an idle connection is closed, so that no request is lost.
            if let Poll::Ready(served) = serving.as_mut().poll(context) {
                return Poll::Ready(served);
            }
            let is_closing = connection.is_closing(context);
            let deadline = match told {
                None => connection.deadline(limits.timeouts),
                Some(told) => connection.goaway_deadline(told, limits.timeouts),
            };
            let is_over = deadline.is_some_and(|deadline| timer.elapsed(deadline, context));
            match told {
                None if is_over || is_closing => {
                    if is_over {
                        connection.note_timeout();
                    }
                    told = Some(Instant::now());
                    serving.as_mut().graceful_shutdown();
                }
                // A client that does not answer its farewell is left.
                Some(_) if is_over => return Poll::Ready(Ok(())),
                None | Some(_) => return Poll::Pending,
            }
        }
    })
    .await
}

fn builder(limits: ConnectionLimits) -> http2::Builder<StreamTasks> {
    let tasks = StreamTasks {
        body_timeout: limits.timeouts.body,
    };
    let max_header_bytes = u32::try_from(limits.read_header_bytes()).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(tasks);
    builder
        .max_concurrent_streams(MAX_STREAMS)
        // A WebSocket may come over HTTP/2 (RFC 8441).
        .enable_connect_protocol()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(max_header_bytes)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_PROVOKED_RESETS)
        .timer(TokioTimer::new())
        .keep_alive_interval(PING);
    builder
}

/// Keeps a connection from being idle as long as something of an answer is on its way.
struct InFlight(Rc<Connection>);

impl InFlight {
    fn begin(connection: &Rc<Connection>) -> Self {
        connection.begin_exchange(Instant::now());
        Self(Rc::clone(connection))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.end_exchange(Instant::now());
    }
}

/// The body of an answer on its stream: given out in small parts, and known to wait for the client between them.
struct StreamBody {
    body: ResponseBody<Box<Exchange>>,
    /// What was taken of the body and not given out yet.
    rest: Bytes,
    stream: Option<StreamHandle>,
    _in_flight: InFlight,
}

impl StreamBody {
    fn new(body: ResponseBody<Box<Exchange>>, in_flight: InFlight) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            stream: StreamHandle::current(),
            _in_flight: in_flight,
        }
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut polled = None;
        if self.rest.is_empty() {
            polled = match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.rest = data;
                        None
                    }
                    Err(frame) => Some(Poll::Ready(Some(Ok(frame)))),
                },
                other @ (Poll::Ready(_) | Poll::Pending) => Some(other),
            };
        }
        if let Some(stream) = &self.stream {
            // hyper asks for more only when the client has taken what it got.
            stream.waits_for_client(polled.is_none());
        }
        polled.unwrap_or_else(|| {
            let part = self.rest.len().min(PART);
            Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(part)))))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}
