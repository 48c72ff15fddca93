//! HTTP/2 connections: limits, deadlines and graceful shutdown.

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

use crate::proxy::deadline_timer::DeadlineTimer;
use crate::proxy::exchange::Exchange;
use crate::proxy::response_body::{BodyError, ResponseBody};
use crate::proxy::tasks::{StreamHandle, StreamTasks};

use super::connection::Connection;
use super::limits::ConnectionLimits;
use super::service::ConnectionService;
use super::socket::Socket;

/// Concurrent streams of one connection.
const MAX_STREAMS: u32 = 100;

/// Flow-control window for request bodies, in bytes: of one stream, and of a connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Send buffer of one stream, in bytes.
const SEND_BUFFER: usize = 8 * 1024;

/// Largest chunk of a response body given to hyper at once, in bytes: hyper holds one chunk for a stalled client.
const MAX_CHUNK: usize = 8 * 1024;

/// Streams reset by the client before the gate has accepted them, until the connection is closed (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 20;

/// Streams reset by the gate because of client errors, until the connection is closed (CVE-2025-8671).
const MAX_PROVOKED_RESETS: usize = 128;

/// Silence of the client after which the gate sends a PING.
const PING: Duration = Duration::from_secs(30);

/// Serves a connection to its end, with a graceful shutdown after [`Connection::close`], the idle timeout or the header
/// timeout.
pub(super) async fn serve(service: ConnectionService, socket: Box<Socket>) -> hyper::Result<()> {
    let limits = service.server.limits();
    let connection = Rc::clone(&service.connection);
    connection.set_http2();
    let service = service_fn(move |request| {
        let service = service.clone();
        async move {
            let in_flight = InFlight::begin(&service.connection);
            let response = service.call(request).await;
            Ok::<_, Infallible>(response.map(|body| StreamBody::new(body, in_flight)))
        }
    });
    let builder = builder(Rc::clone(&connection), limits);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(socket), service));
    let mut timer = DeadlineTimer::default();
    let mut goaway_sent = None;
    poll_fn(|context| {
        loop {
            // Received bytes are read before an idle connection is closed, so that no request is lost.
            if let Poll::Ready(served) = serving.as_mut().poll(context) {
                return Poll::Ready(served);
            }
            let is_closing = connection.is_closing(context);
            let deadline = match goaway_sent {
                None => connection.deadline(limits.timeouts),
                Some(sent) => connection.goaway_deadline(sent, limits.timeouts),
            };
            let is_over = deadline.is_some_and(|deadline| timer.elapsed(deadline, context));
            match goaway_sent {
                None if is_over || is_closing => {
                    if is_over {
                        connection.note_timeout();
                    }
                    goaway_sent = Some(Instant::now());
                    serving.as_mut().graceful_shutdown();
                }
                // The client does not close the connection after GOAWAY.
                Some(_) if is_over => return Poll::Ready(Ok(())),
                None | Some(_) => return Poll::Pending,
            }
        }
    })
    .await
}

fn builder(connection: Rc<Connection>, limits: ConnectionLimits) -> http2::Builder<StreamTasks> {
    let tasks = StreamTasks {
        connection,
        body_timeout: limits.timeouts.body,
    };
    let max_header_bytes = u32::try_from(limits.read_header_bytes()).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(tasks);
    builder
        .max_concurrent_streams(MAX_STREAMS)
        // Extended CONNECT, for WebSocket over HTTP/2 (RFC 8441).
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

/// Keeps a connection from being idle until the response body of a stream is dropped.
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

/// Response body in chunks of at most [`MAX_CHUNK`] bytes. Reports on its [`StreamHandle`] while the client does not
/// read.
struct StreamBody {
    body: ResponseBody<Box<Exchange>>,
    /// Data frame of `body`, without the chunks already returned.
    buffered: Bytes,
    /// Size of the last chunk returned, which the client may not have read.
    last_chunk: usize,
    stream: Option<StreamHandle>,
    _in_flight: InFlight,
}

impl StreamBody {
    fn new(body: ResponseBody<Box<Exchange>>, in_flight: InFlight) -> Self {
        Self {
            body,
            buffered: Bytes::new(),
            last_chunk: 0,
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
        if self.last_chunk > 0 {
            // hyper polls again only after the client has read as much as the last chunk.
            let bytes = std::mem::take(&mut self.last_chunk);
            if let Some(stream) = &self.stream {
                stream.note_progress(bytes);
            }
        }
        let mut polled = None;
        if self.buffered.is_empty() {
            polled = match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.buffered = data;
                        None
                    }
                    Err(frame) => Some(Poll::Ready(Some(Ok(frame)))),
                },
                other @ (Poll::Ready(_) | Poll::Pending) => Some(other),
            };
        }
        polled.unwrap_or_else(|| {
            let chunk = self.buffered.len().min(MAX_CHUNK);
            self.last_chunk = chunk;
            if let Some(stream) = &self.stream {
                stream.note_blocked();
            }
            Poll::Ready(Some(Ok(Frame::data(self.buffered.split_to(chunk)))))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.buffered.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let buffered = self.buffered.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + buffered);
        }
        hint.set_lower(hint.lower() + buffered);
        hint
    }
}
