//! HTTP/1.1 connections.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use http::header::CONNECTION;
use http::{Request, Version};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::http1_body::PacedBody;
use super::limits::ConnectionLimits;
use super::service::ConnectionService;
use super::socket::Socket;

/// Serves a connection to its end.
pub(super) async fn serve(service: ConnectionService, socket: Box<Socket>) -> hyper::Result<()> {
    let connection = Rc::clone(&service.connection);
    let builder = builder(service.server.limits());
    let service = service_fn(move |request: Request<_>| {
        let service = service.clone();
        async move {
            let may_switch = request.extensions().get::<OnUpgrade>().is_some();
            let is_last = !may_switch && is_last(&request);
            service.connection.set_last_request(is_last);
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

/// Returns whether the client closes the connection after this request (RFC 9112 section 9.3).
fn is_last<B>(request: &Request<B>) -> bool {
    let option = match request.version() {
        Version::HTTP_10 => "keep-alive",
        _ => "close",
    };
    let is_named = request.headers().get_all(CONNECTION).iter().any(|value| {
        let mut names = value.as_bytes().split(|byte| *byte == b',');
        names.any(|name| name.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
    });
    is_named == (option == "close")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_last_request_of_a_client() {
        let is_last = |version, options: &[&str]| {
            let mut request = Request::builder().version(version);
            for option in options {
                request = request.header(CONNECTION, *option);
            }
            is_last(&request.body(()).unwrap())
        };
        assert!(!is_last(Version::HTTP_11, &[]));
        assert!(!is_last(Version::HTTP_11, &["keep-alive", "closed"]));
        assert!(is_last(Version::HTTP_11, &["Close"]));
        assert!(is_last(Version::HTTP_11, &["te", "x , close"]));
        assert!(is_last(Version::HTTP_10, &[]));
        assert!(is_last(Version::HTTP_10, &["te"]));
        assert!(!is_last(Version::HTTP_10, &["Keep-Alive"]));
    }
}
