//! HTTP/1.1 connections.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::CONNECTION;
use http::{Request, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1::{self, UpgradeableConnection};
use hyper::service::{HttpService, service_fn};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::task::yield_now;
use tokio::time::Instant;

use crate::proxy::deadline_timer::DeadlineTimer;

use super::connection::Connection;
use super::http1_body::PacedBody;
use super::limits::ConnectionLimits;
use super::service::ConnectionService;
use super::socket::Socket;

/// Longest time between two requests of a busy connection.
const BUSY_GAP: Duration = Duration::from_secs(1);

/// Serves a connection to its end.
///
/// hyper keeps 16 KiB of buffers and the memory of the last exchange until its connection is dropped. Therefore the gate
/// takes the socket back after an exchange, and serves the next one with a new connection of hyper's. A busy client keeps
/// its connection.
pub(super) async fn serve(
    service: ConnectionService,
    mut socket: Box<Socket>,
) -> hyper::Result<()> {
    let limits = service.server.limits();
    let mut is_busy = false;
    loop {
        match serve_until_idle(&service, socket, limits, is_busy).await {
            Served::Ended(result) => return result,
            Served::Idle(idle) => socket = idle,
        }
        let since = Instant::now();
        if !begins_request(&mut socket, &service.connection).await {
            // An error means that the client has closed the connection.
            let _closed = socket.shutdown().await;
            return Ok(());
        }
        is_busy = since.elapsed() < BUSY_GAP;
    }
}

/// Waits for the next request. Returns false if the connection ends instead.
async fn begins_request(socket: &mut Socket, connection: &Connection) -> bool {
    poll_fn(|context| {
        // Received bytes are read before an idle connection is closed, so that no request is lost.
        match socket.poll_receive(context) {
            Poll::Ready(received) => Poll::Ready(received.unwrap_or(false)),
            Poll::Pending if connection.is_closing(context) => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Returns a boxed future, which is dropped at the end: inline, it would enlarge an idle connection.
fn serve_until_idle(
    service: &ConnectionService,
    socket: Box<Socket>,
    limits: ConnectionLimits,
    is_busy: bool,
) -> Pin<Box<impl Future<Output = Served> + use<>>> {
    let connection = Rc::clone(&service.connection);
    let service = service.clone();
    let service = service_fn(move |request| {
        let service = service.clone();
        async move {
            let connection = &service.connection;
            let may_switch = request.extensions().get::<OnUpgrade>().is_some();
            connection.set_last_request(!may_switch && is_last(&request));
            if may_switch {
                // Before the response, the task prepares for the switch.
                connection.set_may_switch();
                yield_now().await;
            }
            let response = service.call(request).await;
            let signal = service.connection.flush_signal();
            Ok::<_, Infallible>(response.map(|body| PacedBody::new(body, signal)))
        }
    });
    let mut serving = Serving {
        http: Http::Plain(builder(limits).serve_connection(TokioIo::new(socket), service)),
        connection,
        is_shutting_down: false,
        is_busy,
        idle_timer: DeadlineTimer::default(),
    };
    Box::pin(poll_fn(move |context| serving.poll(context)))
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

/// End of the service of a socket by hyper.
enum Served {
    Ended(hyper::Result<()>),
    /// Between two requests.
    Idle(Box<Socket>),
}

/// Service of a socket by hyper until it is idle.
struct Serving<S: HttpService<Incoming>> {
    http: Http<S>,
    connection: Rc<Connection>,
    is_shutting_down: bool,
    is_busy: bool,
    idle_timer: DeadlineTimer,
}

/// Connection of hyper's.
enum Http<S: HttpService<Incoming>> {
    Plain(http1::Connection<TokioIo<Box<Socket>>, S>),
    /// After a request to switch protocols: hyper returns the socket only in an upgrade.
    Upgradeable(UpgradeableConnection<TokioIo<Box<Socket>>, S>),
    Ended,
}

impl<S: HttpService<Incoming, ResBody = PacedBody, Error = Infallible>> Serving<S> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Served> {
        loop {
            // Received bytes are read before an idle connection is closed, so that no request is lost.
            if let Poll::Ready(served) = self.http.poll(context) {
                return Poll::Ready(Served::Ended(served));
            }
            if self.connection.may_switch() && self.http.make_upgradeable() {
                continue;
            }
            if self.is_shutting_down {
                return Poll::Pending;
            }
            if !self.connection.is_closing(context) {
                return self.poll_idle(context);
            }
            self.is_shutting_down = true;
            self.http.graceful_shutdown();
        }
    }

    /// Takes the socket back if the connection is idle.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<Served> {
        // A timer already set is early enough, and needs no clock.
        if self.idle_timer.is_set() || self.connection.may_switch() {
            return Poll::Pending;
        }
        let Some(since) = self.connection.idle_since() else {
            return Poll::Pending;
        };
        if self.is_busy && !self.idle_timer.elapsed(since + BUSY_GAP, context) {
            return Poll::Pending;
        }
        // hyper may be closing the connection, as after a request with two lengths, and must not serve what follows. Then
        // it no longer reads.
        self.connection.take_read_nothing();
        if let Poll::Ready(served) = self.http.poll(context) {
            return Poll::Ready(Served::Ended(served));
        }
        if !self.connection.take_read_nothing() || self.connection.idle_since().is_none() {
            return Poll::Pending;
        }
        let socket = self.http.take_socket();
        socket.map_or(Poll::Pending, |socket| Poll::Ready(Served::Idle(socket)))
    }
}

impl<S: HttpService<Incoming, ResBody = PacedBody, Error = Infallible>> Http<S> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        match self {
            Self::Plain(http) => Pin::new(http).poll(context),
            Self::Upgradeable(http) => Pin::new(http).poll(context),
            Self::Ended => Poll::Pending,
        }
    }

    /// Returns false if it was upgradeable already.
    fn make_upgradeable(&mut self) -> bool {
        match std::mem::replace(self, Self::Ended) {
            Self::Plain(http) => {
                *self = Self::Upgradeable(http.with_upgrades());
                true
            }
            other @ (Self::Upgradeable(_) | Self::Ended) => {
                *self = other;
                false
            }
        }
    }

    fn graceful_shutdown(&mut self) {
        match self {
            Self::Plain(http) => Pin::new(http).graceful_shutdown(),
            Self::Upgradeable(http) => Pin::new(http).graceful_shutdown(),
            Self::Ended => {}
        }
    }

    /// Takes the socket back, with the bytes that hyper has read of the next request.
    fn take_socket(&mut self) -> Option<Box<Socket>> {
        match std::mem::replace(self, Self::Ended) {
            Self::Plain(http) => {
                let parts = http.into_parts();
                let mut socket = parts.io.into_inner();
                socket.put_back(parts.read_buf);
                Some(socket)
            }
            other @ (Self::Upgradeable(_) | Self::Ended) => {
                *self = other;
                None
            }
        }
    }
}

fn builder(limits: ConnectionLimits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // The socket enforces the deadlines.
    builder
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
