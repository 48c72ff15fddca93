//! Informational responses (1xx, RFC 9110 section 15.2) to HTTP/1.1 clients. hyper's server sends none but 100, so they
//! bypass it: the socket writes them between two writes of hyper.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use http::{HeaderMap, HeaderValue, StatusCode};

use crate::gate::framing::write_response_length;

use super::headers::X_REQUEST_ID;
use super::shared::Policy;

/// Limit of informational responses to one request.
const MAX_RESPONSES: usize = 8;

/// Size limit of the queue of one connection, in bytes.
const MAX_QUEUED_BYTES: usize = 16 * 1024;

/// Informational responses that wait to be written to one connection.
///
/// Thread-safe because hyper requires a `Send` callback, which it calls on the worker's own thread.
#[derive(Debug, Default)]
pub(super) struct InformationalQueue {
    is_pending: AtomicBool,
    heads: Mutex<Vec<u8>>,
}

impl InformationalQueue {
    /// Takes the encoded heads out of the queue.
    pub(super) fn take(&self) -> Vec<u8> {
        if !self.is_pending.swap(false, Ordering::Relaxed) {
            return Vec::new();
        }
        std::mem::take(&mut *self.heads.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, status: StatusCode, headers: &HeaderMap) {
        let mut head = format!("HTTP/1.1 {} ", status.as_u16()).into_bytes();
        head.extend(status.canonical_reason().unwrap_or_default().bytes());
        for (name, value) in headers {
            head.extend(b"\r\n");
            head.extend(name.as_str().bytes());
            head.extend(b": ");
            head.extend(value.as_bytes());
        }
        head.extend(b"\r\n\r\n");
        let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        if heads.len() + head.len() <= MAX_QUEUED_BYTES {
            heads.extend(head);
            self.is_pending.store(true, Ordering::Relaxed);
        }
    }
}

/// Informational responses to one request, forwarded until its final response.
#[derive(Debug)]
pub(super) struct InformationalResponses {
    queue: Arc<InformationalQueue>,
    /// Waker of the connection's task, which writes the queue.
    waker: Waker,
    is_closed: AtomicBool,
    count: AtomicUsize,
}

/// Forwards the informational responses to one request to its client.
#[derive(Debug, Clone)]
pub struct InformationalForwarder {
    policy: Arc<Policy>,
    request_id: HeaderValue,
    responses: Arc<InformationalResponses>,
}

impl InformationalForwarder {
    /// Forwards responses until the guard is dropped.
    pub(super) async fn begin(
        policy: Arc<Policy>,
        request_id: HeaderValue,
        queue: Arc<InformationalQueue>,
    ) -> (Self, InformationalGuard) {
        let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
        let (responses, guard) = InformationalResponses::begin(queue, waker);
        let forwarder = Self {
            policy,
            request_id,
            responses,
        };
        (forwarder, guard)
    }

    pub(super) fn forward(&self, status: StatusCode, mut headers: HeaderMap) {
        self.policy.headers.to_client(&mut headers);
        write_response_length(status, &mut headers);
        headers.insert(X_REQUEST_ID, self.request_id.clone());
        self.responses.forward(status, &headers);
    }
}

/// Stops the informational responses to one request when dropped: a later one would fall into the next response.
#[derive(Debug)]
pub(super) struct InformationalGuard(Arc<InformationalResponses>);

impl Drop for InformationalGuard {
    fn drop(&mut self) {
        self.0.is_closed.store(true, Ordering::Relaxed);
    }
}

impl InformationalResponses {
    pub(super) fn begin(
        queue: Arc<InformationalQueue>,
        waker: Waker,
    ) -> (Arc<Self>, InformationalGuard) {
        let responses = Arc::new(Self {
            queue,
            waker,
            is_closed: AtomicBool::new(false),
            count: AtomicUsize::new(0),
        });
        (Arc::clone(&responses), InformationalGuard(responses))
    }

    /// Forwards one response, up to [`MAX_RESPONSES`]. Drops 100, which the gate sends itself, and 101, which
    /// is delivered as the response.
    pub(super) fn forward(&self, status: StatusCode, headers: &HeaderMap) {
        let is_closed = self.is_closed.load(Ordering::Relaxed);
        let is_forwardable = status.is_informational()
            && status != StatusCode::CONTINUE
            && status != StatusCode::SWITCHING_PROTOCOLS;
        if is_closed
            || !is_forwardable
            || self.count.fetch_add(1, Ordering::Relaxed) >= MAX_RESPONSES
        {
            return;
        }
        self.queue.add(status, headers);
        self.waker.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use http::header::LINK;

    use super::*;

    fn early_hints() -> HeaderMap {
        [(LINK, HeaderValue::from_static("</a.css>; rel=preload"))]
            .into_iter()
            .collect()
    }

    #[test]
    fn queues_informational_responses_until_the_final_response() {
        let queue = Arc::new(InformationalQueue::default());
        assert!(queue.take().is_empty());
        let (responses, guard) =
            InformationalResponses::begin(Arc::clone(&queue), Waker::noop().clone());
        responses.forward(StatusCode::EARLY_HINTS, &early_hints());
        responses.forward(StatusCode::PROCESSING, &HeaderMap::new());
        responses.forward(StatusCode::CONTINUE, &HeaderMap::new());
        responses.forward(StatusCode::SWITCHING_PROTOCOLS, &HeaderMap::new());
        let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
        let expected = format!("{hints}HTTP/1.1 102 Processing\r\n\r\n");
        assert_eq!(queue.take(), expected.as_bytes());
        assert!(queue.take().is_empty());
        drop(guard);
        responses.forward(StatusCode::EARLY_HINTS, &early_hints());
        assert!(
            queue.take().is_empty(),
            "it would fall into the next response"
        );
    }

    #[test]
    fn limits_the_number_and_size_of_informational_responses() {
        let queue = Arc::new(InformationalQueue::default());
        let (responses, _guard) =
            InformationalResponses::begin(Arc::clone(&queue), Waker::noop().clone());
        for _ in 0..100 {
            responses.forward(StatusCode::PROCESSING, &HeaderMap::new());
        }
        let one = b"HTTP/1.1 102 Processing\r\n\r\n".len();
        assert_eq!(queue.take().len(), MAX_RESPONSES * one);
        let (responses, _guard) =
            InformationalResponses::begin(Arc::clone(&queue), Waker::noop().clone());
        let large = HeaderValue::from_str(&"x".repeat(MAX_QUEUED_BYTES)).unwrap();
        responses.forward(
            StatusCode::PROCESSING,
            &[(LINK, large)].into_iter().collect(),
        );
        assert!(queue.take().is_empty());
    }
}
