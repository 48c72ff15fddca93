//! The PROXY protocol: client address, trusted proxies and malformed headers.

use std::os::unix::net::UnixStream;

use crate::harness::frames::{Frame, Frames, PREFACE};
use crate::harness::wire::Wire;
use crate::harness::{
    Client, Latch, ROUTES, Sidecar, Upstream, eventually, get, start, start_with,
};

const LINE: &str = "PROXY TCP4 203.0.113.7 10.0.0.1 40000 8080\r\n";

fn behind(trusted: &str, lines: &str) -> (Sidecar, Upstream) {
    let config = format!(
        "[listen]\nproxy_protocol = true\ntrusted_proxies = [\"{trusted}\"]\n{lines}\n{ROUTES}"
    );
    let (sidecar, upstream, _issuer) = start(&config);
    (sidecar, upstream)
}

fn rejected(sidecar: &Sidecar, reason: &str) -> Option<f64> {
    sidecar.metric(&format!(
        "claimgate_request_heads_rejected_total{{reason=\"{reason}\"}}"
    ))
}

/// Version 2, over IPv4, with an extension.
fn binary() -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10".to_vec();
    bytes.extend([203, 0, 113, 8, 10, 0, 0, 1, 0, 80, 0, 80, 0xea, 0, 1, 7]);
    bytes
}

#[test]
fn takes_the_client_address_from_the_header() {
    let (sidecar, upstream) = behind("127.0.0.1", "");
    let headers: [(&[u8], &str); 4] = [
        (LINE.as_bytes(), "203.0.113.7"),
        (&binary(), "203.0.113.8"),
        (b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n", "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ];
    for (header, client) in headers {
        let mut connection = sidecar.connect();
        connection.send(header);
        for _ in 0..2 {
            assert_eq!(connection.call(&get("/open/page")).status, 200);
            let arrived = upstream.arrived().pop().unwrap();
            let forwarded = arrived.head.value("x-forwarded-for").unwrap();
            assert_eq!(forwarded, client);
        }
    }
}

#[test]
fn ignores_the_client_address_of_a_forwarded_header() {
    let (sidecar, upstream) = behind("127.0.0.1", "");
    let mut client = sidecar.connect();
    client.send(LINE);
    let request = get("/open/page").line("X-Forwarded-For: 198.51.100.1");
    assert_eq!(client.call(&request).status, 200);
    let arrived = upstream.only();
    let forwarded = arrived.head.value("x-forwarded-for").unwrap();
    assert_eq!(forwarded, "203.0.113.7");
    // A second PROXY header is a malformed request.
    client.send(LINE);
    assert_eq!(client.response().status, 400);
}

#[test]
fn a_fragmented_header_consumes_nothing_of_the_request() {
    let (sidecar, upstream) = behind("127.0.0.1", "");
    let request = get("/open/page").bytes();
    for header in [LINE.as_bytes(), &binary()] {
        let bytes = [header, &request].concat();
        for at in (1..bytes.len()).step_by(7) {
            let mut client = sidecar.connect();
            client.send(&bytes[..at]);
            client.send(&bytes[at..]);
            assert_eq!(client.response().status, 200, "{at}");
        }
        let preface = [header, PREFACE].concat();
        let mut client = sidecar.connect();
        client.send(preface);
        let mut frames = Frames { wire: client.wire };
        frames.send(&Frame::settings(&[]));
        frames.send(&Frame::get(1, "/open/page"));
        assert_eq!(frames.status(1), 200);
    }
    let clients: Vec<_> = upstream
        .arrived()
        .iter()
        .map(|arrived| arrived.head.value("x-forwarded-for").unwrap())
        .collect();
    assert!(
        clients
            .iter()
            .all(|client| client.starts_with("203.0.113.")),
        "{clients:?}"
    );
}

#[test]
fn rejects_connections_without_a_header() {
    let (sidecar, upstream) = behind("127.0.0.1", "");
    let incomplete = &binary()[..20];
    for (number, bytes) in [&get("/open/page").bytes()[..], PREFACE, incomplete]
        .into_iter()
        .enumerate()
    {
        let mut client = sidecar.connect();
        client.send(bytes);
        client.wire.shut_sending();
        assert_eq!(client.until_closed(), b"");
        eventually("counted", || {
            rejected(&sidecar, "proxy_protocol_malformed") == [1.0, 2.0, 3.0].get(number).copied()
        });
    }
    // A TCP port probe is not counted.
    drop(sidecar.connect());
    eventually("closed", || {
        sidecar.metric("claimgate_connections_open") == Some(0.0)
    });
    assert_eq!(rejected(&sidecar, "proxy_protocol_malformed"), Some(3.0));
    upstream.assert_untouched();
}

#[test]
fn rejects_an_untrusted_peer() {
    let (sidecar, upstream) = behind("192.0.2.0/24", "");
    let mut client = sidecar.connect();
    client.send(LINE);
    client.send(get("/open/page").bytes());
    assert_eq!(client.until_closed(), b"");
    eventually("counted", || {
        rejected(&sidecar, "peer_not_trusted") == Some(1.0)
    });
    upstream.assert_untouched();
}

#[test]
fn the_header_timeout_covers_the_proxy_header() {
    let (sidecar, upstream) = behind("127.0.0.1", "header_timeout = \"200ms\"");
    for bytes in [
        "",
        "PROXY ",
        LINE,
        "PROXY UNKNOWN\r\nGET /open/page HTTP/1.1\r\n",
    ] {
        let mut client = sidecar.connect();
        client.send(bytes);
        assert_eq!(client.until_closed(), b"", "{bytes}");
    }
    eventually("counted", || {
        rejected(&sidecar, "request_timeout") == Some(4.0)
    });
    upstream.assert_untouched();
}

#[test]
fn a_client_without_a_header_does_not_delay_the_shutdown() {
    let (sidecar, _upstream) = behind(
        "127.0.0.1",
        "header_timeout = \"10m\"\n[drain]\ngrace = \"10m\"",
    );
    let mut silent = sidecar.connect();
    let mut incomplete = sidecar.connect();
    incomplete.send("PROXY ");
    eventually("accepted", || {
        sidecar.metric("claimgate_connections_open") == Some(2.0)
    });
    sidecar.stop();
    silent.until_closed();
    incomplete.until_closed();
    assert_eq!(sidecar.wait(), 0);
}

#[test]
fn trusts_every_peer_of_a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gate.sock");
    let config = format!(
        "[[listeners]]\naddress = \"unix:{}\"\nproxy_protocol = true\n{ROUTES}",
        path.display()
    );
    let (_sidecar, upstream, _issuer) = start(&config);
    let mut client = Client {
        wire: Wire::unix(UnixStream::connect(&path).unwrap()),
    };
    client.send(LINE);
    assert_eq!(client.call(&get("/open/page")).status, 200);
    let forwarded = upstream.only().head.value("x-forwarded-for").unwrap();
    assert_eq!(forwarded, "203.0.113.7");
}

#[test]
fn one_client_cannot_take_every_connection() {
    let latch = Latch::default();
    for (keys, limit) in [
        ("max_connections = 8", 4),
        ("max_connections = 20\nmax_connections_per_client = 3", 3),
    ] {
        let config = format!(
            "[listen]\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]\n{keys}\n{ROUTES}"
        );
        let (sidecar, upstream, _issuer) = start_with(&config, Upstream::held(&latch));
        let connect = |client: &str| {
            let mut connection = sidecar.connect();
            let family = if client.contains(':') {
                "TCP6 "
            } else {
                "TCP4 "
            };
            let target = if client.contains(':') {
                "::1"
            } else {
                "10.0.0.1"
            };
            connection.send(format!("PROXY {family}{client} {target} 40000 8080\r\n"));
            connection
        };
        let held = |client: &str| {
            let mut connection = connect(client);
            connection.send(get("/open/page").bytes());
            connection
        };
        let mut open = Vec::new();
        for number in 1..=limit {
            open.push(held("203.0.113.7"));
            upstream.wait_for(number);
        }
        connect("203.0.113.7")
            .call(&get("/open/page"))
            .refused(503, "overloaded");
        connect("203.0.113.7")
            .call(&get("/open/page"))
            .refused(503, "overloaded");
        let series = "claimgate_connections_rejected_total{limit=\"max_connections_per_client\"}";
        assert_eq!(sidecar.metric(series), Some(2.0));
        // Another client, and the same number of addresses of one IPv6 network.
        open.push(held("203.0.113.8"));
        upstream.wait_for(limit + 1);
        open.pop();
        if limit == 3 {
            for number in 1..=limit {
                open.push(held(&format!("2001:db8::{number}")));
                upstream.wait_for(limit + 1 + number);
            }
            connect("2001:db8::ffff")
                .call(&get("/open/page"))
                .refused(503, "overloaded");
            // A trusted proxy and a proxy in the same pod have many clients.
            for (number, client) in ["10.1.1.1", "127.0.0.6"].iter().cycle().take(8).enumerate() {
                open.push(held(client));
                upstream.wait_for(2 * limit + 2 + number);
            }
        }
        // A closed connection makes room for another of the same client.
        open.clear();
        eventually("the connections are closed", || {
            sidecar.metric("claimgate_connections_open") == Some(0.0)
        });
        let before = upstream.arrived().len();
        let _served = held("203.0.113.7");
        upstream.wait_for(before + 1);
    }
    latch.open();
}
