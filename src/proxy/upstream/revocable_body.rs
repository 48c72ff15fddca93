//! The body of a request over HTTP/2, which can be taken back.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::proxy::request_body::{RequestBody, UploadFault};

/// The body of a request that is lent to a stream, and can be called in.
#[derive(Debug, Clone)]
pub(super) struct RevocableBody(Rc<Revocable>);

#[derive(Debug)]
struct Revocable {
    body: RefCell<Option<RequestBody>>,
    waker: RefCell<Option<Waker>>,
}

/// Why a body ends before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error(transparent)]
    Fault(#[from] UploadFault),
    #[error("nobody waits for the answer any more")]
    CalledIn,
}

impl RevocableBody {
    pub(super) fn of(body: RequestBody) -> Self {
        Self(Rc::new(Revocable {
            body: RefCell::new(Some(body)),
            waker: RefCell::new(None),
        }))
    }

    /// Takes the body back.
    pub(super) fn take(&self) -> Option<RequestBody> {
        self.0.body.borrow_mut().take()
    }

    /// It will not be wanted again.
    pub(super) fn forget(&self) {
        if let Some(body) = self.0.body.borrow_mut().as_mut() {
            body.forget();
        }
    }

    /// Ends the stream if it has not ended: what has come of the body is all there will be.
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
    type Error = Lost;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Lost>>> {
        let mut body = self.0.body.borrow_mut();
        let Some(body) = body.as_mut() else {
            return Poll::Ready(Some(Err(Lost::CalledIn)));
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
        polled.map_err(Lost::from)
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
    fn a_body_that_is_called_in_ends_before_its_end() {
        let mut context = Context::from_waker(Waker::noop());
        for is_called_in in [false, true] {
            let loan = RevocableBody::of(RequestBody::empty());
            let mut lent = loan.clone();
            if is_called_in {
                loan.revoke();
            }
            assert_eq!(lent.is_end_stream(), !is_called_in);
            let polled = Pin::new(&mut lent).poll_frame(&mut context);
            let was_called_in = matches!(polled, Poll::Ready(Some(Err(Lost::CalledIn))));
            assert_eq!(was_called_in, is_called_in, "{polled:?}");
        }
    }
}
