//! Stalled clients: the gate closes the connection of each, whatever the client sends meanwhile.

use std::thread;
use std::time::{Duration, Instant};

use crate::harness::frames::{
    DATA, END_HEADERS, END_STREAM, Frame, HEADERS, INITIAL_WINDOW_SIZE, PREFACE, head,
};
use crate::harness::{Next, ROUTES, Upstream, eventually, get, post, request, start_with};

/// A client that opens its connection with these bytes, and then sends `drip` again and again.
struct Stall {
    name: &'static str,
    opening: Vec<u8>,
    drip: Option<Vec<u8>>,
}

/// Time between two drips.
const PAUSE: Duration = Duration::from_millis(100);

fn stall(name: &'static str, opening: impl Into<Vec<u8>>) -> Stall {
    Stall {
        name,
        opening: opening.into(),
        drip: None,
    }
}

impl Stall {
    fn dripping(self, drip: impl Into<Vec<u8>>) -> Self {
        Self {
            drip: Some(drip.into()),
            ..self
        }
    }
}

/// Preface and SETTINGS, then these frames.
fn http2(settings: &[(u16, u32)], frames: &[Frame]) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    bytes.extend(Frame::settings(settings).bytes());
    bytes.extend(frames.iter().flat_map(Frame::bytes));
    bytes
}

fn post_frame(path: &str) -> Frame {
    let head = head(&[(":method", "POST"), (":path", path)]);
    Frame::new(HEADERS, END_HEADERS, 1, &head)
}

/// The ten patterns of slow clients before and during a request, and two that do not read.
fn patterns() -> Vec<Stall> {
    let half = post("/open/upload", &[b'x'; 1000]).body(b"half").bytes();
    let incomplete = Frame::new(HEADERS, END_STREAM, 1, &head(&[(":method", "GET")]));
    let data = |bytes: &[u8]| Frame::new(DATA, 0, 1, bytes);
    vec![
        stall("silent", ""),
        stall("half an HTTP/2 preface", &PREFACE[..12]),
        stall("half a head", "GET /open/page HTTP/1.1\r\nHost: gate"),
        stall("dripped head", "GET /open/page HTTP/1.1\r\nA: ").dripping("x"),
        stall("stalled body", half.clone()),
        stall("dripped body", half).dripping("x"),
        stall("idle HTTP/2", http2(&[], &[])),
        stall("HEADERS without END_HEADERS", http2(&[], &[incomplete])),
        stall(
            "stalled HTTP/2 body",
            http2(&[], &[post_frame("/open/upload"), data(b"half")]),
        ),
        stall(
            "dripped HTTP/2 body",
            http2(&[], &[post_frame("/open/upload"), data(b"half")]),
        )
        .dripping(data(b"x").bytes()),
        stall("reads nothing", get("/open/large").bytes()),
        stall(
            "reads nothing over HTTP/2",
            http2(&[(INITIAL_WINDOW_SIZE, 0)], &[Frame::get(1, "/open/large")]),
        ),
    ]
}

/// Upstream with a large response, or with one after the complete upload.
fn upstream() -> Upstream {
    Upstream::responding(|exchange| {
        if exchange.target() == "/open/large" {
            exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
            exchange.write(vec![b'x'; 100_000_000]);
            return Next::Close;
        }
        exchange.echo()
    })
}

/// Returns the time until the gate has closed the connection. The client reads nothing.
fn time_to_close(config: &str, stall: &Stall) -> Duration {
    let (sidecar, _upstream, _issuer) = start_with(config, upstream());
    let is_open = |count| sidecar.metric("claimgate_connections_open") == Some(count);
    let mut client = sidecar.connect();
    client.send(&stall.opening);
    eventually("accepted", || is_open(1.0));
    let began = Instant::now();
    while !is_open(0.0) {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{} stays open",
            stall.name
        );
        thread::park_timeout(PAUSE);
        if let Some(drip) = &stall.drip {
            client.send(drip);
        }
    }
    began.elapsed()
}

fn assert_all_close(config: &str, stalls: &[Stall]) {
    thread::scope(|scope| {
        for stall in stalls {
            scope.spawn(move || {
                let took = time_to_close(config, stall);
                // The timeout, 2 seconds to receive the last response, and a slow machine.
                assert!(took < Duration::from_secs(10), "{}: {took:?}", stall.name);
            });
        }
    });
}

/// The idle timeout closes none of them.
#[test]
fn every_stalled_client_is_closed_by_the_header_or_the_body_timeout() {
    let config = format!(
        "[listen]\nheader_timeout = \"500ms\"\nbody_timeout = \"1s\"\nidle_timeout = \"10m\"\n{ROUTES}"
    );
    assert_all_close(&config, &patterns());
}

#[test]
fn every_client_that_stalls_after_a_response_is_closed_by_the_idle_timeout() {
    let config = format!(
        "[listen]\nheader_timeout = \"10m\"\nbody_timeout = \"10m\"\nidle_timeout = \"500ms\"\n{ROUTES}"
    );
    let refused = post_frame("/api/alice/tasks");
    let data = Frame::new(DATA, 0, 1, b"x").bytes();
    let incomplete = Frame::new(HEADERS, END_STREAM, 3, &head(&[(":method", "GET")]));
    assert_all_close(
        &config,
        &[
            stall("idle", get("/open/page").bytes()),
            stall("idle after a refusal", request("GET", "/nowhere").bytes()),
            stall("idle HTTP/2", http2(&[], &[Frame::get(1, "/open/page")])),
            stall(
                "refused HTTP/2 body",
                http2(&[], std::slice::from_ref(&refused)),
            ),
            stall("dripped refused HTTP/2 body", http2(&[], &[refused])).dripping(data),
            stall(
                "second HEADERS without END_HEADERS",
                http2(&[], &[Frame::get(1, "/open/page"), incomplete]),
            ),
        ],
    );
}
