//! HTTP/2 upstreams.

use std::net::TcpListener;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use http::{Response, Version};
use http_body_util::Full;
use tokio::task::JoinSet;

use crate::harness::frames::{
    DATA, END_HEADERS, END_STREAM, Frame, Frames, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, RST_STREAM,
};
use crate::harness::http2::echo;
use crate::harness::{
    Http2Upstream, Issuer, ROUTES, Sidecar, TASKS, TIMEOUT, eventually, get, post, request,
    start_before,
};

fn start(upstream: &Http2Upstream) -> (Sidecar, Issuer) {
    start_before(&format!("url = \"{}\"", upstream.url()), ROUTES)
}

#[test]
fn converts_the_request_head_to_http2() {
    let upstream = Http2Upstream::start();
    let (sidecar, issuer) = start(&upstream);
    let request = post(&format!("{TASKS}?x=%20"), b"milk")
        .bearer(&issuer.token("alice"))
        .line("Connection: X-Secret")
        .line("X-Secret: yes")
        .line("X-User-Id: mallory");
    let response = sidecar.call(&request);
    assert_eq!(response.status, 200);
    assert_eq!(response.text(), "POST /api/alice/tasks alice milk");
    let head = upstream.arrived().remove(0);
    assert_eq!(head.version, Version::HTTP_2);
    assert_eq!(
        head.uri.to_string(),
        "http://gate.test/api/alice/tasks?x=%20"
    );
    for name in [
        "host",
        "connection",
        "x-secret",
        "authorization",
        "transfer-encoding",
    ] {
        assert!(!head.headers.contains_key(name), "{name}");
    }
    assert_eq!(head.headers["x-user-id"], "alice");
}

#[test]
fn forwards_requests_of_every_kind() {
    let upstream = Http2Upstream::start();
    let (sidecar, _issuer) = start(&upstream);
    let mut client = sidecar.connect();
    for (request, body) in [
        (get("/open/a"), "GET /open/a  "),
        (request("HEAD", "/open/a"), ""),
        (request("DELETE", "/open/a"), "DELETE /open/a  "),
        (post("/open/a", b""), "POST /open/a  "),
        (
            request("PUT", "/open/a").chunked(b"milk", ""),
            "PUT /open/a  milk",
        ),
        (
            request("GET", "/open/a").chunked(b"milk", ""),
            "GET /open/a  milk",
        ),
    ] {
        let response = client.call(&request);
        assert_eq!((response.status, response.text().as_str()), (200, body));
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_large_body_passes_in_both_directions() {
    let upstream = Http2Upstream::start();
    let (sidecar, _issuer) = start(&upstream);
    let body = "0123456789abcdef".repeat(256 * 1024);
    let response = sidecar.call(&post("/open/a", body.as_bytes()));
    assert_eq!(response.text(), format!("POST /open/a  {body}"));
}

#[test]
fn exchanges_share_a_connection_up_to_the_stream_limit() {
    let (received, arrived) = channel();
    let (release, released) = tokio::sync::watch::channel(false);
    let upstream = Http2Upstream::responding(4, move |request| {
        received.send(()).unwrap();
        let mut released = released.clone();
        Box::pin(async move {
            released.wait_for(|released| *released).await.unwrap();
            echo(request).await
        })
    });
    let (sidecar, _issuer) = start(&upstream);
    // The first exchange makes the stream limit known to the gate.
    release.send_replace(true);
    assert_eq!(sidecar.call(&get("/open/first")).status, 200);
    release.send_replace(false);
    let mut clients: Vec<_> = (0..10).map(|_| sidecar.connect()).collect();
    for client in &mut clients {
        client.send(get("/open/a").bytes());
    }
    for _ in 0..11 {
        arrived.recv_timeout(TIMEOUT).unwrap();
    }
    release.send_replace(true);
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(upstream.connections(), 3);
}

#[test]
fn a_burst_over_a_new_connection_waits_for_the_stream_limit() {
    for _ in 0..5 {
        let upstream = Http2Upstream::responding(4, |request| Box::pin(echo(request)));
        let (sidecar, _issuer) = start(&upstream);
        let mut clients: Vec<_> = (0..50).map(|_| sidecar.connect()).collect();
        for client in &mut clients {
            client.send(post("/open/a", b"milk").bytes());
        }
        for client in &mut clients {
            assert_eq!(client.response().text(), "POST /open/a  milk");
        }
    }
}

#[test]
fn a_disconnected_client_resets_only_its_own_stream() {
    struct Ended(Sender<()>);
    impl Drop for Ended {
        fn drop(&mut self) {
            let _gone = self.0.send(());
        }
    }
    let (received, arrived) = channel();
    let (ended, has_ended) = channel();
    let upstream = Http2Upstream::responding(100, move |request| {
        received.send(()).unwrap();
        let ended = Ended(ended.clone());
        Box::pin(async move {
            let _ended = ended;
            match request.uri().path() {
                "/open/never" => std::future::pending().await,
                _ => echo(request).await,
            }
        })
    });
    let (sidecar, _issuer) = start(&upstream);
    for _ in 0..150 {
        let mut leaving = sidecar.connect();
        leaving.send(get("/open/never").bytes());
        arrived.recv_timeout(TIMEOUT).unwrap();
        drop(leaving);
        has_ended.recv_timeout(TIMEOUT).unwrap();
    }
    assert_eq!(sidecar.call(&get("/open/a")).status, 200);
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn an_early_response_to_a_long_upload_ends_the_stream() {
    let upstream = Http2Upstream::responding(1, |request| {
        Box::pin(async move {
            if request.method() == http::Method::POST {
                let mut response = Response::new(Full::from("enough"));
                *response.status_mut() = http::StatusCode::PAYLOAD_TOO_LARGE;
                return response;
            }
            echo(request).await
        })
    });
    let (sidecar, _issuer) = start(&upstream);
    for _ in 0..3 {
        let mut client = sidecar.connect();
        let announced = request("POST", "/open/a").line("Content-Length: 1000000");
        client.send(announced.bytes()).send(vec![b'x'; 100_000]);
        let response = client.response();
        assert_eq!((response.status, response.text().as_str()), (413, "enough"));
        // The stream limit is 1.
        assert_eq!(sidecar.call(&get("/open/b")).status, 200);
    }
}

/// Upstream that refuses every first stream after `read` bytes of its body, and echoes the body of every second.
fn refusing(read: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("h2c://{}", listener.local_addr().unwrap());
    listener.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let mut serving = JoinSet::new();
            let mut number = 0;
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                number += 1;
                let is_refused = number % 2 == 1;
                let limit = if is_refused { read } else { usize::MAX };
                serving.spawn(async move {
                    let mut body = request.into_body();
                    let mut received = Vec::new();
                    while received.len() < limit
                        && let Some(Ok(data)) = body.data().await
                    {
                        received.extend_from_slice(&data);
                        body.flow_control().release_capacity(data.len()).unwrap();
                    }
                    if is_refused {
                        respond.send_reset(h2::Reason::REFUSED_STREAM);
                    } else {
                        let mut stream = respond.send_response(Response::new(()), false).unwrap();
                        stream.send_data(received.into(), true).unwrap();
                    }
                });
            }
        });
    });
    url
}

#[test]
fn retries_a_refused_stream_once() {
    for read in [0, 1, usize::MAX] {
        let (sidecar, _issuer) = start_before(&format!("url = \"{}\"", refusing(read)), ROUTES);
        for method in ["POST", "GET", "PATCH"] {
            assert_eq!(sidecar.call(&request(method, "/open/a")).status, 200);
        }
        let large = "milk and bread".repeat(4000);
        for body in ["milk", &large] {
            let response = sidecar.call(&post("/open/a", body.as_bytes()));
            assert_eq!((response.status, response.text().len()), (200, body.len()));
            assert!(response.text() == body, "different body");
        }
        let pieces = request("POST", "/open/a").chunked(b"bread", "");
        assert_eq!(sidecar.call(&pieces).text(), "bread");
    }
}

#[test]
fn does_not_retry_a_refused_stream_beyond_the_replay_buffer() {
    let config = format!("url = \"{}\"", refusing(usize::MAX));
    let (sidecar, _issuer) = start_before(&config, ROUTES);
    let large = vec![b'x'; 70_000];
    sidecar
        .call(&post("/open/a", &large))
        .refused(502, "upstream_invalid_response");
}

#[test]
fn the_response_timeout_covers_a_retry_without_flow_control_window() {
    const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("h2c://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut frames = Frames::accept(stream);
        frames.next(DATA);
        frames.send(&Frame::settings(&[(INITIAL_WINDOW_SIZE, 0)]));
        frames.send(&Frame::new(RST_STREAM, 0, 1, &REFUSED_STREAM));
        frames.rest();
    });
    let config = format!("url = \"{url}\"\nresponse_timeout = \"2s\"");
    let (sidecar, _issuer) = start_before(&config, ROUTES);
    let mut client = sidecar.connect();
    // The client never sends the rest.
    let announced = request("POST", "/open/a").line("Content-Length: 1000");
    client.send(announced.bytes()).send(b"milk");
    client.response().refused(504, "upstream_timeout");
}

#[test]
fn retries_a_stream_above_the_last_stream_id_of_goaway() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("h2c://{}", listener.local_addr().unwrap());
    let upstream = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut first = Frames::accept(stream);
        // The whole stream has arrived, but the last processed stream ID excludes it.
        assert_eq!(first.body(1), b"milk");
        first.send(&Frame::new(GOAWAY, 0, 0, &[0; 8]));
        let (stream, _) = listener.accept().unwrap();
        let mut second = Frames::accept(stream);
        assert_eq!(second.body(1), b"milk");
        // `:status: 200` in the static table (RFC 7541 appendix A).
        second.send(&Frame::new(HEADERS, END_STREAM | END_HEADERS, 1, &[0x88]));
        second.rest()
    });
    let (sidecar, _issuer) = start_before(&format!("url = \"{url}\""), ROUTES);
    assert_eq!(sidecar.call(&post("/open/a", b"milk")).status, 200);
    drop(sidecar);
    upstream.join().unwrap();
}

#[test]
fn goaway_under_load_loses_no_request() {
    let upstream = Http2Upstream::start();
    let (sidecar, _issuer) = start(&upstream);
    thread::scope(|scope| {
        for client in 0..4 {
            let sidecar = &sidecar;
            scope.spawn(move || {
                let mut connection = sidecar.connect();
                for number in 0..250 {
                    let target = format!("/open/{client}/{number}");
                    let response = connection.call(&post(&target, b"x"));
                    assert_eq!(response.status, 200, "{}", response.text());
                    assert_eq!(response.text(), format!("POST {target}  x"));
                }
            });
        }
        for round in 1..10 {
            eventually("requests", || upstream.arrived().len() > round * 80);
            upstream.go_away();
        }
    });
    assert_eq!(upstream.arrived().len(), 1000);
    assert!(upstream.connections() > 5, "{}", upstream.connections());
}

#[test]
fn rejects_a_websocket_to_an_http2_upstream() {
    let upstream = Http2Upstream::start();
    let (sidecar, _issuer) = start(&upstream);
    let request = get("/open/a").websocket();
    sidecar
        .call(&request)
        .refused(502, "upstream_invalid_response");
    assert!(upstream.arrived().is_empty());
}

#[test]
fn an_http1_upstream_is_unreachable_over_h2c() {
    let upstream = crate::harness::Upstream::start();
    let url = upstream.url().replace("http:", "h2c:");
    let (sidecar, _issuer) = start_before(&format!("url = \"{url}\""), ROUTES);
    sidecar
        .call(&get("/open/a"))
        .refused(502, "upstream_unreachable");
}
