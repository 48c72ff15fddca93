//! Revoked client certificates, and client certificates with an unknown revocation status.

use std::fs;

use claimgate::config::ClientAuth;
use claimgate::tls::Pair;
use claimgate::tls::server::Clients;
use rcgen::SerialNumber;
use rustls::version::{TLS12, TLS13};

use crate::harness::{
    Authority, Connector, ROUTES, Sidecar, Upstream, eventually, get, replace, start,
};

/// Starts a gate that verifies client certificates of an authority against the CRLs in `clients.crl`.
fn gate(authority: &Authority, mode: &str, crls: &str) -> (Sidecar, Upstream) {
    fs::write(authority.file("clients.crl"), crls).unwrap();
    let [ca, crl] = ["ca.crt", "clients.crl"].map(|name| authority.file(name));
    let (ca, crl) = (ca.display(), crl.display());
    let lines =
        format!("client_ca = \"{ca}\"\nclient_crl = \"{crl}\"\nclient_certificate = \"{mode}\"");
    let (sidecar, upstream, _issuer) = start(&format!("{}{ROUTES}", authority.listen(&lines)));
    (sidecar, upstream)
}

/// Issues a certificate with this serial number.
fn numbered(authority: &Authority, number: u64) -> Pair {
    authority.issue(&number.to_string(), |params| {
        params.serial_number = Some(SerialNumber::from(number));
    })
}

/// Outcome of one request: its status, or the alert.
fn outcome(sidecar: &Sidecar, connector: &Connector) -> String {
    let response = connector.connect(sidecar.address).and_then(|mut client| {
        client.send(get("/open/x").bytes());
        client.read(false)
    });
    response.map_or_else(
        |error| error.to_string(),
        |response| response.status.to_string(),
    )
}

fn crl_expiry(authority: &Authority, sidecar: &Sidecar) -> f64 {
    let file = authority.file("clients.crl");
    let series = "claimgate_tls_crl_expiry_timestamp_seconds";
    let series = format!("{series}{{crl=\"{}\"}}", file.display());
    sidecar.metric(&series).unwrap()
}

fn failures(sidecar: &Sidecar) -> f64 {
    let series = "claimgate_tls_reloads_total{outcome=\"failure\"}";
    sidecar.metric(series).unwrap()
}

#[test]
fn rejects_a_revoked_certificate_in_the_handshake() {
    for mode in ["required", "optional"] {
        let authority = Authority::new();
        let (sidecar, _upstream) = gate(&authority, mode, &authority.revoked(&[2, 3], 2020, 2100));
        for version in [&TLS12, &TLS13] {
            let client = authority.connector().speaking(version);
            let presenting = |number| {
                let client = client.clone().presenting(&numbered(&authority, number));
                outcome(&sidecar, &client)
            };
            assert_eq!(presenting(1), "200");
            for number in [2, 3] {
                let error = presenting(number);
                assert!(error.contains("CertificateRevoked"), "{error}");
            }
            if mode == "optional" {
                assert_eq!(outcome(&sidecar, &client), "200");
            }
        }
        let series = "claimgate_request_heads_rejected_total{reason=\"tls_handshake\"}";
        eventually("the failed handshakes are counted", || {
            (sidecar.metric(series).unwrap() - 4.0).abs() < 0.5
        });
    }
}

#[test]
fn rejects_a_certificate_with_an_unknown_revocation_status() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let other = Authority::named("another authority");
    let expired = authority.revoked(&[], 2000, 2001);
    for (crls, alert) in [
        (other.revoked(&[], 2020, 2100), "UnknownCA"),
        (expired.clone(), "UnknownCA"),
        // The name of the trusted authority with another key.
        (stranger.revoked(&[], 2020, 2100), "HandshakeFailure"),
    ] {
        let (sidecar, _upstream) = gate(&authority, "required", &crls);
        let client = authority.connector().presenting(&numbered(&authority, 1));
        let error = outcome(&sidecar, &client);
        assert!(error.contains(alert), "{alert}: {error}");
    }
    // An expired CRL beside a current one is ignored.
    let crls = expired + &authority.revoked(&[], 2020, 2100);
    let (sidecar, _upstream) = gate(&authority, "required", &crls);
    let client = authority.connector().presenting(&numbered(&authority, 1));
    assert_eq!(outcome(&sidecar, &client), "200");
}

#[test]
fn the_newest_crl_of_an_issuer_decides() {
    let authority = Authority::new();
    let (old, new) = (
        authority.revoked(&[], 2019, 2090),
        authority.revoked(&[2], 2020, 2100),
    );
    let other = Authority::named("another authority").revoked(&[1], 2021, 2100);
    for crls in [
        [&*old, &*new, &*other].concat(),
        [&*other, &*new, &*old].concat(),
    ] {
        let (sidecar, _upstream) = gate(&authority, "required", &crls);
        let presenting = |number| {
            let client = authority
                .connector()
                .presenting(&numbered(&authority, number));
            outcome(&sidecar, &client)
        };
        assert_eq!(presenting(1), "200");
        assert!(presenting(2).contains("CertificateRevoked"));
        // The older CRL does not count for the expiry: 2100 and not 2090.
        assert!((crl_expiry(&authority, &sidecar) - 4_102_444_800.0).abs() < 0.5);
    }
}

#[test]
fn rejects_partitioned_crls() {
    let authority = Authority::new();
    let part =
        |numbers: &[u64], from, url| authority.revoked_in_part(numbers, from, 2100, Some(url));
    let (one, other) = (
        part(&[1], 2019, "http://a.test/1"),
        part(&[2], 2020, "http://a.test/2"),
    );
    let file = authority.file("lists.crl");
    let clients = Clients {
        ca_file: authority.file("ca.crt"),
        crl_file: Some(file.clone()),
        auth: ClientAuth::Required,
    };
    fs::write(&file, &one).unwrap();
    assert!(clients.check().is_ok());
    fs::write(&file, [one, other].concat()).unwrap();
    let error = clients.check().unwrap_err().to_string();
    assert!(
        error.contains("an issuer has several partitioned CRLs"),
        "{error}"
    );
}

#[test]
fn a_certificate_of_an_intermediate_needs_a_crl_of_each_issuer() {
    let root = Authority::new();
    let intermediate = root.below("intermediate", 9);
    let client = root
        .connector()
        .presenting(&intermediate.issue("1", |params| {
            params.serial_number = Some(SerialNumber::from(1));
        }));
    let intermediate_crl = intermediate.revoked(&[], 2020, 2100);
    for (crls, is_served) in [
        (
            intermediate_crl.clone() + &root.revoked(&[], 2020, 2100),
            true,
        ),
        (
            intermediate_crl.clone() + &root.revoked(&[9], 2020, 2100),
            false,
        ),
        (intermediate_crl, false),
        (root.revoked(&[], 2020, 2100), false),
    ] {
        let (sidecar, _upstream) = gate(&root, "required", &crls);
        let found = outcome(&sidecar, &client);
        assert_eq!(found == "200", is_served, "{found}");
    }
}

#[test]
fn reloads_crls_and_keeps_the_previous_ones_after_a_failed_reload() {
    let authority = Authority::new();
    let (sidecar, _upstream) = gate(&authority, "required", &authority.revoked(&[], 2020, 2090));
    let [one, two] = [1, 2].map(|number| {
        authority
            .connector()
            .presenting(&numbered(&authority, number))
    });
    let mut open = two.connect(sidecar.address).unwrap();
    assert_eq!(open.call(&get("/open/x")).status, 200);
    let file = authority.file("clients.crl");
    let new = authority.revoked(&[2], 2021, 2100);
    replace(&file, &new);
    eventually("the revoked certificate is rejected", || {
        outcome(&sidecar, &two).contains("CertificateRevoked")
    });
    eventually("the expiry is reported", || {
        (crl_expiry(&authority, &sidecar) - 4_102_444_800.0).abs() < 0.5
    });
    // An open connection stays open.
    assert_eq!(open.call(&get("/open/x")).status, 200);

    let half = &new[..new.len() / 2];
    let later = authority.revoked(&[], 2022, 2100);
    let invalid = [
        String::new(),
        half.to_owned(),
        later + half,
        authority.pem(),
    ];
    for (count, text) in (1_u32..).zip(invalid) {
        replace(&file, text);
        eventually("the failure is counted", || {
            (failures(&sidecar) - f64::from(count)).abs() < 0.5
        });
        assert_eq!(outcome(&sidecar, &one), "200");
        assert!(outcome(&sidecar, &two).contains("CertificateRevoked"));
    }
    replace(&file, authority.revoked(&[1], 2023, 2100));
    eventually("a valid CRL is reloaded", || {
        outcome(&sidecar, &two) == "200" && outcome(&sidecar, &one) != "200"
    });
}
