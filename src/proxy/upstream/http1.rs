//! HTTP/1.1 connection: one exchange at a time, driven by the task that holds it.

pub mod body_decoder;
mod body_writer;
mod field_section;
mod read_space;
mod response_body;
pub mod response_fault;
pub mod response_head;
mod shared;
pub(super) mod socket;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io;
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Response, StatusCode};
use tokio::task::{AbortHandle, JoinHandle, spawn_local};

use crate::config::Reuse;
use crate::proxy::request_body::{RequestBody, UploadFault};
use crate::proxy::transport::Stream;

use super::fault::{ExchangeFault, SendError};
use super::request::UpstreamRequest;
use body_decoder::BodyDecoder;
use body_writer::{BodyWriter, WriteFault};
use response_head::{BodyLength, HeadParser, KeepAlive, RequestKind, ResponseHead};
use socket::Socket;

pub(super) use response_body::Http1Body;
pub(super) use shared::SharedHttp1;

/// Size of the first read of a response, in bytes: the head and a small body.
const FIRST_READ: usize = 4 * 1024;

/// Time by which the gate closes a connection before the upstream would.
const CLOSE_MARGIN: Duration = Duration::from_secs(1);

/// Open connection. Closed on drop, so that the upstream stops working on an abandoned request.
#[derive(Debug)]
pub(super) struct Http1 {
    socket: Rc<Socket>,
    shared: Rc<SharedHttp1>,
    /// Bytes that are read and not decoded.
    buffer: BytesMut,
    /// Size of the next read, in bytes.
    read_size: usize,
    /// See [`UpstreamRequest::max_read`].
    max_read: usize,
    /// The last read filled its space: the socket may hold more.
    is_read_full: bool,
    /// The connection has carried an exchange.
    is_reused: bool,
    /// Request bytes were written after the first byte of the response.
    is_early: bool,
    last: LastResponse,
}

/// Facts of the last response that decide about another exchange.
#[derive(Debug, Default)]
struct LastResponse {
    keep_alive: KeepAlive,
    /// No content by definition: an upstream that sends some anyway sends it later.
    is_without_content: bool,
    /// The framing shows the end of the body.
    is_framed: bool,
}

/// Upload that continues after the response head. Aborted on drop.
#[derive(Debug)]
struct Upload(JoinHandle<Result<(), UploadFault>>, AbortHandle);

impl Drop for Upload {
    fn drop(&mut self) {
        self.1.abort();
    }
}

impl Http1 {
    pub(super) fn new(stream: Stream, shared: Rc<SharedHttp1>) -> Self {
        Self {
            socket: Rc::new(Socket::new(stream)),
            shared,
            buffer: BytesMut::new(),
            read_size: FIRST_READ,
            max_read: FIRST_READ,
            is_read_full: false,
            is_reused: false,
            is_early: false,
            last: LastResponse::default(),
        }
    }

    /// Sends a request and waits for its response head.
    pub(super) async fn send(
        mut self: Box<Self>,
        request: &mut UpstreamRequest,
    ) -> Result<Response<Http1Body>, SendError> {
        let kind = RequestKind {
            is_head: *request.head.method() == Method::HEAD,
            is_upgrade: request.head.is_upgrade(),
        };
        let mut writer = BodyWriter::new(request.head.length());
        let text = request.head.take_text();
        let head_length = text.len();
        self.socket.begin(text, self.is_reused);
        self.is_early = false;
        self.read_size = FIRST_READ;
        self.max_read = request.max_read;
        self.socket.queue();
        self.shared.outbox.push(Rc::clone(&self.socket));
        let mut parser = HeadParser::default();
        let received =
            poll_fn(|context| self.poll_head(context, kind, request, &mut writer, &mut parser));
        let received = received.await;
        match received {
            Ok(head) => {
                let upload = (!self.is_uploaded(&writer)).then(|| {
                    self.is_early = true;
                    let body = mem::take(&mut request.body);
                    self.continue_upload(writer, body)
                });
                Ok(self.respond(head, kind, upload))
            }
            Err(error) => {
                let mut text = self.socket.take_text();
                text.truncate(head_length);
                request.head.put_text(text);
                let has_written = self.socket.has_written();
                let unsent = writer.into_unsent();
                if !has_written && !matches!(error, ExchangeFault::Upload) {
                    // Notes surplus bytes.
                    self.is_quiet();
                    request.body.put_back(&unsent);
                    return Err(SendError::NotSent);
                }
                let is_parse = matches!(error, ExchangeFault::Response(_));
                Err(SendError::MaybeProcessed {
                    can_retry: !is_parse && request.is_replayable(),
                    error,
                })
            }
        }
    }

    /// Returns true if the upstream has the complete request.
    fn is_uploaded(&self, writer: &BodyWriter) -> bool {
        writer.is_ended() && self.socket.unwritten() == 0
    }

    /// Writes the request, and reads until the response head is complete.
    fn poll_head(
        &mut self,
        context: &mut Context<'_>,
        kind: RequestKind,
        request: &mut UpstreamRequest,
        writer: &mut BodyWriter,
        parser: &mut HeadParser,
    ) -> Poll<Result<ResponseHead, ExchangeFault>> {
        let mut is_closed = false;
        match writer.poll(&mut request.body, &self.socket, context) {
            Poll::Ready(Ok(())) | Poll::Pending => {}
            Poll::Ready(Err(WriteFault::Upload(_))) => {
                return Poll::Ready(Err(ExchangeFault::Upload));
            }
            Poll::Ready(Err(WriteFault::Closed(error))) => {
                if self.is_reused && !self.socket.has_written() {
                    return Poll::Ready(Err(error.into()));
                }
                // The upstream may have responded before it closed its receiving side.
                is_closed = true;
            }
        }
        if !is_closed && !self.socket.has_written() {
            if self.socket.poll_readable(context).is_ready() {
                self.socket.wake_after_write();
            }
            return Poll::Pending;
        }
        loop {
            if !self.buffer.is_empty()
                && let Some(head) = parser.parse(&mut self.buffer, kind)?
            {
                if !is_interim(head.status) {
                    return Poll::Ready(Ok(head));
                }
                if let Some(informational) = &request.informational {
                    informational.forward(head.status, head.headers);
                }
                continue;
            }
            let is_first = self.buffer.is_empty();
            match ready!(self.poll_fill(context)) {
                Ok(0) => return Poll::Ready(Err(ExchangeFault::Closed)),
                Ok(_) => self.is_early |= is_first && !self.is_uploaded(writer),
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Reads once. Returns 0 at the end of the stream.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let size = self.read_size;
        let count = if self.buffer.is_empty() && size <= FIRST_READ {
            self.buffer = ready!(self.shared.space.poll_read(&self.socket, size, context))?;
            self.buffer.len()
        } else {
            self.buffer.reserve(size);
            ready!(self.socket.poll_read(&mut self.buffer, size, context))?
        };
        self.is_read_full = count == size;
        if self.is_read_full {
            self.read_size = self.max_read;
        }
        Poll::Ready(Ok(count))
    }

    /// Writes the rest of the request in a task of its own: the client may read the response only after its upload.
    fn continue_upload(&self, mut writer: BodyWriter, mut body: RequestBody) -> Upload {
        let socket = Rc::clone(&self.socket);
        let task = spawn_local(async move {
            let written = poll_fn(|context| writer.poll(&mut body, &socket, context)).await;
            match written {
                Err(WriteFault::Upload(fault)) => Err(fault),
                // The response tells why the upstream takes no more.
                Ok(()) | Err(WriteFault::Closed(_)) => Ok(()),
            }
        });
        let abort = task.abort_handle();
        Upload(task, abort)
    }

    fn respond(
        mut self: Box<Self>,
        head: ResponseHead,
        kind: RequestKind,
        upload: Option<Upload>,
    ) -> Response<Http1Body> {
        self.last = LastResponse {
            keep_alive: head.keep_alive,
            is_without_content: kind.is_head || is_without_content(head.status),
            is_framed: head.length != BodyLength::UntilClose,
        };
        let decoder = BodyDecoder::new(head.length);
        let mut response = Response::new(Http1Body::new(self, decoder, upload));
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        response
    }

    /// Returns true if the connection may carry another exchange after a complete response.
    pub(super) fn check_in(&mut self, reuse: Reuse) -> bool {
        if !self.buffer.is_empty() {
            self.shared.surplus.note(&self.buffer);
            return false;
        }
        self.buffer = BytesMut::new();
        self.is_reused = true;
        let may_reuse = match reuse {
            Reuse::Never => false,
            Reuse::Safe => !self.last.is_without_content,
            Reuse::Always => true,
        };
        may_reuse
            && self.last.keep_alive.is_kept
            && self.last.is_framed
            && !self.is_early
            && self.socket.unwritten() == 0
            && (!self.is_read_full || self.is_quiet())
    }

    /// Time until the upstream closes the idle connection, if it stated one, less a margin: a request must not meet the
    /// close on its way.
    pub(super) fn keep_alive_timeout(&self) -> Option<Duration> {
        let timeout = self.last.keep_alive.timeout?;
        Some(timeout.saturating_sub(CLOSE_MARGIN.min(timeout / 2)))
    }

    /// Returns true if the kernel holds no unread bytes and not the end of the stream: nothing of an earlier exchange can
    /// become the response to the next one. Notes surplus bytes.
    fn is_quiet(&self) -> bool {
        let mut start = [0; 12];
        match self.socket.peek(&mut start) {
            Ok(None) => true,
            Ok(Some(count)) => {
                if !self.socket.is_tls() {
                    self.shared
                        .surplus
                        .note(start.get(..count).unwrap_or_default());
                }
                false
            }
            Err(_) => false,
        }
    }

    /// Watches an idle connection for the end of its stream and for surplus bytes. Returns true if it has either;
    /// otherwise registers the task for them.
    pub(super) fn poll_idle_end(&mut self, context: &mut Context<'_>) -> bool {
        // Over TLS, decrypted bytes may be unread, and a read may consume a session ticket alone.
        if !self.socket.is_tls() && self.socket.poll_readable(context).is_pending() {
            return false;
        }
        let mut buffer = BytesMut::with_capacity(12);
        match self.socket.poll_read(&mut buffer, 12, context) {
            Poll::Pending => false,
            Poll::Ready(Ok(_)) => {
                self.shared.surplus.note(&buffer);
                true
            }
            Poll::Ready(Err(_)) => true,
        }
    }

    /// Takes the stream of an upgraded connection, with the bytes that were read after the response head.
    fn into_upgraded(mut self) -> Option<(Stream, Bytes)> {
        let stream = self.socket.take()?;
        Some((stream, self.buffer.split().freeze()))
    }
}

impl Drop for Http1 {
    fn drop(&mut self) {
        // The outbox may still hold the socket.
        drop(self.socket.take());
    }
}

/// Returns true for an informational response that precedes another (RFC 9110 section 15.2).
fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// Returns true if a response with this status never has content (RFC 9110 sections 15.3.5 and 15.4.5).
fn is_without_content(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}
