//! Kept HTTP/1.1 connections between two requests, and their end.

use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{ROUTES, get, start};

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
