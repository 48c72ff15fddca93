//! Bytes that an upstream sends after a complete response: they never become the response to another request.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{
    Client, Exchange, Latch, Next, ROUTES, Upstream, eventually, get, post, request, start_with,
};

/// Complete response that belongs to no request.
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

thread_local! {
    /// Set on a connection whose last response is followed by surplus bytes.
    static OWES_SURPLUS: Cell<bool> = const { Cell::new(false) };
}

/// Upstream that sends surplus bytes after the responses of `/open/surplus`, but only once another request arrives on the
/// same connection.
fn late(lines: &'static str) -> Upstream {
    Upstream::responding(move |exchange| {
        if OWES_SURPLUS.replace(false) {
            exchange.write(POISON);
        }
        if exchange.target() == "/open/surplus" {
            OWES_SURPLUS.set(true);
            exchange.write(format!("HTTP/1.1 {lines}\r\n\r\n"));
            return Next::KeepAlive;
        }
        exchange.echo()
    })
}

/// Numbers of the connections on which the requests arrived.
fn connections(upstream: &Upstream) -> Vec<usize> {
    let arrived = upstream.arrived();
    arrived.iter().map(|arrived| arrived.connection).collect()
}

#[track_caller]
fn assert_own(client: &mut Client, target: &str) {
    let response = client.call(&get(target));
    assert_eq!((response.status, response.text().as_str()), (200, target));
}

/// RFC 9110 sections 9.3.2, 15.3.5 and 15.4.5: these responses have no content. An upstream that sends some anyway
/// sends it as the start of the next response (RFC 9112 section 6.3).
#[test]
fn no_connection_is_reused_after_a_response_without_content() {
    for (method, lines) in [
        ("HEAD", "200 OK\r\nContent-Length: 6"),
        ("HEAD", "200 OK\r\nTransfer-Encoding: chunked"),
        ("HEAD", "404 Not Found\r\nContent-Length: 0"),
        ("GET", "204 No Content"),
        ("DELETE", "204 No Content\r\nContent-Length: 6"),
        ("GET", "304 Not Modified\r\nETag: \"1\""),
    ] {
        let (sidecar, upstream, _issuer) = start_with(ROUTES, late(lines));
        let mut client = sidecar.connect();
        let response = client.call(&request(method, "/open/surplus"));
        assert!(lines.starts_with(&response.status.to_string()), "{lines}");
        assert_own(&mut client, "/open/next");
        assert_eq!(connections(&upstream), [1, 2], "{method} {lines}");
        // Other responses still share a connection.
        assert_own(&mut client, "/open/after");
        assert_eq!(connections(&upstream), [1, 2, 2], "{method} {lines}");
    }
}

/// Responds with surplus bytes of every kind, chosen by the last path segment, in one write or in two.
fn hostile(exchange: &mut Exchange) -> Next {
    let Some(_) = exchange.body() else {
        return Next::Close;
    };
    let target = exchange.target();
    let length = target.len();
    let complete = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{target}");
    let without_content = |exchange: &mut Exchange, lines: &str| {
        // Python's `http.server` with `do_HEAD = do_GET` writes head and body separately, and prepares the body between.
        exchange.write(format!("HTTP/1.1 {lines}\r\n\r\n"));
        thread::park_timeout(Duration::from_millis(1));
        exchange.write(POISON);
    };
    match target.rsplit('/').next().unwrap() {
        "head" => without_content(exchange, "200 OK\r\nContent-Length: 44"),
        "no-content" => without_content(exchange, "204 No Content"),
        "not-modified" => without_content(exchange, "304 Not Modified"),
        "two" => exchange.write(format!("{complete}{POISON}")),
        "longer" => exchange.write(format!("{complete} and more")),
        "chunks" => exchange.write(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{target}\r\n0\r\n\r\n{POISON}"
        )),
        _ => exchange.write(complete),
    }
    Next::KeepAlive
}

#[test]
fn no_surplus_byte_reaches_another_user() {
    const KINDS: [&str; 12] = [
        "head",
        "plain",
        "no-content",
        "plain",
        "not-modified",
        "plain",
        "two",
        "plain",
        "longer",
        "plain",
        "chunks",
        "plain",
    ];
    let (sidecar, _upstream, issuer) = start_with(ROUTES, Upstream::responding(hostile));
    let served = AtomicUsize::new(0);
    thread::scope(|scope| {
        for user in ["alice", "bob", "carol", "dave"] {
            let (sidecar, served, token) = (&sidecar, &served, issuer.token(user));
            scope.spawn(move || {
                let mut client = sidecar.connect();
                for number in 0..600 {
                    let kind = KINDS[number % KINDS.len()];
                    let target = format!("/api/{user}/tasks/{number}/{kind}");
                    let method = if kind == "head" { "HEAD" } else { "GET" };
                    let response = client.call(&request(method, &target).bearer(&token));
                    let expected = match kind {
                        "head" => (200, String::new()),
                        "no-content" => (204, String::new()),
                        "not-modified" => (304, String::new()),
                        _ => (200, target),
                    };
                    assert_eq!((response.status, response.text()), expected);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(served.into_inner(), 4 * 600);
}

/// Upstream that sends `surplus` after the response of `/open/surplus`, once the latch opens.
fn unsolicited(surplus: &'static str) -> (Upstream, Latch, Latch) {
    let (may_send, has_sent) = (Latch::default(), Latch::default());
    let (waits, sent) = (may_send.clone(), has_sent.clone());
    let upstream = Upstream::responding(move |exchange| {
        let next = exchange.echo();
        if exchange.target() == "/open/surplus" {
            waits.wait();
            exchange.write(surplus);
            sent.open();
        }
        next
    });
    (upstream, may_send, has_sent)
}

#[test]
fn no_connection_of_an_endpoint_is_reused_after_it_sent_surplus_bytes() {
    let (upstream, may_send, has_sent) = unsolicited(POISON);
    let (sidecar, upstream, _issuer) = start_with(ROUTES, upstream);
    let mut client = sidecar.connect();
    assert_own(&mut client, "/open/one");
    assert_own(&mut client, "/open/surplus");
    assert_eq!(connections(&upstream), [1, 1]);
    may_send.open();
    has_sent.wait();
    for number in 0..5 {
        assert_own(&mut client, &format!("/open/{number}"));
    }
    assert_eq!(connections(&upstream), [1, 1, 2, 3, 4, 5, 6]);
}

/// RFC 9110 section 15.5.9: a server may send 408 on an idle connection before it closes it. Many do.
#[test]
fn a_408_on_an_idle_connection_closes_that_connection_only() {
    let (upstream, may_send, has_sent) =
        unsolicited("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n");
    let (sidecar, upstream, _issuer) = start_with(ROUTES, upstream);
    let mut client = sidecar.connect();
    assert_own(&mut client, "/open/surplus");
    may_send.open();
    has_sent.wait();
    for number in 0..3 {
        assert_own(&mut client, &format!("/open/{number}"));
    }
    assert_eq!(connections(&upstream), [1, 2, 2, 2]);
}

/// RFC 9112 section 9.3: an upstream that responds before it has read the request may take the rest for a request.
#[test]
fn no_connection_is_reused_after_an_early_response() {
    let (head_sent, body_sent) = (Latch::default(), Latch::default());
    let (sent, waits) = (head_sent.clone(), body_sent.clone());
    let upstream = Upstream::responding(move |exchange| {
        if exchange.target() != "/open/early" {
            return exchange.echo();
        }
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nea");
        sent.open();
        waits.wait();
        // The upload is complete before the response is.
        assert_eq!(exchange.body().unwrap(), b"first second");
        exchange.write("rly");
        Next::KeepAlive
    });
    let (sidecar, upstream, _issuer) = start_with(ROUTES, upstream);
    let mut client = sidecar.connect();
    let upload = post("/open/early", b"first second");
    client.send(upload.body(b"first ").bytes());
    head_sent.wait();
    let head = client.wire.read_head().unwrap().unwrap();
    assert!(head.line().contains(" 200 "), "{}", head.line());
    client.send("second");
    body_sent.open();
    assert_eq!(client.wire.read_exact(5).unwrap(), b"early");
    let mut client = sidecar.connect();
    assert_own(&mut client, "/open/next");
    assert_eq!(connections(&upstream), [1, 2]);
    assert_eq!(client.call(&post("/open/next", b"whole")).status, 200);
    assert_eq!(connections(&upstream), [1, 2, 2], "a whole upload keeps it");
}

/// The upstream closes with unread bytes, so the kernel resets the connection behind the response.
#[test]
fn every_early_refusal_of_an_upload_reaches_its_client() {
    let upstream = Upstream::responding(|exchange| {
        exchange.respond(
            "413 Content Too Large",
            "Connection: close\r\n",
            "too large",
        );
        Next::Close
    });
    let config = format!("[listen]\nmax_body_bytes = 0\n{ROUTES}");
    let (sidecar, _upstream, _issuer) = start_with(&config, upstream);
    let body = vec![b'x'; 1_000_000];
    for number in 0..100 {
        let response = sidecar.call(&post("/open/upload", &body));
        assert_eq!(
            (response.status, response.text().as_str()),
            (413, "too large"),
            "{number}"
        );
    }
}

/// Threat F9: a client that disconnects while it uploads.
#[test]
fn a_client_that_disconnects_during_its_upload_closes_the_upstream_connection() {
    let upstream = Upstream::responding(|exchange| {
        exchange.wire.until_closed();
        Next::Close
    });
    let (sidecar, upstream, _issuer) = start_with(ROUTES, upstream);
    let mut client = sidecar.connect();
    client.send(post("/open/upload", &[b'x'; 1000]).body(b"half").bytes());
    upstream.wait_for(1);
    let began = Instant::now();
    drop(client);
    upstream.wait_for_closed(1);
    assert!(began.elapsed().as_secs_f64() < 1.0, "{:?}", began.elapsed());
    eventually("closed", || {
        sidecar.metric("claimgate_connections_open") == Some(0.0)
    });
}
