use super::*;

const GET: RequestKind = RequestKind {
    is_head: false,
    is_upgrade: false,
};
const HEAD: RequestKind = RequestKind {
    is_head: true,
    is_upgrade: false,
};
const UPGRADE: RequestKind = RequestKind {
    is_head: false,
    is_upgrade: true,
};

fn parse(text: impl AsRef<[u8]>, request: RequestKind) -> Result<ResponseHead, ResponseFault> {
    let mut buffer = BytesMut::from(text.as_ref());
    let head = HeadParser::default().parse(&mut buffer, request)?;
    Ok(head.expect("the head is complete"))
}

/// Parses a head with these lines, each ended with CRLF.
fn parse_lines(lines: &[&str], request: RequestKind) -> Result<ResponseHead, ResponseFault> {
    parse(lines.join("\r\n") + "\r\n\r\n", request)
}

fn fault(text: impl AsRef<[u8]>) -> ResponseFault {
    parse(text, GET).expect_err("the head is invalid")
}

/// Fault of a 200 response with these lines.
fn fault_of_fields(lines: &[&str]) -> Result<BodyLength, ResponseFault> {
    length(&[&["HTTP/1.1 200 OK"], lines].concat(), GET)
}

fn length(lines: &[&str], request: RequestKind) -> Result<BodyLength, ResponseFault> {
    parse_lines(lines, request).map(|head| head.length)
}

fn keep_alive(lines: &[&str]) -> KeepAlive {
    parse_lines(lines, GET).unwrap().keep_alive
}

#[test]
fn parses_the_head_of_a_server_and_leaves_the_body() {
    let text = "HTTP/1.1 200 OK\r\ndate: Fri, 27 Nov 2026 15:00:00 GMT\r\nserver: uvicorn\r\n\
        Content-Length: 4\r\ncontent-type:application/json\r\nset-cookie: a=1\r\nSet-Cookie:\t b=2 \t\r\n\
        x-empty:\r\n\r\n{{}}HTTP/1.1";
    let mut buffer = BytesMut::from(text);
    let head = HeadParser::default().parse(&mut buffer, GET).unwrap();
    let head = head.unwrap();
    assert_eq!(head.status, StatusCode::OK);
    assert_eq!(head.length, BodyLength::Exact(4));
    let kept = KeepAlive {
        is_kept: true,
        timeout: None,
    };
    assert_eq!(head.keep_alive, kept);
    let value = |name: &str| head.headers.get(name).unwrap().as_bytes();
    assert_eq!(head.headers.len(), 7);
    assert_eq!(value("date"), b"Fri, 27 Nov 2026 15:00:00 GMT");
    assert_eq!(value("content-type"), b"application/json");
    assert_eq!(value("x-empty"), b"");
    let cookies: Vec<_> = head.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert_eq!(buffer, "{{}}HTTP/1.1");
}

#[test]
fn accepts_the_status_lines_of_real_servers() {
    for (line, status) in [
        ("HTTP/1.1 200 OK", 200),
        ("HTTP/1.0 200 OK", 200),
        ("HTTP/1.1 404", 404),
        ("HTTP/1.1 404 ", 404),
        ("HTTP/1.1 299 Anything\tat all", 299),
        ("HTTP/1.1 999 Request denied", 999),
        ("HTTP/1.1 200 Zo\u{eb}", 200),
    ] {
        let head = parse_lines(&[line], GET).unwrap();
        assert_eq!(head.status.as_u16(), status, "{line}");
        assert!(head.headers.is_empty());
    }
    // Text of ISO 8859-1.
    let head = parse(b"HTTP/1.1 200 Zo\xeb\r\nx: Zo\xeb\r\n\r\n", GET).unwrap();
    assert_eq!(head.headers.get("x").unwrap().as_bytes(), b"Zo\xeb");
}

#[test]
fn rejects_an_invalid_status_line() {
    let version = |start: &str| ResponseFault::Version {
        start: start.to_owned(),
    };
    let line = |start: &str| ResponseFault::StatusLine {
        start: start.to_owned(),
    };
    for (text, expected) in [
        (
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            ResponseFault::LeadingEmptyLine,
        ),
        ("\nHTTP/1.1 200 OK\r\n\r\n", ResponseFault::LeadingEmptyLine),
        ("\r", ResponseFault::LeadingEmptyLine),
        ("HTTP/1.2 200 OK\r\n\r\n", version("HTTP/1.2 200 OK")),
        ("HTTP/2 200\r\n\r\n", version("HTTP/2 200")),
        ("HTTP/0.9 200 OK\r\n\r\n", version("HTTP/0.9 200 OK")),
        ("http/1.1 200 OK\r\n\r\n", version("http/1.1 200 OK")),
        ("ICY 200 OK\r\n\r\n", version("ICY 200 OK")),
        (" HTTP/1.1 200 OK\r\n\r\n", version(" HTTP/1.1 200 OK")),
        ("HTTP/1.1  200 OK\r\n\r\n", line("HTTP/1.1  200 OK")),
        ("HTTP/1.1 20 OK\r\n\r\n", line("HTTP/1.1 20 OK")),
        ("HTTP/1.1 2000\r\n\r\n", line("HTTP/1.1 2000")),
        ("HTTP/1.1 +20 OK\r\n\r\n", line("HTTP/1.1 +20 OK")),
        ("HTTP/1.1 200\tOK\r\n\r\n", line(r"HTTP/1.1 200\tOK")),
        ("HTTP/1.1 200 O\0\r\n\r\n", line(r"HTTP/1.1 200 O\x00")),
        ("HTTP/1.1 200 O\rK\r\n\r\n", line(r"HTTP/1.1 200 O\rK")),
        (
            "HTTP/1.1 099 OK\r\n\r\n",
            ResponseFault::StatusCode { code: 99 },
        ),
        (
            "HTTP/1.1 000 OK\r\n\r\n",
            ResponseFault::StatusCode { code: 0 },
        ),
    ] {
        assert_eq!(fault(text), expected, "{text:?}");
    }
}

#[test]
fn quotes_only_the_start_of_an_invalid_status_line() {
    let fault = fault("{\"token\": \"eyJhbGciOiJIUzI1NiJ9\"}\r\n\r\n");
    assert_eq!(
        fault.to_string(),
        r#"status line is not HTTP/1.1 or HTTP/1.0: `{\"token\": \"eyJhb`"#
    );
}

#[test]
fn rejects_a_bare_line_feed_at_the_end_of_any_line() {
    let lines = ["HTTP/1.1 200 OK", "a: 1", "b:", "c: 3", ""];
    for bare in 0..lines.len() {
        let end = |at| if at == bare { "\n" } else { "\r\n" };
        let ended = lines.iter().enumerate().map(|(at, line)| [line, end(at)]);
        let text = ended.collect::<Vec<_>>().concat().concat();
        assert_eq!(fault(&text), ResponseFault::BareLineFeed, "{text:?}");
    }
    assert_eq!(fault("HTTP/1.1 200\n\r\n"), ResponseFault::BareLineFeed);
    assert_eq!(fault("HTTP/1.1 200\n\n"), ResponseFault::BareLineFeed);
}

#[test]
fn rejects_an_invalid_field_line() {
    for line in [
        "a : 1",
        "a\t: 1",
        " a: 1",
        "\ta: 1",
        "a",
        ": 1",
        "a b: 1",
        "a\0: 1",
        "\u{e4}: 1",
        "a(: 1",
        "a\r: 1",
        "\"a\": 1",
        // Folded.
        "a: 1\r\n b",
        "a: 1\r\n\tb",
        "a:\r\n b",
    ] {
        assert_eq!(
            fault_of_fields(&[line]),
            Err(ResponseFault::FieldName),
            "{line:?}"
        );
    }
    for line in [
        "a: \0",
        "a: 1\x7f",
        "a: 1\x1b[2J",
        "a: 1\r2",
        "a: \r",
        "a:\rb",
    ] {
        assert_eq!(
            fault_of_fields(&[line]),
            Err(ResponseFault::FieldValue),
            "{line:?}"
        );
    }
    assert_eq!(
        fault("HTTP/1.1 200\r\na: 1\r\n\rb"),
        ResponseFault::BareCarriageReturn
    );
}

#[test]
fn limits_the_size_of_a_head() {
    let head = |size: usize| {
        let start = "HTTP/1.1 200 OK\r\na: ";
        format!("{start}{}\r\n\r\n", "b".repeat(size - start.len() - 4))
    };
    assert!(parse(head(MAX_RESPONSE_HEAD_BYTES), GET).is_ok());
    assert_eq!(
        fault(head(MAX_RESPONSE_HEAD_BYTES + 1)),
        ResponseFault::TooLong
    );
    // Without an end.
    let (mut parser, text) = (HeadParser::default(), head(MAX_RESPONSE_HEAD_BYTES + 4));
    let mut buffer = BytesMut::from(&text[..MAX_RESPONSE_HEAD_BYTES - 1]);
    assert!(parser.parse(&mut buffer, GET).unwrap().is_none());
    buffer.extend_from_slice(b"b");
    let fault = parser.parse(&mut buffer, GET).unwrap_err();
    assert_eq!(fault, ResponseFault::TooLong);
}

#[test]
fn limits_the_number_of_fields() {
    let head = |fields| format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: 1\r\n".repeat(fields));
    let most = parse(head(MAX_RESPONSE_FIELDS), GET).unwrap();
    assert_eq!(most.headers.len(), MAX_RESPONSE_FIELDS);
    assert_eq!(
        fault(head(MAX_RESPONSE_FIELDS + 1)),
        ResponseFault::TooManyFields
    );
}

#[test]
fn waits_for_the_end_of_a_head() {
    let text = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\na: \r\n\r\n";
    for step in 1..text.len() {
        let (mut parser, mut buffer) = (HeadParser::default(), BytesMut::new());
        let mut heads = 0;
        for piece in text.as_bytes().chunks(step) {
            assert_eq!(heads, 0);
            buffer.extend_from_slice(piece);
            heads += usize::from(parser.parse(&mut buffer, GET).unwrap().is_some());
        }
        assert_eq!((heads, buffer.len()), (1, 0), "{step} bytes at a time");
    }
}

#[test]
fn rejects_a_bare_line_feed_that_arrives_alone() {
    for text in [
        "HTTP/1.1 200 OK\r\na: 1\n\n",
        "HTTP/1.1 200 OK\r\na: 1\r\n\n",
    ] {
        let (mut parser, mut buffer) = (HeadParser::default(), BytesMut::new());
        let parsed = text.bytes().find_map(|byte| {
            buffer.extend_from_slice(&[byte]);
            parser.parse(&mut buffer, GET).transpose()
        });
        assert_eq!(parsed.unwrap().unwrap_err(), ResponseFault::BareLineFeed);
    }
}

#[test]
fn parses_a_slow_head_at_its_start_and_its_end_only() {
    let (mut parser, mut buffer) = (HeadParser::default(), BytesMut::from("HTTP/1.1 200 OK\r\n"));
    assert!(parser.parse(&mut buffer, GET).unwrap().is_none());
    // A fault shows when the head is parsed.
    buffer.extend_from_slice(b"invalid\r\na: b\r\n");
    assert!(parser.parse(&mut buffer, GET).unwrap().is_none());
    buffer.extend_from_slice(b"\r\n");
    let fault = parser.parse(&mut buffer, GET).unwrap_err();
    assert_eq!(fault, ResponseFault::FieldName);
}

#[test]
fn parses_the_head_after_a_slow_one() {
    let (mut parser, mut buffer) = (
        HeadParser::default(),
        BytesMut::from("HTTP/1.1 103\r\na: 1\r\n"),
    );
    assert!(parser.parse(&mut buffer, GET).unwrap().is_none());
    buffer.extend_from_slice(b"\r\nHTTP/1.1 204\r\n\r\n");
    for status in [103, 204] {
        let head = parser.parse(&mut buffer, GET).unwrap().unwrap();
        assert_eq!(head.status.as_u16(), status);
    }
}

#[test]
fn searches_every_byte_of_a_slow_head_once() {
    let mut search = EndSearch::default();
    let mut buffer = BytesMut::from("HTTP/1.1 200 OK\r\n");
    assert!(!search.is_without_end(&buffer), "the first attempt parses");
    for byte in "a: 1\r\nb: 2\r\n\r".bytes() {
        search.postpone::<()>(&buffer).unwrap();
        buffer.extend_from_slice(&[byte]);
        let is_last = buffer.ends_with(b"\n\r");
        assert_eq!(search.is_without_end(&buffer), !is_last, "{buffer:?}");
    }
}

#[test]
fn parses_informational_heads_one_by_one() {
    let mut parser = HeadParser::default();
    let mut buffer = BytesMut::from(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    );
    for status in [100, 103, 204] {
        let head = parser.parse(&mut buffer, GET).unwrap().unwrap();
        assert_eq!(
            (head.status.as_u16(), head.length),
            (status, BodyLength::Empty)
        );
    }
    assert!(buffer.is_empty());
    assert!(parser.parse(&mut buffer, GET).unwrap().is_none());
}

#[test]
fn finds_the_length_of_the_body() {
    let chunked = Ok(BodyLength::Chunked);
    let cases: [(&[&str], Result<BodyLength, ResponseFault>); 24] = [
        (&[], Ok(BodyLength::UntilClose)),
        (&["content-length: 0"], Ok(BodyLength::Exact(0))),
        (&["CONTENT-LENGTH:5"], Ok(BodyLength::Exact(5))),
        (&["content-length: \t005 \t"], Ok(BodyLength::Exact(5))),
        (
            &["content-length: 999999999999999999"],
            Ok(BodyLength::Exact(999_999_999_999_999_999)),
        ),
        (
            &["content-length: 1000000000000000000"],
            Err(ResponseFault::ContentLength),
        ),
        (
            &["content-length: 18446744073709551616"],
            Err(ResponseFault::ContentLength),
        ),
        (
            &["content-length: 0000000000000000005"],
            Err(ResponseFault::ContentLength),
        ),
        (&["content-length:"], Err(ResponseFault::ContentLength)),
        (&["content-length: +5"], Err(ResponseFault::ContentLength)),
        (&["content-length: -5"], Err(ResponseFault::ContentLength)),
        (&["content-length: 5, 5"], Err(ResponseFault::ContentLength)),
        (&["content-length: 5,"], Err(ResponseFault::ContentLength)),
        (&["content-length: 5 5"], Err(ResponseFault::ContentLength)),
        (&["content-length: 0x5"], Err(ResponseFault::ContentLength)),
        (
            &["content-length: 5", "Content-Length: 5"],
            Err(ResponseFault::RepeatedContentLength),
        ),
        (
            &["content-length: x", "content-length: 5"],
            Err(ResponseFault::RepeatedContentLength),
        ),
        (&["transfer-encoding: chunked"], chunked.clone()),
        (&["Transfer-Encoding: CHUNKED"], chunked),
        (
            &["transfer-encoding: gzip, chunked"],
            Err(ResponseFault::TransferEncoding),
        ),
        (
            &["transfer-encoding: identity"],
            Err(ResponseFault::TransferEncoding),
        ),
        (
            &["transfer-encoding:"],
            Err(ResponseFault::TransferEncoding),
        ),
        (
            &["transfer-encoding: chunked", "transfer-encoding: chunked"],
            Err(ResponseFault::TransferEncoding),
        ),
        (
            &["content-length: 5", "transfer-encoding: chunked"],
            Err(ResponseFault::TwoLengths),
        ),
    ];
    for (lines, expected) in cases {
        assert_eq!(fault_of_fields(lines), expected, "{lines:?}");
    }
}

#[test]
fn rejects_a_transfer_coding_in_http_1_0() {
    for coding in ["transfer-encoding: chunked", "transfer-encoding: gzip"] {
        let fault = length(&["HTTP/1.0 200 OK", coding], GET).unwrap_err();
        assert_eq!(fault, ResponseFault::TransferEncodingInHttp10);
    }
}

#[test]
fn a_response_without_content_has_an_empty_body_whatever_its_fields_state() {
    let fields = [
        "content-length: 5",
        "content-length: x",
        "transfer-encoding: gzip",
    ];
    for (status, request) in [
        ("HTTP/1.1 200 OK", HEAD),
        ("HTTP/1.1 404 Not Found", HEAD),
        ("HTTP/1.1 204 No Content", GET),
        ("HTTP/1.1 304 Not Modified", GET),
        ("HTTP/1.1 100 Continue", GET),
        ("HTTP/1.1 103 Early Hints", GET),
        ("HTTP/1.1 199 Unknown", GET),
        ("HTTP/1.1 101 Switching Protocols", UPGRADE),
    ] {
        let head = parse_lines(&[status, fields[0], fields[1], fields[2]], request).unwrap();
        assert_eq!(head.length, BodyLength::Empty, "{status}");
        assert_eq!(head.headers.len(), fields.len(), "{status}");
    }
}

#[test]
fn rejects_a_101_that_the_request_did_not_ask_for() {
    let lines = ["HTTP/1.1 101 Switching Protocols", "upgrade: websocket"];
    let fault = parse_lines(&lines, GET).unwrap_err();
    assert_eq!(fault, ResponseFault::UnrequestedUpgrade);
    let head = parse_lines(&lines, UPGRADE).unwrap();
    assert!(!head.keep_alive.is_kept);
}

#[test]
fn keeps_a_connection_unless_the_response_closes_it() {
    let end = "content-length: 0";
    let (new, old) = ("HTTP/1.1 200 OK", "HTTP/1.0 200 OK");
    let cases: [(&[&str], bool); 14] = [
        (&[new, end], true),
        (&[new, end, "connection: keep-alive"], true),
        (&[new, end, "connection: close"], false),
        (&[new, end, "Connection: CLOSE"], false),
        (&[new, end, "connection: keep-alive, x,\tClose ,"], false),
        (
            &[new, end, "connection: keep-alive", "connection: close"],
            false,
        ),
        (
            &[new, end, "connection: close", "connection: keep-alive"],
            false,
        ),
        (&[new, end, "connection: closed, not-close"], true),
        (&[new, end, "keep-alive: max=0"], false),
        (&[new], false),
        (&[old, end], false),
        (&[old, end, "connection: Keep-Alive"], true),
        (&[old, end, "connection: keep-alive, close"], false),
        (&[old, "connection: keep-alive"], false),
    ];
    for (lines, expected) in cases {
        assert_eq!(keep_alive(lines).is_kept, expected, "{lines:?}");
    }
}

#[test]
fn reads_the_idle_timeout_of_the_upstream() {
    for (value, expected) in [
        ("timeout=5", Some(5)),
        ("timeout=5, max=99", Some(5)),
        ("max=99,Timeout = 7", Some(7)),
        ("timeout=0", Some(0)),
        ("timeout=9, timeout=3", Some(3)),
        ("timeout=3, timeout=9", Some(3)),
        ("timeout=, max=99", None),
        ("timeout=-1", None),
        ("timeout=5s", None),
        ("timeout=99999999999999999999", None),
        ("timeout", None),
        ("5", None),
        ("", None),
        ("x-timeout=5;timeout=5", None),
    ] {
        let field = format!("keep-alive: {value}");
        let found = keep_alive(&["HTTP/1.1 200 OK", "content-length: 0", &field]);
        assert!(found.is_kept, "{value}");
        assert_eq!(found.timeout, expected.map(Duration::from_secs), "{value}");
    }
}

#[test]
fn leaves_the_fields_out_of_debug_output() {
    let head = parse_lines(&["HTTP/1.1 200 OK", "set-cookie: secret"], GET).unwrap();
    assert!(!format!("{head:?}").contains("secret"));
}
