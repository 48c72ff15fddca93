//! Limits: whoever is too slow, too large or too many is told, or cut; nobody waits for ever.

use std::io::ErrorKind;

use crate::harness::{
    Dialogue, Latch, Next, ROUTES, Upstream, eventually, get, post, request, start, start_with,
};

const TASKS: &str = "/api/alice/tasks";

fn listening(lines: &str) -> String {
    format!("[listen]\n{lines}\n{ROUTES}")
}

/// What was sent before the connection was closed.
fn said(client: &mut crate::harness::Client) -> String {
    String::from_utf8_lossy(&client.until_closed()).into_owned()
}

#[test]
fn a_client_that_never_sends_a_whole_head_is_cut() {
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
        let said = said(&mut client);
        assert!(
            said.is_empty() || said.starts_with("HTTP/1.1 4"),
            "{bytes:?}: {said}"
        );
    }
    upstream.untouched();
    let good = get(TASKS).bearer(&issuer.token("alice"));
    assert_eq!(sidecar.call(&good).status, 200);
}

#[test]
fn a_head_that_drips_is_cut_however_steadily_it_drips() {
    let (sidecar, upstream, _issuer) = start(&listening("header_timeout = \"200ms\""));
    let mut client = sidecar.connect();
    client.send("GET /open/page HTTP/1.1\r\nHost: gate.test\r\nA: ");
    // It goes on until it is cut: the writes fail when nobody reads them any more.
    eventually("cut", || client.wire.write(b"x").is_err());
    upstream.untouched();
}

#[test]
fn the_second_head_of_a_connection_has_its_time_too() {
    let (sidecar, upstream, _issuer) = start(&listening(
        "header_timeout = \"2s\"\nidle_timeout = \"60s\"",
    ));
    let mut client = sidecar.connect();
    assert_eq!(client.call(&get("/open/page")).status, 200);
    client.send("GET /open/page HTTP/1.1\r\n");
    assert_eq!(said(&mut client), "");
    assert_eq!(upstream.arrived().len(), 1);
}

#[test]
fn a_connection_without_a_request_is_closed_after_its_time() {
    let (sidecar, _upstream, _issuer) = start(&listening(
        "idle_timeout = \"2s\"\nheader_timeout = \"10m\"",
    ));
    let mut client = sidecar.connect();
    // Another is served in between: by then the gate waits for the first head, which may take much longer.
    assert_eq!(sidecar.call(&get("/nowhere")).status, 404);
    assert_eq!(client.call(&get("/open/page")).status, 200);
    assert_eq!(client.call(&get("/nowhere")).status, 404);
    assert_eq!(said(&mut client), "");
}

#[test]
fn a_connection_is_idle_after_a_long_request_too() {
    let latch = Latch::default();
    let slow = latch.clone();
    let upstream = Upstream::answering(move |dialogue: &mut Dialogue| {
        slow.wait();
        dialogue.echo()
    });
    let config = listening("header_timeout = \"1s\"\nidle_timeout = \"2s\"");
    let (sidecar, upstream, _issuer) = start_with(&config, upstream);
    let mut client = sidecar.connect();
    client.send(get("/open/page").bytes());
    upstream.wait_for(1);
    // Every timer of the connection has rung by the time another has been cut twice over.
    for _ in 0..3 {
        assert_eq!(said(&mut sidecar.connect()), "");
    }
    latch.open();
    assert_eq!(client.answer().status, 200);
    assert_eq!(said(&mut client), "");
}

#[test]
fn a_slow_upstream_is_not_an_idle_client() {
    let latch = Latch::default();
    let slow = latch.clone();
    let upstream = Upstream::answering(move |dialogue: &mut Dialogue| {
        slow.wait();
        dialogue.echo()
    });
    let config = listening("idle_timeout = \"1s\"\nheader_timeout = \"1s\"\nbody_timeout = \"1s\"");
    let (sidecar, upstream, _issuer) = start_with(&config, upstream);
    let mut waiting = sidecar.connect();
    waiting.send(get("/open/page").bytes());
    upstream.wait_for(1);
    // Another client runs into its deadline in the meantime.
    assert_eq!(said(&mut sidecar.connect()), "");
    assert_eq!(said(&mut sidecar.connect()), "");
    latch.open();
    assert_eq!(waiting.answer().status, 200);
}

#[test]
fn a_body_that_stands_still_is_answered_and_cut() {
    let (sidecar, upstream, issuer) = start(&listening("body_timeout = \"200ms\""));
    for framing in ["Content-Length: 10\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut client = sidecar.connect();
        let token = issuer.token("alice");
        client.send(format!(
            "POST {TASKS} HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer {token}\r\n{framing}\r\n5\r\nha"
        ));
        client.answer().refused(408, "request_timeout");
        client.until_closed();
    }
    for arrived in upstream.arrived() {
        assert!(!arrived.whole, "{}", arrived.head.text());
    }
}

#[test]
fn a_client_that_ends_its_sending_is_taken_for_gone() {
    // A FIN alone does not say whether the client still reads, and the work of a client that left must end.
    let latch = Latch::default();
    let slow = latch.clone();
    let upstream = Upstream::answering(move |dialogue: &mut Dialogue| {
        slow.wait();
        dialogue.echo()
    });
    let (sidecar, upstream, _issuer) = start_with(ROUTES, upstream);
    let mut client = sidecar.connect();
    client.send(get("/open/page").bytes());
    upstream.wait_for(1);
    client.wire.shut_sending();
    assert_eq!(said(&mut client), "");
    let gone = "claimgate_requests_total{route=\"/open/{*rest}\",method=\"GET\",status=\"499\",reason=\"client_closed_request\"}";
    eventually("counted", || sidecar.metric(gone) == Some(1.0));
    latch.open();
}

#[test]
fn a_refusal_does_not_wait_for_the_body() {
    let (sidecar, upstream, _issuer) = start(ROUTES);
    for (target, status) in [(TASKS, 401), ("/nowhere", 404), ("/api/../x", 400)] {
        let mut client = sidecar.connect();
        let announced = request("POST", target).line("Content-Length: 1000000");
        client.send(announced.bytes());
        assert_eq!(client.answer().status, status, "{target}");
        client.until_closed();
    }
    upstream.untouched();
}

#[test]
fn a_refusal_arrives_though_the_body_is_still_coming() {
    let (sidecar, upstream, _issuer) = start(ROUTES);
    for round in 0..20 {
        let mut client = sidecar.connect();
        client.send(post(TASKS, &vec![b'x'; 2_000_000]).bytes());
        assert_eq!(
            client.answer().outcome(),
            (401, "token_missing".to_owned()),
            "{round}"
        );
    }
    upstream.untouched();
}

#[test]
fn a_client_that_does_not_read_is_cut() {
    let upstream = Upstream::answering(|dialogue| {
        dialogue.write("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
        dialogue.write(vec![b'x'; 100_000_000]);
        Next::Close
    });
    let (sidecar, upstream, _issuer) = start_with(&listening("body_timeout = \"300ms\""), upstream);
    let mut client = sidecar.connect();
    client.send(get("/open/large").bytes());
    // The upstream learns that nobody waits any more.
    upstream.wait_for_closed(1);
    let head = client.wire.read_head().unwrap().unwrap();
    let broken = client.wire.read_body(&head).unwrap_err();
    assert_ne!(broken.kind(), ErrorKind::TimedOut);
}

#[test]
fn connections_above_the_limit_are_turned_away_and_those_below_served() {
    let (sidecar, upstream, _issuer) = start(&listening("max_connections = 10"));
    let mut below: Vec<_> = (0..10).map(|_| sidecar.connect()).collect();
    for client in &mut below {
        assert_eq!(client.call(&get("/open/page")).status, 200);
    }
    let mut above: Vec<_> = (0..100).map(|_| sidecar.connect()).collect();
    let (mut told, mut closed) = (0, 0);
    for client in &mut above {
        client.send(get("/open/page").bytes());
        match client.read(false) {
            Ok(answer) => {
                answer.refused(503, "overloaded");
                told += 1;
            }
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::TimedOut);
                closed += 1;
            }
        }
    }
    assert!(told > 0, "{told} told, {closed} closed");
    drop(above);
    for client in &mut below {
        assert_eq!(client.call(&get("/open/page")).status, 200);
    }
    drop(below);
    eventually("room again", || {
        let mut client = sidecar.connect();
        client.send(get("/open/page").bytes());
        client.read(false).is_ok_and(|answer| answer.status == 200)
    });
    assert_eq!(upstream.arrived().len(), 21);
}

#[test]
fn a_head_or_a_target_that_is_too_large_is_refused_at_every_size() {
    let (sidecar, upstream, issuer) = start(&listening("max_header_bytes = \"16KiB\""));
    let token = issuer.token("alice");
    for kilobytes in [17, 33, 64, 256, 1024] {
        let long = "x".repeat(kilobytes * 1024);
        let answer = sidecar.call(&get(TASKS).bearer(&token).line(&format!("A: {long}")));
        assert_eq!(answer.status, 431, "a header of {kilobytes} KiB");
        let answer = sidecar.call(&get(&format!("{TASKS}?{long}")).bearer(&token));
        assert!(
            matches!(answer.status, 414 | 431),
            "a target of {kilobytes} KiB: {}",
            answer.status
        );
    }
    let many = (0..200).fold(get(TASKS).bearer(&token), |request, number| {
        request.line(&format!("A{number}: b"))
    });
    assert_eq!(sidecar.call(&many).status, 431, "200 headers");
    upstream.untouched();
    let fits = get(TASKS)
        .bearer(&token)
        .line(&format!("A: {}", "x".repeat(15 * 1024)));
    assert_eq!(sidecar.call(&fits).status, 200);
}

#[test]
fn a_route_may_have_limits_of_its_own() {
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
    let upstream = Upstream::answering(move |dialogue: &mut Dialogue| {
        if dialogue.target() == "/slow" {
            slow.wait();
        }
        dialogue.echo()
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
