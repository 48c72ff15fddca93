//! HTTP/2 connections: limits, timeouts and graceful shutdown.

use std::time::{Duration, Instant};

use crate::harness::frames::{
    CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frame, Frames, GOAWAY,
    HEADERS, INITIAL_WINDOW_SIZE, PING, PREFACE, RST_STREAM, WINDOW_UPDATE, head,
};
use crate::harness::{
    Exchange, Latch, Next, ROUTES, Sidecar, Upstream, eventually, get, post, start, start_with,
};

const LATE: &str = "claimgate_request_heads_rejected_total{reason=\"request_timeout\"}";

fn listening(lines: &str) -> String {
    format!("[listen]\n{lines}\n[drain]\ngrace = \"10m\"\n{ROUTES}")
}

/// Upstream that responds once the latch opens.
fn slow() -> (Upstream, Latch) {
    let latch = Latch::default();
    let upstream = Upstream::held(&latch);
    (upstream, latch)
}

/// Upstream with a response larger than every flow-control window.
fn large() -> Upstream {
    Upstream::responding(|exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
        exchange.write(vec![b'x'; 100_000_000]);
        Next::Close
    })
}

/// Waits for the deadlines of other clients: earlier deadlines of the same length have passed too.
fn let_deadlines_pass(sidecar: &Sidecar) {
    for _ in 0..3 {
        sidecar.connect().until_closed();
    }
}

/// Asserts that the connection closes gracefully.
#[track_caller]
fn assert_graceful_close(mut client: Frames) {
    assert_eq!(client.next(GOAWAY).code(), 0);
    for frame in client.rest() {
        let is_goaway = frame.kind == GOAWAY && frame.code() == 0;
        assert!(is_goaway || frame.kind == PING, "{frame:?}");
    }
}

#[test]
fn serves_http2_with_prior_knowledge() {
    let (sidecar, _upstream, _issuer) = start(ROUTES);
    let mut client = Frames::connect(sidecar.address);
    client.send(&Frame::get(1, "/nowhere"));
    client.send(&Frame::get(3, "/a/../b"));
    assert_eq!(client.status(1), 404);
    assert_eq!(client.status(3), 400);
}

#[test]
fn accepts_a_fragmented_preface() {
    let (sidecar, _upstream, _issuer) = start(ROUTES);
    for at in 1..PREFACE.len() {
        let mut client = sidecar.connect();
        client.send(&PREFACE[..at]);
        // The response to another client proves that the gate has read the first fragment alone.
        assert_eq!(sidecar.call(&get("/open/page")).status, 200);
        client.send(&PREFACE[at..]);
        let mut frames = Frames { wire: client.wire };
        frames.send(&Frame::settings(&[]));
        frames.send(&Frame::get(1, "/a/../b"));
        assert_eq!(frames.status(1), 400, "{at}");
    }
}

#[test]
fn serves_http1_requests_that_begin_like_the_preface() {
    let (sidecar, _upstream, _issuer) = start(ROUTES);
    for method in ["P", "PR", "PRI", "POST", "PUT", "PATCH"] {
        let mut client = sidecar.connect();
        let (first, rest) = method.split_at(1);
        client.send(first);
        assert_eq!(sidecar.call(&get("/open/page")).status, 200);
        client.send(format!(
            "{rest} /nowhere HTTP/1.1\r\nHost: gate.test\r\n\r\n"
        ));
        assert_eq!(client.response().status, 404, "{method}");
    }
}

#[test]
fn closes_a_connection_without_a_complete_head() {
    let (sidecar, upstream, _issuer) = start(&listening("header_timeout = \"200ms\""));
    let incomplete = Frame::new(HEADERS, END_STREAM, 1, &head(&[(":method", "GET")]));
    for (closed, frames) in [(1.0, vec![]), (2.0, vec![incomplete])] {
        let mut client = Frames::connect(sidecar.address);
        for frame in &frames {
            client.send(frame);
        }
        client.rest();
        eventually("counted", || sidecar.metric(LATE) == Some(closed));
    }
    upstream.assert_untouched();
}

#[test]
fn pings_do_not_keep_a_connection_open() {
    let (sidecar, _upstream, _issuer) =
        start(&listening("header_timeout = \"2s\"\nidle_timeout = \"2s\""));
    let ping = Frame::new(PING, 0, 0, b"12345678");
    let mut fresh = Frames::connect(sidecar.address);
    let mut used = Frames::connect(sidecar.address);
    used.send(&Frame::get(1, "/a/../b"));
    assert_eq!(used.status(1), 400);
    for client in [&mut fresh, &mut used] {
        eventually("closed", || {
            client.send(&ping);
            matches!(client.read_only(), Ok(None) | Err(_))
        });
    }
}

#[test]
fn a_ping_does_not_start_the_header_timeout() {
    let (sidecar, _upstream, _issuer) = start(&listening(
        "header_timeout = \"1s\"\nidle_timeout = \"60s\"",
    ));
    let mut client = Frames::connect(sidecar.address);
    client.send(&Frame::get(1, "/a/../b"));
    assert_eq!(client.status(1), 400);
    client.send(&Frame::new(PING, 0, 0, b"12345678"));
    client.next(PING);
    let_deadlines_pass(&sidecar);
    client.send(&Frame::get(3, "/a/../b"));
    let next = client.until(|frame| [HEADERS, GOAWAY].contains(&frame.kind));
    assert_eq!((next.kind, next.stream), (HEADERS, 3));
}

#[test]
fn an_incomplete_head_does_not_keep_a_used_connection_open() {
    let (sidecar, _upstream, _issuer) = start(&listening("idle_timeout = \"200ms\""));
    let mut client = Frames::connect(sidecar.address);
    client.send(&Frame::get(1, "/a/../b"));
    assert_eq!(client.status(1), 400);
    let incomplete = head(&[(":method", "GET")]);
    client.send(&Frame::new(HEADERS, END_STREAM, 3, &incomplete));
    client.rest();
}

#[test]
fn rejects_a_head_in_a_thousand_continuation_frames() {
    let (sidecar, upstream, _issuer) = start(&listening("header_timeout = \"60s\""));
    let mut client = Frames::connect(sidecar.address);
    client.send(&Frame::new(HEADERS, END_STREAM, 1, &head(&[])));
    let fragment = head(&[("a", "b")]);
    eventually("closed", || {
        for _ in 0..1000 {
            client.send(&Frame::new(CONTINUATION, 0, 1, &fragment));
        }
        client.wire.write(b"").is_err() || matches!(client.read(), Ok(None) | Err(_))
    });
    upstream.assert_untouched();
}

#[test]
fn a_refusal_does_not_wait_for_the_body_and_resets_only_its_stream() {
    let (sidecar, upstream, _issuer) = start(ROUTES);
    let mut client = Frames::connect(sidecar.address);
    let post = head(&[(":method", "POST"), (":path", "/a/../b")]);
    client.send(&Frame::new(HEADERS, END_HEADERS, 1, &post));
    assert_eq!(client.status(1), 400);
    assert!(client.body(1).starts_with(b"{"));
    // RFC 9113 section 8.1: the response is complete, and the rest of the request is not needed.
    let reset = client.next(RST_STREAM);
    assert_eq!((reset.stream, reset.code()), (1, 0));
    client.send(&Frame::get(3, "/a/../b"));
    assert_eq!(client.status(3), 400);
    upstream.assert_untouched();
}

#[test]
fn closes_an_idle_connection_gracefully() {
    let (sidecar, _upstream, _issuer) = start(&listening("idle_timeout = \"200ms\""));
    let mut client = Frames::connect(sidecar.address);
    client.send(&Frame::get(1, "/open/page"));
    assert_eq!(client.status(1), 200);
    assert_eq!(client.body(1), b"/open/page");
    assert_graceful_close(client);
}

#[test]
fn closes_the_connection_of_a_client_that_ignores_goaway() {
    let (sidecar, _upstream, _issuer) = start(&listening("idle_timeout = \"200ms\""));
    let mut client = Frames::connect(sidecar.address);
    client.send(&Frame::get(1, "/a/../b"));
    let began = Instant::now();
    while let Ok(Some(_)) = client.read_only() {}
    eventually("closed", || {
        sidecar.metric("claimgate_connections_open") == Some(0.0)
    });
    // Without its own deadline, the connection would last until an unacknowledged PING.
    assert!(began.elapsed() < Duration::from_secs(25), "closed too late");
}

#[test]
fn waiting_for_the_upstream_is_not_idle() {
    let (upstream, latch) = slow();
    let config = listening("idle_timeout = \"1s\"\nheader_timeout = \"1s\"\nbody_timeout = \"1s\"");
    let (sidecar, upstream, _issuer) = start_with(&config, upstream);
    let mut client = Frames::connect(sidecar.address);
    client.send(&Frame::get(1, "/open/page"));
    client.send(&Frame::get(3, "/a/../b"));
    assert_eq!(client.status(3), 400);
    upstream.wait_for(1);
    let_deadlines_pass(&sidecar);
    latch.open();
    assert_eq!(client.status(1), 200);
    assert_eq!(client.body(1), b"/open/page");
    assert_graceful_close(client);
}

#[test]
fn a_slow_response_is_not_a_stalled_client() {
    let latch = Latch::default();
    let waits = latch.clone();
    let upstream = Upstream::responding(move |exchange: &mut Exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
        waits.wait();
        exchange.write("after");
        Next::Close
    });
    let config = listening("body_timeout = \"1s\"\nheader_timeout = \"1s\"");
    let (sidecar, _upstream, _issuer) = start_with(&config, upstream);
    let mut client = Frames::connect(sidecar.address);
    client.send(&Frame::get(1, "/open/page"));
    assert_eq!(client.status(1), 200);
    assert_eq!(client.next(DATA).payload, b"first");
    let_deadlines_pass(&sidecar);
    latch.open();
    assert_eq!(client.body(1), b"after");
}

#[test]
fn resets_a_stalled_stream_and_serves_the_others() {
    let latch = Latch::default();
    let held = latch.clone();
    let upstream = Upstream::responding(move |exchange| {
        if exchange.target() == "/open/held" {
            held.wait();
            return exchange.echo();
        }
        let body = vec![b'x'; 100_000];
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
        exchange.write(body);
        Next::KeepAlive
    });
    for window in [0, 1, 1000, 65_535] {
        let upstream = upstream.url();
        let config = format!(
            "[upstreams.tasks]\nurl = \"{upstream}\"\n{}",
            listening("body_timeout = \"300ms\"")
        );
        let (sidecar, _unused, _issuer) = start(&config);
        let mut client = Frames::connect_with(sidecar.address, &[(INITIAL_WINDOW_SIZE, window)]);
        client.open_window(0, 10_000_000);
        // Without another stream, the connection would close after the reset.
        client.send(&Frame::get(5, "/open/held"));
        client.send(&Frame::get(7, "/open/stuck"));
        assert_eq!(client.status(7), 200);
        let reset = client.next(RST_STREAM);
        assert_eq!((reset.stream, reset.code()), (7, CANCEL), "{window}");
        // In one write, so that this stream never stalls.
        let window = Frame::new(WINDOW_UPDATE, 0, 9, &100_000_u32.to_be_bytes());
        let read = [Frame::get(9, "/open/read").bytes(), window.bytes()].concat();
        client.wire.write(&read).unwrap();
        assert_eq!(client.status(9), 200);
        assert_eq!(client.body(9).len(), 100_000);
        let counted = "claimgate_requests_total{route=\"/open/{*rest}\",method=\"GET\",status=\"200\",reason=\"\"}";
        eventually("counted", || sidecar.metric(counted) == Some(2.0));
    }
    latch.open();
}

/// Over HTTP/1.1 it closes too. The client would otherwise keep the connection for the idle timeout.
#[test]
fn closes_a_connection_whose_only_stream_stalls() {
    let (sidecar, _upstream, _issuer) = start_with(
        &listening("body_timeout = \"300ms\"\nidle_timeout = \"10m\""),
        large(),
    );
    let mut client = Frames::connect_with(sidecar.address, &[(INITIAL_WINDOW_SIZE, 0)]);
    client.send(&Frame::get(1, "/open/stuck"));
    assert_eq!(client.next(RST_STREAM).stream, 1);
    assert_graceful_close(client);
}

#[test]
fn does_not_reset_a_slow_reader() {
    let upstream = Upstream::responding(|exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
        exchange.write(vec![b'x'; 100_000]);
        Next::KeepAlive
    });
    let config = listening("body_timeout = \"20s\"\nidle_timeout = \"100ms\"");
    let (sidecar, _upstream, _issuer) = start_with(&config, upstream);
    let mut client = Frames::connect_with(sidecar.address, &[(INITIAL_WINDOW_SIZE, 1000)]);
    client.send(&Frame::get(1, "/open/page"));
    let mut taken = 0;
    while taken < 100_000 {
        let frame = client.next(DATA);
        taken += frame.payload.len();
        client.open_window(1, 1000);
        client.open_window(0, 1000);
    }
    assert_eq!(taken, 100_000);
}

#[test]
fn closes_the_connection_of_a_client_that_reads_nothing() {
    let (sidecar, upstream, _issuer) = start_with(&listening("body_timeout = \"300ms\""), large());
    let most = 0x7fff_0000;
    let mut client = Frames::connect_with(sidecar.address, &[(INITIAL_WINDOW_SIZE, most)]);
    client.open_window(0, most);
    client.send(&Frame::get(1, "/open/large"));
    // The gate closes the upstream connection too.
    upstream.wait_for_closed(1);
    eventually("closed", || {
        sidecar.metric("claimgate_connections_open") == Some(0.0)
    });
}

#[test]
fn closes_the_connection_after_a_rapid_reset_flood() {
    let (sidecar, _upstream, _issuer) = start(ROUTES);
    let mut client = Frames::connect(sidecar.address);
    let mut flood = Vec::new();
    for stream in (1..4000).step_by(2) {
        flood.extend(Frame::get(stream, "/open/page").bytes());
        let cancel = CANCEL.to_be_bytes();
        flood.extend(Frame::new(RST_STREAM, 0, stream, &cancel).bytes());
    }
    let _result = client.wire.write(&flood);
    let goaway = client.next(GOAWAY);
    assert_eq!(goaway.code(), ENHANCE_YOUR_CALM);
    assert_eq!(sidecar.call(&get("/open/page")).status, 200);
}

#[test]
fn closes_the_connection_after_a_flood_of_provoked_resets() {
    let (upstream, latch) = slow();
    let (sidecar, _upstream, _issuer) = start_with(ROUTES, upstream);
    let mut client = Frames::connect(sidecar.address);
    for stream in (1..1000).step_by(2) {
        client.send(&Frame::get(stream, "/open/page"));
        // A window overflow: a stream error.
        client.open_window(stream, 0x7fff_ffff);
    }
    assert_eq!(client.next(GOAWAY).code(), ENHANCE_YOUR_CALM);
    latch.open();
}

#[test]
fn limits_a_connection_to_a_hundred_concurrent_streams() {
    let (upstream, latch) = slow();
    let (sidecar, upstream, _issuer) = start_with(ROUTES, upstream);
    let mut client = Frames::connect(sidecar.address);
    for number in 0..101 {
        client.send(&Frame::get(2 * number + 1, "/open/page"));
    }
    let refused = client.next(RST_STREAM);
    assert_eq!(refused.stream, 201);
    upstream.wait_for(100);
    latch.open();
    for _ in 0..100 {
        client.next(HEADERS);
    }
}

#[test]
fn shutdown_completes_streams_in_flight_and_sends_goaway() {
    let (upstream, latch) = slow();
    let (sidecar, upstream, _issuer) = start_with(&listening(""), upstream);
    let mut client = Frames::connect(sidecar.address);
    let mut idle = Frames::connect(sidecar.address);
    idle.send(&Frame::get(1, "/a/../b"));
    assert_eq!(idle.status(1), 400);
    client.send(&Frame::get(1, "/open/one"));
    client.send(&Frame::get(3, "/open/two"));
    upstream.wait_for(2);
    sidecar.stop();
    assert_graceful_close(idle);
    assert_eq!(client.next(GOAWAY).code(), 0);
    latch.open();
    let mut bodies = 0;
    for frame in client.rest() {
        bodies += frame.payload.len() * usize::from(frame.kind == DATA);
    }
    assert_eq!(bodies, "/open/one/open/two".len());
    assert_eq!(sidecar.wait(), 0);
}

#[test]
fn a_client_without_a_head_does_not_delay_the_shutdown() {
    let (sidecar, _upstream, _issuer) = start(&format!(
        "[listen]\nheader_timeout = \"10m\"\n[drain]\ngrace = \"10m\"\n{ROUTES}"
    ));
    let mut silent = Frames::connect(sidecar.address);
    let mut incomplete = sidecar.connect();
    incomplete.send(&PREFACE[..10]);
    eventually("accepted", || {
        sidecar.metric("claimgate_connections_open") == Some(2.0)
    });
    sidecar.stop();
    while let Ok(Some(_)) = silent.read_only() {}
    incomplete.until_closed();
    assert_eq!(sidecar.wait(), 0);
}

#[test]
fn draining_sends_goaway() {
    let (upstream, latch) = slow();
    let (sidecar, upstream, _issuer) = start_with(&listening(""), upstream);
    let mut client = Frames::connect(sidecar.address);
    client.send(&Frame::get(1, "/open/page"));
    upstream.wait_for(1);
    assert_eq!(sidecar.admin(&post("/drain", b"")).status, 200);
    assert_eq!(client.next(GOAWAY).code(), 0);
    latch.open();
    assert_eq!(client.status(1), 200);
    assert_eq!(client.body(1), b"/open/page");
    client.rest();
    // A new connection is served for one exchange.
    let mut new = Frames::connect(sidecar.address);
    new.send(&Frame::get(1, "/open/page"));
    assert_eq!(new.status(1), 200);
    assert_eq!(new.body(1), b"/open/page");
    assert_graceful_close(new);
}

#[test]
fn a_rejected_client_gets_an_overloaded_response() {
    let latch = Latch::default();
    let upstream = Upstream::held(&latch);
    let (sidecar, upstream, _issuer) = start_with(&listening("max_connections = 1"), upstream);
    let mut first = sidecar.connect();
    first.send(get("/open/page").bytes());
    upstream.wait_for(1);
    let mut second = Frames::connect(sidecar.address);
    second.send(&Frame::get(1, "/open/page"));
    let body = second.body(1);
    let body = String::from_utf8(body).unwrap();
    assert!(body.contains("overloaded"), "{body}");
    assert_graceful_close(second);
    latch.open();
}
