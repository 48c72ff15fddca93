//! Request heads: targets, `Host`, schemes, lengths and limits, over HTTP/1.1 and HTTP/2.

use http::{Request, Version};

use crate::harness::frames::{
    END_HEADERS, END_STREAM, Frame, Frames, GOAWAY, HEADERS, RST_STREAM, literal_head,
};
use crate::harness::hyper_client::{HyperClient, run, text};
use crate::harness::{
    Arrived, Next, ROUTES, Sidecar, Upstream, eventually, get, request, start, start_with,
};

/// Routes that match every path.
const EVERYTHING: &str = r#"
[[routes]]
path = "/"
access = "public"

[[routes]]
path = "/{*rest}"
access = "public"
"#;

/// Sends one HTTP/2 request head and returns the kind of the response and its status, or the error code.
fn over_http2(sidecar: &Sidecar, fields: &[(&str, &str)]) -> Result<u16, u32> {
    let mut client = Frames::connect(sidecar.address);
    let head = literal_head(fields);
    client.send(&Frame::new(HEADERS, END_STREAM | END_HEADERS, 1, &head));
    let first = client.until(|frame| {
        frame.stream == 1 && [HEADERS, RST_STREAM].contains(&frame.kind) || frame.kind == GOAWAY
    });
    match first.kind {
        HEADERS => Ok(first.response_status()),
        _ => Err(first.code()),
    }
}

/// Complete HTTP/2 request head with this path.
fn h2_get<'a>(path: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "gate.test"),
        (":path", path),
    ];
    fields.extend(more);
    fields
}

fn target_of(arrived: &Arrived) -> String {
    let line = arrived.head.line();
    let mut words = line.split(' ');
    let target = words.nth(1).unwrap().to_owned();
    assert_eq!(words.next(), Some("HTTP/1.1"), "{line:?}");
    target
}

#[test]
fn sends_the_judged_target_and_never_an_empty_one() {
    let (sidecar, upstream, _issuer) = start(EVERYTHING);
    // RFC 9112 section 3.2: a request target has no fragment. Section 3.2.1: an empty path is sent as `/`.
    for (target, sent) in [
        ("http://gate.test#", None),
        ("http://gate.test#/admin", None),
        ("http://gate.test?", None),
        ("http://gate.test?a", None),
        ("http://gate.test?a#b", None),
        ("#", None),
        ("?a", None),
        ("gate.test#a", None),
        ("http://gate.test", Some("/")),
        ("http://gate.test/", Some("/")),
        ("http://gate.test/?a", Some("/?a")),
        ("/", Some("/")),
        ("/?", Some("/?")),
        // hyper drops these fragments before the gate judges the target.
        ("/a#b", Some("/a")),
        ("/a?b#c", Some("/a?b")),
        ("/#", Some("/")),
        ("http://gate.test/a#b", Some("/a")),
    ] {
        let before = upstream.arrived().len();
        let response = sidecar.call(&get(target));
        let arrived = upstream.arrived().split_off(before);
        match sent {
            Some(sent) => {
                assert_eq!(response.status, 200, "{target}");
                assert_eq!(target_of(&arrived[0]), sent, "{target}");
            }
            None => {
                assert_eq!(response.status, 400, "{target}: {}", response.head.text());
                assert!(arrived.is_empty(), "{target}: {arrived:#?}");
            }
        }
    }
}

#[test]
fn rejects_an_http2_path_without_a_slash() {
    let (sidecar, upstream, _issuer) = start(EVERYTHING);
    for path in ["#", "#a", "?a", "?", "?a#b", "a", ""] {
        for authority in [true, false] {
            let mut fields = h2_get(path, &[]);
            if !authority {
                fields.retain(|(name, _)| *name != ":authority");
                fields.push(("host", "gate.test"));
            }
            let rejected = over_http2(&sidecar, &fields);
            // A stream error (PROTOCOL_ERROR) also counts as malformed: RFC 9113 section 8.1.1.
            assert!(
                matches!(rejected, Ok(400) | Err(1)),
                "{path:?}: {rejected:?}"
            );
        }
    }
    upstream.assert_untouched();
    for (path, sent) in [("/a#b", "/a"), ("/?a", "/?a")] {
        assert_eq!(over_http2(&sidecar, &h2_get(path, &[])), Ok(200), "{path}");
        assert_eq!(target_of(&upstream.arrived().pop().unwrap()), sent);
    }
}

#[test]
fn responds_to_options_of_the_whole_server() {
    let (sidecar, upstream, _issuer) = start(EVERYTHING);
    // RFC 9110 section 9.3.7: `*` asks about the server, not a resource.
    let mut client = sidecar.connect();
    for _ in 0..2 {
        let response = client.call(&request("OPTIONS", "*"));
        response.refused(405, "method_not_allowed");
        let allow = response.header("allow").unwrap();
        assert_eq!(allow, "GET, HEAD, POST, PUT, PATCH, DELETE");
    }
    let mut fields = h2_get("*", &[]);
    fields[0] = (":method", "OPTIONS");
    assert_eq!(over_http2(&sidecar, &fields), Ok(405));
    for method in ["GET", "POST", "HEAD"] {
        assert_eq!(sidecar.call(&request(method, "*")).status, 400, "{method}");
    }
    assert_eq!(over_http2(&sidecar, &h2_get("*", &[])), Ok(400));
    upstream.assert_untouched();
}

#[test]
fn serves_an_http_1_0_request_without_host() {
    let (sidecar, upstream, _issuer) = start(ROUTES);
    // RFC 9112 section 3.2 requires `Host` of HTTP/1.1 requests only.
    let mut client = sidecar.connect();
    client.send("GET /open/health HTTP/1.0\r\n\r\n");
    assert_eq!(client.response().status, 200);
    client.until_closed();
    let head = upstream.only().head;
    // HTTP/1.1 to the upstream requires one.
    assert_eq!(head.values("host"), ["localhost"]);
    assert_eq!(head.values("x-forwarded-host"), Vec::<String>::new());
    assert!(!head.value("forwarded").unwrap().contains("host="));
    for head in [
        "GET /open/page HTTP/1.1\r\n\r\n",
        "GET /open/page HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET /open/page HTTP/1.0\r\nHost:\r\n\r\n",
        "GET /open/page HTTP/1.0\r\nHost: ..\r\n\r\n",
        "GET http://../open/page HTTP/1.0\r\n\r\n",
    ] {
        assert_eq!(sidecar.raw(head).status, 400, "{head:?}");
    }
    assert_eq!(upstream.arrived().len(), 1);
}

#[test]
fn rejects_an_invalid_host_in_every_place() {
    let (sidecar, upstream, _issuer) = start(EVERYTHING);
    // RFC 3986 section 3.2.2 (host) and 3.2.3 (port).
    for host in [
        "..",
        ".",
        ".a",
        "a..b",
        "..:80",
        "[]",
        "[zz]",
        "[::1",
        "::1",
        "[::1]x",
        "[1::2::3]",
        "[127.0.0.1]",
        "[::1]:x",
        "[v1.a]",
        "[fe80::1%25eth0]",
        "a b",
        "a:b:c",
        "a:80:80",
        ":80",
        ":",
        "a:65536",
        "a:99999",
        "a:-1",
        "a:+80",
        "a:0x50",
        "a:80a",
        "",
        "a@b",
        "a,b",
        "a;b",
        "a/b",
        "a%20b",
        "a%2fb",
        "a|b",
        "(a)",
        "a'b",
        "a!b",
        "a$b",
        "a&b",
        "a*b",
        "a=b",
        "a~b",
        "a]b",
        "a[b",
    ] {
        let response = sidecar.call(&get("/").host(Some(host)));
        assert_eq!(response.status, 400, "Host: {host:?}");
        let absolute = get(&format!("http://{host}/")).host(Some(host));
        assert_eq!(sidecar.call(&absolute).status, 400, "{host:?}");
        let mut fields = h2_get("/", &[]);
        fields[2] = (":authority", host);
        let rejected = over_http2(&sidecar, &fields);
        assert!(
            matches!(rejected, Ok(400) | Err(1)),
            "{host:?}: {rejected:?}"
        );
        fields.remove(2);
        fields.push(("host", host));
        let rejected = over_http2(&sidecar, &fields);
        assert!(
            matches!(rejected, Ok(400) | Err(1)),
            "{host:?}: {rejected:?}"
        );
    }
    upstream.assert_untouched();
    for host in [
        "a",
        "a.",
        "a:",
        "a:0",
        "a:80",
        "a:65535",
        "a-b.c_d",
        "1.2.3.4",
        "[::1]",
        "[::1]:443",
        "[::FFFF:1.2.3.4]",
        "xn--bcher-kva.example",
    ] {
        assert_eq!(
            sidecar.call(&get("/").host(Some(host))).status,
            200,
            "{host}"
        );
        let absolute = get(&format!("http://{host}/")).host(Some(host));
        assert_eq!(sidecar.call(&absolute).status, 200, "{host}");
    }
}

#[test]
fn rejects_a_scheme_that_the_connection_does_not_have() {
    let (sidecar, upstream, _issuer) = start(EVERYTHING);
    // RFC 9110 section 7.4: an origin server must reject a request for an `https` resource over an unsecured connection.
    let response = sidecar.call(&get("https://gate.test/"));
    response.refused(421, "request_misdirected");
    let mut fields = h2_get("/", &[]);
    fields[1] = (":scheme", "https");
    assert_eq!(over_http2(&sidecar, &fields), Ok(421));
    for scheme in ["ftp", "ws", "wss", "javascript"] {
        fields[1] = (":scheme", scheme);
        assert_eq!(over_http2(&sidecar, &fields), Ok(400), "{scheme}");
        let response = sidecar.call(&get(&format!("{scheme}://gate.test/")));
        assert_eq!(response.status, 400, "{scheme}");
    }
    upstream.assert_untouched();
    fields[1] = (":scheme", "HTTP");
    assert!(over_http2(&sidecar, &fields).is_ok());

    // A trusted proxy terminates TLS and may forward the scheme of its client.
    let trusting = format!("[listen]\ntrusted_proxies = [\"127.0.0.0/8\"]\n{EVERYTHING}");
    let (sidecar, _upstream, _issuer) = start(&trusting);
    assert_eq!(sidecar.call(&get("https://gate.test/")).status, 200);
    fields[1] = (":scheme", "https");
    assert_eq!(over_http2(&sidecar, &fields), Ok(200));
    // Its users are those of the proxy header too, which only a trusted proxy may send.
    let proxied = format!(
        "[listen]\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.0/8\"]\n{EVERYTHING}"
    );
    let (sidecar, _upstream, _issuer) = start(&proxied);
    let header = "PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\n";
    let request = String::from_utf8(get("https://gate.test/").bytes()).unwrap();
    assert_eq!(sidecar.raw(format!("{header}{request}")).status, 200);
}

#[test]
fn writes_the_parsed_length_of_a_request() {
    let (sidecar, upstream, _issuer) = start(EVERYTHING);
    // RFC 9110 section 8.6: `Content-Length` is a decimal number. Another parser could read `010` as octal.
    for (written, body, sent) in [
        ("010", "0123456789", "10"),
        ("0000000000000000000000010", "0123456789", "10"),
        ("00", "", "0"),
        ("0", "", "0"),
        ("000", "", "0"),
        ("10", "0123456789", "10"),
    ] {
        let with_length = request("POST", "/").line(&format!("Content-Length: {written}"));
        let response = sidecar.call(&with_length.body(body.as_bytes()));
        let arrived = upstream.arrived();
        if response.status == 400 {
            assert!(written.len() > 19, "{written}");
            continue;
        }
        assert_eq!(response.status, 200, "{written}");
        let arrived = arrived.last().unwrap();
        assert_eq!(arrived.head.values("content-length"), [sent], "{written}");
        assert_eq!(arrived.body, body.as_bytes(), "{written}");
    }
    let before = upstream.arrived().len();
    for invalid in [
        "+1",
        "-1",
        "1.0",
        "0x1",
        "1e0",
        "",
        " ",
        "1 1",
        "1,1",
        "5, 5",
        "1;",
        "\"1\"",
        "\u{661}",
        "18446744073709551616",
        "99999999999999999999",
    ] {
        let with_length = request("POST", "/").line(&format!("Content-Length: {invalid}"));
        assert_eq!(
            sidecar.call(&with_length.body(b"a")).status,
            400,
            "{invalid:?}"
        );
        let mut fields = h2_get("/", &[("content-length", invalid)]);
        fields[0] = (":method", "POST");
        let rejected = over_http2(&sidecar, &fields);
        assert!(
            matches!(rejected, Ok(400) | Err(1)),
            "{invalid:?}: {rejected:?}"
        );
    }
    assert_eq!(upstream.arrived().len(), before);
    let mut fields = h2_get("/", &[("content-length", "00")]);
    fields[0] = (":method", "POST");
    assert_eq!(over_http2(&sidecar, &fields), Ok(200));
    let arrived = upstream.arrived().pop().unwrap();
    assert_eq!(arrived.head.values("content-length"), ["0"]);
}

#[test]
fn writes_the_parsed_length_of_a_response() {
    let upstream = Upstream::responding(|exchange| {
        let target = exchange.target();
        let length = target.strip_prefix("/").unwrap();
        let body = match (exchange.head.line().starts_with("HEAD"), length.parse()) {
            (false, Ok(length)) => "x".repeat(length),
            _ => String::new(),
        };
        exchange.write(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        Next::Close
    });
    let (sidecar, _upstream, _issuer) = start_with(EVERYTHING, upstream);
    for (written, sent) in [
        ("010", "10"),
        ("00", "0"),
        ("0", "0"),
        ("7", "7"),
        ("0007", "7"),
    ] {
        for method in ["GET", "HEAD"] {
            let response = sidecar.call(&request(method, &format!("/{written}")));
            assert_eq!(response.status, 200, "{method} {written}");
            assert_eq!(
                response.head.values("content-length"),
                [sent],
                "{method} {written}"
            );
        }
    }
    for invalid in ["+1", "1,1", "x", "-1", "18446744073709551616"] {
        let response = sidecar.call(&get(&format!("/{invalid}")));
        response.refused(502, "upstream_invalid_response");
    }
}

#[test]
fn limits_the_number_of_header_fields_in_every_version() {
    let config = format!("[listen]\nmax_header_bytes = \"64KiB\"\n{EVERYTHING}");
    let (sidecar, upstream, _issuer) = start(&config);
    let rejected = "claimgate_requests_total{route=\"\",method=\"GET\",status=\"431\",reason=\"headers_too_large\"}";
    let unread = "claimgate_request_heads_rejected_total{reason=\"headers_too_large\"}";
    // `Host` is one of the hundred.
    for (more, status) in [
        (98, 200),
        (99, 200),
        (100, 431),
        (101, 431),
        (200, 431),
        (1000, 431),
    ] {
        let many = (0..more).fold(get("/"), |request, number| {
            request.line(&format!("a{number}: b"))
        });
        let response = sidecar.call(&many);
        assert_eq!(response.status, status, "{more}: {}", response.head.text());
        if status == 431 {
            response.refused(431, "headers_too_large");
        }
        let names: Vec<String> = (0..more).map(|number| format!("a{number}")).collect();
        let fields: Vec<_> = names.iter().map(|name| (name.as_str(), "b")).collect();
        assert_eq!(
            over_http2(&sidecar, &h2_get("/", &fields)),
            Ok(status),
            "{more}"
        );
    }
    assert_eq!(upstream.arrived().len(), 4);
    eventually("counted", || {
        let count = |series| sidecar.metric(series).unwrap_or_default();
        count(rejected) + count(unread) > 7.5
    });
    // RFC 9113 section 8.2.3: an HTTP/2 client may split `Cookie`. It counts as one field.
    let cookies = vec![("cookie", "a=b"); 300];
    assert_eq!(over_http2(&sidecar, &h2_get("/", &cookies)), Ok(200));
}

#[test]
fn rejects_more_fields_than_a_header_map_holds() {
    let config = format!("[listen]\nmax_header_bytes = \"256KiB\"\n{EVERYTHING}");
    let (sidecar, upstream, _issuer) = start(&config);
    for count in [5_000, 24_575, 24_576, 24_577, 40_000] {
        let names: Vec<String> = (0..count).map(|number| format!("{number:x}")).collect();
        let fields: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
        let head = literal_head(&h2_get("/", &fields));
        let mut client = Frames::connect(sidecar.address);
        let mut chunks = head.chunks(16 * 1024).peekable();
        let first = chunks.next().unwrap();
        client.send(&Frame::new(HEADERS, END_STREAM, 1, first));
        while let Some(chunk) = chunks.next() {
            let flags = if chunks.peek().is_none() {
                END_HEADERS
            } else {
                0
            };
            client.send(&Frame::new(9, flags, 1, chunk));
        }
        // The stream or the connection ends, never the worker.
        let ended = client.rest_until(|frame| frame.kind == GOAWAY || frame.stream == 1);
        if let Some(frame) = ended
            && frame.kind == HEADERS
        {
            assert_eq!(frame.response_status(), 431, "{count}");
        }
    }
    upstream.assert_untouched();
    assert_eq!(sidecar.call(&get("/")).status, 200);
    assert_eq!(sidecar.metric("claimgate_panics_total"), Some(0.0));
    eventually("closed", || {
        sidecar.metric("claimgate_connections_open") == Some(0.0)
    });
}

#[test]
fn forwards_a_response_with_many_header_fields() {
    let upstream = Upstream::responding(|exchange| {
        let count: usize = exchange.target()[1..].parse().unwrap();
        let lines: Vec<String> = (0..count)
            .map(|number| format!("a{number}: b\r\n"))
            .collect();
        let lines = lines.concat();
        exchange.respond("200 OK", &lines, "")
    });
    let (sidecar, _upstream, _issuer) = start_with(EVERYTHING, upstream);
    for count in [99, 101, 250] {
        let response = sidecar.call(&get(&format!("/{count}")));
        assert_eq!(response.status, 200, "{count}");
        let fields = response.head.fields();
        let copied = fields.iter().filter(|(name, _)| name.starts_with('a'));
        assert_eq!(copied.count(), count);
    }
    let response = sidecar.call(&get("/300"));
    response.refused(502, "upstream_invalid_response");
}

#[test]
fn removes_the_length_of_a_response_without_content() {
    // RFC 9110 section 8.6: no `Content-Length` in a 1xx or 204.
    let upstream = Upstream::responding(|exchange| {
        let target = exchange.target();
        let (before, status) = match target.as_str() {
            "/103" => (
                "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 5\r\n\r\n",
                "204 No Content",
            ),
            "/304" => ("", "304 Not Modified"),
            _ => ("", "204 No Content"),
        };
        exchange.write(format!(
            "{before}HTTP/1.1 {status}\r\nETag: \"a\"\r\nContent-Length: 5\r\n\r\n"
        ));
        Next::Close
    });
    let config = format!("[upstreams.tasks]\ninformational = true\n{EVERYTHING}");
    let (sidecar, _upstream, _issuer) = start_with(&config, upstream);
    let mut client = sidecar.connect();
    client.send(get("/103").bytes());
    let hints = client.wire.read_head().unwrap().unwrap();
    assert!(hints.line().contains(" 103 "), "{}", hints.line());
    assert_eq!(hints.value("link").as_deref(), Some("</a>"));
    assert_eq!(hints.value("content-length"), None);
    let response = client.response();
    assert_eq!(
        (response.status, response.header("content-length")),
        (204, None)
    );

    // RFC 9110 section 15.4.5: a 304 may state the length of the 200, and hyper does not.
    assert_eq!(sidecar.call(&get("/304")).status, 304);
    assert_eq!(sidecar.call(&get("/204")).header("content-length"), None);
    for (path, status) in [("/204", 204), ("/103", 204)] {
        let request = Request::get(path).body(text("")).unwrap();
        let response = run(async {
            let mut client = HyperClient::connect(sidecar.address, Version::HTTP_2).await;
            client.call(request).await.unwrap()
        });
        assert_eq!(response.status.as_u16(), status);
        assert!(!response.headers.contains_key("content-length"), "{path}");
    }
}

#[test]
fn responds_502_to_an_informational_response_with_a_body() {
    // RFC 9112 section 6.3: a 1xx ends with its head. What follows is the next response, and this is none.
    let upstream = Upstream::responding(|exchange| {
        exchange.write(
            "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        );
        Next::Close
    });
    let (sidecar, _upstream, _issuer) = start_with(EVERYTHING, upstream);
    sidecar
        .call(&get("/"))
        .refused(502, "upstream_invalid_response");
}

#[test]
fn responds_502_if_the_upstream_accepts_an_http2_websocket_without_switching() {
    // RFC 8441 section 5: to an extended CONNECT, a 2xx means that the tunnel is open. From an HTTP/1.1 upstream, it means
    // that it is not.
    let upstream = Upstream::responding(|exchange| match exchange.target().as_str() {
        "/ok" => exchange.respond("200 OK", "", "page"),
        "/created" => exchange.respond("201 Created", "", ""),
        "/none" => exchange.respond("204 No Content", "", ""),
        _ => exchange.respond("404 Not Found", "", ""),
    });
    let (sidecar, _upstream, _issuer) = start_with(EVERYTHING, upstream);
    for (path, status) in [
        ("/ok", 502),
        ("/created", 502),
        ("/none", 502),
        ("/missing", 404),
    ] {
        let mut client = Frames::connect(sidecar.address);
        let fields = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":authority", "gate.test"),
            (":path", path),
            ("sec-websocket-version", "13"),
        ];
        client.send(&Frame::new(HEADERS, END_HEADERS, 1, &literal_head(&fields)));
        let head = client.until(|frame| frame.kind == HEADERS && frame.stream == 1);
        assert_eq!(head.response_status(), status, "{path}");
    }
    // Over HTTP/1.1, the response is an ordinary one (RFC 9110 section 7.8).
    assert_eq!(sidecar.call(&get("/ok").websocket()).status, 200);
}

#[test]
fn forwards_chunks_with_extensions_as_plain_chunks() {
    let (sidecar, upstream, _issuer) = start(EVERYTHING);
    // RFC 9112 section 7.1.1: a recipient ignores unknown extensions. hyper ignores malformed ones too; docs/security.md
    // lists them.
    for (chunks, body) in [
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5;\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5;a=b\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5;bad[=x\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5 \r\nhello\r\n0\r\n\r\n", "hello"),
        ("5;a\0b\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5\r\nhello\r\n0\n\r\n", "hello"),
        ("05\r\nhello\r\n000\r\n\r\n", "hello"),
        ("5\r\nhello\r\n0;a=b\r\n\r\n", "hello"),
        ("5\r\nhello\r\n0\r\nX-User-Id: mallory\r\n\r\n", "hello"),
    ] {
        let head = "POST /a HTTP/1.1\r\nHost: gate.test\r\nTransfer-Encoding: chunked\r\n\r\n";
        let before = upstream.arrived().len();
        let response = sidecar.raw(format!("{head}{chunks}"));
        if response.status == 400 {
            continue;
        }
        assert_eq!(response.status, 200, "{chunks:?}");
        let arrived = upstream.arrived().split_off(before);
        assert_eq!(arrived.len(), 1, "{chunks:?}");
        assert_eq!(arrived[0].body, body.as_bytes(), "{chunks:?}");
        assert!(arrived[0].complete, "{chunks:?}");
        assert_eq!(arrived[0].head.values("transfer-encoding"), ["chunked"]);
        assert!(arrived[0].trailers.raw.is_empty(), "{chunks:?}");
    }
}

#[test]
fn serves_the_next_pipelined_request_or_closes_the_connection_after_a_refusal() {
    let (sidecar, upstream, _issuer) = start(ROUTES);
    let open = "GET /open/next HTTP/1.1\r\nHost: gate.test\r\n\r\n";
    for (refused, status) in [
        ("GET /nowhere HTTP/1.1\r\nHost: gate.test\r\n\r\n", 404),
        ("GET /me/a HTTP/1.1\r\nHost: gate.test\r\n\r\n", 401),
        ("HEAD /me/a HTTP/1.1\r\nHost: gate.test\r\n\r\n", 401),
        ("DELETE /a/../b HTTP/1.1\r\nHost: gate.test\r\n\r\n", 400),
        ("OPTIONS * HTTP/1.1\r\nHost: gate.test\r\n\r\n", 405),
        ("TRACE /open/a HTTP/1.1\r\nHost: gate.test\r\n\r\n", 405),
        (
            "CONNECT gate.test:80 HTTP/1.1\r\nHost: gate.test:80\r\n\r\n",
            405,
        ),
        ("GET /open/a HTTP/1.1\r\nHost: ..\r\n\r\n", 400),
        (
            "GET https://gate.test/ HTTP/1.1\r\nHost: gate.test\r\n\r\n",
            421,
        ),
        (
            "POST /me/a HTTP/1.1\r\nHost: gate.test\r\nContent-Length: 4\r\n\r\nbody",
            401,
        ),
        (
            "POST /me/a HTTP/1.1\r\nHost: gate.test\r\nContent-Length: 44\r\n\r\nbody",
            401,
        ),
        (
            "POST /me/a HTTP/1.1\r\nHost: gate.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
            401,
        ),
        (
            "POST /me/a HTTP/1.1\r\nHost: gate.test\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
            401,
        ),
        (
            "POST /me/a HTTP/1.1\r\nHost: gate.test\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            401,
        ),
    ] {
        let before = upstream.arrived().len();
        let mut client = sidecar.connect();
        client.send(format!("{refused}{open}"));
        let response = client.read(refused.starts_with("HEAD")).unwrap();
        assert_eq!(response.status, status, "{refused:?}");
        let closes = response.header("connection").as_deref() == Some("close");
        if closes {
            assert_eq!(client.until_closed(), b"", "{refused:?}");
            assert_eq!(upstream.arrived().len(), before, "{refused:?}");
        } else {
            let next = client.response();
            assert_eq!(
                (next.status, next.text().as_str()),
                (200, "/open/next"),
                "{refused:?}"
            );
            assert_eq!(upstream.arrived().len(), before + 1, "{refused:?}");
        }
    }
}

#[test]
fn closes_a_connection_whose_next_head_stalls_half_way() {
    let config = format!("[listen]\nheader_timeout = \"1s\"\nidle_timeout = \"10m\"\n{ROUTES}");
    let (sidecar, upstream, _issuer) = start(&config);
    let whole = "GET /open/page HTTP/1.1\r\nHost: gate.test\r\n\r\n";
    let posted = "POST /open/page HTTP/1.1\r\nHost: gate.test\r\nContent-Length: 4\r\n\r\nbody";
    let refused = "GET /nowhere HTTP/1.1\r\nHost: gate.test\r\n\r\n";
    let half = "GET /open/page HTTP/1.1\r\nHost: ga";
    for first in [whole, posted, refused] {
        // In one write: the socket has delivered the half head with the request before it.
        let mut together = sidecar.connect();
        together.send(format!("{first}{half}"));
        assert!(together.response().status < 500);
        let mut after = sidecar.connect();
        after.send(first);
        assert!(after.response().status < 500);
        after.send(half);
        assert_eq!(together.until_closed(), b"", "{first:?}");
        assert_eq!(after.until_closed(), b"", "{first:?}");
    }
    assert_eq!(upstream.arrived().len(), 4);
}

#[test]
fn treats_an_expectation_as_the_rfc_says() {
    let (sidecar, upstream, _issuer) = start(EVERYTHING);
    let head = |version: &str, expect: &str| {
        format!("POST /a HTTP/{version}\r\nHost: gate.test\r\n{expect}Content-Length: 4\r\n\r\n")
    };
    // RFC 9110 section 10.1.1: names are case-insensitive.
    for expect in ["Expect: 100-continue\r\n", "expect: 100-Continue\r\n"] {
        let mut client = sidecar.connect();
        client.send(head("1.1", expect));
        let informational = client.wire.read_head().unwrap().unwrap();
        assert_eq!(informational.line(), "HTTP/1.1 100 Continue");
        client.send("body");
        assert_eq!(client.response().status, 200);
    }
    // HTTP/1.0 knows no 100, and another expectation is ignored; neither reaches the upstream.
    for (version, expect) in [
        ("1.0", "Expect: 100-continue\r\n"),
        ("1.1", "Expect: 200-maybe\r\n"),
        ("1.1", "Expect: 100-continue, 200-maybe\r\n"),
        ("1.1", "Expect:\r\n"),
    ] {
        let mut client = sidecar.connect();
        client.send(head(version, expect) + "body");
        let response = client.response();
        assert_eq!(response.status, 200, "{expect:?}");
    }
    for arrived in upstream.arrived() {
        assert_eq!(arrived.head.values("expect"), Vec::<String>::new());
        assert_eq!(arrived.body, b"body");
    }
}

#[test]
fn explains_a_head_that_cannot_be_read() {
    let config = format!("[listen]\nmax_header_bytes = \"8KiB\"\n{EVERYTHING}");
    let (sidecar, upstream, _issuer) = start(&config);
    let long = "x".repeat(20_000);
    let longer = "x".repeat(70_000);
    let malformed = "claimgate_request_heads_rejected_total{reason=\"request_malformed\"}";
    let too_large = "claimgate_request_heads_rejected_total{reason=\"headers_too_large\"}";
    let valid = "GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n";
    for (head, status, reason, series) in [
        (
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(),
            400,
            "request_malformed",
            malformed,
        ),
        (
            "GET /\u{1} HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            400,
            "request_malformed",
            malformed,
        ),
        (
            "GET / HTTP/3.0\r\nHost: a\r\n\r\n".to_owned(),
            400,
            "request_malformed",
            malformed,
        ),
        (
            "G(T / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            400,
            "request_malformed",
            malformed,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n".to_owned(),
            400,
            "request_malformed",
            malformed,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nA: {long}\r\n\r\n"),
            431,
            "headers_too_large",
            too_large,
        ),
        (
            format!("GET /{longer} HTTP/1.1\r\nHost: a\r\n\r\n"),
            431,
            "headers_too_large",
            too_large,
        ),
    ] {
        // Alone, as the second request of a connection, and pipelined.
        for before in ["", valid] {
            for together in [true, false] {
                let counted = sidecar.metric(series).unwrap_or_default();
                let mut client = sidecar.connect();
                if together {
                    client.send(format!("{before}{head}"));
                } else {
                    client.send(before);
                }
                if !before.is_empty() {
                    assert_eq!(client.response().status, 200);
                }
                if !together {
                    client.send(&head);
                }
                let line = head.lines().next().unwrap();
                let line = &line[..line.len().min(40)];
                let response = client.response();
                assert_eq!(response.status, status, "{line}");
                assert_eq!(response.header("connection").as_deref(), Some("close"));
                // hyper may write the responses of pipelined requests at once.
                if !together || before.is_empty() {
                    response.refused(status, reason);
                    assert!(response.header("date").is_some());
                    assert_eq!(
                        response.header("cache-control").as_deref(),
                        Some("no-store")
                    );
                }
                assert_eq!(client.until_closed(), b"", "{line}");
                drop(client);
                // A pipelined head may fit into the larger buffer; then the gate refuses it as a request.
                if status == 400 || !together || before.is_empty() {
                    // A pipelined head of before may be counted late.
                    eventually(line, || {
                        sidecar
                            .metric(series)
                            .is_some_and(|count| count >= counted + 1.0)
                    });
                }
            }
        }
    }
    assert_eq!(upstream.arrived().len(), 14);
}

#[test]
fn a_response_that_looks_like_one_of_hyper_stays() {
    // In its own write, and as the last write of a response.
    let text = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let upstream = Upstream::responding(move |exchange| {
        let length = text.len() + 100_000;
        exchange.write(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
        ));
        exchange.write("x".repeat(100_000));
        std::thread::yield_now();
        exchange.write(text);
        Next::KeepAlive
    });
    let (sidecar, _upstream, _issuer) = start_with(EVERYTHING, upstream);
    let mut client = sidecar.connect();
    for _ in 0..20 {
        let response = client.call(&get("/"));
        assert_eq!(response.status, 200);
        assert!(response.text().ends_with(text));
    }
}

#[test]
fn responds_to_grpc_web_in_its_media_type() {
    let (sidecar, upstream, _issuer) = start(ROUTES);
    for (sent, received) in [
        ("application/grpc-web", "application/grpc-web+proto"),
        ("application/grpc-web+proto", "application/grpc-web+proto"),
        (
            "application/grpc-web-text",
            "application/grpc-web-text+proto",
        ),
    ] {
        let call = request("POST", "/me/Notes").line(&format!("Content-Type: {sent}"));
        let response = sidecar.call(&call.line("Content-Length: 0"));
        assert_eq!(response.status, 200, "{sent}");
        assert_eq!(response.header("content-type").as_deref(), Some(received));
        assert_eq!(
            response.header("grpc-status").as_deref(),
            Some("16"),
            "{sent}"
        );
        assert!(response.header("grpc-message").is_some(), "{sent}");
        assert_eq!(response.body, b"", "{sent}");
    }
    upstream.assert_untouched();
}
