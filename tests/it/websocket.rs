//! WebSocket tunnels: opened after the upstream's 101 response only, and for no other protocol.

mod messages;

use crate::harness::{Exchange, Latch, Next, ROUTES, Request, Upstream, get, start, start_with};

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
fn shouting(exchange: &mut Exchange) -> Next {
    exchange.write(SWITCHING);
    loop {
        let Ok(bytes) = exchange.wire.read() else {
            return Next::Close;
        };
        if bytes.is_empty() || bytes == b"bye" {
            return Next::Close;
        }
        exchange.write(bytes.to_ascii_uppercase());
    }
}

#[test]
fn forwards_data_in_both_directions_after_the_101() {
    let (sidecar, upstream, issuer) = start_with(ROUTES, Upstream::responding(shouting));
    let mut client = sidecar.connect();
    let response = client.call(&handshake(SOCKET).bearer(&issuer.token("alice")));
    assert_eq!(response.status, 101);
    assert_eq!(
        response.header("upgrade").unwrap().to_ascii_lowercase(),
        "websocket"
    );
    assert_eq!(
        response.header("connection").unwrap().to_ascii_lowercase(),
        "upgrade"
    );
    assert_eq!(
        response.header("sec-websocket-accept").as_deref(),
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
    let (sidecar, upstream, issuer) = start_with(ROUTES, Upstream::responding(shouting));
    let mut client = sidecar.connect();
    let response = client.call(&handshake(SOCKET).bearer(&issuer.token("alice")));
    assert_eq!(response.status, 101);
    drop(client);
    upstream.wait_for_closed(1);
}

#[test]
fn forwards_no_data_before_the_101() {
    let requested = Latch::default();
    let switch = requested.clone();
    let upstream = Upstream::responding(move |exchange| {
        if exchange.target() == "/open/other" {
            return exchange.echo();
        }
        // The gate has held the smuggled bytes for as long as another request takes.
        switch.wait();
        let early = exchange.wire.buffered();
        assert!(early.is_empty(), "{early:?} before the 101");
        shouting(exchange)
    });
    let (sidecar, upstream, issuer) = start_with(ROUTES, upstream);
    let mut bytes = handshake(SOCKET).bearer(&issuer.token("alice")).bytes();
    let smuggled = get("/api/bob/tasks").line("X-User-Id: bob").bytes();
    bytes.extend_from_slice(&smuggled);
    let mut client = sidecar.connect();
    client.send(bytes);
    upstream.wait_for(1);
    assert_eq!(sidecar.call(&get("/open/other")).status, 200);
    requested.open();
    assert_eq!(client.response().status, 101);
    // After the 101 they are tunnel data, not a request.
    let shouted = client.wire.read_exact(smuggled.len()).unwrap();
    assert_eq!(shouted, smuggled.to_ascii_uppercase());
    assert_eq!(upstream.arrived().len(), 2);
}

#[test]
fn decides_on_requests_after_a_response_other_than_101() {
    let upstream = Upstream::responding(|exchange| {
        if exchange.target() == SOCKET {
            return exchange.respond(
                "426 Upgrade Required",
                "Connection: upgrade\r\nUpgrade: other\r\n",
                "no",
            );
        }
        exchange.echo()
    });
    let (sidecar, upstream, issuer) = start_with(ROUTES, upstream);
    let mut bytes = handshake(SOCKET).bearer(&issuer.token("alice")).bytes();
    bytes.extend_from_slice(&get("/api/bob/tasks").line("X-User-Id: bob").bytes());
    let mut client = sidecar.connect();
    client.send(bytes);
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (426, "no"));
    assert_eq!(response.header("upgrade"), None);
    client.response().refused(401, "token_missing");
    upstream.only();
}

#[test]
fn a_handshake_needs_a_valid_token() {
    let (sidecar, upstream, issuer) = start_with(ROUTES, Upstream::responding(shouting));
    sidecar
        .call(&handshake(SOCKET))
        .refused(401, "token_missing");
    let bobs = handshake(SOCKET).bearer(&issuer.token("bob"));
    sidecar.call(&bobs).refused(403, "subject_mismatch");
    upstream.assert_untouched();
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
        let response = sidecar.call(&request.bearer(&issuer.token("alice")));
        assert_eq!(response.status, 200, "{lines:?}");
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
    let (sidecar, _upstream, issuer) = start_with(ROUTES, Upstream::responding(shouting));
    let response = sidecar.call(&get(SOCKET).bearer(&issuer.token("alice")));
    response.refused(502, "upstream_invalid_response");
}

#[test]
fn a_101_for_a_removed_upgrade_gets_a_502() {
    let (sidecar, _upstream, issuer) = start_with(ROUTES, Upstream::responding(shouting));
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
    let upstream = Upstream::responding(|exchange| {
        exchange.write(SWITCHING.replace("websocket", "h2c"));
        Next::Close
    });
    let (sidecar, _upstream, issuer) = start_with(ROUTES, upstream);
    let response = sidecar.call(&handshake(SOCKET).bearer(&issuer.token("alice")));
    response.refused(502, "upstream_invalid_response");
}
