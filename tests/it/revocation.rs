//! Certificates of clients that were revoked, and of which it is not known whether they were.

use std::fs;

use claimgate::config::ClientAuth;
use claimgate::tls::Pair;
use claimgate::tls::server::Clients;
use rcgen::SerialNumber;
use rustls::version::{TLS12, TLS13};

use crate::harness::{
    Authority, Connector, ROUTES, Sidecar, Upstream, eventually, get, replace, start,
};

/// A gate that asks for certificates of an authority, and for its lists in `clients.crl`.
fn gate(authority: &Authority, how: &str, lists: &str) -> (Sidecar, Upstream) {
    fs::write(authority.file("clients.crl"), lists).unwrap();
    let [ca, crl] = ["ca.crt", "clients.crl"].map(|name| authority.file(name));
    let (ca, crl) = (ca.display(), crl.display());
    let lines =
        format!("client_ca = \"{ca}\"\nclient_crl = \"{crl}\"\nclient_certificate = \"{how}\"");
    let (sidecar, upstream, _issuer) = start(&format!("{}{ROUTES}", authority.listen(&lines)));
    (sidecar, upstream)
}

/// The certificate with this number.
fn numbered(authority: &Authority, number: u64) -> Pair {
    authority.issue(&number.to_string(), |params| {
        params.serial_number = Some(SerialNumber::from(number));
    })
}

/// What becomes of a client: its status, or the alert.
fn outcome(sidecar: &Sidecar, connector: &Connector) -> String {
    let answer = connector.connect(sidecar.address).and_then(|mut client| {
        client.send(get("/open/x").bytes());
        client.read(false)
    });
    answer.map_or_else(
        |error| error.to_string(),
        |answer| answer.status.to_string(),
    )
}

fn metric(authority: &Authority, sidecar: &Sidecar) -> f64 {
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
fn a_revoked_certificate_is_refused_in_the_handshake_and_a_good_one_comes_in() {
    for how in ["required", "optional"] {
        let authority = Authority::new();
        let (sidecar, _upstream) = gate(&authority, how, &authority.revoked(&[2, 3], 2020, 2100));
        for version in [&TLS12, &TLS13] {
            let client = authority.connector().speaking(version);
            let shown = |number| {
                let client = client.clone().showing(&numbered(&authority, number));
                outcome(&sidecar, &client)
            };
            assert_eq!(shown(1), "200");
            for number in [2, 3] {
                let error = shown(number);
                assert!(error.contains("CertificateRevoked"), "{error}");
            }
            if how == "optional" {
                assert_eq!(outcome(&sidecar, &client), "200");
            }
        }
        let series = "claimgate_request_heads_rejected_total{reason=\"tls_handshake\"}";
        eventually("the handshakes that failed are counted", || {
            (sidecar.metric(series).unwrap() - 4.0).abs() < 0.5
        });
    }
}

#[test]
fn what_is_not_known_to_be_good_does_not_come_in() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let other = Authority::named("somebody else");
    let expired = authority.revoked(&[], 2000, 2001);
    for (lists, alert) in [
        (other.revoked(&[], 2020, 2100), "UnknownCA"),
        (expired.clone(), "UnknownCA"),
        // By the name of our authority, and with another key.
        (stranger.revoked(&[], 2020, 2100), "HandshakeFailure"),
    ] {
        let (sidecar, _upstream) = gate(&authority, "required", &lists);
        let client = authority.connector().showing(&numbered(&authority, 1));
        let error = outcome(&sidecar, &client);
        assert!(error.contains(alert), "{alert}: {error}");
    }
    // And an old list beside a good one is not looked at.
    let lists = expired + &authority.revoked(&[], 2020, 2100);
    let (sidecar, _upstream) = gate(&authority, "required", &lists);
    let client = authority.connector().showing(&numbered(&authority, 1));
    assert_eq!(outcome(&sidecar, &client), "200");
}

#[test]
fn an_old_list_in_the_same_file_does_not_hide_what_the_new_one_revokes() {
    let authority = Authority::new();
    let (old, new) = (
        authority.revoked(&[], 2019, 2090),
        authority.revoked(&[2], 2020, 2100),
    );
    let other = Authority::named("somebody else").revoked(&[1], 2021, 2100);
    for lists in [
        [&*old, &*new, &*other].concat(),
        [&*other, &*new, &*old].concat(),
    ] {
        let (sidecar, _upstream) = gate(&authority, "required", &lists);
        let shown = |number| {
            let client = authority.connector().showing(&numbered(&authority, number));
            outcome(&sidecar, &client)
        };
        assert_eq!(shown(1), "200");
        assert!(shown(2).contains("CertificateRevoked"));
        // What is not looked at does not end either: 2100 and not 2090.
        assert!((metric(&authority, &sidecar) - 4_102_444_800.0).abs() < 0.5);
    }
}

#[test]
fn a_list_in_parts_is_not_taken() {
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
        error.contains("an issuer has a list for each of several parts"),
        "{error}"
    );
}

#[test]
fn a_certificate_of_an_authority_in_between_needs_a_list_of_each() {
    let root = Authority::new();
    let middle = root.below("in between", 9);
    let client = root.connector().showing(&middle.issue("1", |params| {
        params.serial_number = Some(SerialNumber::from(1));
    }));
    let of_middle = middle.revoked(&[], 2020, 2100);
    for (lists, is_served) in [
        (of_middle.clone() + &root.revoked(&[], 2020, 2100), true),
        (of_middle.clone() + &root.revoked(&[9], 2020, 2100), false),
        (of_middle, false),
        (root.revoked(&[], 2020, 2100), false),
    ] {
        let (sidecar, _upstream) = gate(&root, "required", &lists);
        let found = outcome(&sidecar, &client);
        assert_eq!(found == "200", is_served, "{found}");
    }
}

#[test]
fn a_new_list_is_taken_without_a_restart_and_a_broken_one_leaves_the_old_in_force() {
    let authority = Authority::new();
    let (sidecar, _upstream) = gate(&authority, "required", &authority.revoked(&[], 2020, 2090));
    let [one, two] =
        [1, 2].map(|number| authority.connector().showing(&numbered(&authority, number)));
    let mut open = two.connect(sidecar.address).unwrap();
    assert_eq!(open.call(&get("/open/x")).status, 200);
    let file = authority.file("clients.crl");
    let new = authority.revoked(&[2], 2021, 2100);
    replace(&file, &new);
    eventually("what is revoked now is refused", || {
        outcome(&sidecar, &two).contains("CertificateRevoked")
    });
    eventually("its end is told", || {
        (metric(&authority, &sidecar) - 4_102_444_800.0).abs() < 0.5
    });
    // Who is in stays in.
    assert_eq!(open.call(&get("/open/x")).status, 200);

    let half = &new[..new.len() / 2];
    let later = authority.revoked(&[], 2022, 2100);
    let broken = [
        String::new(),
        half.to_owned(),
        later + half,
        authority.pem(),
    ];
    for (count, text) in (1_u32..).zip(broken) {
        replace(&file, text);
        eventually("the failure is counted", || {
            (failures(&sidecar) - f64::from(count)).abs() < 0.5
        });
        assert_eq!(outcome(&sidecar, &one), "200");
        assert!(outcome(&sidecar, &two).contains("CertificateRevoked"));
    }
    replace(&file, authority.revoked(&[1], 2023, 2100));
    eventually("a good one counts again", || {
        outcome(&sidecar, &two) == "200" && outcome(&sidecar, &one) != "200"
    });
}
