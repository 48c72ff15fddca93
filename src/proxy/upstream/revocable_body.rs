//! Request body of an HTTP/2 stream that can be taken back.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::proxy::request_body::{RequestBody, UploadFault};

/// Request body, shared with its stream.
#[derive(Debug, Clone)]
pub(super) struct RevocableBody(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    body: RefCell<Option<RequestBody>>,
    waker: RefCell<Option<Waker>>,
}

/// Early end of a request body.
#[derive(Debug, thiserror::Error)]
pub(super) enum RevocableBodyError {
    #[error(transparent)]
    Fault(#[from] UploadFault),
    #[error("request abandoned")]
    Revoked,
}

impl RevocableBody {
    pub(super) fn new(body: RequestBody) -> Self {
        Self(Rc::new(Shared {
            body: RefCell::new(Some(body)),
            waker: RefCell::new(None),
        }))
    }

    /// Takes the body back.
    pub(super) fn take(&self) -> Option<RequestBody> {
        self.0.body.borrow_mut().take()
    }

    /// Frees the replay buffer of the body.
    pub(super) fn disable_replay(&self) {
        if let Some(body) = self.0.body.borrow_mut().as_mut() {
            body.disable_replay();
        }
    }

    /// Resets the stream if its body is not complete.
    pub(super) fn revoke(&self) {
        let body = self.take();
        if let Some(waker) = self.0.waker.borrow_mut().take() {
            waker.wake();
        }
        drop(body);
    }
}

impl Body for RevocableBody {
    type Data = Bytes;
    type Error = RevocableBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RevocableBodyError>>> {
        let mut body = self.0.body.borrow_mut();
        let Some(body) = body.as_mut() else {
            return Poll::Ready(Some(Err(RevocableBodyError::Revoked)));
        };
        let polled = Pin::new(body).poll_frame(context);
        if polled.is_pending() {
            let mut waker = self.0.waker.borrow_mut();
            if !waker
                .as_ref()
                .is_some_and(|waker| waker.will_wake(context.waker()))
            {
                *waker = Some(context.waker().clone());
            }
        }
        polled.map_err(RevocableBodyError::from)
    }

    fn is_end_stream(&self) -> bool {
        self.0
            .body
            .borrow()
            .as_ref()
            .is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0
            .body
            .borrow()
            .as_ref()
            .map(Body::size_hint)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revoked_body_ends_with_an_error() {
        let mut context = Context::from_waker(Waker::noop());
        for is_revoked in [false, true] {
            let body = RevocableBody::new(RequestBody::empty());
            let mut shared = body.clone();
            if is_revoked {
                body.revoke();
            }
            assert_eq!(shared.is_end_stream(), !is_revoked);
            let polled = Pin::new(&mut shared).poll_frame(&mut context);
            let ended_with_error =
                matches!(polled, Poll::Ready(Some(Err(RevocableBodyError::Revoked))));
            assert_eq!(ended_with_error, is_revoked, "{polled:?}");
        }
    }
}
