//! Interim answers (1xx, RFC 9110 section 15.2) on their way to a client over HTTP/1.1. hyper's server knows none but
//! 100, so they go past it: into the socket, between what hyper writes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use http::{HeaderMap, StatusCode};

/// The most interim answers to one request.
const MAX_ANSWERS: usize = 8;

/// The most that waits for a client, in bytes.
const MAX_BYTES: usize = 16 * 1024;

/// What waits to be written to one connection.
///
/// The callback of hyper could be called from another thread, and never is.
#[derive(Debug, Default)]
pub(super) struct InformationalQueue {
    waits: AtomicBool,
    heads: Mutex<Vec<u8>>,
}

impl InformationalQueue {
    /// What waits, and now does not any more.
    pub(super) fn take(&self) -> Vec<u8> {
        if !self.waits.swap(false, Ordering::Relaxed) {
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
        if heads.len() + head.len() <= MAX_BYTES {
            heads.extend(head);
            self.waits.store(true, Ordering::Relaxed);
        }
    }
}

/// The interim answers to one request, as long as its answer has not begun.
#[derive(Debug)]
pub(super) struct InformationalResponses {
    to: Arc<InformationalQueue>,
    /// The task of the connection, which has to write them.
    waker: Waker,
    is_over: AtomicBool,
    count: AtomicUsize,
}

/// Ends the interim answers to one request when it is dropped: whatever comes then would fall into another answer.
#[derive(Debug)]
pub(super) struct InformationalGuard(Arc<InformationalResponses>);

impl Drop for InformationalGuard {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

impl InformationalResponses {
    pub(super) fn begin(
        to: Arc<InformationalQueue>,
        waker: Waker,
    ) -> (Arc<Self>, InformationalGuard) {
        let answers = Arc::new(Self {
            to,
            waker,
            is_over: AtomicBool::new(false),
            count: AtomicUsize::new(0),
        });
        (Arc::clone(&answers), InformationalGuard(answers))
    }

    /// Passes one on, unless there were too many. 100 is the gate's own to give, and 101 is no interim answer.
    pub(super) fn pass(&self, status: StatusCode, headers: &HeaderMap) {
        let is_late = self.is_over.load(Ordering::Relaxed);
        let is_one = status.is_informational()
            && status != StatusCode::CONTINUE
            && status != StatusCode::SWITCHING_PROTOCOLS;
        if is_late || !is_one || self.count.fetch_add(1, Ordering::Relaxed) >= MAX_ANSWERS {
            return;
        }
        self.to.add(status, headers);
        self.waker.wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::LINK;

    use super::*;

    fn early_hints() -> HeaderMap {
        [(LINK, HeaderValue::from_static("</a.css>; rel=preload"))]
            .into_iter()
            .collect()
    }

    #[test]
    fn interim_answers_wait_until_they_are_taken() {
        let interim = Arc::new(InformationalQueue::default());
        assert!(interim.take().is_empty());
        let (answers, until) =
            InformationalResponses::begin(Arc::clone(&interim), Waker::noop().clone());
        answers.pass(StatusCode::EARLY_HINTS, &early_hints());
        answers.pass(StatusCode::PROCESSING, &HeaderMap::new());
        answers.pass(StatusCode::CONTINUE, &HeaderMap::new());
        answers.pass(StatusCode::SWITCHING_PROTOCOLS, &HeaderMap::new());
        let hints = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
        let expected = format!("{hints}HTTP/1.1 102 Processing\r\n\r\n");
        assert_eq!(interim.take(), expected.as_bytes());
        assert!(interim.take().is_empty());
        drop(until);
        answers.pass(StatusCode::EARLY_HINTS, &early_hints());
        assert!(
            interim.take().is_empty(),
            "it would fall into another answer"
        );
    }

    #[test]
    fn interim_answers_are_few_and_small() {
        let interim = Arc::new(InformationalQueue::default());
        let (answers, _until) =
            InformationalResponses::begin(Arc::clone(&interim), Waker::noop().clone());
        for _ in 0..100 {
            answers.pass(StatusCode::PROCESSING, &HeaderMap::new());
        }
        let one = b"HTTP/1.1 102 Processing\r\n\r\n".len();
        assert_eq!(interim.take().len(), MAX_ANSWERS * one);
        let (answers, _until) =
            InformationalResponses::begin(Arc::clone(&interim), Waker::noop().clone());
        let large = HeaderValue::from_str(&"x".repeat(MAX_BYTES)).unwrap();
        answers.pass(
            StatusCode::PROCESSING,
            &[(LINK, large)].into_iter().collect(),
        );
        assert!(interim.take().is_empty());
    }
}
