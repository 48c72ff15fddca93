//! Body of a response over HTTP/1.1: read when the client takes it, never ahead.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::proxy::transport::Stream;
use crate::proxy::upstream::fault::ExchangeFault;

use super::body_decoder::{BodyDecoder, Decoded};
use super::{Http1, Upload};

/// Response body, with the connection that it is read from.
#[derive(Debug)]
pub(in crate::proxy::upstream) struct Http1Body {
    connection: Box<Http1>,
    decoder: BodyDecoder,
    upload: Option<Upload>,
    /// Fault to report at the next poll.
    fault: Option<ExchangeFault>,
}

impl Http1Body {
    pub(super) fn new(
        connection: Box<Http1>,
        decoder: BodyDecoder,
        upload: Option<Upload>,
    ) -> Self {
        Self {
            connection,
            decoder,
            upload,
            fault: None,
        }
    }

    pub(in crate::proxy::upstream) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ExchangeFault>>> {
        if let Some(fault) = self.fault.take() {
            return Poll::Ready(Some(Err(fault)));
        }
        match ready!(self.poll_next(context)) {
            Some(Err(fault)) => {
                // hyper would discard the head and the data before the fault if it had no chance to write them.
                self.fault = Some(fault);
                context.waker().wake_by_ref();
                Poll::Pending
            }
            polled => Poll::Ready(polled),
        }
    }

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ExchangeFault>>> {
        if self.poll_upload(context).is_err() {
            return Poll::Ready(Some(Err(ExchangeFault::Upload)));
        }
        loop {
            match self.decoder.decode(&mut self.connection.buffer) {
                Ok(Decoded::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Decoded::Trailers(fields)) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(fields))));
                }
                Ok(Decoded::Complete) => return Poll::Ready(None),
                Ok(Decoded::NeedsMore) => {}
                Err(fault) => return Poll::Ready(Some(Err(fault.into()))),
            }
            match ready!(self.connection.poll_fill(context)) {
                Ok(0) => {
                    let ended = self.decoder.end_of_input();
                    return Poll::Ready(ended.err().map(|_| Err(ExchangeFault::Closed)));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }

    /// Fails with the upload of the client.
    fn poll_upload(&mut self, context: &mut Context<'_>) -> Result<(), ()> {
        let Some(upload) = &mut self.upload else {
            return Ok(());
        };
        match Pin::new(&mut upload.0).poll(context) {
            Poll::Ready(Ok(Ok(()))) => {
                self.upload = None;
                Ok(())
            }
            Poll::Ready(Ok(Err(_)) | Err(_)) => Err(()),
            Poll::Pending => Ok(()),
        }
    }

    pub(in crate::proxy::upstream) fn is_complete(&self) -> bool {
        self.decoder.is_complete()
    }

    pub(in crate::proxy::upstream) fn size_hint(&self) -> SizeHint {
        self.decoder.size_hint()
    }

    /// Connection of a complete response; `None` if the upload has not ended.
    pub(in crate::proxy::upstream) fn into_connection(self) -> Option<Box<Http1>> {
        let is_finished = self.upload.is_none() && self.decoder.is_complete();
        is_finished.then_some(self.connection)
    }

    /// Stream of an upgraded connection, with the bytes that followed the response head.
    pub(in crate::proxy::upstream) fn into_upgraded(self) -> Option<(Stream, Bytes)> {
        self.connection.into_upgraded()
    }
}
