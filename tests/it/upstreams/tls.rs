//! TLS upstreams.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::http2::{ResponseFuture, echo};
use crate::harness::{Http2Upstream, ROUTES, Sidecar, get, post, start_before};

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Self-signed certificates in files.
struct Files {
    directory: TempDir,
}

impl Files {
    fn new() -> Self {
        Self {
            directory: TempDir::new().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Creates a certificate for one host.
    fn certify(&self, name: &str, host: &str) -> CertifiedKey<KeyPair> {
        let pair = generate_simple_self_signed([host.to_owned()]).unwrap();
        fs::write(self.path(&format!("{name}.crt")), pair.cert.pem()).unwrap();
        let key = pair.signing_key.serialize_pem();
        fs::write(self.path(&format!("{name}.key")), key).unwrap();
        pair
    }
}

/// Server configuration with this certificate and these ALPN protocols. With `clients`, it requires a client certificate.
fn config(
    own: &CertifiedKey<KeyPair>,
    clients: Option<&CertifiedKey<KeyPair>>,
    protocols: &[&[u8]],
) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let mut roots = RootCertStore::empty();
            roots.add(client.cert.der().clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        }
    };
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let mut config = builder
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

fn response(request: Request<Incoming>) -> ResponseFuture {
    Box::pin(echo(request))
}

/// Sidecar of an upstream, with these settings in `tls = { … }`.
fn start(upstream: &Http2Upstream, tls: &str) -> Sidecar {
    let tasks = format!("url = \"{}\"\ntls = {{ {tls} }}", upstream.url());
    start_before(&tasks, ROUTES).0
}

#[test]
fn negotiates_the_best_http_version_of_the_upstream() {
    let files = Files::new();
    let own = files.certify("own", "127.0.0.1");
    let trust = format!("ca_file = \"{}\"", files.path("own.crt").display());
    let cases: [(&[&[u8]], Version, usize); 4] = [
        (&[HTTP2, HTTP1], Version::HTTP_2, 1),
        (&[HTTP2], Version::HTTP_2, 1),
        (&[HTTP1], Version::HTTP_11, 1),
        (&[], Version::HTTP_11, 1),
    ];
    for (protocols, version, connections) in cases {
        let upstream = Http2Upstream::over_tls(config(&own, None, protocols), response);
        let sidecar = start(&upstream, &trust);
        for number in 0..3 {
            let response = sidecar.call(&post(&format!("/open/{number}"), b"milk"));
            assert_eq!(response.text(), format!("POST /open/{number}  milk"));
        }
        let arrived = upstream.arrived();
        assert!(arrived.iter().all(|head| head.version == version));
        if version == Version::HTTP_2 {
            assert_eq!(arrived[0].uri.to_string(), "https://gate.test/open/0");
        } else {
            assert_eq!(arrived[0].headers["host"], "gate.test");
        }
        assert_eq!(upstream.connections(), connections);
    }
}

#[test]
fn sends_nothing_to_an_upstream_with_an_invalid_certificate() {
    let files = Files::new();
    let own = files.certify("own", "tasks.internal");
    files.certify("other", "127.0.0.1");
    let upstream = Http2Upstream::over_tls(config(&own, None, &[HTTP2]), response);
    let own = files.path("own.crt").display().to_string();
    let other = files.path("other.crt").display().to_string();
    let cases = [
        (format!("ca_file = \"{own}\""), 502),
        (
            format!("ca_file = \"{own}\", server_name = \"tasks.example\""),
            502,
        ),
        (
            format!("ca_file = \"{other}\", server_name = \"tasks.internal\""),
            502,
        ),
        ("server_name = \"tasks.internal\"".to_owned(), 502),
        (
            format!("ca_file = \"{own}\", server_name = \"tasks.internal\""),
            200,
        ),
    ];
    for (tls, status) in cases {
        let response = start(&upstream, &tls).call(&get("/open/a"));
        assert_eq!(response.status, status, "{tls}");
        if status == 502 {
            response.refused(502, "upstream_unreachable");
            assert!(!response.text().to_lowercase().contains("certificate"));
        }
    }
    assert_eq!(upstream.arrived().len(), 1);
}

#[test]
fn presents_a_client_certificate_to_an_upstream_with_mtls() {
    let files = Files::new();
    let own = files.certify("own", "127.0.0.1");
    let gate = files.certify("gate", "gate.internal");
    let upstream = Http2Upstream::over_tls(config(&own, Some(&gate), &[HTTP2]), response);
    let trust = format!("ca_file = \"{}\"", files.path("own.crt").display());
    let anonymous = start(&upstream, &trust).call(&get("/open/a"));
    assert_eq!(anonymous.status, 502);
    let pair = format!(
        "{trust}, certificate = \"{}\", key = \"{}\"",
        files.path("gate.crt").display(),
        files.path("gate.key").display()
    );
    assert_eq!(start(&upstream, &pair).call(&get("/open/a")).status, 200);
    assert_eq!(upstream.arrived().len(), 1);
}

#[test]
fn a_websocket_gets_an_http1_connection() {
    let files = Files::new();
    let own = files.certify("own", "127.0.0.1");
    let config = config(&own, None, &[HTTP2, HTTP1]);
    let upstream = Http2Upstream::over_tls(config, |request| {
        Box::pin(async move {
            if !request.headers().contains_key(UPGRADE) {
                return echo(request).await;
            }
            let mut upgrading = tokio::task::JoinSet::new();
            upgrading.spawn(async move {
                let mut stream = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
                let mut message = [0; 4];
                stream.read_exact(&mut message).await.unwrap();
                stream.write_all(&message).await.unwrap();
            });
            upgrading.detach_all();
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            response
        })
    });
    let sidecar = start(
        &upstream,
        &format!("ca_file = \"{}\"", files.path("own.crt").display()),
    );
    assert_eq!(sidecar.call(&get("/open/a")).status, 200);
    let mut client = sidecar.connect();
    let request = get("/open/a").websocket();
    client.send(request.bytes());
    assert_eq!(
        client.wire.read_head().unwrap().unwrap().line(),
        "HTTP/1.1 101 Switching Protocols"
    );
    client.send(b"\x81\x02hi");
    assert_eq!(client.wire.read_exact(4).unwrap(), b"\x81\x02hi");
    assert_eq!(sidecar.call(&get("/open/b")).status, 200);
    let versions: Vec<_> = upstream.arrived().iter().map(|head| head.version).collect();
    assert_eq!(
        versions,
        [Version::HTTP_2, Version::HTTP_11, Version::HTTP_2]
    );
}
