//! Message framing (RFC 9112 section 6): one unambiguous length, or a rejection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::{Latch, Next, ROUTES, TASKS, Upstream, get, post, request, start, start_with};

fn head(lines: &str, token: &str) -> String {
    format!(
        "POST {TASKS} HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer {token}\r\n{lines}\r\n"
    )
}

/// Asserts that the upstream received no complete request.
#[track_caller]
fn assert_none_complete(upstream: &Upstream, what: &str) {
    for arrived in upstream.arrived() {
        assert!(!arrived.complete, "{what}\n{}", arrived.head.text());
    }
}

#[test]
fn rejects_a_message_of_ambiguous_length() {
    for (lines, body) in [
        ("Content-Length: 4\r\nContent-Length: 5\r\n", "body!"),
        ("Content-Length: 4, 5\r\n", "body!"),
        ("Content-Length: 4, 4\r\n", "body"),
        ("Content-Length: +4\r\n", "body"),
        ("Content-Length: -4\r\n", "body"),
        ("Content-Length: 0x4\r\n", "body"),
        ("Content-Length: 4 \u{b}\r\n", "body"),
        ("Content-Length: 99999999999999999999\r\n", "body"),
        ("Content-Length:\r\n", ""),
        (
            "Transfer-Encoding: chunked, chunked\r\nA: b\r\n",
            "4\r\nbody\r\n0\r\n\r\nx",
        ),
        ("Transfer-Encoding: identity\r\n", "body"),
        (
            "Transfer-Encoding: chunked, gzip\r\n",
            "4\r\nbody\r\n0\r\n\r\n",
        ),
        (
            "Transfer-Encoding: \u{b}chunked\r\n",
            "4\r\nbody\r\n0\r\n\r\n",
        ),
        ("Transfer-Encoding : chunked\r\n", "4\r\nbody\r\n0\r\n\r\n"),
        (
            "Transfer-Encoding\r\n: chunked\r\n",
            "4\r\nbody\r\n0\r\n\r\n",
        ),
        ("Transfer-Encoding: chunked\r\n", "x\r\nbody\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "-4\r\nbody\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "0x4\r\nbody\r\n0\r\n\r\n"),
        (
            "Transfer-Encoding: chunked\r\n",
            "fffffffffffffffff\r\nbody\r\n0\r\n\r\n",
        ),
        ("Transfer-Encoding: chunked\r\n", "4\nbody\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4\r\nbodyX0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4\r\nbody\r\n\r\n"),
        ("A: b\r\n folded\r\nContent-Length: 4\r\n", "body"),
        ("A: b\rContent-Length: 0\r\nContent-Length: 4\r\n", "body"),
        ("A: \0\r\nContent-Length: 4\r\n", "body"),
        (" A: b\r\nContent-Length: 4\r\n", "body"),
        ("A b: c\r\nContent-Length: 4\r\n", "body"),
        (": c\r\nContent-Length: 4\r\n", "body"),
    ] {
        let (sidecar, upstream, issuer) = start(ROUTES);
        let what = format!("{lines:?} {body:?}");
        let mut client = sidecar.connect();
        client.send(head(lines, &issuer.token("alice")) + body);
        let response = client
            .read(false)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(response.status, 400, "{what}: {}", response.head.text());
        client.until_closed();
        assert_none_complete(&upstream, &what);
    }
}

#[test]
fn merges_or_rejects_repeated_equal_lengths() {
    // RFC 9112 section 6.3 allows a recipient to merge equal lengths.
    let (sidecar, upstream, issuer) = start(ROUTES);
    let lines = "Content-Length: 4\r\nContent-Length: 4\r\n";
    let response = sidecar.raw(head(lines, &issuer.token("alice")) + "body");
    assert!(matches!(response.status, 200 | 400), "{}", response.status);
    for arrived in upstream.arrived() {
        assert_eq!(arrived.head.values("content-length"), ["4"]);
        assert_eq!(arrived.body, b"body");
    }
}

#[test]
fn content_length_beside_chunked_is_ignored_and_closes_the_connection() {
    // RFC 9112 section 6.1: such a message may be request smuggling. The connection serves no second request.
    let (sidecar, upstream, issuer) = start(ROUTES);
    for lines in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    ] {
        let before = upstream.arrived().len();
        let mut client = sidecar.connect();
        let smuggled = "0\r\n\r\nGET /open/smuggled HTTP/1.1\r\nHost: gate.test\r\n\r\n";
        client.send(head(lines, &issuer.token("alice")) + smuggled);
        let response = client.response();
        client.until_closed();
        let arrived = upstream.arrived().split_off(before);
        if response.status == 400 {
            assert!(arrived.is_empty(), "{lines:?}: {arrived:#?}");
            continue;
        }
        assert_eq!(response.status, 200, "{lines:?}");
        assert_eq!(arrived.len(), 1, "{lines:?}: {arrived:#?}");
        assert_eq!(arrived[0].head.value("content-length"), None, "{lines:?}");
        assert_eq!(arrived[0].body, b"", "{lines:?}");
    }
}

#[test]
fn rejects_a_request_without_exactly_one_valid_host() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let token = issuer.token("alice");
    for lines in [
        "",
        "Host: gate.test\r\nHost: gate.test\r\n",
        "Host: gate.test\r\nhost: other.test\r\n",
        "Host:\r\n",
        "Host: alice@gate.test\r\n",
        "Host: gate.test/api\r\n",
        "Host: gate.test, other.test\r\n",
        "Host: gate.test,other.test\r\n",
        "Host: gate.test other.test\r\n",
        "Host: gate.test:http\r\n",
        "Host: gate.test:99999\r\n",
        "Host: http://gate.test\r\n",
        "Host: [::1\r\n",
        "Host: gate.test?x\r\n",
        "Host: gate.test#x\r\n",
        "Host: g\u{e9}te.test\r\n",
    ] {
        let text = format!("GET {TASKS} HTTP/1.1\r\n{lines}Authorization: Bearer {token}\r\n\r\n");
        let response = sidecar.raw(text);
        assert_eq!(response.status, 400, "{lines:?}: {}", response.text());
    }
    upstream.assert_untouched();
    for host in [
        "gate.test",
        "gate.test:8080",
        "127.0.0.1:80",
        "[::1]:80",
        "GATE.TEST.",
    ] {
        let response = sidecar.call(&get(TASKS).host(Some(host)).bearer(&token));
        assert_eq!(response.status, 200, "{host}");
        let arrived = upstream.arrived().pop().unwrap();
        assert_eq!(arrived.head.value("host").as_deref(), Some(host));
    }
}

#[test]
fn responds_to_http_1_0_and_closes_the_connection() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let token = issuer.token("alice");
    let mut client = sidecar.connect();
    client.send(format!(
        "GET {TASKS} HTTP/1.0\r\nHost: gate.test\r\nAuthorization: Bearer {token}\r\n\r\n"
    ));
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (200, TASKS));
    client.until_closed();
    assert_eq!(upstream.only().head.line(), format!("GET {TASKS} HTTP/1.1"));
    // RFC 9112 section 6.1: HTTP/1.0 has no chunked coding.
    let mut client = sidecar.connect();
    client.send(
        head("Transfer-Encoding: chunked\r\n", &token).replace("HTTP/1.1", "HTTP/1.0")
            + "0\r\n\r\n",
    );
    assert_eq!(client.response().status, 400);
    upstream.only();
}

#[test]
fn does_not_serve_other_protocols_as_http1() {
    let (sidecar, upstream, _issuer) = start(ROUTES);
    for bytes in [
        "GET /open/page\r\n\r\n",
        "GET /open/page HTTP/2.0\r\nHost: gate.test\r\n\r\n",
        "GET /open/page HTTP/1.9\r\nHost: gate.test\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        "GET  /open/page HTTP/1.1\r\nHost: gate.test\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\u{0}\r\n\r\n",
    ] {
        let mut client = sidecar.connect();
        client.send(bytes);
        let received = String::from_utf8_lossy(&client.until_closed()).into_owned();
        assert!(
            received.is_empty() || received.starts_with("HTTP/1.1 400"),
            "{bytes:?}: {received}"
        );
    }
    upstream.assert_untouched();
}

#[test]
fn normalizes_or_rejects_bare_line_feeds() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let token = issuer.token("alice");
    let text = format!("GET {TASKS} HTTP/1.1\nHost: gate.test\nAuthorization: Bearer {token}\n\n");
    let response = sidecar.raw(text);
    assert!(matches!(response.status, 200 | 400), "{}", response.status);
    for arrived in upstream.arrived() {
        let text = arrived.head.text();
        assert_eq!(
            text.matches('\n').count(),
            text.matches("\r\n").count(),
            "{text:?}"
        );
    }
}

#[test]
fn sends_100_continue_only_after_verification() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let expecting = |token: &str| head("Expect: 100-continue\r\nContent-Length: 4\r\n", token);
    let mut client = sidecar.connect();
    client.send(expecting("not.a.token"));
    // The first response is the final one; no 100 precedes it.
    client.response().refused(401, "token_malformed");
    upstream.assert_untouched();

    let mut client = sidecar.connect();
    client.send(expecting(&issuer.token("alice")));
    assert_eq!(client.response().status, 100);
    client.send("body");
    assert_eq!(client.response().status, 200);
    let arrived = upstream.only();
    assert_eq!(arrived.body, b"body");
    assert_eq!(arrived.head.value("expect"), None);
}

#[test]
fn rejects_a_large_content_length_at_once() {
    let (sidecar, upstream, issuer) =
        start(&format!("[listen]\nmax_body_bytes = \"10KiB\"\n{ROUTES}"));
    let mut client = sidecar.connect();
    client.send(head("Content-Length: 10241\r\n", &issuer.token("alice")));
    client.response().refused(413, "body_too_large");
    client.until_closed();
    upstream.assert_untouched();
    let fits = post(TASKS, &[b'x'; 10240]).bearer(&issuer.token("alice"));
    assert_eq!(sidecar.call(&fits).status, 200);
}

#[test]
fn rejects_a_large_chunked_body() {
    let (sidecar, upstream, issuer) =
        start(&format!("[listen]\nmax_body_bytes = \"10KiB\"\n{ROUTES}"));
    let token = issuer.token("alice");
    let large = request("POST", TASKS)
        .bearer(&token)
        .chunked(&[b'x'; 10241], "");
    sidecar.call(&large).refused(413, "body_too_large");
    assert_none_complete(&upstream, "10241 bytes");
    let fits = request("POST", TASKS)
        .bearer(&token)
        .chunked(&[b'x'; 10240], "");
    assert_eq!(sidecar.call(&fits).status, 200);
}

#[test]
fn a_get_keeps_its_chunked_body() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let token = issuer.token("alice");
    for method in ["GET", "DELETE", "OPTIONS", "POST"] {
        let with_body = request(method, TASKS)
            .bearer(&token)
            .chunked(b"the body", "");
        assert_eq!(sidecar.call(&with_body).status, 200, "{method}");
        let arrived = upstream.arrived().pop().unwrap();
        assert_eq!(arrived.body, b"the body", "{method}");
        assert_eq!(
            arrived.head.values("transfer-encoding"),
            ["chunked"],
            "{method}"
        );
        assert_eq!(arrived.head.value("content-length"), None, "{method}");
    }
    let with_length = request("GET", TASKS)
        .bearer(&token)
        .line("Content-Length: 8")
        .body(b"the body");
    assert_eq!(sidecar.call(&with_length).status, 200);
    let arrived = upstream.arrived().pop().unwrap();
    assert_eq!(arrived.body, b"the body");
    assert_eq!(arrived.head.values("content-length"), ["8"]);
}

#[test]
fn responses_to_head_and_with_204_or_304_have_no_body() {
    let upstream = Upstream::responding(|exchange| {
        match exchange.target().as_str() {
            "/open/204" => exchange.write("HTTP/1.1 204 No Content\r\nA: b\r\n\r\n"),
            "/open/304" => exchange
                .write("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 9\r\n\r\n"),
            _ => exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
        }
        Next::KeepAlive
    });
    let (sidecar, _upstream, _issuer) = start_with(ROUTES, upstream);
    let mut client = sidecar.connect();
    for round in 0..3 {
        let response = client.call(&request("HEAD", "/open/page"));
        assert_eq!(response.status, 200, "{round}");
        assert_eq!(
            response.header("content-length").as_deref(),
            Some("9"),
            "{round}"
        );
        // A refusal of the gate has no body either.
        let response = client.call(&request("HEAD", TASKS));
        assert_eq!(response.status, 401, "{round}");
        assert_eq!(client.call(&get("/open/204")).status, 204, "{round}");
        let response = client.call(&get("/open/304"));
        assert_eq!(response.status, 304, "{round}");
        assert_eq!(response.header("etag").as_deref(), Some("\"x\""), "{round}");
    }
}

#[test]
fn forwards_an_early_response_to_a_long_upload() {
    let upstream = Upstream::responding(|exchange| {
        exchange.respond(
            "413 Content Too Large",
            "Connection: close\r\n",
            "too large",
        );
        // Reads on for a while, as a server should, so that the response is not lost to a reset.
        exchange.wire.shut_sending();
        exchange.wire.until_closed();
        Next::Close
    });
    let config = format!("[listen]\nmax_body_bytes = 0\n{ROUTES}");
    let (sidecar, upstream, issuer) = start_with(&config, upstream);
    for round in 0..20 {
        let mut client = sidecar.connect();
        client.send(head(
            "Content-Length: 100000000\r\n",
            &issuer.token("alice"),
        ));
        client.send(vec![b'x'; 64 * 1024]);
        let response = client.response();
        assert_eq!(
            (response.status, response.text().as_str()),
            (413, "too large"),
            "{round}"
        );
        assert_eq!(response.reason(), "", "it comes from the upstream");
    }
    // The connections with an incomplete upload are closed.
    upstream.wait_for_closed(20);
}

/// The upstream responds while the gate holds bytes of the upload that no socket has taken yet.
#[test]
fn an_upload_behind_an_early_response_arrives_unchanged() {
    const CHUNKS: usize = 16 * 1024;
    let sent = Arc::new(AtomicUsize::new(0));
    let (received, progress) = (Latch::default(), Arc::clone(&sent));
    let head_received = received.clone();
    let upstream = Upstream::responding(move |exchange| {
        // Every buffer between the client and this upstream fills.
        let mut before = 0;
        let mut unchanged = 0;
        while unchanged < 100 {
            thread::park_timeout(Duration::from_millis(1));
            let now = progress.load(Ordering::Relaxed);
            unchanged = if now == before && now > 0 {
                unchanged + 1
            } else {
                0
            };
            before = now;
        }
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
        head_received.wait();
        let is_complete = exchange.body().is_some();
        exchange.write(if is_complete { "ok" } else { "no" });
        Next::Close
    });
    let config = format!("[listen]\nmax_body_bytes = 0\n{ROUTES}");
    let (sidecar, upstream, issuer) = start_with(&config, upstream);
    let mut client = sidecar.connect();
    client.send(head(
        "Transfer-Encoding: chunked\r\n",
        &issuer.token("alice"),
    ));
    let mut sending = client.wire.try_clone();
    let uploading = thread::spawn(move || {
        for number in 0..CHUNKS {
            let data = format!("{number:01000}");
            let chunk = format!("{:x}\r\n{data}\r\n", data.len());
            sending.write(chunk.as_bytes()).unwrap();
            sent.store(number, Ordering::Relaxed);
        }
        sending.write(b"0\r\n\r\n").unwrap();
    });
    assert!(client.wire.read_head().unwrap().is_some());
    received.open();
    assert_eq!(client.wire.read_exact(2).unwrap(), b"ok");
    uploading.join().unwrap();
    let arrived = upstream.arrived();
    let expected = (0..CHUNKS).map(|number| format!("{number:01000}"));
    assert!(arrived[0].body == expected.collect::<String>().into_bytes());
}

#[test]
fn does_not_reuse_a_connection_with_an_incomplete_upload() {
    let upstream = Upstream::responding(|exchange| {
        if exchange.head.line().starts_with("POST ") {
            return exchange.respond("200 OK", "", "early");
        }
        exchange.echo()
    });
    let (sidecar, upstream, issuer) = start_with(ROUTES, upstream);
    for round in 0..20 {
        let mut uploading = sidecar.connect();
        uploading.send(head("Content-Length: 1000\r\n", &issuer.token("alice")));
        uploading.send("GET /open/smuggled HTTP/1.1\r\nHost: gate.test\r\n\r\n");
        assert_eq!(uploading.response().text(), "early", "{round}");
        let response = sidecar.call(&get("/open/page"));
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, "/open/page"),
            "{round}"
        );
        // The upstream may record a truncated upload after later requests, and may parse a part of its body as a
        // request.
        let arrived = upstream.arrived();
        let newest = |line: &str| {
            let mut latest = arrived.iter().rev();
            let found = latest.find(|arrived| arrived.head.line().starts_with(line));
            found.unwrap().connection
        };
        assert_ne!(newest("GET /open/page"), newest("POST "), "{round}");
    }
}

#[test]
fn responds_504_when_the_upstream_neither_reads_nor_responds() {
    let latch = Latch::default();
    let stuck = latch.clone();
    let upstream = Upstream::responding(move |_| {
        stuck.wait();
        Next::Close
    });
    let config = format!(
        "[listen]\nmax_body_bytes = 0\n[upstreams.tasks]\nresponse_timeout = \"300ms\"\n{ROUTES}"
    );
    let (sidecar, _upstream, issuer) = start_with(&config, upstream);
    let mut client = sidecar.connect();
    client.send(head(
        "Content-Length: 100000000\r\n",
        &issuer.token("alice"),
    ));
    // Larger than all buffers on the way; the gate stops reading long before the end.
    let mut uploading = client.wire.try_clone();
    let upload = thread::spawn(move || uploading.write(&vec![b'x'; 100_000_000]));
    client.response().refused(504, "upstream_timeout");
    drop(client);
    latch.open();
    let _closed = upload.join().unwrap();
}

#[test]
fn a_truncated_response_never_looks_complete() {
    for (head, body) in [
        ("Content-Length: 100\r\n", "half"),
        ("Transfer-Encoding: chunked\r\n", "4\r\nhalf\r\n"),
        ("Transfer-Encoding: chunked\r\n", "4\r\nha"),
        (
            "Transfer-Encoding: chunked\r\n",
            "4\r\nhalf\r\nnonsense\r\n",
        ),
        ("Transfer-Encoding: chunked\r\n", "4\r\nhalf\r\n0\r\n"),
    ] {
        for next in [Next::Close, Next::Reset] {
            let received = Latch::default();
            let written = received.clone();
            let upstream = Upstream::responding(move |exchange| {
                exchange.write(format!("HTTP/1.1 200 OK\r\n{head}\r\n{body}"));
                if next == Next::Reset {
                    // A reset may overtake the bytes written before; wait until they arrive.
                    written.wait();
                }
                next
            });
            let (sidecar, _upstream, _issuer) = start_with(ROUTES, upstream);
            let mut client = sidecar.connect();
            client.send(get("/open/page").bytes());
            let head = client.wire.read_head().unwrap().unwrap();
            assert!(head.line().starts_with("HTTP/1.1 200"), "{}", head.text());
            received.open();
            let ended = client.wire.read_body(&head);
            assert!(ended.is_err(), "{body:?} looks complete: {ended:?}");
        }
    }
}

#[test]
fn forwards_a_response_that_ends_with_its_connection() {
    let upstream = Upstream::responding(|exchange| {
        exchange.write("HTTP/1.0 200 OK\r\n\r\nuntil the end");
        Next::Close
    });
    let (sidecar, _upstream, _issuer) = start_with(ROUTES, upstream);
    let response = sidecar.call(&get("/open/page"));
    assert_eq!(
        (response.status, response.text().as_str()),
        (200, "until the end")
    );
}

#[test]
fn responds_502_to_an_invalid_response_and_serves_the_next_request() {
    let responses = [
        "nonsense\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxy",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "\r\n\r\n\r\n",
        "",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ];
    let upstream = Upstream::responding(move |exchange| {
        let target = exchange.target();
        match target.strip_prefix("/open/invalid/") {
            Some(number) => {
                exchange.write(responses[number.parse::<usize>().unwrap()]);
                Next::Close
            }
            None => exchange.echo(),
        }
    });
    let (sidecar, _upstream, issuer) = start_with(ROUTES, upstream);
    let mut client = sidecar.connect();
    for (number, bytes) in responses.iter().enumerate() {
        let response = client.call(&get(&format!("/open/invalid/{number}")));
        assert_eq!(
            response.outcome(),
            (502, "upstream_invalid_response".to_owned()),
            "{bytes:?}"
        );
        let next = client.call(&get(TASKS).bearer(&issuer.token("alice")));
        assert_eq!(
            (next.status, next.text().as_str()),
            (200, TASKS),
            "after {bytes:?}"
        );
    }
    let large = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(1_000_000));
    let upstream = Upstream::responding(move |exchange| {
        exchange.write(&large);
        Next::Close
    });
    let (sidecar, _upstream, _issuer) = start_with(ROUTES, upstream);
    sidecar
        .call(&get("/open/page"))
        .refused(502, "upstream_invalid_response");
}

#[test]
fn responds_502_to_a_response_of_ambiguous_length() {
    for (lines, body) in [
        (
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "4\r\nbody\r\n0\r\n\r\n",
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 9\r\n",
            "4\r\nbody\r\n0\r\n\r\n",
        ),
        (
            "Transfer-Encoding: chunked, chunked\r\n",
            "4\r\nbody\r\n0\r\n\r\n",
        ),
        (
            "Transfer-Encoding: gzip, chunked\r\n",
            "4\r\nbody\r\n0\r\n\r\n",
        ),
        ("Transfer-Encoding: gzip\r\n", "body"),
        (
            "Content-Length: 4\r\nTransfer-Encoding: identity\r\n",
            "body",
        ),
        ("Content-Length: 4, 4\r\n", "body"),
    ] {
        let upstream = Upstream::responding(move |exchange| {
            exchange.write(format!("HTTP/1.1 200 OK\r\n{lines}\r\n{body}"));
            Next::Close
        });
        let (sidecar, _upstream, _issuer) = start_with(ROUTES, upstream);
        let response = sidecar.call(&get("/open/page"));
        assert_eq!(
            response.outcome(),
            (502, "upstream_invalid_response".to_owned()),
            "{lines:?}: {}",
            response.head.text()
        );
    }
}

#[test]
fn bytes_after_a_response_are_not_the_next_response() {
    let upstream = Upstream::responding(|exchange| {
        let body = exchange.target();
        exchange.write(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
            body.len()
        ));
        Next::KeepAlive
    });
    let (sidecar, _upstream, _issuer) = start_with(ROUTES, upstream);
    let mut client = sidecar.connect();
    for number in 0..200 {
        let target = format!("/open/{number}");
        let response = client.call(&get(&target));
        assert!(
            (response.status, response.text()) == (200, target) || response.status == 502,
            "{number}: {} {}",
            response.status,
            response.text()
        );
    }
}

#[test]
fn a_stale_connection_loses_no_request() {
    let upstream = Upstream::responding(|exchange| {
        exchange.echo();
        Next::Close
    });
    let (sidecar, upstream, issuer) = start_with(ROUTES, upstream);
    let token = issuer.token("alice");
    let mut client = sidecar.connect();
    for number in 0..500 {
        let target = format!("{TASKS}/{number}");
        let response = client.call(&get(&target).bearer(&token));
        assert_eq!((response.status, response.text()), (200, target));
    }
    // A retried request found its connection closed before the upstream read any of it.
    assert_eq!(upstream.arrived().len(), 500);
}

#[test]
fn does_not_retry_a_post_that_may_have_been_processed() {
    let upstream = Upstream::responding(|exchange| {
        if exchange.head.line().starts_with("POST ") {
            exchange.body();
            return Next::Close;
        }
        exchange.echo()
    });
    let (sidecar, upstream, issuer) = start_with(ROUTES, upstream);
    let token = issuer.token("alice");
    let mut client = sidecar.connect();
    for number in 1..=20 {
        for body in [&b"once"[..], b""] {
            // The POST gets this pooled connection.
            assert_eq!(client.call(&get(TASKS).bearer(&token)).status, 200);
            let response = client.call(&post(TASKS, body).bearer(&token));
            response.refused(502, "upstream_invalid_response");
        }
        let posts = upstream.arrived().into_iter();
        let posts = posts.filter(|arrived| arrived.head.line().starts_with("POST "));
        assert_eq!(posts.count(), number * 2);
    }
}

#[test]
fn retries_a_get_on_a_closed_connection_once() {
    let upstream = Upstream::responding(|exchange| {
        if exchange.target() == "/open/broken" {
            return Next::Close;
        }
        exchange.echo()
    });
    let (sidecar, upstream, _issuer) = start_with(ROUTES, upstream);
    let mut client = sidecar.connect();
    assert_eq!(client.call(&get("/open/page")).status, 200);
    client
        .call(&get("/open/broken"))
        .refused(502, "upstream_invalid_response");
    assert_eq!(upstream.arrived().len(), 3);
}

#[test]
fn removes_hop_by_hop_headers_of_the_upstream() {
    let upstream = Upstream::responding(|exchange| {
        let lines = "Connection: keep-alive, X-Private\r\nConnection: X-Secret\r\nKeep-Alive: timeout=5\r\n\
                     X-Private: 1\r\nX-Secret: 2\r\nProxy-Authenticate: Basic\r\nProxy-Connection: keep-alive\r\n\
                     Upgrade: h2c\r\nTE: trailers\r\nTrailer: A\r\nX-Kept: 3\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n";
        exchange.respond("200 OK", lines, "body")
    });
    let (sidecar, _upstream, _issuer) = start_with(ROUTES, upstream);
    let response = sidecar.call(&get("/open/page"));
    assert_eq!((response.status, response.text().as_str()), (200, "body"));
    for name in [
        "connection",
        "keep-alive",
        "x-private",
        "x-secret",
        "proxy-authenticate",
        "proxy-connection",
        "upgrade",
        "te",
    ] {
        assert_eq!(response.head.values(name), Vec::<String>::new(), "{name}");
    }
    assert_eq!(response.header("x-kept").as_deref(), Some("3"));
    assert_eq!(response.head.values("set-cookie"), ["a=b", "c=d"]);
}

#[test]
fn removes_hop_by_hop_headers_of_the_client() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let response = sidecar.call(
        &get(TASKS)
            .bearer(&issuer.token("alice"))
            .line("Connection: keep-alive, X-Private")
            .line("Connection: X-Secret")
            .line("Keep-Alive: timeout=5")
            .line("X-Private: 1")
            .line("X-Secret: 2")
            .line("Proxy-Authorization: Basic YTpi")
            .line("Proxy-Connection: keep-alive")
            .line("TE: trailers")
            .line("X-Kept: 3"),
    );
    assert_eq!(response.status, 200);
    let head = upstream.only().head;
    for name in [
        "connection",
        "keep-alive",
        "x-private",
        "x-secret",
        "proxy-authorization",
        "proxy-connection",
        "te",
    ] {
        assert_eq!(head.values(name), Vec::<String>::new(), "{name}");
    }
    assert_eq!(head.value("x-kept").as_deref(), Some("3"));
}

#[test]
fn no_response_reaches_another_user() {
    let upstream = Upstream::responding(|exchange| {
        // Half of the responses are chunked, and some connections close after a response.
        if exchange.body().is_none() {
            return Next::Close;
        }
        let user = exchange.head.value("x-user-id").unwrap();
        let body = format!("{user} {}", exchange.target());
        if body.len() % 2 == 0 {
            let length = body.len();
            exchange.write(format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
            ));
        } else {
            exchange.respond("200 OK", "", &body);
        }
        if exchange.target().ends_with("00") {
            Next::Close
        } else {
            Next::KeepAlive
        }
    });
    let config = format!("[listen]\nworkers = 2\n{ROUTES}");
    let (sidecar, upstream, issuer) = start_with(&config, upstream);
    let served = Arc::new(AtomicUsize::new(0));
    thread::scope(|scope| {
        for user in ["alice", "bob", "carol@example.com", "dave"] {
            let (sidecar, served, token) = (&sidecar, Arc::clone(&served), issuer.token(user));
            scope.spawn(move || {
                let mut client = sidecar.connect();
                for number in 0..500 {
                    let target = format!("/api/{user}/tasks/{number}");
                    // Every seventh request has a copy that is abandoned.
                    if number % 7 == 3 {
                        let mut abandoned = sidecar.connect();
                        abandoned.send(get(&target).bearer(&token).bytes());
                    }
                    let response = client.call(&get(&target).bearer(&token));
                    assert_eq!(
                        (response.status, response.text()),
                        (200, format!("{user} {target}"))
                    );
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(served.load(Ordering::Relaxed), 2000);
    assert!(upstream.arrived().len() >= 2000);
}

#[test]
fn a_disconnected_client_closes_the_upstream_connection() {
    let upstream = Upstream::responding(|exchange| {
        exchange.wire.until_closed();
        Next::Close
    });
    let (sidecar, upstream, _issuer) = start_with(ROUTES, upstream);
    let mut client = sidecar.connect();
    client.send(get("/open/slow").bytes());
    upstream.wait_for(1);
    drop(client);
    upstream.wait_for_closed(1);
}

#[test]
fn forwards_to_a_unix_socket_over_one_connection() {
    let (sidecar, upstream, issuer) = start_with(ROUTES, Upstream::on_unix_socket());
    let mut client = sidecar.connect();
    for number in 0..10 {
        let target = format!("{TASKS}/{number}");
        let response = client.call(&post(&target, b"body").bearer(&issuer.token("alice")));
        assert_eq!((response.status, response.text()), (200, target));
    }
    let over: Vec<usize> = upstream
        .arrived()
        .iter()
        .map(|arrived| arrived.connection)
        .collect();
    assert_eq!(over, [1; 10], "sequential requests share one connection");
}

#[test]
fn a_large_body_passes_in_both_directions() {
    let upstream = Upstream::responding(|exchange| {
        let body = exchange.body().unwrap();
        let length = body.len();
        exchange.write(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
        ));
        exchange.write(body);
        Next::KeepAlive
    });
    let (sidecar, _upstream, issuer) = start_with(ROUTES, upstream);
    let body: Vec<u8> = (0..=u8::MAX).cycle().take(5_000_000).collect();
    let mut client = sidecar.connect();
    for _ in 0..2 {
        let response = client.call(&post(TASKS, &body).bearer(&issuer.token("alice")));
        assert_eq!(response.status, 200);
        assert!(
            response.body == body,
            "{} bytes came back",
            response.body.len()
        );
    }
}

/// hyper closes a connection with an unread request body; without `Connection: close`, the client loses its next request.
#[test]
fn a_response_to_an_incomplete_request_has_connection_close() {
    let (sidecar, upstream, _issuer) = start(ROUTES);
    let mut half = sidecar.connect();
    half.send("POST /api/alice/tasks HTTP/1.1\r\nHost: gate.test\r\nContent-Length: 5\r\n\r\n");
    let response = half.response();
    response.refused(401, "token_missing");
    assert_eq!(response.header("connection").as_deref(), Some("close"));
    half.until_closed();

    let mut complete = sidecar.connect();
    for _ in 0..3 {
        complete.send("GET /api/alice/tasks HTTP/1.1\r\nHost: gate.test\r\n\r\n");
        let response = complete.response();
        response.refused(401, "token_missing");
        assert_eq!(response.header("connection"), None);
    }
    upstream.assert_untouched();
}

#[test]
fn forwards_informational_responses_if_the_upstream_allows_them() {
    let latch = Latch::default();
    let upstream = {
        let latch = latch.clone();
        Upstream::responding(move |exchange| {
            exchange
                .write("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nX-User-Id: mallory\r\n\r\n");
            latch.wait();
            exchange.write("HTTP/1.1 102 Processing\r\n\r\n".repeat(20));
            exchange.respond("200 OK", "", "body")
        })
    };
    let config = format!("[upstreams.tasks]\ninformational = true\n{ROUTES}");
    let (sidecar, _upstream, _issuer) = start_with(&config, upstream);
    let mut client = sidecar.connect();
    for round in 0..3 {
        client.send(get("/open/page").bytes());
        if round == 0 {
            // The 103 arrives before the final response.
            let head = client.wire.read_head().unwrap().unwrap();
            assert!(head.line().contains(" 103 "), "{}", head.line());
            assert_eq!(head.value("link").as_deref(), Some("</a.css>"));
            assert_eq!(head.value("x-user-id"), None);
            latch.open();
        }
        let mut informational = 0;
        let status = loop {
            let head = client.wire.read_head().unwrap().unwrap();
            if !head.line().contains(" 10") {
                assert_eq!(client.wire.read_exact(4).unwrap(), b"body");
                break head.line();
            }
            informational += 1;
        };
        assert!(status.contains(" 200 "), "{status}");
        assert_eq!(informational, if round == 0 { 7 } else { 8 });
    }
    // An HTTP/1.0 client gets no informational responses.
    let old = sidecar.raw("GET /open/page HTTP/1.0\r\nHost: gate.test\r\n\r\n");
    assert_eq!((old.status, old.text().as_str()), (200, "body"));
}
