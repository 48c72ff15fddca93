//! Hot reload of the configuration and of certificates.

mod folder;
mod policy;
mod secrets;
mod unaffected;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use claimgate::config::TlsVersion;
use claimgate::tls::Pair;
use claimgate::tls::server::{Reloader, ServerTls, Settings};
use rcgen::date_time_ymd;

use crate::harness::authority::written;
use crate::harness::{Authority, ROUTES, Sidecar, eventually, get, replace, start};

/// Server certificate of the gate, in DER.
fn server_certificate(authority: &Authority, sidecar: &Sidecar) -> Vec<u8> {
    let stream = authority.connector().handshake(sidecar.address).unwrap();
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

fn reloads(sidecar: &Sidecar, outcome: &str) -> f64 {
    let series = format!("claimgate_tls_reloads_total{{outcome=\"{outcome}\"}}");
    sidecar.metric(&series).unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
}

#[test]
fn serves_a_renewed_certificate_and_keeps_open_connections() {
    let authority = Authority::new();
    let (sidecar, _upstream, _issuer) = start(&format!("{}{ROUTES}", authority.listen("")));
    let first = server_certificate(&authority, &sidecar);
    let mut before = authority.connector().connect(sidecar.address).unwrap();
    assert_eq!(before.call(&get("/open/x")).status, 200);

    let file = authority.file("gate.crt");
    let expiry = format!(
        "claimgate_tls_certificate_expiry_timestamp_seconds{{certificate=\"{}\"}}",
        file.display()
    );
    let first_expiry = sidecar.metric(&expiry).unwrap();
    authority.issue("gate", |params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("gate.test".try_into().unwrap())];
        params.not_after = date_time_ymd(2030, 1, 1);
    });
    eventually("the new certificate is served", || {
        server_certificate(&authority, &sidecar) != first
    });
    eventually("it is counted", || reloads(&sidecar, "success") > 0.5);
    let until = sidecar.metric(&expiry).unwrap();
    assert!(
        (until - 1_893_456_000.0).abs() < 0.5,
        "{first_expiry} {until}"
    );
    assert_eq!(before.call(&get("/open/x")).status, 200);
}

#[test]
fn an_invalid_certificate_keeps_the_previous_one() {
    let authority = Authority::new();
    let (sidecar, _upstream, _issuer) = start(&format!("{}{ROUTES}", authority.listen("")));
    let first = server_certificate(&authority, &sidecar);
    let mut failures = 0.0;
    let key = authority.file("gate.key");
    let valid = fs::read(&key).unwrap();
    let other = fs::read(authority.server("other", &["gate.test"]).key).unwrap();
    for invalid in [&b"no key"[..], &other] {
        replace(&key, invalid);
        failures += 1.0;
        eventually("the failure is counted", || {
            reloads(&sidecar, "failure") > failures - 0.5
        });
        assert_eq!(server_certificate(&authority, &sidecar), first);
    }
    fs::remove_file(&key).unwrap();
    eventually("the missing key is counted", || {
        reloads(&sidecar, "failure") > failures + 0.5
    });
    assert_eq!(server_certificate(&authority, &sidecar), first);
    replace(&key, valid);
    eventually("the key is back", || reloads(&sidecar, "success") > 0.5);
    // Each change is reported once, although it lasted for several polls.
    assert!(reloads(&sidecar, "failure") < failures + 1.5);
}

#[test]
fn an_invalid_pair_does_not_block_the_reload_of_another() {
    let authority = Authority::new();
    let [gate, other] = [("gate", "gate.test"), ("other", "other.test")]
        .map(|(file, name)| authority.server(file, &[name]));
    let config = format!(
        "[listen]\ntls = {{ {}, more = [{{ {} }}] }}\n{ROUTES}",
        written(&gate),
        written(&other)
    );
    let (sidecar, _upstream, _issuer) = start(&config);
    let server_certificate = |name| {
        let stream = authority.connector().name(name).handshake(sidecar.address);
        stream.unwrap().conn.peer_certificates().unwrap()[0].to_vec()
    };
    let before = (
        server_certificate("gate.test"),
        server_certificate("other.test"),
    );
    replace(&gate.key, "broken");
    eventually("the failure is counted", || {
        reloads(&sidecar, "failure") > 0.5
    });
    authority.server("other", &["other.test"]);
    eventually("the other is renewed", || {
        server_certificate("other.test") != before.1
    });
    assert_eq!(server_certificate("gate.test"), before.0);
}

#[test]
fn reloads_the_authorities_of_client_certificates() {
    let (authority, other) = (Authority::new(), Authority::new());
    let ca = authority.file("clients.crt");
    copy(&authority.file("ca.crt"), &ca);
    let lines = format!("client_ca = \"{}\"", ca.display());
    let (sidecar, _upstream, _issuer) = start(&format!("{}{ROUTES}", authority.listen(&lines)));
    let is_served = |pair: &Pair| {
        let client = authority
            .connector()
            .presenting(pair)
            .connect(sidecar.address);
        client.is_ok_and(|mut client| {
            client.send(get("/open/x").bytes());
            client
                .read(false)
                .is_ok_and(|response| response.status == 200)
        })
    };
    let (ours, theirs) = (
        authority.issue("ours", |_| {}),
        other.issue("theirs", |_| {}),
    );
    assert!(is_served(&ours) && !is_served(&theirs));
    replace(&ca, other.pem());
    eventually("the other authority is accepted", || is_served(&theirs));
    assert!(!is_served(&ours));
    replace(&ca, "nothing");
    eventually("the failure is counted", || {
        reloads(&sidecar, "failure") > 0.5
    });
    assert!(is_served(&theirs) && !is_served(&ours));
}

/// Updates files like Kubernetes updates a mounted secret: they are links through `..data`, which is swapped.
fn publish(directory: &Path, number: usize, certificate: &Path, key: &Path) {
    let version = directory.join(format!("..{number}"));
    fs::create_dir(&version).unwrap();
    copy(certificate, &version.join("tls.crt"));
    copy(key, &version.join("tls.key"));
    let link = directory.join("..data_tmp");
    std::os::unix::fs::symlink(&version, &link).unwrap();
    fs::rename(&link, directory.join("..data")).unwrap();
}

#[test]
fn no_handshake_fails_while_certificate_and_key_briefly_mismatch() {
    let authority = Authority::new();
    let pairs = ["a", "b"].map(|name| authority.server(name, &["gate.test"]));
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    publish(directory, 0, &pairs[0].certificate, &pairs[0].key);
    for file in ["tls.crt", "tls.key"] {
        let data = Path::new("..data").join(file);
        std::os::unix::fs::symlink(data, directory.join(file)).unwrap();
    }
    let tls = ServerTls::load(Settings {
        pairs: vec![Pair {
            certificate: directory.join("tls.crt"),
            key: directory.join("tls.key"),
        }],
        min_version: TlsVersion::Tls12,
        clients: None,
    });
    let tls = Arc::new(tls.unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = Arc::clone(&tls);
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            accepting.accept(stream).await.unwrap();
        }
    });
    let stop = AtomicBool::new(false);
    let (handshakes, changes) = std::thread::scope(|scope| {
        let shaking = scope.spawn(|| {
            let mut handshakes = 0;
            while !stop.load(Ordering::Relaxed) {
                authority.connector().handshake(address).unwrap();
                handshakes += 1;
            }
            handshakes
        });
        let mut reloader = Reloader::new(Arc::clone(&tls));
        let (mut valid, mut invalid) = (0, 0);
        for swap in 1..=50 {
            let (new, old) = (&pairs[swap % 2], &pairs[(swap + 1) % 2]);
            // First the new certificate with the old key, then both.
            publish(directory, 2 * swap, &new.certificate, &old.key);
            let results = reloader.reload_changed();
            invalid += results
                .iter()
                .filter(|reloaded| reloaded.result.is_err())
                .count();
            publish(directory, 2 * swap + 1, &new.certificate, &new.key);
            let results = reloader.reload_changed();
            valid += results
                .iter()
                .filter(|reloaded| reloaded.result.is_ok())
                .count();
            assert!(reloader.reload_changed().is_empty(), "no change");
            authority.connector().handshake(address).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        (shaking.join().unwrap(), (valid, invalid))
    });
    assert_eq!(changes, (50, 50));
    assert!(handshakes > 0, "no handshake during the swaps");
    runtime.shutdown_background();
}
