//! HTTP/1.1 connections.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::http1_body::PacedBody;
use super::limits::ConnectionLimits;
use super::service::ConnectionService;
use super::socket::Socket;

/// Serves a connection to its end.
pub(super) async fn serve(service: ConnectionService, socket: Box<Socket>) -> hyper::Result<()> {
    let connection = Rc::clone(&service.connection);
    let builder = builder(service.server.limits());
    let service = service_fn(move |request| {
        let service = service.clone();
        async move {
            let response = service.call(request).await;
            let signal = service.connection.flush_signal();
            Ok::<_, Infallible>(response.map(|body| PacedBody::new(body, signal)))
        }
    });
    let serving = builder.serve_connection(TokioIo::new(socket), service);
    let mut serving = pin!(serving.with_upgrades());
    let mut is_shutting_down = false;
    poll_fn(|context| {
        loop {
            // Received bytes are read before an idle connection is closed, so that no request is lost.
            if let Poll::Ready(served) = serving.as_mut().poll(context) {
                return Poll::Ready(served);
            }
            if is_shutting_down || !connection.is_closing(context) {
                return Poll::Pending;
            }
            is_shutting_down = true;
            serving.as_mut().graceful_shutdown();
        }
    })
    .await
}

fn builder(limits: ConnectionLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // The socket enforces the deadlines.
    builder
        .writev(false)
        .header_read_timeout(None)
        .max_buf_size(limits.read_header_bytes());
    builder
}
