//! Graceful shutdown: requests in flight finish, idle connections close, the rest closes after the grace period.

use crate::harness::{
    Client, Issuer, Latch, ROUTES, Sidecar, TASKS, Upstream, eventually, get, post, start,
    start_with,
};

/// Gate with an upstream that responds when the latch is open.
fn slow(grace: &str) -> (Sidecar, Upstream, Issuer, Latch) {
    let latch = Latch::default();
    let upstream = Upstream::held(&latch);
    let config = format!("[listen]\nworkers = 2\n[drain]\ngrace = \"{grace}\"\n{ROUTES}");
    let (sidecar, upstream, issuer) = start_with(&config, upstream);
    (sidecar, upstream, issuer, latch)
}

#[test]
fn finishes_every_request_in_flight() {
    let (sidecar, upstream, issuer, latch) = slow("10m");
    let token = issuer.token("alice");
    let target = |number: usize| format!("{TASKS}/{number}");
    let mut clients: Vec<Client> = (0..100).map(|_| sidecar.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let request = if number % 2 == 0 {
            get(&target(number))
        } else {
            post(&target(number), b"body")
        };
        client.send(request.bearer(&token).bytes());
    }
    upstream.wait_for(100);
    let mut idle = sidecar.connect();
    sidecar.stop();
    assert_eq!(idle.until_closed(), b"");
    latch.open();
    for (number, client) in clients.iter_mut().enumerate() {
        let response = client.response();
        assert_eq!((response.status, response.text()), (200, target(number)));
        assert_eq!(response.header("connection").as_deref(), Some("close"));
        assert_eq!(client.until_closed(), b"");
    }
    // Ends before the grace period.
    assert_eq!(sidecar.wait(), 0);
}

#[test]
fn closes_endless_requests_after_the_grace_period() {
    let (sidecar, upstream, issuer, latch) = slow("300ms");
    let mut endless: Vec<Client> = (0..3).map(|_| sidecar.connect()).collect();
    for client in &mut endless {
        client.send(get(TASKS).bearer(&issuer.token("alice")).bytes());
    }
    upstream.wait_for(3);
    sidecar.stop();
    assert_eq!(sidecar.wait(), 3);
    for client in &mut endless {
        assert!(client.read(false).is_err());
    }
    latch.open();
}

#[test]
fn closes_idle_connections_at_once() {
    let (sidecar, _upstream, _issuer) = start(&format!("[drain]\ngrace = \"10m\"\n{ROUTES}"));
    let mut used = sidecar.connect();
    assert_eq!(used.call(&get("/open/page")).status, 200);
    let mut fresh = sidecar.connect();
    eventually("accepted", || {
        sidecar.metric("claimgate_connections_open") == Some(2.0)
    });
    sidecar.stop();
    assert_eq!(used.until_closed(), b"");
    assert_eq!(fresh.until_closed(), b"");
    // Ends before the grace period.
    assert_eq!(sidecar.wait(), 0);
}

#[test]
fn a_stopping_gate_is_not_ready_and_rejects_new_requests() {
    let (sidecar, upstream, issuer, latch) = slow("10m");
    let request = get(TASKS).bearer(&issuer.token("alice"));
    let mut in_flight = sidecar.connect();
    in_flight.send(request.bytes());
    upstream.wait_for(1);
    sidecar.stop();
    assert_eq!(sidecar.admin(&get("/readyz")).status, 503);
    assert_eq!(sidecar.admin(&get("/livez")).status, 200);
    let mut late = sidecar.connect();
    late.send(request.bytes());
    // It may arrive before the workers begin to stop; then it is in flight like the other.
    eventually("rejected", || {
        let mut later = sidecar.connect();
        later.send(get("/nowhere").bytes());
        later
            .read(false)
            .is_ok_and(|response| response.reason() == "draining")
    });
    latch.open();
    assert_eq!(in_flight.response().status, 200);
    let late = late.response();
    assert!(late.status == 200 || late.outcome() == (503, "draining".to_owned()));
    assert_eq!(sidecar.wait(), 0);
}

#[test]
fn a_draining_gate_serves_requests_and_closes_their_connections() {
    let (sidecar, upstream, issuer) = start(&format!("[drain]\ngrace = \"10m\"\n{ROUTES}"));
    let request = get(TASKS).bearer(&issuer.token("alice"));
    let mut before = sidecar.connect();
    let response = before.call(&request);
    assert_eq!(
        (response.status, response.header("connection")),
        (200, None)
    );

    assert_eq!(sidecar.admin(&post("/drain", b"")).status, 200);
    let ready = sidecar.admin(&get("/readyz"));
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("draining"), "{}", ready.text());
    assert_eq!(sidecar.admin(&get("/livez")).status, 200);

    let response = before.call(&request);
    assert_eq!(
        (response.status, response.header("connection").as_deref()),
        (200, Some("close"))
    );
    assert_eq!(before.until_closed(), b"");
    // A new connection is served too: load balancers notice the drain late.
    let mut new = sidecar.connect();
    let response = new.call(&request);
    assert_eq!(
        (response.status, response.header("connection").as_deref()),
        (200, Some("close"))
    );
    assert_eq!(new.until_closed(), b"");
    // A rejected request also closes its connection.
    let mut refused = sidecar.connect();
    let response = refused.call(&get(TASKS));
    assert_eq!(
        (response.status, response.header("connection").as_deref()),
        (401, Some("close"))
    );
    assert_eq!(refused.until_closed(), b"");
    assert_eq!(upstream.arrived().len(), 3);
    drop([before, new, refused]);
    sidecar.stop();
    assert_eq!(sidecar.wait(), 0);
}

#[test]
fn sends_going_away_to_websockets() {
    let upstream = Upstream::responding(|exchange| {
        exchange.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        exchange.wire.until_closed();
        crate::harness::Next::Close
    });
    let (sidecar, upstream, _issuer) = start_with(ROUTES, upstream);
    let mut client = sidecar.connect();
    let handshake = get("/open/socket").websocket();
    assert_eq!(client.call(&handshake).status, 101);
    sidecar.stop();
    let frame = client.until_closed();
    // Close frame with 1001, going away (RFC 6455 section 7.4.1), and a reason.
    assert_eq!(
        frame[..4],
        [0x88, u8::try_from(frame.len() - 2).unwrap(), 3, 233]
    );
    assert!(String::from_utf8_lossy(&frame[4..]).contains("stopping"));
    upstream.wait_for_closed(1);
    drop(client);
    assert_eq!(sidecar.wait(), 0);
}
