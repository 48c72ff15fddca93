//! Listeners with TLS: versions, names, and what is not agreed on.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;

use claimgate::config::Address;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConnection, ProtocolVersion, StreamOwned};

use crate::harness::authority::written;
use crate::harness::frames::{END_HEADERS, END_STREAM, Frame, Frames, HEADERS, PREFACE, head};
use crate::harness::wire::{TlsStream, Wire};
use crate::harness::{
    Authority, Client, Next, ROUTES, Sidecar, Upstream, eventually, get, post, start, start_with,
};

/// A `ClientHello` in which only the version is wrong: that of TLS 1.1.
fn hello_of_tls11() -> Vec<u8> {
    let mut body = vec![3, 2];
    body.extend([7; 32]);
    // No session; ECDHE with AES-128-GCM; no compression.
    body.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]);
    // Groups: P-256. Points: as they are. Signatures: ECDSA and RSA with SHA-256.
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

/// How often a handshake has failed.
fn failed(sidecar: &Sidecar) -> f64 {
    let series = "claimgate_request_heads_rejected_total{reason=\"tls_handshake\"}";
    sidecar.metric(series).unwrap()
}

/// The names in the certificate that the gate has shown.
fn shown(stream: &TlsStream) -> Vec<u8> {
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn a_request_over_tls_is_judged_and_forwarded_as_https() {
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
    assert!(failed(&sidecar).abs() < 0.5);
}

#[test]
fn old_versions_are_refused_and_counted() {
    let authority = Authority::new();
    for (lines, old_is_good) in [("", true), ("min_version = \"1.3\"", false)] {
        let (sidecar, _upstream, _issuer) = start(&format!("{}{ROUTES}", authority.listen(lines)));
        let answer = Client::connect(sidecar.address)
            .send(hello_of_tls11())
            .until_closed();
        // An alert (RFC 8446 section 6): fatal, protocol_version.
        assert_eq!(answer, [21, 3, 3, 0, 2, 2, 70]);
        let older = authority
            .connector()
            .speaking(&TLS12)
            .handshake(sidecar.address);
        assert_eq!(older.is_ok(), old_is_good, "{older:?}");
        let newer = authority.connector().handshake(sidecar.address).unwrap();
        assert_eq!(
            newer.conn.protocol_version(),
            Some(ProtocolVersion::TLSv1_3)
        );
        let expected = if old_is_good { 1.0 } else { 2.0 };
        eventually("the handshakes that failed", || {
            (failed(&sidecar) - expected).abs() < 0.5
        });
    }
}

#[test]
fn what_is_no_tls_gets_no_answer_in_http() {
    let authority = Authority::new();
    let (sidecar, _upstream, _issuer) = start(&format!("{}{ROUTES}", authority.listen("")));
    let mut client = sidecar.connect();
    let answer = client.send(get("/open/x").bytes()).until_closed();
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    eventually("the handshake that failed", || failed(&sidecar) > 0.5);
    // Who only looks whether somebody listens has not failed.
    drop(sidecar.connect());
    let mut client = authority.connector().connect(sidecar.address).unwrap();
    assert_eq!(client.call(&get("/open/x")).status, 200);
    assert!(failed(&sidecar) < 1.5);
}

#[test]
fn http2_is_agreed_on_and_never_guessed() {
    let authority = Authority::new();
    let (sidecar, _upstream, _issuer) = start(&format!("{}{ROUTES}", authority.listen("")));
    let agreed = |protocols: &[&str]| {
        let connector = authority.connector().offering(protocols);
        let stream = connector.handshake(sidecar.address)?;
        Ok::<_, std::io::Error>(stream.conn.alpn_protocol().map(<[u8]>::to_vec))
    };
    assert_eq!(agreed(&["http/1.1", "h2"]).unwrap().unwrap(), b"h2");
    assert_eq!(agreed(&["http/1.1"]).unwrap().unwrap(), b"http/1.1");
    assert_eq!(agreed(&[]).unwrap(), None);
    // RFC 7301 section 3.2: nothing in common is the end, and not something else (ALPACA).
    let error = agreed(&["smtp"]).unwrap_err();
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
fn a_request_over_http2_and_tls_is_judged_by_its_connection_too() {
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
        let connector = authority.connector().offering(&["h2"]).showing(&pair);
        let wire = Wire::tls(connector.handshake(sidecar.address).unwrap());
        let mut client = Frames::over(wire, &[]);
        // A header may be longer than the helper for heads writes: the token has its length in two bytes.
        let mut head = head(&[(":method", "GET"), (":path", "/me"), ("x-client", "root")]);
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
fn the_certificate_is_that_of_the_name_that_is_asked_for() {
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
        // What no certificate has gets the first, which the client does not take.
        ("a.b.wild.test", None),
        ("wild.test", None),
        ("nobody.test", None),
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
            assert_eq!(shown(&stream), der(pair), "{name}");
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
fn a_client_comes_back_with_a_ticket() {
    let authority = Authority::new();
    let (sidecar, _upstream, _issuer) = start(&format!("{}{ROUTES}", authority.listen("")));
    for version in [&TLS12, &TLS13] {
        assert_eq!(resumed(&authority, sidecar.address, version), [false, true]);
    }
}

/// Whether each of two connections of one client went on with what was agreed on before.
fn resumed(
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
fn the_handshake_comes_after_the_header_of_the_proxy_protocol() {
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
fn half_a_handshake_ends_with_the_time_of_a_head() {
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
    eventually("both are counted", || sidecar.metric(series).unwrap() > 1.5);
}

#[test]
fn a_client_that_does_not_read_is_cut_though_all_is_encrypted() {
    let authority = Authority::new();
    let upstream = Upstream::answering(|dialogue| {
        dialogue.write("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
        dialogue.write(vec![b'x'; 100_000_000]);
        Next::Close
    });
    let tls = authority.listen("");
    let config = format!("[listen]\nbody_timeout = \"300ms\"\n{tls}{ROUTES}");
    let (sidecar, upstream, _issuer) = start_with(&config, upstream);
    let mut client = authority.connector().connect(sidecar.address).unwrap();
    client.send(get("/open/large").bytes());
    upstream.wait_for_closed(1);
    let open = "claimgate_connections_open";
    eventually("the connection ends", || {
        sidecar.metric(open).unwrap() < 0.5
    });
}

#[test]
fn browsers_are_told_to_come_back_with_tls_alone() {
    let authority = Authority::new();
    let upstream = Upstream::answering(|dialogue| {
        dialogue.write(
            "HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=0\r\nContent-Length: 0\r\n\r\n",
        );
        Next::Stay
    });
    let config = format!(
        "{}[[listeners]]\naddress = \"127.0.0.1:0\"\n{ROUTES}",
        authority.listen("hsts = \"180d\"")
    );
    let (sidecar, _upstream, _issuer) = start_with(&config, upstream);
    let mut client = authority.connector().connect(sidecar.address).unwrap();
    for (target, status) in [("/open/page", 200), ("/me/x", 401), ("/a/../b", 400)] {
        let answer = client.call(&get(target));
        assert_eq!(answer.status, status);
        let told = answer.header("strict-transport-security");
        assert_eq!(told.as_deref(), Some("max-age=15552000"), "{target}");
    }
    // The answer without encryption would be ignored (RFC 6797 section 8.1), and the gate adds nothing to it.
    let Address::Tcp(plain) = sidecar.running().addresses()[1] else {
        panic!("it listens over TCP");
    };
    let answer = Client::connect(plain).call(&get("/me/x"));
    assert_eq!(
        (answer.status, answer.header("strict-transport-security")),
        (401, None)
    );
}

/// What a client does not take may wait in three places: in the kernel, encrypted in the gate, or not yet encrypted.
/// Answers of all sizes let each be the last that is full, and for some only the farewell of TLS is left.
#[test]
fn a_client_that_does_not_read_is_cut_whatever_is_left_to_send() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gate.sock");
    let upstream = Upstream::answering(|dialogue| {
        let size: usize = dialogue
            .target()
            .strip_prefix("/open/")
            .unwrap()
            .parse()
            .unwrap();
        dialogue.answer("200 OK", "", &"x".repeat(size))
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
    eventually("every connection ends", || {
        sidecar.metric(open).unwrap() < 0.5
    });
    drop(clients);
}
