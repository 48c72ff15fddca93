//! WebSocket tunnel: joins the client and upstream streams after the upstream's 101 response, never before.

mod frames;

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional, sink};
use tokio::time::{Instant, timeout, timeout_at};

use crate::gate::refusal::Refusal;

use super::stream_deadlines::StreamDeadlines;
use super::upstream::Upgraded;
use frames::Frames;

/// Time to complete a partial frame before the gate closes the WebSocket.
const LAST_FRAME_TIMEOUT: Duration = Duration::from_secs(2);

/// Time for each side to receive the close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Outcome of a tunnel.
#[derive(Debug, Clone, Default)]
pub struct TunnelSummary {
    /// Bytes from the client.
    pub from_client: u64,
    /// Bytes to the client.
    pub to_client: u64,
    /// Set if both sides closed cleanly.
    pub complete: bool,
    /// Reason if the gate closed the tunnel.
    pub closed_by_gate: Option<Refusal>,
}

/// Copies in both directions until one side closes, or the gate closes the WebSocket at one of the deadlines.
pub async fn join(
    client: OnUpgrade,
    upstream: Upgraded,
    mut deadlines: StreamDeadlines,
) -> TunnelSummary {
    let Ok(client) = client.await else {
        return TunnelSummary::default();
    };
    let mut client = Side::new(TokioIo::new(client), Bytes::new());
    let mut upstream = Side::new(upstream.stream, upstream.read);
    let (to_client, to_upstream) = (Rc::clone(&client.written), Rc::clone(&upstream.written));
    let mut closed_by_gate = None;
    let copied = {
        let mut copying = pin!(copy_bidirectional(&mut client, &mut upstream));
        let copied = poll_fn(|context| {
            let copied = copying.as_mut().poll(context);
            if copied.is_ready() {
                return copied.map(Some);
            }
            let is_active = to_client.is_active.take() | to_upstream.is_active.take();
            let ended = match is_active.then(|| deadlines.note_progress()).flatten() {
                Some(refusal) => Poll::Ready(refusal),
                None => deadlines.poll_end(context),
            };
            ended.map(|refusal| {
                closed_by_gate = Some(refusal);
                None
            })
        })
        .await;
        if copied.is_none() {
            // A close frame must not split a frame: complete the partial frames, then stop.
            to_client.stops_after_frame.set(true);
            to_upstream.stops_after_frame.set(true);
            let rest = poll_fn(|context| {
                let copied = copying.as_mut().poll(context);
                if to_client.is_between_frames() && to_upstream.is_between_frames() {
                    return Poll::Ready(());
                }
                copied.map(|_| ())
            });
            let _result = timeout_at(Instant::now() + LAST_FRAME_TIMEOUT, rest).await;
        }
        copied
    };
    if let Some(refusal) = &closed_by_gate {
        tokio::join!(client.close(refusal, false), upstream.close(refusal, true));
    }
    TunnelSummary {
        from_client: to_upstream.bytes.get(),
        to_client: to_client.bytes.get(),
        complete: copied.is_some_and(|copied| copied.is_ok()),
        closed_by_gate,
    }
}

/// One side of a tunnel.
struct Side<S> {
    stream: S,
    /// Bytes that were read ahead.
    read: Bytes,
    written: Rc<Written>,
}

/// Progress of the bytes written to one side.
#[derive(Default)]
struct Written {
    bytes: Cell<u64>,
    frames: Cell<Frames>,
    /// Set by each write, cleared by the idle check.
    is_active: Cell<bool>,
    stops_after_frame: Cell<bool>,
}

impl Written {
    fn is_between_frames(&self) -> bool {
        self.frames.get().is_between()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Side<S> {
    fn new(stream: S, read: Bytes) -> Self {
        Self {
            stream,
            read,
            written: Rc::default(),
        }
    }

    /// Sends a close frame (RFC 6455 section 5.5.1) unless a frame is incomplete, and drains the stream for up to
    /// [`CLOSE_TIMEOUT`].
    async fn close(&mut self, refusal: &Refusal, masked: bool) {
        let closing = async {
            if self.written.is_between_frames() {
                let code = if matches!(refusal, Refusal::Draining | Refusal::UpstreamTimeout) {
                    frames::GOING_AWAY
                } else {
                    frames::POLICY_VIOLATION
                };
                let close = frames::close(code, &refusal.detail(), masked);
                self.stream.write_all(&close).await?;
            }
            self.stream.shutdown().await?;
            tokio::io::copy(&mut self.stream, &mut sink()).await
        };
        let _result = timeout(CLOSE_TIMEOUT, closing).await;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Side<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.read.is_empty() {
            let count = self.read.len().min(buffer.remaining());
            buffer.put_slice(&self.read.split_to(count));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Side<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut frames = self.written.frames.get();
        let allowed = if self.written.stops_after_frame.get() {
            let rest = frames.rest_of_frame(bytes);
            match bytes.get(..rest) {
                Some(rest) if !rest.is_empty() => rest,
                // Bytes after the last frame are not sent. The deadline wakes the task.
                Some(_) | None => return Poll::Pending,
            }
        } else {
            bytes
        };
        let count = ready!(Pin::new(&mut self.stream).poll_write(context, allowed))?;
        frames.advance(allowed.get(..count).unwrap_or(allowed));
        self.written.frames.set(frames);
        self.written.is_active.set(true);
        let bytes = &self.written.bytes;
        bytes.set(bytes.get() + count as u64);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
