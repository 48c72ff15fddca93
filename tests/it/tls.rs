//! TLS listeners: versions, server names, ALPN, resumption and deadlines.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;

use claimgate::config::Address;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConnection, ProtocolVersion, StreamOwned};

use crate::harness::authority::written;
use crate::harness::frames::{
    END_HEADERS, END_STREAM, Frame, Frames, HEADERS, PREFACE, literal_head,
};
use crate::harness::wire::{TlsStream, Wire};
use crate::harness::{
    Authority, Client, Next, ROUTES, Sidecar, Upstream, eventually, get, post, start, start_with,
};

/// A `ClientHello` for TLS 1.1, valid in everything else.
fn hello_of_tls11() -> Vec<u8> {
    let mut body = vec![3, 2];
    body.extend([7; 32]);
    // No session; ECDHE with AES-128-GCM; no compression.
    body.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]);
    // Groups: P-256. Points: uncompressed. Signatures: ECDSA and RSA with SHA-256.
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 23][..],
        &[0, 11, 0, 2, 1, 0],
        &[0, 13, 0, 6, 0, 4, 4, 3, 4, 1],
    ]
    .concat();
    body.extend([0, u8::try_from(extensions.len()).unwrap()]);
    body.extend(extensions);
    let mut message = vec![1, 0, 0, u8::try_from(body.len()).unwrap()];
    message.extend(body);
    let mut record = vec![22, 3, 1, 0, u8::try_from(message.len()).unwrap()];
    record.extend(message);
    record
}

/// Number of failed handshakes.
fn failed_handshakes(sidecar: &Sidecar) -> f64 {
    let series = "claimgate_request_heads_rejected_total{reason=\"tls_handshake\"}";
    sidecar.metric(series).unwrap()
}

/// Server certificate of a connection in DER.
fn server_certificate(stream: &TlsStream) -> Vec<u8> {
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn verifies_a_request_over_tls_and_forwards_it_as_https() {
    let authority = Authority::new();
    let (sidecar, upstream, issuer) = start(&format!("{}{ROUTES}", authority.listen("")));
    for version in [&TLS12, &TLS13] {
        let connector = authority.connector().speaking(version);
        let mut client = connector.connect(sidecar.address).unwrap();
        client.call(&get("/me/x")).refused(401, "token_missing");
        let task = post("/api/alice/tasks", b"milk").bearer(&issuer.token("alice"));
        assert_eq!(client.call(&task).status, 200);
        let arrived = upstream.arrived().pop().unwrap();
        assert_eq!(arrived.body, b"milk");
        assert_eq!(arrived.head.value("x-forwarded-proto").unwrap(), "https");
        let forwarded = arrived.head.value("forwarded").unwrap();
        assert!(forwarded.ends_with(";proto=https"), "{forwarded}");
    }
    assert!(failed_handshakes(&sidecar).abs() < 0.5);
}

#[test]
fn rejects_and_counts_old_versions() {
    let authority = Authority::new();
    for (lines, accepts_older) in [("", true), ("min_version = \"1.3\"", false)] {
        let (sidecar, _upstream, _issuer) = start(&format!("{}{ROUTES}", authority.listen(lines)));
        let response = Client::connect(sidecar.address)
            .send(hello_of_tls11())
            .until_closed();
        // An alert (RFC 8446 section 6): fatal, protocol_version.
        assert_eq!(response, [21, 3, 3, 0, 2, 2, 70]);
        let older = authority
            .connector()
            .speaking(&TLS12)
            .handshake(sidecar.address);
        assert_eq!(older.is_ok(), accepts_older, "{older:?}");
        let newer = authority.connector().handshake(sidecar.address).unwrap();
        assert_eq!(
            newer.conn.protocol_version(),
            Some(ProtocolVersion::TLSv1_3)
        );
        let expected = if accepts_older { 1.0 } else { 2.0 };
        eventually("the failed handshakes are counted", || {
            (failed_handshakes(&sidecar) - expected).abs() < 0.5
        });
    }
}

#[test]
fn sends_no_http_response_to_a_plaintext_request() {
    let authority = Authority::new();
    let (sidecar, _upstream, _issuer) = start(&format!("{}{ROUTES}", authority.listen("")));
    let mut client = sidecar.connect();
    let response = client.send(get("/open/x").bytes()).until_closed();
    assert!(!response.starts_with(b"HTTP"), "{response:?}");
    eventually("the failed handshake is counted", || {
        failed_handshakes(&sidecar) > 0.5
    });
    // A connection closed without data, such as a port check, does not count.
    drop(sidecar.connect());
    let mut client = authority.connector().connect(sidecar.address).unwrap();
    assert_eq!(client.call(&get("/open/x")).status, 200);
    assert!(failed_handshakes(&sidecar) < 1.5);
}

#[test]
fn uses_http2_only_after_alpn() {
    let authority = Authority::new();
    let (sidecar, _upstream, _issuer) = start(&format!("{}{ROUTES}", authority.listen("")));
    let negotiate = |protocols: &[&str]| {
        let connector = authority.connector().offering(protocols);
        let stream = connector.handshake(sidecar.address)?;
        Ok::<_, std::io::Error>(stream.conn.alpn_protocol().map(<[u8]>::to_vec))
    };
    assert_eq!(negotiate(&["http/1.1", "h2"]).unwrap().unwrap(), b"h2");
    assert_eq!(negotiate(&["http/1.1"]).unwrap().unwrap(), b"http/1.1");
    assert_eq!(negotiate(&[]).unwrap(), None);
    // RFC 7301 section 3.2: without a common protocol the handshake fails, which prevents ALPACA attacks.
    let error = negotiate(&["smtp"]).unwrap_err();
    assert!(
        error.to_string().contains("NoApplicationProtocol"),
        "{error}"
    );
    for protocols in [&["http/1.1"][..], &[]] {
        let connector = authority.connector().offering(protocols);
        let mut client = connector.connect(sidecar.address).unwrap();
        client.send(PREFACE);
        assert_eq!(client.until_closed(), b"");
    }
}

#[test]
fn http2_requests_use_the_certificate_of_their_connection() {
    let authority = Authority::new();
    let ca = authority.file("ca.crt");
    let lines = format!("client_ca = \"{}\"", ca.display());
    let routes = r#"
[identity]
headers = { X-Client = "certificate:dns" }

[[routes]]
path = "/me"
access = "authenticated"
require = [{ certificate = "dns", has = "web.example" }]
"#;
    let (sidecar, upstream, issuer) = start(&format!("{}{routes}", authority.listen(&lines)));
    let token = format!("Bearer {}", issuer.token("alice"));
    for (name, expected) in [("web.example", true), ("other.example", false)] {
        let pair = authority.server("client", &[name]);
        let connector = authority.connector().offering(&["h2"]).presenting(&pair);
        let wire = Wire::tls(connector.handshake(sidecar.address).unwrap());
        let mut client = Frames::over(wire, &[]);
        // `literal_head` writes short header values only: the token needs a length of two bytes.
        let mut head = literal_head(&[
            (":scheme", "https"),
            (":authority", "gate.test"),
            (":method", "GET"),
            (":path", "/me"),
            ("x-client", "root"),
        ]);
        let length = token.len() - 127;
        head.extend([0, 13]);
        head.extend(b"authorization");
        head.extend([
            127,
            u8::try_from(length % 128).unwrap() | 128,
            u8::try_from(length / 128).unwrap(),
        ]);
        head.extend(token.as_bytes());
        client.send(&Frame::new(HEADERS, END_STREAM | END_HEADERS, 1, &head));
        if expected {
            assert_eq!(client.status(1), 200);
            let arrived = upstream.only();
            assert_eq!(arrived.head.values("x-client"), ["web.example"]);
            assert_eq!(arrived.head.value("x-forwarded-proto").unwrap(), "https");
        } else {
            let body = String::from_utf8(client.body(1)).unwrap();
            assert!(body.contains("certificate_denied"), "{body}");
        }
    }
}

#[test]
fn selects_the_certificate_by_server_name() {
    let authority = Authority::new();
    let [gate, other, wild] = [
        authority.server("gate", &["gate.test", "also.test"]),
        authority.server("other", &["other.test"]),
        authority.server("wild", &["*.wild.test", "deep.other.test"]),
    ];
    let config = format!(
        "[listen]\ntls = {{ {}, more = [{{ {} }}, {{ {} }}] }}\n{ROUTES}",
        written(&gate),
        written(&other),
        written(&wild)
    );
    let (sidecar, _upstream, _issuer) = start(&config);
    for (name, expected) in [
        ("gate.test", Some(&gate)),
        ("also.test", Some(&gate)),
        ("other.test", Some(&other)),
        ("deep.other.test", Some(&wild)),
        ("a.wild.test", Some(&wild)),
        // An unknown name gets the first certificate, which the client rejects.
        ("a.b.wild.test", None),
        ("wild.test", None),
        ("unknown.test", None),
    ] {
        let connector = authority.connector().name(name);
        let stream = connector.handshake(sidecar.address);
        assert_eq!(
            stream.is_ok(),
            expected.is_some(),
            "{name}: {:?}",
            stream.err()
        );
        if let (Ok(stream), Some(pair)) = (stream, expected) {
            assert_eq!(server_certificate(&stream), der(pair), "{name}");
        }
    }
}

fn der(pair: &claimgate::tls::Pair) -> Vec<u8> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_file(&pair.certificate)
        .unwrap()
        .to_vec()
}

#[test]
fn resumes_a_session_with_a_ticket() {
    let authority = Authority::new();
    let (sidecar, _upstream, _issuer) = start(&format!("{}{ROUTES}", authority.listen("")));
    for version in [&TLS12, &TLS13] {
        assert_eq!(
            resumptions(&authority, sidecar.address, version),
            [false, true]
        );
    }
}

/// Opens two connections of one client and reports for each whether it resumed a session.
fn resumptions(
    authority: &Authority,
    address: SocketAddr,
    version: &'static rustls::SupportedProtocolVersion,
) -> [bool; 2] {
    let connector = authority.connector().speaking(version).resuming();
    [(); 2].map(|()| {
        let mut client = connector.connect(address).unwrap();
        assert_eq!(client.call(&get("/open/x")).status, 200);
        client.wire.is_resumed()
    })
}

#[test]
fn reads_the_proxy_protocol_header_before_the_handshake() {
    let authority = Authority::new();
    let tls = authority.listen("");
    let proxies = "proxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]";
    let (sidecar, upstream, _issuer) = start(&format!("[listen]\n{proxies}\n{tls}{ROUTES}"));
    let header = b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 443\r\n";
    for protocols in [&[][..], &["http/1.1"]] {
        let connector = authority.connector().offering(protocols).after(header);
        let mut client = connector.connect(sidecar.address).unwrap();
        assert_eq!(client.call(&get("/open/x")).status, 200);
    }
    for arrived in upstream.arrived() {
        let forwarded = arrived.head.value("forwarded").unwrap();
        assert!(forwarded.starts_with("for=192.0.2.7;"), "{forwarded}");
        assert!(forwarded.ends_with(";proto=https"), "{forwarded}");
    }
    let without = authority.connector().handshake(sidecar.address);
    assert!(without.is_err());
}

#[test]
fn header_timeout_covers_the_handshake() {
    let authority = Authority::new();
    let tls = authority.listen("");
    let config = format!("[listen]\nheader_timeout = \"300ms\"\n{tls}{ROUTES}");
    let (sidecar, _upstream, _issuer) = start(&config);
    let hello = hello_of_tls11();
    assert_eq!(sidecar.connect().send(&hello[..20]).until_closed(), b"");
    let stream = authority.connector().handshake(sidecar.address).unwrap();
    let mut client = Client {
        wire: Wire::tls(stream),
    };
    assert_eq!(client.send("GET / HT").until_closed(), b"");
    let series = "claimgate_request_heads_rejected_total{reason=\"request_timeout\"}";
    eventually("both timeouts are counted", || {
        sidecar.metric(series).unwrap() > 1.5
    });
}

#[test]
fn body_timeout_closes_a_tls_client_that_does_not_read() {
    let authority = Authority::new();
    let upstream = Upstream::responding(|exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
        exchange.write(vec![b'x'; 100_000_000]);
        Next::Close
    });
    let tls = authority.listen("");
    let config = format!("[listen]\nbody_timeout = \"300ms\"\n{tls}{ROUTES}");
    let (sidecar, upstream, _issuer) = start_with(&config, upstream);
    let mut client = authority.connector().connect(sidecar.address).unwrap();
    client.send(get("/open/large").bytes());
    upstream.wait_for_closed(1);
    let open = "claimgate_connections_open";
    eventually("the connection closes", || {
        sidecar.metric(open).unwrap() < 0.5
    });
}

#[test]
fn sends_hsts_over_tls_only() {
    let authority = Authority::new();
    let upstream = Upstream::responding(|exchange| {
        exchange.write(
            "HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=0\r\nContent-Length: 0\r\n\r\n",
        );
        Next::KeepAlive
    });
    let config = format!(
        "{}[[listeners]]\naddress = \"127.0.0.1:0\"\n{ROUTES}",
        authority.listen("hsts = \"180d\"")
    );
    let (sidecar, _upstream, _issuer) = start_with(&config, upstream);
    let mut client = authority.connector().connect(sidecar.address).unwrap();
    for (target, status) in [("/open/page", 200), ("/me/x", 401), ("/a/../b", 400)] {
        let response = client.call(&get(target));
        assert_eq!(response.status, status);
        let hsts = response.header("strict-transport-security");
        assert_eq!(hsts.as_deref(), Some("max-age=15552000"), "{target}");
    }
    // Browsers ignore HSTS in a plaintext response (RFC 6797 section 8.1), so the gate does not send it.
    let Address::Tcp(plain) = sidecar.running().addresses()[1] else {
        panic!("expected a TCP address");
    };
    let response = Client::connect(plain).call(&get("/me/x"));
    assert_eq!(
        (
            response.status,
            response.header("strict-transport-security")
        ),
        (401, None)
    );
}

/// Unread data waits in the kernel, encrypted in the gate, or not yet encrypted. The response sizes make each of them the
/// last full buffer; for some sizes only the `close_notify` alert is left.
#[test]
fn timeouts_close_a_client_that_does_not_read_at_every_buffer_level() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gate.sock");
    let upstream = Upstream::responding(|exchange| {
        let size: usize = exchange
            .target()
            .strip_prefix("/open/")
            .unwrap()
            .parse()
            .unwrap();
        exchange.respond("200 OK", "", &"x".repeat(size))
    });
    let (pair, address) = (authority.server("gate", &["gate.test"]), path.display());
    let config = format!(
        "[listen]\nbody_timeout = \"300ms\"\nidle_timeout = \"300ms\"\n\
         [[listeners]]\naddress = \"unix:{address}\"\ntls = {{ {} }}\n{ROUTES}",
        written(&pair)
    );
    let (sidecar, upstream, _issuer) = start_with(&config, upstream);
    let clients: Vec<_> = (1..=48)
        .map(|number| {
            let name = ServerName::try_from("gate.test").unwrap();
            let config = authority.connector().config();
            let connection = ClientConnection::new(config, name).unwrap();
            let stream = UnixStream::connect(&path).unwrap();
            let mut client = StreamOwned::new(connection, stream);
            let size = number * 8 * 1024;
            client
                .write_all(&get(&format!("/open/{size}")).bytes())
                .unwrap();
            client
        })
        .collect();
    upstream.wait_for(clients.len());
    let open = "claimgate_connections_open";
    eventually("every connection closes", || {
        sidecar.metric(open).unwrap() < 0.5
    });
    drop(clients);
}
