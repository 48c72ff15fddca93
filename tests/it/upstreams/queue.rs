//! Limits of concurrent requests: `max_connections` and `max_pending`.

use crate::harness::{Exchange, Latch, ROUTES, Sidecar, Upstream, eventually, get, start_before};

/// Upstream that responds once the latch opens, with a sidecar.
fn start(limits: &str) -> (Sidecar, Upstream, Latch) {
    let latch = Latch::default();
    let upstream = Upstream::held(&latch);
    let tasks = format!("url = \"{}\"\n{limits}", upstream.url());
    let (sidecar, _issuer) = start_before(&tasks, ROUTES);
    (sidecar, upstream, latch)
}

#[test]
fn serves_one_request_queues_one_and_rejects_one() {
    let limits = "max_connections = 1\nmax_pending = 1\nconnect_timeout = \"1m\"";
    let (sidecar, upstream, latch) = start(limits);
    let mut first = sidecar.connect();
    first.send(get("/open/1").bytes());
    upstream.wait_for(1);
    // One of these two waits, either one.
    let mut others = [sidecar.connect(), sidecar.connect()];
    for client in &mut others {
        client.send(get("/open/2").bytes());
    }
    let overloaded = "claimgate_requests_total{route=\"/open/{*rest}\",method=\"GET\",status=\"503\",reason=\"overloaded\"}";
    eventually("rejected", || sidecar.metric(overloaded) == Some(1.0));
    assert_eq!(upstream.arrived().len(), 1);
    latch.open();
    assert_eq!(first.response().text(), "/open/1");
    let responses = others.map(|mut client| client.response());
    let mut statuses = responses.each_ref().map(|response| response.status);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
    let refused = responses
        .iter()
        .find(|response| response.status == 503)
        .unwrap();
    refused.refused(503, "overloaded");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(upstream.arrived().len(), 2);
}

#[test]
fn a_slot_is_held_until_the_last_byte_of_the_response() {
    let latch = Latch::default();
    let half = latch.clone();
    let upstream = Upstream::responding(move |exchange: &mut Exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmi");
        half.wait();
        exchange.write("lk");
        crate::harness::Next::KeepAlive
    });
    let tasks = format!(
        "url = \"{}\"\nmax_connections = 1\nmax_pending = 0",
        upstream.url()
    );
    let (sidecar, _issuer) = start_before(&tasks, ROUTES);
    let mut first = sidecar.connect();
    first.send(get("/open/1").bytes());
    let head = first.wire.read_head().unwrap().unwrap();
    sidecar.call(&get("/open/2")).refused(503, "overloaded");
    latch.open();
    assert_eq!(first.wire.read_body(&head).unwrap().0, b"milk");
    eventually("free slot", || sidecar.call(&get("/open/3")).status == 200);
}

#[test]
fn a_queued_request_times_out() {
    let limits = "max_connections = 1\nconnect_timeout = \"100ms\"";
    let (sidecar, upstream, latch) = start(limits);
    let mut first = sidecar.connect();
    first.send(get("/open/1").bytes());
    upstream.wait_for(1);
    sidecar.call(&get("/open/2")).refused(503, "overloaded");
    latch.open();
    assert_eq!(first.response().status, 200);
    assert_eq!(sidecar.call(&get("/open/3")).status, 200);
}

#[test]
fn a_disconnected_client_frees_its_slot() {
    let limits = "max_connections = 2\nmax_pending = 0";
    let (sidecar, upstream, latch) = start(limits);
    let mut abandoned = [sidecar.connect(), sidecar.connect()];
    for client in &mut abandoned {
        client.send(get("/open/1").bytes());
    }
    upstream.wait_for(2);
    sidecar.call(&get("/open/2")).refused(503, "overloaded");
    drop(abandoned);
    latch.open();
    eventually("free slot", || sidecar.call(&get("/open/3")).status == 200);
    for _ in 0..10 {
        assert_eq!(sidecar.call(&get("/open/4")).status, 200);
    }
}

#[test]
fn a_truncated_response_frees_the_slot() {
    let upstream = Upstream::responding(|exchange| {
        if exchange.target() == "/open/complete" {
            return exchange.echo();
        }
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        crate::harness::Next::Reset
    });
    let tasks = format!(
        "url = \"{}\"\nmax_connections = 1\nmax_pending = 0",
        upstream.url()
    );
    let (sidecar, _issuer) = start_before(&tasks, ROUTES);
    for _ in 0..5 {
        let mut client = sidecar.connect();
        client.send(get("/open/half").bytes());
        assert!(client.read(false).is_err());
        eventually("free slot", || {
            sidecar.call(&get("/open/complete")).status == 200
        });
    }
}
