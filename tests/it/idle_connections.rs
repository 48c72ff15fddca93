//! Kept HTTP/1.1 connections between two requests, and their end.

use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{ROUTES, get, start};

/// The gate takes an idle connection back from its HTTP library, with the bytes that were already read.
#[test]
fn the_first_bytes_of_a_next_request_survive_a_rest() {
    let (sidecar, upstream, _issuer) = start(ROUTES);
    let mut client = sidecar.connect();
    let next = get("/open/second").bytes();
    let mut first = get("/open/first").bytes();
    first.extend_from_slice(&next[..20]);
    client.send(first);
    assert_eq!(client.response().status, 200);
    client.send(&next[20..]);
    assert_eq!(client.response().status, 200);
    for _ in 0..3 {
        assert_eq!(client.call(&get("/open/page")).status, 200);
    }
    let lines: Vec<_> = upstream.arrived().iter().map(|it| it.head.line()).collect();
    assert!(lines[0].contains("/first") && lines[1].contains("/second"));
    assert_eq!(lines.len(), 5);
}

#[test]
fn several_requests_in_one_write_are_served_in_order() {
    let (sidecar, upstream, _issuer) = start(ROUTES);
    let mut client = sidecar.connect();
    for _ in 0..2 {
        client.send(get("/open/page").bytes().repeat(20));
        for _ in 0..20 {
            assert_eq!(client.response().status, 200);
        }
    }
    assert_eq!(upstream.arrived().len(), 40);
}

#[test]
fn a_client_that_announces_its_last_request_is_closed_at_once() {
    let (sidecar, _upstream, _issuer) = start(ROUTES);
    for request in [
        get("/open/page").line("Connection: close").bytes(),
        b"GET /open/page HTTP/1.0\r\nHost: gate.test\r\n\r\n".to_vec(),
    ] {
        let mut client = sidecar.connect();
        client.send(request);
        assert_eq!(client.response().status, 200);
        assert_eq!(client.until_closed(), b"");
        // The kernel resets a closed socket that receives; with a lingering close, it would accept bytes for 2 seconds.
        let began = Instant::now();
        while client.wire.write(b"x").is_ok() {
            assert!(began.elapsed() < Duration::from_secs(1), "it is still open");
            thread::yield_now();
        }
    }
}

#[test]
fn a_client_that_goes_on_sending_receives_the_last_response() {
    let (sidecar, _upstream, _issuer) = start(ROUTES);
    for _ in 0..20 {
        let mut client = sidecar.connect();
        let mut request = get("/open/page").line("Connection: close").bytes();
        request.resize(request.len() + 100_000, b'x');
        client.send(request);
        assert_eq!(client.response().status, 200);
        let end = client.wire.read();
        let is_reset = matches!(&end, Err(error) if error.kind() == ErrorKind::ConnectionReset);
        assert!(!is_reset, "{end:?}");
    }
}
