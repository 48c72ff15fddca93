//! Client certificates (mTLS): the handshake, rules, identity headers and certificate-bound tokens.

use std::net::SocketAddr;

use claimgate::gate::certificate::ClientCertificate;
use claimgate::tls::{self, Pair};
use rcgen::{CertificateParams, CustomExtension, DnType, DnValue, SanType, date_time_ymd};
use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};

use crate::harness::issuer::claims;
use crate::harness::{Authority, Connector, Request, Response, eventually, get, post, start};

const URI: &str = "spiffe://cluster.local/ns/app/sa/web";

/// Parameters of a client certificate.
fn client(params: &mut CertificateParams) {
    let name = DnValue::Utf8String("web, first".to_owned());
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![
        SanType::DnsName("web.example".try_into().unwrap()),
        SanType::URI(URI.try_into().unwrap()),
    ];
}

fn attributes(pair: &Pair) -> ClientCertificate {
    tls::client_certificate(&pair.certificate).unwrap()
}

/// Configuration of a gate that requests client certificates.
fn requesting(authority: &Authority, mode: &str, routes: &str) -> String {
    authority.listen_mtls(mode) + routes
}

/// Sends one request over a new connection. Fails if the gate rejects the client.
fn call(
    connector: &Connector,
    address: SocketAddr,
    request: &Request,
) -> std::io::Result<Response> {
    let mut client = connector.connect(address)?;
    client.send(request.bytes());
    client.read(false)
}

const PAGES: &str = r#"
[[routes]]
path = "/open"
access = "public"

[[routes]]
path = "/me"
access = "authenticated"
"#;

#[test]
fn requires_a_valid_client_certificate() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (sidecar, upstream, _issuer) = start(&requesting(&authority, "required", PAGES));
    let trusted = authority.issue("trusted", client);
    let expired = authority.issue("expired", |params| {
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2001, 1, 1);
    });
    let foreign = stranger.issue("foreign", client);
    // A certificate is public: an attacker presents it without its private key.
    let stolen = Pair {
        certificate: trusted.certificate.clone(),
        key: foreign.key.clone(),
    };
    let rejected = [
        (None, "CertificateRequired"),
        (Some(&expired), "CertificateExpired"),
        // Its authority has the name of the trusted one but another key.
        (Some(&foreign), "DecryptError"),
        (Some(&stolen), "DecryptError"),
    ];
    for version in [&TLS12, &TLS13] {
        let connector = authority.connector().speaking(version);
        let request = post("/open", &vec![b'x'; 100_000]);
        let send = |presented: Option<&Pair>| {
            let mut connector = connector.clone();
            if let Some(pair) = presented {
                connector = connector.presenting(pair);
            }
            call(&connector, sidecar.address, &request)
        };
        assert_eq!(send(Some(&trusted)).unwrap().status, 200);
        for (presented, alert) in rejected {
            let error = send(presented).unwrap_err().to_string();
            assert!(error.contains(alert), "{alert}: {error}");
        }
    }
    assert_eq!(upstream.arrived().len(), 2);
    let series = "claimgate_request_heads_rejected_total{reason=\"tls_handshake\"}";
    eventually("every failed handshake is counted", || {
        (sidecar.metric(series).unwrap() - 8.0).abs() < 0.5
    });
}

#[test]
fn an_optional_certificate_may_be_absent_but_not_invalid() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let routes = format!("[identity]\nheaders = {{ X-Client = \"certificate:dns\" }}\n{PAGES}");
    let (sidecar, upstream, issuer) = start(&requesting(&authority, "optional", &routes));
    let trusted = authority.issue("trusted", client);
    let me = get("/me").bearer(&issuer.token("alice"));
    let anonymous = authority.connector();
    assert_eq!(call(&anonymous, sidecar.address, &me).unwrap().status, 200);
    let known = anonymous.clone().presenting(&trusted);
    assert_eq!(call(&known, sidecar.address, &me).unwrap().status, 200);
    let foreign = anonymous.presenting(&stranger.issue("foreign", client));
    assert!(call(&foreign, sidecar.address, &me).is_err());
    let received = upstream.arrived().into_iter();
    let received: Vec<_> = received
        .map(|arrived| arrived.head.value("x-client"))
        .collect();
    assert_eq!(received, [None, Some("web.example".to_owned())]);
}

/// rustls does not parse the names in a client certificate; x509-cert does. A certificate with malformed names must not
/// pass as an absent one.
#[test]
fn closes_the_connection_of_a_trusted_certificate_that_cannot_be_parsed() {
    let authority = Authority::new();
    let (sidecar, upstream, _issuer) = start(&requesting(&authority, "optional", PAGES));
    let malformed = authority.issue("malformed", |params| {
        // Subject alternative names with a DNS name that is not ASCII.
        let names = vec![0x30, 3, 0x82, 1, 0xff];
        let names = CustomExtension::from_oid_content(&[2, 5, 29, 17], names);
        params.custom_extensions = vec![names];
    });
    let error = tls::client_certificate(&malformed.certificate).unwrap_err();
    assert!(error.to_string().ends_with("cannot be parsed"), "{error}");
    for version in [&TLS12, &TLS13] {
        let connector = authority
            .connector()
            .speaking(version)
            .presenting(&malformed);
        // The handshake itself succeeds, without an alert.
        let mut stream = connector.handshake(sidecar.address).unwrap();
        let read = stream.conn.complete_io(&mut stream.sock);
        let alert = read.is_err_and(|error| error.to_string().contains("fatal alert"));
        assert!(!alert, "the handshake failed");
        assert!(call(&connector, sidecar.address, &get("/open")).is_err());
    }
    upstream.assert_untouched();
    let series = "claimgate_request_heads_rejected_total{reason=\"tls_handshake\"}";
    eventually("every closed connection is counted", || {
        (sidecar.metric(series).unwrap() - 4.0).abs() < 0.5
    });
}

#[test]
fn a_returning_client_presents_its_certificate_again() {
    let authority = Authority::new();
    let (sidecar, _upstream, _issuer) = start(&requesting(&authority, "optional", PAGES));
    for version in [&TLS12, &TLS13] {
        let trusted = authority.issue("trusted", client);
        let connector = authority
            .connector()
            .speaking(version)
            .resuming()
            .presenting(&trusted);
        for _ in 0..3 {
            let mut client = connector.connect(sidecar.address).unwrap();
            assert_eq!(client.call(&get("/open")).status, 200);
            assert!(!client.wire.is_resumed());
        }
    }
}

#[test]
fn certificate_rules_use_the_certificate_of_the_connection() {
    let authority = Authority::new();
    let trusted = authority.issue("trusted", client);
    let thumbprint = attributes(&trusted).thumbprint;
    let route = |path: &str, rule: &str| {
        format!(
            "[[routes]]\npath = \"/{path}\"\naccess = \"authenticated\"\nrequire = [{{ {rule} }}]\n"
        )
    };
    let routes = [
        route(
            "dns",
            "certificate = \"dns\", any = [\"api.example\", \"web.example\"]",
        ),
        route("uri", &format!("certificate = \"uri\", equals = \"{URI}\"")),
        route(
            "subject",
            "certificate = \"subject\", equals = 'CN=web\\, first'",
        ),
        route(
            "thumbprint",
            &format!("certificate = \"thumbprint\", has = \"{thumbprint}\""),
        ),
        r#"
[[routes]]
path = "/users/{user_id}"
access = { owner = "user_id" }
exempt = { certificate = "dns", has = "web.example" }
"#
        .to_owned(),
    ];
    let (sidecar, upstream, issuer) = start(&requesting(&authority, "optional", &routes.concat()));
    let token = issuer.token("alice");
    let send = |connector: &Connector, target: &str| {
        let request = get(target)
            .bearer(&token)
            .line("X-Client-Certificate: web.example")
            .line(&format!(
                "X-Forwarded-Client-Cert: Subject=\"CN=web\";URI={URI}"
            ));
        call(connector, sidecar.address, &request).unwrap()
    };
    let anonymous = authority.connector();
    let other = anonymous
        .clone()
        .presenting(&authority.issue("other", |params| {
            params
                .distinguished_name
                .push(DnType::CommonName, "web.example");
            params.subject_alt_names =
                vec![SanType::DnsName("web.example.evil".try_into().unwrap())];
        }));
    let trusted = anonymous.clone().presenting(&trusted);
    for target in ["/dns", "/uri", "/subject", "/thumbprint"] {
        assert_eq!(send(&trusted, target).status, 200, "{target}");
        for connector in [&anonymous, &other] {
            let response = send(connector, target);
            response.refused(403, "certificate_denied");
            assert_eq!(response.header("www-authenticate"), None);
        }
    }
    assert_eq!(send(&trusted, "/users/bob").status, 200);
    send(&other, "/users/bob").refused(403, "subject_mismatch");
    send(&anonymous, "/users/bob").refused(403, "subject_mismatch");
    assert_eq!(upstream.arrived().len(), 5);
}

#[test]
fn a_request_header_cannot_set_a_certificate_attribute() {
    let authority = Authority::new();
    let headers = r#"
[identity]
headers = { X-Client-Subject = "certificate:subject", X-Client-Name = "certificate:uri", X-Client-Hash = "certificate:thumbprint" }
"#;
    let config = requesting(&authority, "optional", &format!("{headers}{PAGES}"));
    let (sidecar, upstream, issuer) = start(&config);
    let pair = authority.issue("trusted", client);
    let anonymous = authority.connector();
    let token = issuer.token("alice");
    for connector in [anonymous.clone().presenting(&pair), anonymous] {
        for target in ["/me", "/open"] {
            let request = get(target)
                .bearer(&token)
                .line("X-Client-Subject: CN=root")
                .line("x_client_subject: CN=root")
                .line("X-Client-Hash: 0")
                .line("X.Client.Name: spiffe://cluster.local/ns/app/sa/root");
            let response = call(&connector, sidecar.address, &request).unwrap();
            assert_eq!(response.status, 200);
        }
    }
    let received: Vec<Vec<Option<String>>> = upstream
        .arrived()
        .iter()
        .map(|arrived| {
            let text = arrived.head.text();
            assert!(!text.contains("root"), "{text}");
            ["x-client-subject", "x-client-name", "x-client-hash"]
                .map(|name| arrived.head.value(name))
                .to_vec()
        })
        .collect();
    let all = vec![
        Some("CN=web\\, first".to_owned()),
        Some(URI.to_owned()),
        Some(attributes(&pair).thumbprint),
    ];
    let none = vec![None; 3];
    assert_eq!(received, [all, none.clone(), none.clone(), none]);
}

/// Claims of a token with a `cnf` claim (RFC 7800 section 3.1).
fn bound(cnf: &Value) -> Value {
    let mut claims = claims("alice");
    claims["cnf"] = cnf.clone();
    claims
}

#[test]
fn accepts_a_bound_token_with_its_certificate_only() {
    let authority = Authority::new();
    let (sidecar, upstream, issuer) = start(&requesting(&authority, "optional", PAGES));
    let [own, other] = ["own", "other"].map(|name| authority.issue(name, client));
    let token = issuer.sign(&bound(&json!({ "x5t#S256": attributes(&own).thumbprint })));
    let anonymous = authority.connector();
    let [own, other] = [own, other].map(|pair| anonymous.clone().presenting(&pair));
    let send = |connector: &Connector| {
        let response = call(connector, sidecar.address, &get("/me").bearer(&token));
        response.unwrap().outcome()
    };
    let refused = (401, "token_confirmation".to_owned());
    // Before and after the token is cached.
    for _ in 0..3 {
        assert_eq!(send(&other), refused);
        assert_eq!(send(&anonymous), refused);
        assert_eq!(send(&own), (200, String::new()));
    }
    assert_eq!(upstream.arrived().len(), 3);
    let hits = "claimgate_token_cache_lookups_total{result=\"hit\"}";
    assert!(
        sidecar.metric(hits).unwrap() > 5.5,
        "the token was not cached"
    );
}

#[test]
fn rejects_a_token_with_another_kind_of_binding() {
    let authority = Authority::new();
    let (sidecar, upstream, issuer) = start(&requesting(&authority, "required", PAGES));
    let pair = authority.issue("trusted", client);
    let thumbprint = attributes(&pair).thumbprint;
    let connector = authority.connector().presenting(&pair);
    for cnf in [
        json!(null),
        json!({}),
        json!({ "jkt": thumbprint }),
        json!({ "x5t#S256": thumbprint, "jkt": thumbprint }),
        json!({ "x5t#S256": [thumbprint] }),
        json!({ "x5t#S256": format!("{thumbprint}=") }),
        json!([{ "x5t#S256": thumbprint }]),
    ] {
        let request = get("/me").bearer(&issuer.sign(&bound(&cnf)));
        let response = call(&connector, sidecar.address, &request).unwrap();
        assert_eq!(
            response.outcome(),
            (401, "token_confirmation".to_owned()),
            "{cnf}"
        );
    }
    upstream.assert_untouched();
}

#[test]
fn allow_bound_rejects_a_presented_certificate_that_differs() {
    let authority = Authority::new();
    let issuers = r#"
[issuers.lenient]
keys = { secret_env = "TEST_SECRET" }
issuer = "https://lenient.test"
allow_bound = true
"#;
    let config = requesting(&authority, "optional", &format!("{issuers}{PAGES}"));
    let (sidecar, _upstream, issuer) = start(&config);
    let [own, other] = ["own", "other"].map(|name| authority.issue(name, client));
    let thumbprint = attributes(&own).thumbprint;
    let anonymous = authority.connector();
    let [own, other] = [own, other].map(|pair| anonymous.clone().presenting(&pair));
    let (served, refused) = ((200, String::new()), (401, "token_confirmation".to_owned()));
    for (cnf, expected) in [
        (
            json!({ "x5t#S256": thumbprint }),
            [&served, &refused, &served],
        ),
        (
            json!({ "x5t#S256": thumbprint, "jkt": "x" }),
            [&served, &refused, &served],
        ),
        (
            json!({ "x5t#S256": [thumbprint] }),
            [&refused, &refused, &served],
        ),
        (json!({ "jkt": thumbprint }), [&served, &served, &served]),
    ] {
        let mut claims = bound(&cnf);
        claims["iss"] = json!("https://lenient.test");
        let token = issuer.sign(&claims);
        // Before and after the token is cached.
        for _ in 0..2 {
            for (connector, expected) in [&own, &other, &anonymous].into_iter().zip(expected) {
                let request = get("/me").bearer(&token);
                let response = call(connector, sidecar.address, &request).unwrap();
                assert_eq!(response.outcome(), *expected, "{cnf}");
            }
        }
    }
}

#[test]
fn a_plain_listener_beside_a_tls_listener_has_no_client_certificate() {
    let authority = Authority::new();
    let plain = "[[listeners]]\naddress = \"127.0.0.1:0\"\n";
    let config = requesting(&authority, "required", &format!("{plain}{PAGES}"));
    let (sidecar, upstream, issuer) = start(&config);
    let pair = authority.issue("trusted", client);
    let token = issuer.sign(&bound(&json!({ "x5t#S256": attributes(&pair).thumbprint })));
    let request = get("/me").bearer(&token);
    let connector = authority.connector().presenting(&pair);
    assert_eq!(
        call(&connector, sidecar.address, &request).unwrap().status,
        200
    );
    let addresses = sidecar.running().addresses();
    let claimgate::config::Address::Tcp(plain) = addresses[1] else {
        panic!("{addresses:?}");
    };
    let mut client = crate::harness::Client::connect(plain);
    client.call(&request).refused(401, "token_confirmation");
    assert_eq!(upstream.arrived().len(), 1);
}
