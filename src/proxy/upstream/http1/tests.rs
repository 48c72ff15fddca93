//! Tests of one connection, with its server on another thread.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream as StdStream};
use std::task::Waker;
use std::thread;

use http::header::HOST;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};

use crate::proxy::request_head::{RequestHead, RequestLength};
use crate::proxy::upstream::MAX_READ;

use super::*;

const COMPLETE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn run(test: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default());
    runtime.unwrap().block_on(test);
}

/// Connection, the state of its endpoint, and the server's side.
async fn connected() -> (Box<Http1>, Rc<SharedHttp1>, StdStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (server, _) = listener.accept().unwrap();
    let shared = Rc::<SharedHttp1>::default();
    let stream = Stream::Plain(stream.into());
    let connection = Http1::new(stream, Rc::clone(&shared));
    (Box::new(connection), shared, server)
}

fn request(method: &Method) -> UpstreamRequest {
    let mut head = RequestHead::begin(method, "/", 0);
    head.field(&HOST, b"a.example");
    UpstreamRequest {
        head: head.finish(RequestLength::None),
        body: RequestBody::empty(),
        informational: None,
        max_read: MAX_READ,
    }
}

/// Exchange in which the server reads the request and sends this text.
async fn exchange(
    connection: Box<Http1>,
    method: Method,
    server: &StdStream,
    response: &'static str,
) -> Box<Http1> {
    let mut server = server.try_clone().unwrap();
    let responding = thread::spawn(move || {
        assert!(server.read(&mut [0; 1024]).unwrap() > 0);
        server.write_all(response.as_bytes()).unwrap();
    });
    let response = connection.send(&mut request(&method)).await;
    let mut body = response.unwrap().into_body();
    responding.join().unwrap();
    while !body.is_complete() {
        let frame = poll_fn(|context| body.poll_frame(context)).await;
        assert!(frame.is_none_or(|frame| frame.is_ok()));
    }
    body.into_connection().unwrap()
}

#[test]
fn a_quiet_connection_is_reused() {
    run(async {
        let (mut connection, shared, server) = connected().await;
        for _ in 0..3 {
            connection = exchange(connection, Method::GET, &server, COMPLETE).await;
            assert!(connection.check_in(Reuse::Safe));
            assert!(connection.is_quiet());
        }
        assert!(!shared.surplus.take());
    });
}

/// Sends a request on a connection that must not carry one.
async fn send_on_unquiet(connection: Box<Http1>) {
    let mut request = request(&Method::GET);
    let text = request.head.text().to_vec();
    let sent = connection.send(&mut request).await;
    assert!(matches!(sent, Err(SendError::NotSent)), "{sent:?}");
    assert_eq!(request.head.text(), text, "the next connection sends it");
}

#[test]
fn a_check_out_finds_bytes_that_the_runtime_does_not_know_of() {
    run(async {
        for (bytes, is_surplus) in [
            ("HTTP/1.1 200 OK\r\n", true),
            ("x", true),
            ("HTTP/1.1 408 Request Timeout\r\n", false),
        ] {
            let (connection, shared, mut server) = connected().await;
            let mut connection = exchange(connection, Method::GET, &server, COMPLETE).await;
            assert!(connection.check_in(Reuse::Safe));
            server.write_all(bytes.as_bytes()).unwrap();
            let mut context = Context::from_waker(Waker::noop());
            let is_known = connection.socket.poll_readable(&mut context).is_ready();
            assert!(!is_known, "the runtime knows of them");
            send_on_unquiet(connection).await;
            assert_eq!(shared.surplus.take(), is_surplus, "{bytes:?}");
            server.set_nonblocking(true).unwrap();
            let received = server.read(&mut [0; 100]);
            assert!(!matches!(received, Ok(1..)), "{received:?} of the request");
        }
    });
}

#[test]
fn a_check_out_finds_the_end_of_the_stream() {
    run(async {
        let (connection, shared, server) = connected().await;
        let mut connection = exchange(connection, Method::GET, &server, COMPLETE).await;
        assert!(connection.check_in(Reuse::Safe));
        drop(server);
        send_on_unquiet(connection).await;
        assert!(!shared.surplus.take());
    });
}

#[test]
fn an_idle_connection_ends_with_the_first_byte_or_the_end_of_the_stream() {
    run(async {
        for bytes in ["x", ""] {
            let (connection, shared, mut server) = connected().await;
            let mut connection = exchange(connection, Method::GET, &server, COMPLETE).await;
            assert!(connection.check_in(Reuse::Safe));
            let mut context = Context::from_waker(Waker::noop());
            assert!(!connection.poll_idle_end(&mut context));
            server.write_all(bytes.as_bytes()).unwrap();
            drop(server);
            poll_fn(|context| {
                if connection.poll_idle_end(context) {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
            assert_eq!(shared.surplus.take(), !bytes.is_empty());
        }
    });
}

#[test]
fn a_connection_is_reused_by_the_policy_of_its_upstream() {
    use Reuse::{Always, Never, Safe};
    run(async {
        for (method, response, reused_by) in [
            (Method::GET, COMPLETE, &[Safe, Always][..]),
            (
                Method::HEAD,
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
                &[Always],
            ),
            (Method::GET, "HTTP/1.1 204 No Content\r\n\r\n", &[Always]),
            (Method::GET, "HTTP/1.1 304 Not Modified\r\n\r\n", &[Always]),
            (
                Method::GET,
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
                &[],
            ),
            (
                Method::GET,
                "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
                &[],
            ),
            (
                Method::GET,
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n",
                &[],
            ),
            (
                Method::GET,
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n\r\n",
                &[],
            ),
        ] {
            for reuse in [Never, Safe, Always] {
                let (connection, _shared, server) = connected().await;
                let method = method.clone();
                let mut connection = exchange(connection, method, &server, response).await;
                let expected = reused_by.contains(&reuse);
                assert_eq!(connection.check_in(reuse), expected, "{reuse:?} {response}");
            }
        }
    });
}

#[test]
fn a_response_that_fills_its_read_is_checked_for_more_at_the_return() {
    run(async {
        let padding = "x".repeat(FIRST_READ - COMPLETE.len() - "X: \r\n".len());
        let filling = COMPLETE.replace("\r\n\r\n", &format!("\r\nX: {padding}\r\n\r\n"));
        assert_eq!(filling.len(), FIRST_READ);
        for (surplus, may_reuse) in [("", true), ("HTTP/1.1 200 OK\r\n", false)] {
            let (connection, _shared, server) = connected().await;
            let response = format!("{filling}{surplus}").leak();
            let mut connection = exchange(connection, Method::GET, &server, response).await;
            assert_eq!(connection.check_in(Reuse::Safe), may_reuse, "{surplus:?}");
        }
    });
}
