//! Upgraded connections: two streams joined, after the upstream has answered 101 and not before.

mod frames;

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional, sink};
use tokio::time::{Instant, timeout, timeout_at};

use crate::gate::refusal::Refusal;

use super::stream_deadlines::StreamDeadlines;
use frames::Frames;

/// How long a frame that has begun may take to end when the WebSocket is to be closed.
const LAST_FRAME: Duration = Duration::from_secs(2);

/// How long each side may take to learn that the WebSocket is closed.
const GOODBYE: Duration = Duration::from_secs(2);

/// How much went through a tunnel.
#[derive(Debug, Clone, Default)]
pub struct Tunnelled {
    /// From the client, in bytes.
    pub from_client: u64,
    /// To the client, in bytes.
    pub to_client: u64,
    /// Whether both sides ended it in order.
    pub whole: bool,
    /// Why the gate has ended it, if it has.
    pub cut: Option<Refusal>,
}

/// Joins both sides until one of them ends, or until the gate closes the WebSocket.
pub async fn join(
    client: OnUpgrade,
    upstream: OnUpgrade,
    mut lifetime: StreamDeadlines,
) -> Tunnelled {
    let (client, upstream) = tokio::join!(client, upstream);
    let (Ok(client), Ok(upstream)) = (client, upstream) else {
        return Tunnelled::default();
    };
    let (mut client, mut upstream) = (Side::new(client), Side::new(upstream));
    let (to_client, to_upstream) = (Rc::clone(&client.written), Rc::clone(&upstream.written));
    let mut cut = None;
    let copied = {
        let mut copying = pin!(copy_bidirectional(&mut client, &mut upstream));
        let copied = poll_fn(|context| {
            let copied = copying.as_mut().poll(context);
            if copied.is_ready() {
                return copied.map(Some);
            }
            let has_moved = to_client.moved.take() | to_upstream.moved.take();
            let too_late = match has_moved.then(|| lifetime.moves()).flatten() {
                Some(refusal) => Poll::Ready(refusal),
                None => lifetime.poll_end(context),
            };
            too_late.map(|refusal| {
                cut = Some(refusal);
                None
            })
        })
        .await;
        if copied.is_none() {
            // Each side gets the frame that it has begun to get, and none more.
            to_client.last_frame.set(true);
            to_upstream.last_frame.set(true);
            let rest = poll_fn(|context| {
                let copied = copying.as_mut().poll(context);
                if to_client.is_between_frames() && to_upstream.is_between_frames() {
                    return Poll::Ready(());
                }
                copied.map(|_| ())
            });
            let _in_time = timeout_at(Instant::now() + LAST_FRAME, rest).await;
        }
        copied
    };
    if let Some(refusal) = &cut {
        tokio::join!(client.close(refusal, false), upstream.close(refusal, true));
    }
    Tunnelled {
        from_client: to_upstream.bytes.get(),
        to_client: to_client.bytes.get(),
        whole: copied.is_some_and(|copied| copied.is_ok()),
        cut,
    }
}

/// One side of a tunnel.
struct Side {
    stream: TokioIo<Upgraded>,
    written: Rc<Written>,
}

/// What was written to one side.
#[derive(Default)]
struct Written {
    bytes: Cell<u64>,
    frames: Cell<Frames>,
    moved: Cell<bool>,
    last_frame: Cell<bool>,
}

impl Written {
    fn is_between_frames(&self) -> bool {
        self.frames.get().is_between()
    }
}

impl Side {
    fn new(stream: Upgraded) -> Self {
        Self {
            stream: TokioIo::new(stream),
            written: Rc::default(),
        }
    }

    /// Says that the WebSocket is closed and why (RFC 6455 section 5.5.1), and waits a little until that was read.
    /// In the middle of a frame nothing can be said.
    async fn close(&mut self, refusal: &Refusal, masked: bool) {
        let goodbye = async {
            if self.written.is_between_frames() {
                let code = if matches!(refusal, Refusal::Draining | Refusal::UpstreamTimeout) {
                    frames::GOING_AWAY
                } else {
                    frames::POLICY_VIOLATION
                };
                let close = frames::close(code, refusal.detail(), masked);
                self.stream.write_all(&close).await?;
            }
            self.stream.shutdown().await?;
            tokio::io::copy(&mut self.stream, &mut sink()).await
        };
        let _in_time = timeout(GOODBYE, goodbye).await;
    }
}

impl AsyncRead for Side {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Side {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut frames = self.written.frames.get();
        let allowed = if self.written.last_frame.get() {
            let rest = frames.rest_of_frame(bytes);
            match bytes.get(..rest) {
                Some(rest) if !rest.is_empty() => rest,
                // What comes after its last frame is not sent. The task is woken by its deadline.
                Some(_) | None => return Poll::Pending,
            }
        } else {
            bytes
        };
        let count = ready!(Pin::new(&mut self.stream).poll_write(context, allowed))?;
        frames.pass(allowed.get(..count).unwrap_or(allowed));
        self.written.frames.set(frames);
        self.written.moved.set(true);
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
