//! Unread request bodies: read to their end before an early response.
//!
//! A server that closes a connection with unread bytes resets it, and the client can lose the response (RFC 9112 section
//! 9.6). A proxy in front, such as the gate, then responds 502.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header::EXPECT;
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use tokio::time::timeout;

/// Most bytes to discard; above the default `max_body_bytes` of the gate.
const MAX_DISCARDED_BYTES: usize = 16 * 1024 * 1024;

/// Longest time to discard a body.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Body that outlives the handler it is passed to.
#[derive(Clone)]
struct SharedBody(Arc<Mutex<State>>);

struct State {
    body: Body,
    was_read: bool,
}

/// Discards what a handler has not read of the body, then returns its response.
pub(super) async fn discard(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let awaits_continue = request.headers().contains_key(EXPECT);
    let (head, body) = request.into_parts();
    let mut body = SharedBody(Arc::new(Mutex::new(State {
        body,
        was_read: false,
    })));
    let request = Request::from_parts(head, Body::new(body.clone()));
    let response = next.run(request).await;
    // The first read sends 100 Continue; without it, the client sends no body.
    if body.was_read() || !awaits_continue {
        // A body that is too large or too slow closes the connection.
        let _discarded = timeout(DISCARD_TIMEOUT, body.read_to_end()).await;
    }
    response
}

impl SharedBody {
    fn with<T>(&self, access: impl FnOnce(&mut State) -> T) -> T {
        access(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn was_read(&self) -> bool {
        self.with(|state| state.was_read)
    }

    async fn read_to_end(&mut self) {
        let mut bytes = 0;
        while bytes <= MAX_DISCARDED_BYTES
            && let Some(Ok(frame)) =
                poll_fn(|context| Pin::new(&mut *self).poll_frame(context)).await
        {
            bytes += frame.data_ref().map_or(0, Bytes::len);
        }
    }
}

impl HttpBody for SharedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.with(|state| {
            state.was_read = true;
            Pin::new(&mut state.body).poll_frame(context)
        })
    }

    fn is_end_stream(&self) -> bool {
        self.with(|state| state.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.with(|state| state.body.size_hint())
    }
}
