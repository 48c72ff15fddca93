//! What has no end in sight: how long it goes on, and how the gate ends it.

use serde_json::json;

use crate::harness::frames::{END_HEADERS, Frame, Frames, HEADERS, SETTINGS, head};
use crate::harness::issuer::{Window, claims};
use crate::harness::{
    Client, Dialogue, Issuer, Key, Latch, NOW, Next, Request, Sidecar, Upstream, eventually, get,
    start_with,
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

/// Begins the answer that the last segment of the path names, and ends it when the latch is open.
fn streaming(latch: &Latch) -> Upstream {
    let latch = latch.clone();
    Upstream::answering(move |dialogue| stream(dialogue, &latch))
}

fn stream(dialogue: &mut Dialogue, latch: &Latch) -> Next {
    let target = dialogue.target();
    let kind = target.rsplit('/').next().unwrap();
    let chunked = "Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    match kind {
        "socket" => {
            dialogue.write(SWITCHING);
            // Half of a frame of six bytes.
            dialogue.write([0x82, 6, b'f', b'r', b'a']);
        }
        "events" => dialogue.write(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n{chunked}"
        )),
        "chunks" => dialogue.write(format!("HTTP/1.1 200 OK\r\n{chunked}")),
        "length" => dialogue.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst"),
        "head" => {}
        other => panic!("no such stream: {other}"),
    }
    latch.wait();
    match kind {
        "socket" => dialogue.write(b"mes"),
        "events" | "chunks" => dialogue.write("4\r\nlast\r\n0\r\n\r\n"),
        "length" => dialogue.write(" last"),
        _ => {}
    }
    dialogue.wire.until_closed();
    Next::Close
}

/// A token that is good for a few seconds more.
fn last_seconds(issuer: &Issuer) -> String {
    issuer.sign(&json!({ "sub": "alice", "iat": NOW - 60, "exp": NOW + 3 }))
}

fn websocket(target: &str) -> Request {
    get(target)
        .line("Connection: upgrade")
        .line("Upgrade: websocket")
}

/// Opens a stream and reads its head.
fn open(sidecar: &Sidecar, target: &str, token: &str) -> Client {
    let mut client = sidecar.connect();
    let asked = if target.ends_with("socket") {
        websocket(target)
    } else {
        get(target)
    };
    client.send(asked.bearer(token).bytes());
    let head = client.wire.read_head().unwrap().unwrap();
    assert!(
        head.line().contains(" 200 ") || head.line().contains(" 101 "),
        "{}",
        head.line()
    );
    client
}

fn ended(sidecar: &Sidecar, route: &str, status: u16, reason: &str) {
    let series = format!(
        "claimgate_requests_total{{route=\"{route}\",method=\"GET\",status=\"{status}\",reason=\"{reason}\"}}"
    );
    eventually(&series, || sidecar.metric(&series) == Some(1.0));
}

#[test]
fn server_sent_events_end_well_when_their_token_expires() {
    let latch = Latch::default();
    let (sidecar, upstream, issuer) = start_with(ROUTES, streaming(&latch));
    let mut client = open(&sidecar, "/me/events", &last_seconds(&issuer));
    assert_eq!(
        client.until_closed_or(b"0\r\n\r\n"),
        b"5\r\nfirst\r\n0\r\n\r\n"
    );
    latch.open();
    upstream.wait_for_closed(1);
    ended(&sidecar, "/me/{*rest}", 200, "token_expired");
}

#[test]
fn an_answer_of_unknown_length_breaks_off_when_its_token_expires() {
    let latch = Latch::default();
    let (sidecar, upstream, issuer) = start_with(ROUTES, streaming(&latch));
    let mut client = open(&sidecar, "/me/chunks", &last_seconds(&issuer));
    assert_eq!(client.until_closed(), b"5\r\nfirst\r\n", "it looks whole");
    latch.open();
    upstream.wait_for_closed(1);
    ended(&sidecar, "/me/{*rest}", 200, "token_expired");
}

#[test]
fn an_answer_of_known_length_is_let_finish_and_a_route_may_keep_its_streams() {
    let latch = Latch::default();
    let (sidecar, _upstream, issuer) = start_with(ROUTES, streaming(&latch));
    let token = last_seconds(&issuer);
    let mut download = open(&sidecar, "/me/length", &token);
    let mut kept = open(&sidecar, "/kept/chunks", &token);
    let mut ends = open(&sidecar, "/me/chunks", &token);
    // They began before this one.
    assert_eq!(ends.until_closed(), b"5\r\nfirst\r\n");
    latch.open();
    assert_eq!(download.wire.read_exact(10).unwrap(), b"first last");
    let all = b"5\r\nfirst\r\n4\r\nlast\r\n0\r\n\r\n";
    assert_eq!(kept.wire.read_exact(all.len()).unwrap(), all);
}

#[test]
fn a_websocket_is_closed_when_its_token_expires() {
    let (sidecar, upstream, issuer) = start_with(
        ROUTES,
        Upstream::answering(|dialogue| {
            dialogue.write(SWITCHING);
            dialogue.write([0x81, 2, b'h', b'i']);
            // Masked, as everything that goes to a server: closed, 1008.
            let told = dialogue.wire.until_closed();
            assert_eq!(
                told[..2],
                [0x88, 0x80 | u8::try_from(told.len() - 6).unwrap()]
            );
            assert_eq!(told[6..8], 1008_u16.to_be_bytes());
            Next::Close
        }),
    );
    let mut client = open(&sidecar, "/me/socket", &last_seconds(&issuer));
    assert_eq!(client.wire.read_exact(4).unwrap(), [0x81, 2, b'h', b'i']);
    let told = client.until_closed();
    assert_eq!(told[..2], [0x88, u8::try_from(told.len() - 2).unwrap()]);
    assert_eq!(told[2..4], 1008_u16.to_be_bytes());
    assert_eq!(&told[4..], b"Token has expired. Please sign in again.");
    drop(client);
    upstream.wait_for_closed(1);
    ended(&sidecar, "/me/{*rest}", 101, "token_expired");
}

#[test]
fn a_close_frame_never_falls_into_another_frame() {
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
fn events_end_well_and_at_once_when_the_gate_stops() {
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
fn a_watched_stream_ends_with_the_keys_that_allowed_it() {
    let (one, two) = (Key::ed25519("one"), Key::p256("two"));
    let latch = Latch::default();
    let upstream = streaming(&latch);
    let issuer = Issuer::publishing(Window::Keys(vec![one.clone()]));
    let config = ROUTES.split("[issuers.test]").next().unwrap();
    let sidecar = Sidecar::start_fetching(config, &upstream, &issuer);
    eventually("keys", || sidecar.admin(&get("/readyz")).status == 200);
    let token = one.sign(&claims("alice"));
    let mut watched = open(&sidecar, "/watched/events", &token);
    let mut kept = open(&sidecar, "/kept/events", &token);

    // Another key beside it changes nothing for them.
    issuer.publish(Window::Keys(vec![one, two.clone()]));
    let asked = get("/me/head").bearer(&two.sign(&claims("bob")));
    let mut bob = sidecar.connect();
    bob.send(asked.bytes());
    upstream.wait_for(3);

    issuer.publish(Window::Keys(vec![two, Key::ed25519("three")]));
    let three = Key::ed25519("three").sign(&claims("carol"));
    let mut carol = sidecar.connect();
    carol.send(get("/me/head").bearer(&three).bytes());
    assert_eq!(
        watched.until_closed_or(b"0\r\n\r\n"),
        b"5\r\nfirst\r\n0\r\n\r\n"
    );
    ended(&sidecar, "/watched/{*rest}", 200, "token_key_unknown");
    latch.open();
    let all = b"5\r\nfirst\r\n4\r\nlast\r\n0\r\n\r\n";
    assert_eq!(kept.wire.read_exact(all.len()).unwrap(), all);
}

#[test]
fn an_answer_that_stands_still_for_too_long_breaks_off() {
    let latch = Latch::default();
    let config = format!("[upstreams.tasks]\nidle_timeout = \"100ms\"\n{ROUTES}");
    let (sidecar, upstream, issuer) = start_with(&config, streaming(&latch));
    let token = issuer.token("alice");
    let mut client = open(&sidecar, "/me/length", &token);
    assert_eq!(client.until_closed(), b"first");
    ended(&sidecar, "/me/{*rest}", 200, "upstream_timeout");
    let mut client = open(&sidecar, "/kept/events", &token);
    assert_eq!(
        client.until_closed(),
        b"5\r\nfirst\r\n",
        "half an event may be missing"
    );
    ended(&sidecar, "/kept/{*rest}", 200, "upstream_timeout");
    latch.open();
    upstream.wait_for_closed(2);
}

#[test]
fn an_exchange_ends_with_its_time() {
    let latch = Latch::default();
    let (sidecar, upstream, _issuer) = start_with(ROUTES, streaming(&latch));
    sidecar
        .call(&get("/brief/head"))
        .refused(504, "upstream_timeout");
    let mut client = sidecar.connect();
    client.send(get("/brief/length").bytes());
    let told = client.until_closed();
    assert!(told.ends_with(b"\r\n\r\nfirst"), "{told:?}");
    latch.open();
    upstream.wait_for_closed(2);
}

#[test]
fn a_websocket_over_http2_is_one_over_http1_behind_the_gate() {
    let upstream = Upstream::answering(|dialogue| {
        let key = dialogue.head.value("sec-websocket-key").unwrap();
        let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
        dialogue.write(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        ));
        let bytes = dialogue.wire.read().unwrap();
        dialogue.write(bytes.to_ascii_uppercase());
        dialogue.wire.until_closed();
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
    upstream.untouched();
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
