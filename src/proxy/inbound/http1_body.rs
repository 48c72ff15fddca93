//! Response bodies over HTTP/1.1, given to hyper no faster than the socket takes them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::proxy::exchange::Exchange;
use crate::proxy::response_body::{BodyError, ResponseBody};

use super::flush_signal::FlushSignal;

/// Bytes given to hyper between two flushes, except the last chunk of them. hyper itself would buffer as much as the
/// largest request head for each client that does not read.
const MAX_UNFLUSHED: usize = 16 * 1024 - 1;

/// Response body that waits for the socket.
pub(super) struct PacedBody {
    body: ResponseBody<Box<Exchange>>,
    signal: Arc<FlushSignal>,
    /// Flush count at the last chunk.
    flushes: u32,
    /// Bytes since that flush.
    unflushed: usize,
}

impl PacedBody {
    pub(super) fn new(body: ResponseBody<Box<Exchange>>, signal: Arc<FlushSignal>) -> Self {
        Self {
            body,
            flushes: signal.count(),
            signal,
            unflushed: 0,
        }
    }
}

impl Body for PacedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.unflushed >= MAX_UNFLUSHED {
            let flushes = self.signal.count();
            if flushes == self.flushes {
                self.signal.wake_at_next(context);
                return Poll::Pending;
            }
            self.flushes = flushes;
            self.unflushed = 0;
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.unflushed += frame.data_ref().map_or(0, Bytes::len);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
