//! Streams: end on token expiry, shutdown, key removal and timeouts.

use serde_json::json;

use crate::harness::frames::{END_HEADERS, Frame, Frames, HEADERS, SETTINGS, head};
use crate::harness::issuer::{JwksResponse, claims};
use crate::harness::{
    Client, Exchange, Issuer, Key, Latch, NOW, Next, Sidecar, Upstream, eventually, get, start_with,
};

const ROUTES: &str = r#"
[[routes]]
path = "/me/{*rest}"
access = "authenticated"

[[routes]]
path = "/kept/{*rest}"
access = "authenticated"
at_expiry = "keep"

[[routes]]
path = "/watched/{*rest}"
access = "authenticated"
at_expiry = "keep"
at_change = "close"

[[routes]]
path = "/brief/{*rest}"
access = "public"
request_timeout = "2s"

[issuers.test]
leeway = "0s"
"#;

const SWITCHING: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Starts the response named by the last path segment, and ends it when the latch opens.
fn streaming(latch: &Latch) -> Upstream {
    let latch = latch.clone();
    Upstream::responding(move |exchange| stream(exchange, &latch))
}

fn stream(exchange: &mut Exchange, latch: &Latch) -> Next {
    let target = exchange.target();
    let kind = target.rsplit('/').next().unwrap();
    let chunked = "Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    match kind {
        "socket" => {
            exchange.write(SWITCHING);
            // Half of a frame with six bytes of payload.
            exchange.write([0x82, 6, b'f', b'r', b'a']);
        }
        "events" => exchange.write(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n{chunked}"
        )),
        "chunks" => exchange.write(format!("HTTP/1.1 200 OK\r\n{chunked}")),
        "length" => exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst"),
        "head" => {}
        other => panic!("no such stream: {other}"),
    }
    latch.wait();
    match kind {
        "socket" => exchange.write(b"mes"),
        "events" | "chunks" => exchange.write("4\r\nlast\r\n0\r\n\r\n"),
        "length" => exchange.write(" last"),
        _ => {}
    }
    exchange.wire.until_closed();
    Next::Close
}

/// Token that expires within seconds.
fn expiring_token(issuer: &Issuer) -> String {
    issuer.sign(&json!({ "sub": "alice", "iat": NOW - 60, "exp": NOW + 3 }))
}

/// Opens a stream and reads its head.
fn open(sidecar: &Sidecar, target: &str, token: &str) -> Client {
    let mut client = sidecar.connect();
    let request = if target.ends_with("socket") {
        get(target).websocket()
    } else {
        get(target)
    };
    client.send(request.bearer(token).bytes());
    let head = client.wire.read_head().unwrap().unwrap();
    assert!(
        head.line().contains(" 200 ") || head.line().contains(" 101 "),
        "{}",
        head.line()
    );
    client
}

fn assert_ended(sidecar: &Sidecar, route: &str, status: u16, reason: &str) {
    let series = format!(
        "claimgate_requests_total{{route=\"{route}\",method=\"GET\",status=\"{status}\",reason=\"{reason}\"}}"
    );
    eventually(&series, || sidecar.metric(&series) == Some(1.0));
}

#[test]
fn server_sent_events_end_cleanly_at_token_expiry() {
    let latch = Latch::default();
    let (sidecar, upstream, issuer) = start_with(ROUTES, streaming(&latch));
    let mut client = open(&sidecar, "/me/events", &expiring_token(&issuer));
    assert_eq!(
        client.until_closed_or(b"0\r\n\r\n"),
        b"5\r\nfirst\r\n0\r\n\r\n"
    );
    latch.open();
    upstream.wait_for_closed(1);
    assert_ended(&sidecar, "/me/{*rest}", 200, "token_expired");
}

#[test]
fn truncates_a_chunked_response_at_token_expiry() {
    let latch = Latch::default();
    let (sidecar, upstream, issuer) = start_with(ROUTES, streaming(&latch));
    let mut client = open(&sidecar, "/me/chunks", &expiring_token(&issuer));
    assert_eq!(
        client.until_closed(),
        b"5\r\nfirst\r\n",
        "it looks complete"
    );
    latch.open();
    upstream.wait_for_closed(1);
    assert_ended(&sidecar, "/me/{*rest}", 200, "token_expired");
}

#[test]
fn completes_a_response_of_known_length_and_streams_of_a_keep_route() {
    let latch = Latch::default();
    let (sidecar, _upstream, issuer) = start_with(ROUTES, streaming(&latch));
    let token = expiring_token(&issuer);
    let mut download = open(&sidecar, "/me/length", &token);
    let mut kept = open(&sidecar, "/kept/chunks", &token);
    let mut ends = open(&sidecar, "/me/chunks", &token);
    // The others were opened before this one.
    assert_eq!(ends.until_closed(), b"5\r\nfirst\r\n");
    latch.open();
    assert_eq!(download.wire.read_exact(10).unwrap(), b"first last");
    let all = b"5\r\nfirst\r\n4\r\nlast\r\n0\r\n\r\n";
    assert_eq!(kept.wire.read_exact(all.len()).unwrap(), all);
}

#[test]
fn closes_a_websocket_with_1008_at_token_expiry() {
    let (sidecar, upstream, issuer) = start_with(
        ROUTES,
        Upstream::responding(|exchange| {
            exchange.write(SWITCHING);
            exchange.write([0x81, 2, b'h', b'i']);
            // A masked close frame with status 1008.
            let received = exchange.wire.until_closed();
            assert_eq!(
                received[..2],
                [0x88, 0x80 | u8::try_from(received.len() - 6).unwrap()]
            );
            assert_eq!(received[6..8], 1008_u16.to_be_bytes());
            Next::Close
        }),
    );
    let mut client = open(&sidecar, "/me/socket", &expiring_token(&issuer));
    assert_eq!(client.wire.read_exact(4).unwrap(), [0x81, 2, b'h', b'i']);
    let received = client.until_closed();
    assert_eq!(
        received[..2],
        [0x88, u8::try_from(received.len() - 2).unwrap()]
    );
    assert_eq!(received[2..4], 1008_u16.to_be_bytes());
    assert_eq!(&received[4..], b"Token has expired. Please sign in again.");
    drop(client);
    upstream.wait_for_closed(1);
    assert_ended(&sidecar, "/me/{*rest}", 101, "token_expired");
}

#[test]
fn a_close_frame_waits_for_the_end_of_the_current_frame() {
    let latch = Latch::default();
    let (sidecar, _upstream, issuer) = start_with(ROUTES, streaming(&latch));
    let mut client = open(&sidecar, "/me/socket", &issuer.token("alice"));
    assert_eq!(
        client.wire.read_exact(5).unwrap(),
        [0x82, 6, b'f', b'r', b'a']
    );
    sidecar.stop();
    latch.open();
    assert_eq!(client.wire.read_exact(3).unwrap(), b"mes");
    assert_eq!(client.until_closed()[..4], [0x88, 39, 3, 233]);
}

#[test]
fn shutdown_ends_server_sent_events_cleanly_at_once() {
    let latch = Latch::default();
    let config = format!("[drain]\ngrace = \"10m\"\n{ROUTES}");
    let (sidecar, _upstream, issuer) = start_with(&config, streaming(&latch));
    let mut client = open(&sidecar, "/me/events", &issuer.token("alice"));
    assert_eq!(client.wire.read_exact(10).unwrap(), b"5\r\nfirst\r\n");
    sidecar.stop();
    assert_eq!(client.until_closed(), b"0\r\n\r\n");
    latch.open();
    drop(client);
    assert_eq!(sidecar.wait(), 0);
}

#[test]
fn at_change_close_ends_a_stream_whose_key_is_removed() {
    let (one, two) = (Key::ed25519("one"), Key::p256("two"));
    let latch = Latch::default();
    let upstream = streaming(&latch);
    let issuer = Issuer::publishing(JwksResponse::Keys(vec![one.clone()]));
    let config = ROUTES.split("[issuers.test]").next().unwrap();
    let sidecar = Sidecar::start_fetching(config, &upstream, &issuer);
    eventually("keys", || sidecar.admin(&get("/readyz")).status == 200);
    let token = one.sign(&claims("alice"));
    let mut watched = open(&sidecar, "/watched/events", &token);
    let mut kept = open(&sidecar, "/kept/events", &token);

    // A further key does not affect them.
    issuer.publish(JwksResponse::Keys(vec![one, two.clone()]));
    let request = get("/me/head").bearer(&two.sign(&claims("bob")));
    let mut bob = sidecar.connect();
    bob.send(request.bytes());
    upstream.wait_for(3);

    issuer.publish(JwksResponse::Keys(vec![two, Key::ed25519("three")]));
    let three = Key::ed25519("three").sign(&claims("carol"));
    let mut carol = sidecar.connect();
    carol.send(get("/me/head").bearer(&three).bytes());
    assert_eq!(
        watched.until_closed_or(b"0\r\n\r\n"),
        b"5\r\nfirst\r\n0\r\n\r\n"
    );
    assert_ended(&sidecar, "/watched/{*rest}", 200, "token_key_unknown");
    latch.open();
    let all = b"5\r\nfirst\r\n4\r\nlast\r\n0\r\n\r\n";
    assert_eq!(kept.wire.read_exact(all.len()).unwrap(), all);
}

#[test]
fn idle_timeout_truncates_a_stalled_response() {
    let latch = Latch::default();
    let config = format!("[upstreams.tasks]\nidle_timeout = \"100ms\"\n{ROUTES}");
    let (sidecar, upstream, issuer) = start_with(&config, streaming(&latch));
    let token = issuer.token("alice");
    let mut client = open(&sidecar, "/me/length", &token);
    assert_eq!(client.until_closed(), b"first");
    assert_ended(&sidecar, "/me/{*rest}", 200, "upstream_timeout");
    let mut client = open(&sidecar, "/kept/events", &token);
    assert_eq!(
        client.until_closed(),
        b"5\r\nfirst\r\n",
        "half an event may be missing"
    );
    assert_ended(&sidecar, "/kept/{*rest}", 200, "upstream_timeout");
    latch.open();
    upstream.wait_for_closed(2);
}

#[test]
fn request_timeout_ends_the_exchange() {
    let latch = Latch::default();
    let (sidecar, upstream, _issuer) = start_with(ROUTES, streaming(&latch));
    sidecar
        .call(&get("/brief/head"))
        .refused(504, "upstream_timeout");
    let mut client = sidecar.connect();
    client.send(get("/brief/length").bytes());
    let received = client.until_closed();
    assert!(received.ends_with(b"\r\n\r\nfirst"), "{received:?}");
    latch.open();
    upstream.wait_for_closed(2);
}

#[test]
fn forwards_a_websocket_over_http2_as_http1() {
    let upstream = Upstream::responding(|exchange| {
        let key = exchange.head.value("sec-websocket-key").unwrap();
        let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
        exchange.write(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        ));
        let bytes = exchange.wire.read().unwrap();
        exchange.write(bytes.to_ascii_uppercase());
        exchange.wire.until_closed();
        Next::Close
    });
    let (sidecar, upstream, issuer) = start_with(ROUTES, upstream);
    let mut client = Frames::connect(sidecar.address);
    // RFC 8441 section 3: SETTINGS_ENABLE_CONNECT_PROTOCOL.
    let settings = client.next(SETTINGS).payload;
    assert!(
        settings
            .chunks(6)
            .any(|setting| setting == [0, 8, 0, 0, 0, 1])
    );
    let short = issuer.sign(&json!({ "sub": "a", "exp": NOW + 600 }));
    let bearer = |token: &str| format!("Bearer {token}");
    let connect = |stream: u32, headers: &[(&str, &str)]| {
        let always = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":path", "/me/socket"),
            ("sec-websocket-version", "13"),
        ];
        let head = head(&[&always[..], headers].concat());
        Frame::new(HEADERS, END_HEADERS, stream, &head)
    };
    client.send(&connect(1, &[]));
    client.until(|frame| frame.kind == HEADERS && frame.stream == 1);
    upstream.assert_untouched();
    client.send(&connect(3, &[("authorization", &bearer(&short))]));
    assert_eq!(client.status(3), 200);
    client.send(&Frame::new(0, 0, 3, b"hello"));
    let data = client.until(|frame| frame.kind == 0 && frame.stream == 3);
    assert_eq!(data.payload, b"HELLO");
    let head = upstream.only().head;
    assert!(
        head.line().starts_with("GET /me/socket HTTP/1.1"),
        "{}",
        head.line()
    );
    assert_eq!(head.values("x-user-id"), ["a"]);
    assert_eq!(head.values("upgrade"), ["websocket"]);
}
