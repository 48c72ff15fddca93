//! Timeouts and size limits of clients, and connection limits.

use std::io::ErrorKind;

use crate::harness::{
    Exchange, Latch, Next, ROUTES, TASKS, Upstream, eventually, get, post, request, start,
    start_with,
};

fn listening(lines: &str) -> String {
    format!("[listen]\n{lines}\n{ROUTES}")
}

/// Reads to the end of the connection.
fn read_to_close(client: &mut crate::harness::Client) -> String {
    String::from_utf8_lossy(&client.until_closed()).into_owned()
}

#[test]
fn closes_a_connection_without_a_complete_head() {
    let (sidecar, upstream, issuer) = start(&listening("header_timeout = \"2s\""));
    let clients = [
        "",
        "G",
        "GET /open/page HTTP/1.1\r\n",
        "GET /open/page HTTP/1.1\r\nHost: gate.test\r\n",
        "PRI * HTTP/2.0\r\n",
    ]
    .map(|bytes| {
        let mut client = sidecar.connect();
        client.send(bytes);
        (bytes, client)
    });
    for (bytes, mut client) in clients {
        let received = read_to_close(&mut client);
        assert!(
            received.is_empty() || received.starts_with("HTTP/1.1 4"),
            "{bytes:?}: {received}"
        );
    }
    upstream.assert_untouched();
    let valid = get(TASKS).bearer(&issuer.token("alice"));
    assert_eq!(sidecar.call(&valid).status, 200);
}

#[test]
fn header_timeout_covers_a_head_sent_byte_by_byte() {
    let (sidecar, upstream, _issuer) = start(&listening("header_timeout = \"200ms\""));
    let mut client = sidecar.connect();
    client.send("GET /open/page HTTP/1.1\r\nHost: gate.test\r\nA: ");
    // Writes fail once the gate has closed the connection.
    eventually("the connection is closed", || {
        client.wire.write(b"x").is_err()
    });
    upstream.assert_untouched();
}

#[test]
fn header_timeout_covers_a_later_request() {
    let (sidecar, upstream, _issuer) = start(&listening(
        "header_timeout = \"2s\"\nidle_timeout = \"60s\"",
    ));
    let mut client = sidecar.connect();
    assert_eq!(client.call(&get("/open/page")).status, 200);
    client.send("GET /open/page HTTP/1.1\r\n");
    assert_eq!(read_to_close(&mut client), "");
    assert_eq!(upstream.arrived().len(), 1);
}

#[test]
fn idle_timeout_closes_a_connection_without_a_request() {
    let (sidecar, _upstream, _issuer) = start(&listening(
        "idle_timeout = \"2s\"\nheader_timeout = \"10m\"",
    ));
    let mut client = sidecar.connect();
    // Another request is served first, so that the gate already waits for a head, which may take much longer.
    assert_eq!(sidecar.call(&get("/nowhere")).status, 404);
    assert_eq!(client.call(&get("/open/page")).status, 200);
    assert_eq!(client.call(&get("/nowhere")).status, 404);
    assert_eq!(read_to_close(&mut client), "");
}

#[test]
fn idle_timeout_starts_after_a_long_request() {
    let latch = Latch::default();
    let upstream = Upstream::held(&latch);
    let config = listening("header_timeout = \"1s\"\nidle_timeout = \"2s\"");
    let (sidecar, upstream, _issuer) = start_with(&config, upstream);
    let mut client = sidecar.connect();
    client.send(get("/open/page").bytes());
    upstream.wait_for(1);
    // Every timer of the first connection has expired by the time three others were closed.
    for _ in 0..3 {
        assert_eq!(read_to_close(&mut sidecar.connect()), "");
    }
    latch.open();
    assert_eq!(client.response().status, 200);
    assert_eq!(read_to_close(&mut client), "");
}

#[test]
fn a_slow_upstream_is_not_an_idle_client() {
    let latch = Latch::default();
    let upstream = Upstream::held(&latch);
    let config = listening("idle_timeout = \"1s\"\nheader_timeout = \"1s\"\nbody_timeout = \"1s\"");
    let (sidecar, upstream, _issuer) = start_with(&config, upstream);
    let mut waiting = sidecar.connect();
    waiting.send(get("/open/page").bytes());
    upstream.wait_for(1);
    // Two other clients reach their deadlines in the meantime.
    assert_eq!(read_to_close(&mut sidecar.connect()), "");
    assert_eq!(read_to_close(&mut sidecar.connect()), "");
    latch.open();
    assert_eq!(waiting.response().status, 200);
}

#[test]
fn body_timeout_responds_408_and_closes_the_connection() {
    let (sidecar, upstream, issuer) = start(&listening("body_timeout = \"200ms\""));
    for framing in ["Content-Length: 10\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut client = sidecar.connect();
        let token = issuer.token("alice");
        client.send(format!(
            "POST {TASKS} HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer {token}\r\n{framing}\r\n5\r\nha"
        ));
        client.response().refused(408, "request_timeout");
        client.until_closed();
    }
    for arrived in upstream.arrived() {
        assert!(!arrived.complete, "{}", arrived.head.text());
    }
}

#[test]
fn a_half_closed_connection_counts_as_closed() {
    // A FIN does not tell whether the client still reads, and a request of a disconnected client must end.
    let latch = Latch::default();
    let upstream = Upstream::held(&latch);
    let (sidecar, upstream, _issuer) = start_with(ROUTES, upstream);
    let mut client = sidecar.connect();
    client.send(get("/open/page").bytes());
    upstream.wait_for(1);
    client.wire.shut_sending();
    assert_eq!(read_to_close(&mut client), "");
    let series = "claimgate_requests_total{route=\"/open/{*rest}\",method=\"GET\",status=\"499\",reason=\"client_closed_request\"}";
    eventually("counted", || sidecar.metric(series) == Some(1.0));
    latch.open();
}

#[test]
fn a_refusal_does_not_wait_for_the_body() {
    let (sidecar, upstream, _issuer) = start(ROUTES);
    for (target, status) in [(TASKS, 401), ("/nowhere", 404), ("/api/../x", 400)] {
        let mut client = sidecar.connect();
        let announced = request("POST", target).line("Content-Length: 1000000");
        client.send(announced.bytes());
        assert_eq!(client.response().status, status, "{target}");
        client.until_closed();
    }
    upstream.assert_untouched();
}

#[test]
fn a_refusal_reaches_a_client_that_is_still_sending() {
    let (sidecar, upstream, _issuer) = start(ROUTES);
    for round in 0..20 {
        let mut client = sidecar.connect();
        client.send(post(TASKS, &vec![b'x'; 2_000_000]).bytes());
        assert_eq!(
            client.response().outcome(),
            (401, "token_missing".to_owned()),
            "{round}"
        );
    }
    upstream.assert_untouched();
}

#[test]
fn body_timeout_closes_the_connection_of_a_client_that_does_not_read() {
    let upstream = Upstream::responding(|exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
        exchange.write(vec![b'x'; 100_000_000]);
        Next::Close
    });
    let (sidecar, upstream, _issuer) = start_with(&listening("body_timeout = \"300ms\""), upstream);
    let mut client = sidecar.connect();
    client.send(get("/open/large").bytes());
    // The gate closes the connection to the upstream.
    upstream.wait_for_closed(1);
    let head = client.wire.read_head().unwrap().unwrap();
    let error = client.wire.read_body(&head).unwrap_err();
    assert_ne!(error.kind(), ErrorKind::TimedOut);
}

#[test]
fn rejects_connections_above_the_limit_and_serves_those_below() {
    let latch = Latch::default();
    let upstream = Upstream::held(&latch);
    let (sidecar, upstream, _issuer) = start_with(&listening("max_connections = 10"), upstream);
    // With a request in flight, a connection is not closed to make room.
    let mut below: Vec<_> = (0..10).map(|_| sidecar.connect()).collect();
    for client in &mut below {
        client.send(get("/open/page").bytes());
    }
    upstream.wait_for(10);
    let mut above: Vec<_> = (0..100).map(|_| sidecar.connect()).collect();
    let (mut rejected, mut closed) = (0, 0);
    for client in &mut above {
        client.send(get("/open/page").bytes());
        match client.read(false) {
            Ok(response) => {
                response.refused(503, "overloaded");
                rejected += 1;
            }
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::TimedOut);
                closed += 1;
            }
        }
    }
    assert!(rejected > 0, "{rejected} rejected, {closed} closed");
    let series = "claimgate_connections_rejected_total{limit=\"max_connections\"}";
    assert_eq!(sidecar.metric(series), Some(100.0));
    assert_eq!(
        sidecar.metric("claimgate_connections_evicted_total"),
        Some(0.0)
    );
    drop(above);
    latch.open();
    for client in &mut below {
        assert_eq!(client.response().status, 200);
    }
    drop(below);
    eventually("a slot is free", || {
        let mut client = sidecar.connect();
        client.send(get("/open/page").bytes());
        client
            .read(false)
            .is_ok_and(|response| response.status == 200)
    });
    assert_eq!(upstream.arrived().len(), 11);
}

#[test]
fn closes_the_oldest_idle_connections_to_make_room() {
    let latch = Latch::default();
    let upstream = Upstream::responding({
        let latch = latch.clone();
        move |exchange: &mut Exchange| {
            if exchange.target() == "/open/held" {
                latch.wait();
            }
            exchange.echo()
        }
    });
    let config =
        listening("max_connections = 20\nheader_timeout = \"10m\"\nidle_timeout = \"10m\"");
    let (sidecar, upstream, _issuer) = start_with(&config, upstream);
    let mut busy = sidecar.connect();
    busy.send(get("/open/held").bytes());
    upstream.wait_for(1);
    // Silent, in the middle of a head, in the HTTP/2 preface, and used before.
    let mut idle = Vec::new();
    for bytes in ["", "GET /open/page HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n"] {
        let mut client = sidecar.connect();
        client.send(bytes);
        idle.push(client);
    }
    let mut used = sidecar.connect();
    assert_eq!(used.call(&get("/open/page")).status, 200);
    idle.push(used);
    idle.extend((0..15).map(|_| sidecar.connect()));
    // Ten times as many as the limit: every one is served.
    for round in 0..200 {
        let mut client = sidecar.connect();
        assert_eq!(client.call(&get("/open/page")).status, 200, "{round}");
        idle.push(client);
    }
    for client in idle.iter_mut().take(3) {
        assert_eq!(read_to_close(client), "");
    }
    let limit = sidecar.metric("claimgate_connections_limit");
    assert_eq!(limit, Some(20.0));
    assert!(sidecar.metric("claimgate_connections_open") <= Some(20.0));
    assert!(sidecar.metric("claimgate_connections_evicted_total") >= Some(180.0));
    latch.open();
    assert_eq!(busy.response().status, 200);
}

#[test]
fn rejects_a_large_head_or_target_of_every_size() {
    let (sidecar, upstream, issuer) = start(&listening("max_header_bytes = \"16KiB\""));
    let token = issuer.token("alice");
    for kilobytes in [17, 33, 64, 256, 1024] {
        let long = "x".repeat(kilobytes * 1024);
        let response = sidecar.call(&get(TASKS).bearer(&token).line(&format!("A: {long}")));
        assert_eq!(response.status, 431, "a header of {kilobytes} KiB");
        let response = sidecar.call(&get(&format!("{TASKS}?{long}")).bearer(&token));
        assert!(
            matches!(response.status, 414 | 431),
            "a target of {kilobytes} KiB: {}",
            response.status
        );
    }
    let many = (0..200).fold(get(TASKS).bearer(&token), |request, number| {
        request.line(&format!("A{number}: b"))
    });
    assert_eq!(sidecar.call(&many).status, 431, "200 headers");
    upstream.assert_untouched();
    let fits = get(TASKS)
        .bearer(&token)
        .line(&format!("A: {}", "x".repeat(15 * 1024)));
    assert_eq!(sidecar.call(&fits).status, 200);
}

#[test]
fn a_route_overrides_the_body_limit_and_the_timeout() {
    let routes = r#"
[[routes]]
path = "/small"
access = "public"
max_body_bytes = 4

[[routes]]
path = "/large"
access = "public"
max_body_bytes = 0

[[routes]]
path = "/slow"
access = "public"
timeout = "100ms"
"#;
    let latch = Latch::default();
    let slow = latch.clone();
    let upstream = Upstream::responding(move |exchange: &mut Exchange| {
        if exchange.target() == "/slow" {
            slow.wait();
        }
        exchange.echo()
    });
    let (sidecar, _upstream, _issuer) = start_with(
        &format!("[listen]\nmax_body_bytes = 100\n{routes}"),
        upstream,
    );
    assert_eq!(sidecar.call(&post("/small", b"four")).status, 200);
    sidecar
        .call(&post("/small", b"five!"))
        .refused(413, "body_too_large");
    assert_eq!(sidecar.call(&post("/large", &[b'x'; 1000])).status, 200);
    sidecar.call(&get("/slow")).refused(504, "upstream_timeout");
    latch.open();
}
