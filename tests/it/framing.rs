//! Where a message ends: for the gate, the client and the upstream the same, or the request is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::harness::{Latch, Next, ROUTES, Upstream, get, post, request, start, start_with};

const TASKS: &str = "/api/alice/tasks";

fn head(lines: &str, token: &str) -> String {
    format!(
        "POST {TASKS} HTTP/1.1\r\nHost: gate.test\r\nAuthorization: Bearer {token}\r\n{lines}\r\n"
    )
}

/// What of the requests that arrived came to its end, and what is more than it should be.
#[track_caller]
fn assert_nothing_whole(upstream: &Upstream, what: &str) {
    for arrived in upstream.arrived() {
        assert!(!arrived.whole, "{what}\n{}", arrived.head.text());
    }
}

#[test]
fn a_message_with_two_ends_is_refused() {
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
        let answer = client
            .read(false)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(answer.status, 400, "{what}: {}", answer.head.text());
        client.until_closed();
        assert_nothing_whole(&upstream, &what);
    }
}

#[test]
fn a_length_that_is_said_twice_arrives_once_or_not() {
    // RFC 9112 section 6.3: equal lengths may be taken for one.
    let (sidecar, upstream, issuer) = start(ROUTES);
    let lines = "Content-Length: 4\r\nContent-Length: 4\r\n";
    let answer = sidecar.raw(head(lines, &issuer.token("alice")) + "body");
    assert!(matches!(answer.status, 200 | 400), "{}", answer.status);
    for arrived in upstream.arrived() {
        assert_eq!(arrived.head.values("content-length"), ["4"]);
        assert_eq!(arrived.body, b"body");
    }
}

#[test]
fn a_length_beside_chunks_does_not_count_and_ends_the_connection() {
    // RFC 9112 section 6.1: such a message may be an attack. It has one reading here and the connection has no second.
    let (sidecar, upstream, issuer) = start(ROUTES);
    for lines in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    ] {
        let before = upstream.arrived().len();
        let mut client = sidecar.connect();
        let smuggled = "0\r\n\r\nGET /open/smuggled HTTP/1.1\r\nHost: gate.test\r\n\r\n";
        client.send(head(lines, &issuer.token("alice")) + smuggled);
        let answer = client.answer();
        client.until_closed();
        let arrived = upstream.arrived().split_off(before);
        if answer.status == 400 {
            assert!(arrived.is_empty(), "{lines:?}: {arrived:#?}");
            continue;
        }
        assert_eq!(answer.status, 200, "{lines:?}");
        assert_eq!(arrived.len(), 1, "{lines:?}: {arrived:#?}");
        assert_eq!(arrived[0].head.value("content-length"), None, "{lines:?}");
        assert_eq!(arrived[0].body, b"", "{lines:?}");
    }
}

#[test]
fn a_request_without_exactly_one_good_host_is_refused() {
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
        let answer = sidecar.raw(text);
        assert_eq!(answer.status, 400, "{lines:?}: {}", answer.text());
    }
    upstream.untouched();
    for host in [
        "gate.test",
        "gate.test:8080",
        "127.0.0.1:80",
        "[::1]:80",
        "GATE.TEST.",
    ] {
        let answer = sidecar.call(&get(TASKS).host(Some(host)).bearer(&token));
        assert_eq!(answer.status, 200, "{host}");
        let arrived = upstream.arrived().pop().unwrap();
        assert_eq!(arrived.head.value("host").as_deref(), Some(host));
    }
}

#[test]
fn http_1_0_is_answered_and_closed() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let token = issuer.token("alice");
    let mut client = sidecar.connect();
    client.send(format!(
        "GET {TASKS} HTTP/1.0\r\nHost: gate.test\r\nAuthorization: Bearer {token}\r\n\r\n"
    ));
    let answer = client.answer();
    assert_eq!((answer.status, answer.text().as_str()), (200, TASKS));
    client.until_closed();
    assert_eq!(upstream.only().head.line(), format!("GET {TASKS} HTTP/1.1"));
    // RFC 9112 section 6.1: HTTP/1.0 has no chunks.
    let mut client = sidecar.connect();
    client.send(
        head("Transfer-Encoding: chunked\r\n", &token).replace("HTTP/1.1", "HTTP/1.0")
            + "0\r\n\r\n",
    );
    assert_eq!(client.answer().status, 400);
    upstream.only();
}

#[test]
fn what_is_not_http_1_is_not_served() {
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
        let said = String::from_utf8_lossy(&client.until_closed()).into_owned();
        assert!(
            said.is_empty() || said.starts_with("HTTP/1.1 400"),
            "{bytes:?}: {said}"
        );
    }
    upstream.untouched();
}

#[test]
fn bare_line_feeds_are_written_anew_or_refused() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let token = issuer.token("alice");
    let text = format!("GET {TASKS} HTTP/1.1\nHost: gate.test\nAuthorization: Bearer {token}\n\n");
    let answer = sidecar.raw(text);
    assert!(matches!(answer.status, 200 | 400), "{}", answer.status);
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
fn a_body_is_not_asked_for_before_the_token_is_good() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let expecting = |token: &str| head("Expect: 100-continue\r\nContent-Length: 4\r\n", token);
    let mut client = sidecar.connect();
    client.send(expecting("not.a.token"));
    // The first answer is the last one: no 100 came before it.
    client.answer().refused(401, "token_malformed");
    upstream.untouched();

    let mut client = sidecar.connect();
    client.send(expecting(&issuer.token("alice")));
    assert_eq!(client.answer().status, 100);
    client.send("body");
    assert_eq!(client.answer().status, 200);
    let arrived = upstream.only();
    assert_eq!(arrived.body, b"body");
    assert_eq!(arrived.head.value("expect"), None);
}

#[test]
fn a_body_over_the_limit_is_refused_by_its_length_at_once() {
    let (sidecar, upstream, issuer) =
        start(&format!("[listen]\nmax_body_bytes = \"10KiB\"\n{ROUTES}"));
    let mut client = sidecar.connect();
    client.send(head("Content-Length: 10241\r\n", &issuer.token("alice")));
    client.answer().refused(413, "body_too_large");
    client.until_closed();
    upstream.untouched();
    let fits = post(TASKS, &[b'x'; 10240]).bearer(&issuer.token("alice"));
    assert_eq!(sidecar.call(&fits).status, 200);
}

#[test]
fn a_body_over_the_limit_is_refused_by_its_chunks() {
    let (sidecar, upstream, issuer) =
        start(&format!("[listen]\nmax_body_bytes = \"10KiB\"\n{ROUTES}"));
    let token = issuer.token("alice");
    let large = request("POST", TASKS)
        .bearer(&token)
        .chunked(&[b'x'; 10241], "");
    sidecar.call(&large).refused(413, "body_too_large");
    assert_nothing_whole(&upstream, "10241 bytes");
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
fn answers_without_a_body_have_none() {
    let upstream = Upstream::answering(|dialogue| {
        match dialogue.target().as_str() {
            "/open/204" => dialogue.write("HTTP/1.1 204 No Content\r\nA: b\r\n\r\n"),
            "/open/304" => dialogue
                .write("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 9\r\n\r\n"),
            _ => dialogue.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
        }
        Next::Stay
    });
    let (sidecar, _upstream, _issuer) = start_with(ROUTES, upstream);
    let mut client = sidecar.connect();
    for round in 0..3 {
        let answer = client.call(&request("HEAD", "/open/page"));
        assert_eq!(answer.status, 200, "{round}");
        assert_eq!(
            answer.header("content-length").as_deref(),
            Some("9"),
            "{round}"
        );
        // A refusal of the gate's own keeps to it as well.
        let answer = client.call(&request("HEAD", TASKS));
        assert_eq!(answer.status, 401, "{round}");
        assert_eq!(client.call(&get("/open/204")).status, 204, "{round}");
        let answer = client.call(&get("/open/304"));
        assert_eq!(answer.status, 304, "{round}");
        assert_eq!(answer.header("etag").as_deref(), Some("\"x\""), "{round}");
    }
}

#[test]
fn an_upstreams_early_answer_to_a_long_upload_reaches_the_client() {
    let upstream = Upstream::answering(|dialogue| {
        dialogue.answer(
            "413 Content Too Large",
            "Connection: close\r\n",
            "too large",
        );
        // As a server should, it reads on for a while, so that its answer is not lost.
        dialogue.wire.shut_sending();
        dialogue.wire.until_closed();
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
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (413, "too large"),
            "{round}"
        );
        assert_eq!(answer.reason(), "", "it is the upstream's own");
    }
    // The rest of the upload is nobody's: the connections to the upstream are cut.
    upstream.wait_for_closed(20);
}

#[test]
fn a_connection_whose_upload_is_not_over_serves_nobody_else() {
    let upstream = Upstream::answering(|dialogue| {
        if dialogue.head.line().starts_with("POST ") {
            return dialogue.answer("200 OK", "", "early");
        }
        dialogue.echo()
    });
    let (sidecar, upstream, issuer) = start_with(ROUTES, upstream);
    for round in 0..20 {
        let mut uploading = sidecar.connect();
        uploading.send(head("Content-Length: 1000\r\n", &issuer.token("alice")));
        uploading.send("GET /open/smuggled HTTP/1.1\r\nHost: gate.test\r\n\r\n");
        assert_eq!(uploading.answer().text(), "early", "{round}");
        let answer = sidecar.call(&get("/open/page"));
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "/open/page"),
            "{round}"
        );
        // An upload that was cut off may be written down after what came later, and a piece of it, which this upstream
        // does not know for one, as a request.
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
fn an_upstream_that_neither_reads_nor_answers_is_504() {
    let latch = Latch::default();
    let stuck = latch.clone();
    let upstream = Upstream::answering(move |_| {
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
    // More than every buffer on the way holds; the gate stops reading long before its end.
    let mut uploading = client.wire.try_clone();
    let upload = thread::spawn(move || uploading.write(&vec![b'x'; 100_000_000]));
    client.answer().refused(504, "upstream_timeout");
    drop(client);
    latch.open();
    let _cut = upload.join().unwrap();
}

#[test]
fn an_answer_that_breaks_off_never_ends_well() {
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
            let whole = Latch::default();
            let read = whole.clone();
            let upstream = Upstream::answering(move |dialogue| {
                dialogue.write(format!("HTTP/1.1 200 OK\r\n{head}\r\n{body}"));
                if next == Next::Reset {
                    // A reset may overtake what was written: it waits until that has arrived.
                    read.wait();
                }
                next
            });
            let (sidecar, _upstream, _issuer) = start_with(ROUTES, upstream);
            let mut client = sidecar.connect();
            client.send(get("/open/page").bytes());
            let head = client.wire.read_head().unwrap().unwrap();
            assert!(head.line().starts_with("HTTP/1.1 200"), "{}", head.text());
            whole.open();
            let ended = client.wire.read_body(&head);
            assert!(ended.is_err(), "{body:?} ended well: {ended:?}");
        }
    }
}

#[test]
fn an_answer_that_ends_with_its_connection_is_whole() {
    let upstream = Upstream::answering(|dialogue| {
        dialogue.write("HTTP/1.0 200 OK\r\n\r\nuntil the end");
        Next::Close
    });
    let (sidecar, _upstream, _issuer) = start_with(ROUTES, upstream);
    let answer = sidecar.call(&get("/open/page"));
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "until the end")
    );
}

#[test]
fn what_is_no_answer_is_502_and_the_next_request_is_served() {
    let answers = [
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
    let upstream = Upstream::answering(move |dialogue| {
        let target = dialogue.target();
        match target.strip_prefix("/open/bad/") {
            Some(number) => {
                dialogue.write(answers[number.parse::<usize>().unwrap()]);
                Next::Close
            }
            None => dialogue.echo(),
        }
    });
    let (sidecar, _upstream, issuer) = start_with(ROUTES, upstream);
    let mut client = sidecar.connect();
    for (number, bytes) in answers.iter().enumerate() {
        let answer = client.call(&get(&format!("/open/bad/{number}")));
        assert_eq!(
            answer.outcome(),
            (502, "upstream_invalid_response".to_owned()),
            "{bytes:?}"
        );
        let good = client.call(&get(TASKS).bearer(&issuer.token("alice")));
        assert_eq!(
            (good.status, good.text().as_str()),
            (200, TASKS),
            "after {bytes:?}"
        );
    }
    let large = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(1_000_000));
    let upstream = Upstream::answering(move |dialogue| {
        dialogue.write(&large);
        Next::Close
    });
    let (sidecar, _upstream, _issuer) = start_with(ROUTES, upstream);
    sidecar
        .call(&get("/open/page"))
        .refused(502, "upstream_invalid_response");
}

#[test]
fn an_answer_with_two_ends_is_502() {
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
        let upstream = Upstream::answering(move |dialogue| {
            dialogue.write(format!("HTTP/1.1 200 OK\r\n{lines}\r\n{body}"));
            Next::Close
        });
        let (sidecar, _upstream, _issuer) = start_with(ROUTES, upstream);
        let answer = sidecar.call(&get("/open/page"));
        assert_eq!(
            answer.outcome(),
            (502, "upstream_invalid_response".to_owned()),
            "{lines:?}: {}",
            answer.head.text()
        );
    }
}

#[test]
fn bytes_after_an_answer_are_never_the_next_answer() {
    let upstream = Upstream::answering(|dialogue| {
        let body = dialogue.target();
        dialogue.write(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
            body.len()
        ));
        Next::Stay
    });
    let (sidecar, _upstream, _issuer) = start_with(ROUTES, upstream);
    let mut client = sidecar.connect();
    for number in 0..200 {
        let target = format!("/open/{number}");
        let answer = client.call(&get(&target));
        assert!(
            (answer.status, answer.text()) == (200, target) || answer.status == 502,
            "{number}: {} {}",
            answer.status,
            answer.text()
        );
    }
}

#[test]
fn a_stale_connection_costs_no_request() {
    let upstream = Upstream::answering(|dialogue| {
        dialogue.echo();
        Next::Close
    });
    let (sidecar, upstream, issuer) = start_with(ROUTES, upstream);
    let token = issuer.token("alice");
    let mut client = sidecar.connect();
    for number in 0..500 {
        let target = format!("{TASKS}/{number}");
        let answer = client.call(&get(&target).bearer(&token));
        assert_eq!((answer.status, answer.text()), (200, target));
    }
    // A request that was repeated had found its first connection closed before anything of it was read.
    assert_eq!(upstream.arrived().len(), 500);
}

#[test]
fn a_post_that_may_have_been_sent_is_not_sent_twice() {
    let upstream = Upstream::answering(|dialogue| {
        if dialogue.head.line().starts_with("POST ") {
            dialogue.body();
            return Next::Close;
        }
        dialogue.echo()
    });
    let (sidecar, upstream, issuer) = start_with(ROUTES, upstream);
    let token = issuer.token("alice");
    let mut client = sidecar.connect();
    for number in 1..=20 {
        for body in [&b"once"[..], b""] {
            // So that there is a connection in the pool, and not a new one.
            assert_eq!(client.call(&get(TASKS).bearer(&token)).status, 200);
            let answer = client.call(&post(TASKS, body).bearer(&token));
            answer.refused(502, "upstream_invalid_response");
        }
        let posts = upstream.arrived().into_iter();
        let posts = posts.filter(|arrived| arrived.head.line().starts_with("POST "));
        assert_eq!(posts.count(), number * 2);
    }
}

#[test]
fn a_get_whose_connection_breaks_is_sent_again_once() {
    let upstream = Upstream::answering(|dialogue| {
        if dialogue.target() == "/open/broken" {
            return Next::Close;
        }
        dialogue.echo()
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
fn what_concerns_the_upstreams_connection_stays_there() {
    let upstream = Upstream::answering(|dialogue| {
        let lines = "Connection: keep-alive, X-Private\r\nConnection: X-Secret\r\nKeep-Alive: timeout=5\r\n\
                     X-Private: 1\r\nX-Secret: 2\r\nProxy-Authenticate: Basic\r\nProxy-Connection: keep-alive\r\n\
                     Upgrade: h2c\r\nTE: trailers\r\nTrailer: A\r\nX-Kept: 3\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n";
        dialogue.answer("200 OK", lines, "body")
    });
    let (sidecar, _upstream, _issuer) = start_with(ROUTES, upstream);
    let answer = sidecar.call(&get("/open/page"));
    assert_eq!((answer.status, answer.text().as_str()), (200, "body"));
    for gone in [
        "connection",
        "keep-alive",
        "x-private",
        "x-secret",
        "proxy-authenticate",
        "proxy-connection",
        "upgrade",
        "te",
    ] {
        assert_eq!(answer.head.values(gone), Vec::<String>::new(), "{gone}");
    }
    assert_eq!(answer.header("x-kept").as_deref(), Some("3"));
    assert_eq!(answer.head.values("set-cookie"), ["a=b", "c=d"]);
}

#[test]
fn what_concerns_the_clients_connection_stays_there() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let answer = sidecar.call(
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
    assert_eq!(answer.status, 200);
    let head = upstream.only().head;
    for gone in [
        "connection",
        "keep-alive",
        "x-private",
        "x-secret",
        "proxy-authorization",
        "proxy-connection",
        "te",
    ] {
        assert_eq!(head.values(gone), Vec::<String>::new(), "{gone}");
    }
    assert_eq!(head.value("x-kept").as_deref(), Some("3"));
}

#[test]
fn nobody_ever_gets_anothers_answer() {
    let upstream = Upstream::answering(|dialogue| {
        // Half of the answers come in chunks, and some connections end without a word.
        if dialogue.body().is_none() {
            return Next::Close;
        }
        let user = dialogue.head.value("x-user-id").unwrap();
        let body = format!("{user} {}", dialogue.target());
        if body.len() % 2 == 0 {
            let length = body.len();
            dialogue.write(format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
            ));
        } else {
            dialogue.answer("200 OK", "", &body);
        }
        if dialogue.target().ends_with("00") {
            Next::Close
        } else {
            Next::Stay
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
                    // Every seventh client leaves in the middle of its answer.
                    if number % 7 == 3 {
                        let mut leaving = sidecar.connect();
                        leaving.send(get(&target).bearer(&token).bytes());
                    }
                    let answer = client.call(&get(&target).bearer(&token));
                    assert_eq!(
                        (answer.status, answer.text()),
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
fn a_client_that_leaves_ends_the_work_of_the_upstream() {
    let upstream = Upstream::answering(|dialogue| {
        dialogue.wire.until_closed();
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
fn a_unix_socket_is_an_upstream_like_any_other() {
    let (sidecar, upstream, issuer) = start_with(ROUTES, Upstream::on_unix_socket());
    let mut client = sidecar.connect();
    for number in 0..10 {
        let target = format!("{TASKS}/{number}");
        let answer = client.call(&post(&target, b"body").bearer(&issuer.token("alice")));
        assert_eq!((answer.status, answer.text()), (200, target));
    }
    let over: Vec<usize> = upstream
        .arrived()
        .iter()
        .map(|arrived| arrived.connection)
        .collect();
    assert_eq!(
        over, [1; 10],
        "one connection is enough for requests that come one after the other"
    );
}

#[test]
fn a_large_body_passes_whole_in_both_directions() {
    let upstream = Upstream::answering(|dialogue| {
        let body = dialogue.body().unwrap();
        let length = body.len();
        dialogue.write(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
        ));
        dialogue.write(body);
        Next::Stay
    });
    let (sidecar, _upstream, issuer) = start_with(ROUTES, upstream);
    let body: Vec<u8> = (0..=u8::MAX).cycle().take(5_000_000).collect();
    let mut client = sidecar.connect();
    for _ in 0..2 {
        let answer = client.call(&post(TASKS, &body).bearer(&issuer.token("alice")));
        assert_eq!(answer.status, 200);
        assert!(answer.body == body, "{} bytes came back", answer.body.len());
    }
}

/// hyper closes a connection on which a part of a request is still to come: who was not told would lose the next one.
#[test]
fn an_answer_to_half_a_request_says_that_the_connection_ends() {
    let (sidecar, upstream, _issuer) = start(ROUTES);
    let mut half = sidecar.connect();
    half.send("POST /api/alice/tasks HTTP/1.1\r\nHost: gate.test\r\nContent-Length: 5\r\n\r\n");
    let answer = half.answer();
    answer.refused(401, "token_missing");
    assert_eq!(answer.header("connection").as_deref(), Some("close"));
    half.until_closed();

    let mut whole = sidecar.connect();
    for _ in 0..3 {
        whole.send("GET /api/alice/tasks HTTP/1.1\r\nHost: gate.test\r\n\r\n");
        let answer = whole.answer();
        answer.refused(401, "token_missing");
        assert_eq!(answer.header("connection"), None);
    }
    upstream.untouched();
}

#[test]
fn interim_answers_are_passed_on_where_the_upstream_may_give_them() {
    let latch = Latch::default();
    let upstream = {
        let latch = latch.clone();
        Upstream::answering(move |dialogue| {
            dialogue
                .write("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nX-User-Id: mallory\r\n\r\n");
            latch.wait();
            dialogue.write("HTTP/1.1 102 Processing\r\n\r\n".repeat(20));
            dialogue.answer("200 OK", "", "body")
        })
    };
    let config = format!("[upstreams.tasks]\ninformational = true\n{ROUTES}");
    let (sidecar, _upstream, _issuer) = start_with(&config, upstream);
    let mut client = sidecar.connect();
    for round in 0..3 {
        client.send(get("/open/page").bytes());
        if round == 0 {
            // It is there while the answer is not.
            let head = client.wire.read_head().unwrap().unwrap();
            assert!(head.line().contains(" 103 "), "{}", head.line());
            assert_eq!(head.value("link").as_deref(), Some("</a.css>"));
            assert_eq!(head.value("x-user-id"), None);
            latch.open();
        }
        let mut interim = 0;
        let status = loop {
            let head = client.wire.read_head().unwrap().unwrap();
            if !head.line().contains(" 10") {
                assert_eq!(client.wire.read_exact(4).unwrap(), b"body");
                break head.line();
            }
            interim += 1;
        };
        assert!(status.contains(" 200 "), "{status}");
        assert_eq!(interim, if round == 0 { 7 } else { 8 });
    }
    // A client that knows no HTTP/1.1 knows no interim answers.
    let old = sidecar.raw("GET /open/page HTTP/1.0\r\nHost: gate.test\r\n\r\n");
    assert_eq!((old.status, old.text().as_str()), (200, "body"));
}
