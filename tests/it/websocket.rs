//! WebSocket tunnels: opened after the upstream's 101 response only, and for no other protocol.

mod messages;

use crate::harness::{Dialogue, Latch, Next, ROUTES, Request, Upstream, get, start, start_with};

const SOCKET: &str = "/api/alice/tasks/socket";
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

fn handshake(target: &str) -> Request {
    get(target)
        .line("Connection: keep-alive, Upgrade")
        .line("Upgrade: WebSocket")
        .line("Sec-WebSocket-Version: 13")
        .line("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
}

/// Responds with 101, then echoes in capitals until `bye`.
fn shouting(dialogue: &mut Dialogue) -> Next {
    dialogue.write(SWITCHING);
    loop {
        let Ok(bytes) = dialogue.wire.read() else {
            return Next::Close;
        };
        if bytes.is_empty() || bytes == b"bye" {
            return Next::Close;
        }
        dialogue.write(bytes.to_ascii_uppercase());
    }
}

#[test]
fn forwards_data_in_both_directions_after_the_101() {
    let (sidecar, upstream, issuer) = start_with(ROUTES, Upstream::answering(shouting));
    let mut client = sidecar.connect();
    let answer = client.call(&handshake(SOCKET).bearer(&issuer.token("alice")));
    assert_eq!(answer.status, 101);
    assert_eq!(
        answer.header("upgrade").unwrap().to_ascii_lowercase(),
        "websocket"
    );
    assert_eq!(
        answer.header("connection").unwrap().to_ascii_lowercase(),
        "upgrade"
    );
    assert_eq!(
        answer.header("sec-websocket-accept").as_deref(),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    for word in ["hello", "again"] {
        client.send(word);
        assert_eq!(
            client.wire.read_exact(5).unwrap(),
            word.to_ascii_uppercase().as_bytes()
        );
    }
    let large = vec![b'x'; 1_000_000];
    let mut sending = client.wire.try_clone();
    let sender = std::thread::spawn(move || sending.write(&large).unwrap());
    assert_eq!(
        client.wire.read_exact(1_000_000).unwrap(),
        vec![b'X'; 1_000_000]
    );
    sender.join().unwrap();
    // The upstream closes the tunnel, and the gate closes the client connection.
    client.send("bye");
    assert_eq!(client.until_closed(), b"");

    let head = upstream.only().head;
    assert_eq!(head.values("x-user-id"), ["alice"]);
    assert_eq!(
        head.value("upgrade").unwrap().to_ascii_lowercase(),
        "websocket"
    );
    assert_eq!(
        head.value("connection").unwrap().to_ascii_lowercase(),
        "upgrade"
    );
    assert_eq!(
        head.values("sec-websocket-key"),
        ["dGhlIHNhbXBsZSBub25jZQ=="]
    );
    assert_eq!(head.values("authorization"), Vec::<String>::new());
}

#[test]
fn a_disconnected_client_closes_the_tunnel() {
    let (sidecar, upstream, issuer) = start_with(ROUTES, Upstream::answering(shouting));
    let mut client = sidecar.connect();
    let answer = client.call(&handshake(SOCKET).bearer(&issuer.token("alice")));
    assert_eq!(answer.status, 101);
    drop(client);
    upstream.wait_for_closed(1);
}

#[test]
fn forwards_no_data_before_the_101() {
    let asked = Latch::default();
    let switch = asked.clone();
    let upstream = Upstream::answering(move |dialogue| {
        if dialogue.target() == "/open/other" {
            return dialogue.echo();
        }
        // The gate has held the smuggled bytes for as long as another request takes.
        switch.wait();
        let early = dialogue.wire.early();
        assert!(early.is_empty(), "{early:?} before the 101");
        shouting(dialogue)
    });
    let (sidecar, upstream, issuer) = start_with(ROUTES, upstream);
    let mut bytes = handshake(SOCKET).bearer(&issuer.token("alice")).bytes();
    let smuggled = get("/api/bob/tasks").line("X-User-Id: bob").bytes();
    bytes.extend_from_slice(&smuggled);
    let mut client = sidecar.connect();
    client.send(bytes);
    upstream.wait_for(1);
    assert_eq!(sidecar.call(&get("/open/other")).status, 200);
    asked.open();
    assert_eq!(client.answer().status, 101);
    // After the 101 they are tunnel data, not a request.
    let shouted = client.wire.read_exact(smuggled.len()).unwrap();
    assert_eq!(shouted, smuggled.to_ascii_uppercase());
    assert_eq!(upstream.arrived().len(), 2);
}

#[test]
fn decides_on_requests_after_a_response_other_than_101() {
    let upstream = Upstream::answering(|dialogue| {
        if dialogue.target() == SOCKET {
            return dialogue.answer(
                "426 Upgrade Required",
                "Connection: upgrade\r\nUpgrade: other\r\n",
                "no",
            );
        }
        dialogue.echo()
    });
    let (sidecar, upstream, issuer) = start_with(ROUTES, upstream);
    let mut bytes = handshake(SOCKET).bearer(&issuer.token("alice")).bytes();
    bytes.extend_from_slice(&get("/api/bob/tasks").line("X-User-Id: bob").bytes());
    let mut client = sidecar.connect();
    client.send(bytes);
    let answer = client.answer();
    assert_eq!((answer.status, answer.text().as_str()), (426, "no"));
    assert_eq!(answer.header("upgrade"), None);
    client.answer().refused(401, "token_missing");
    upstream.only();
}

#[test]
fn a_handshake_needs_a_valid_token() {
    let (sidecar, upstream, issuer) = start_with(ROUTES, Upstream::answering(shouting));
    sidecar
        .call(&handshake(SOCKET))
        .refused(401, "token_missing");
    let bobs = handshake(SOCKET).bearer(&issuer.token("bob"));
    sidecar.call(&bobs).refused(403, "subject_mismatch");
    upstream.untouched();
}

#[test]
fn removes_upgrades_to_other_protocols() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    for lines in [
        [
            "Connection: Upgrade, HTTP2-Settings",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAAQAAP__",
        ],
        ["Connection: Upgrade", "Upgrade: h2c, websocket", "A: b"],
        ["Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c"],
        ["Connection: Upgrade", "Upgrade: TLS/1.0", "A: b"],
        ["Connection: keep-alive", "Upgrade: websocket", "A: b"],
    ] {
        let request = lines
            .iter()
            .fold(get(SOCKET), |request, line| request.line(line));
        let answer = sidecar.call(&request.bearer(&issuer.token("alice")));
        assert_eq!(answer.status, 200, "{lines:?}");
        let head = upstream.arrived().pop().unwrap().head;
        for removed in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(
                head.values(removed),
                Vec::<String>::new(),
                "{lines:?}\n{}",
                head.text()
            );
        }
    }
}

#[test]
fn an_unrequested_101_gets_a_502() {
    let (sidecar, _upstream, issuer) = start_with(ROUTES, Upstream::answering(shouting));
    let answer = sidecar.call(&get(SOCKET).bearer(&issuer.token("alice")));
    answer.refused(502, "upstream_invalid_response");
}

#[test]
fn a_101_for_a_removed_upgrade_gets_a_502() {
    let (sidecar, _upstream, issuer) = start_with(ROUTES, Upstream::answering(shouting));
    for upgrade in ["h2c", "websocket, h2c"] {
        let request = get(SOCKET)
            .bearer(&issuer.token("alice"))
            .line("Connection: Upgrade")
            .line(&format!("Upgrade: {upgrade}"));
        sidecar
            .call(&request)
            .refused(502, "upstream_invalid_response");
    }
}

#[test]
fn a_101_for_another_protocol_gets_a_502() {
    let upstream = Upstream::answering(|dialogue| {
        dialogue.write(SWITCHING.replace("websocket", "h2c"));
        Next::Close
    });
    let (sidecar, _upstream, issuer) = start_with(ROUTES, upstream);
    let answer = sidecar.call(&handshake(SOCKET).bearer(&issuer.token("alice")));
    answer.refused(502, "upstream_invalid_response");
}
