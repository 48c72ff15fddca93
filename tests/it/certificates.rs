//! Client certificates: who comes in, what rules and headers make of them, and tokens that are bound to one.

use std::net::SocketAddr;

use claimgate::gate::certificate::ClientCertificate;
use claimgate::tls::{self, Pair};
use rcgen::{CertificateParams, CustomExtension, DnType, DnValue, SanType, date_time_ymd};
use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};

use crate::harness::issuer::claims;
use crate::harness::{Answer, Authority, Connector, Request, eventually, get, post, start};

const URI: &str = "spiffe://cluster.local/ns/app/sa/web";

/// What the certificate of a client says.
fn client(params: &mut CertificateParams) {
    let name = DnValue::Utf8String("web, first".to_owned());
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![
        SanType::DnsName("web.example".try_into().unwrap()),
        SanType::URI(URI.try_into().unwrap()),
    ];
}

fn said(pair: &Pair) -> ClientCertificate {
    tls::client_certificate(&pair.certificate).unwrap()
}

/// A gate with TLS that asks for certificates.
fn asking(authority: &Authority, how: &str, routes: &str) -> String {
    let ca = authority.file("ca.crt");
    let ca = ca.display();
    let lines = format!("client_ca = \"{ca}\"\nclient_certificate = \"{how}\"");
    format!("{}{routes}", authority.listen(&lines))
}

/// One request over a connection of its own; the error if the gate does not want the client.
fn call(connector: &Connector, address: SocketAddr, request: &Request) -> std::io::Result<Answer> {
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
fn without_a_good_certificate_nobody_comes_in_where_it_is_required() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (sidecar, upstream, _issuer) = start(&asking(&authority, "required", PAGES));
    let good = authority.issue("good", client);
    let expired = authority.issue("expired", |params| {
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2001, 1, 1);
    });
    let foreign = stranger.issue("foreign", client);
    // A certificate is no secret: somebody else shows it, and has not its key.
    let stolen = Pair {
        certificate: good.certificate.clone(),
        key: foreign.key.clone(),
    };
    let bad = [
        (None, "CertificateRequired"),
        (Some(&expired), "CertificateExpired"),
        // Its authority has the same name as ours, and not its key.
        (Some(&foreign), "DecryptError"),
        (Some(&stolen), "DecryptError"),
    ];
    for version in [&TLS12, &TLS13] {
        let connector = authority.connector().speaking(version);
        let request = post("/open", &vec![b'x'; 100_000]);
        let served = |shown: Option<&Pair>| {
            let mut connector = connector.clone();
            if let Some(pair) = shown {
                connector = connector.showing(pair);
            }
            call(&connector, sidecar.address, &request)
        };
        assert_eq!(served(Some(&good)).unwrap().status, 200);
        for (shown, alert) in bad {
            let error = served(shown).unwrap_err().to_string();
            assert!(error.contains(alert), "{alert}: {error}");
        }
    }
    assert_eq!(upstream.arrived().len(), 2);
    let series = "claimgate_request_heads_rejected_total{reason=\"tls_handshake\"}";
    eventually("every handshake that failed is counted", || {
        (sidecar.metric(series).unwrap() - 8.0).abs() < 0.5
    });
}

#[test]
fn where_it_is_optional_a_client_without_one_is_nobody_and_one_with_a_bad_one_is_not_served() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let routes = format!("[identity]\nheaders = {{ X-Client = \"certificate:dns\" }}\n{PAGES}");
    let (sidecar, upstream, issuer) = start(&asking(&authority, "optional", &routes));
    let good = authority.issue("good", client);
    let me = get("/me").bearer(&issuer.token("alice"));
    let anonymous = authority.connector();
    assert_eq!(call(&anonymous, sidecar.address, &me).unwrap().status, 200);
    let known = anonymous.clone().showing(&good);
    assert_eq!(call(&known, sidecar.address, &me).unwrap().status, 200);
    let foreign = anonymous.showing(&stranger.issue("foreign", client));
    assert!(call(&foreign, sidecar.address, &me).is_err());
    let told = upstream.arrived().into_iter();
    let told: Vec<_> = told.map(|arrived| arrived.head.value("x-client")).collect();
    assert_eq!(told, [None, Some("web.example".to_owned())]);
}

/// The library that judges the handshake looks at no name in the certificate of a client, and the one that reads it
/// does. What it cannot read could say anything: then the client is not let in as one that has shown nothing.
#[test]
fn a_good_certificate_that_cannot_be_read_ends_its_connection() {
    let authority = Authority::new();
    let (sidecar, upstream, _issuer) = start(&asking(&authority, "optional", PAGES));
    let odd = authority.issue("odd", |params| {
        // A list of names with one that is said to be a DNS name, and is not even text.
        let names = vec![0x30, 3, 0x82, 1, 0xff];
        let names = CustomExtension::from_oid_content(&[2, 5, 29, 17], names);
        params.custom_extensions = vec![names];
    });
    let error = tls::client_certificate(&odd.certificate).unwrap_err();
    assert!(error.to_string().ends_with("cannot be read"), "{error}");
    for version in [&TLS12, &TLS13] {
        let connector = authority.connector().speaking(version).showing(&odd);
        // The handshake itself is good: no alert says otherwise.
        let mut stream = connector.handshake(sidecar.address).unwrap();
        let read = stream.conn.complete_io(&mut stream.sock);
        let alert = read.is_err_and(|error| error.to_string().contains("fatal alert"));
        assert!(!alert, "the handshake has failed");
        assert!(call(&connector, sidecar.address, &get("/open")).is_err());
    }
    upstream.untouched();
    let series = "claimgate_request_heads_rejected_total{reason=\"tls_handshake\"}";
    eventually("every connection that ended so is counted", || {
        (sidecar.metric(series).unwrap() - 4.0).abs() < 0.5
    });
}

#[test]
fn a_client_that_comes_back_shows_its_certificate_again() {
    let authority = Authority::new();
    let (sidecar, _upstream, _issuer) = start(&asking(&authority, "optional", PAGES));
    for version in [&TLS12, &TLS13] {
        let good = authority.issue("good", client);
        let connector = authority
            .connector()
            .speaking(version)
            .resuming()
            .showing(&good);
        for _ in 0..3 {
            let mut client = connector.connect(sidecar.address).unwrap();
            assert_eq!(client.call(&get("/open")).status, 200);
            assert!(!client.wire.is_resumed());
        }
    }
}

#[test]
fn a_rule_about_a_certificate_is_judged_by_what_was_shown_on_the_connection() {
    let authority = Authority::new();
    let good = authority.issue("good", client);
    let thumbprint = said(&good).thumbprint;
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
    let (sidecar, upstream, issuer) = start(&asking(&authority, "optional", &routes.concat()));
    let token = issuer.token("alice");
    let ask = |connector: &Connector, target: &str| {
        let request = get(target)
            .bearer(&token)
            .line("X-Client-Certificate: web.example")
            .line(&format!(
                "X-Forwarded-Client-Cert: Subject=\"CN=web\";URI={URI}"
            ));
        call(connector, sidecar.address, &request).unwrap()
    };
    let nobody = authority.connector();
    let other = nobody.clone().showing(&authority.issue("other", |params| {
        params
            .distinguished_name
            .push(DnType::CommonName, "web.example");
        params.subject_alt_names = vec![SanType::DnsName("web.example.evil".try_into().unwrap())];
    }));
    let good = nobody.clone().showing(&good);
    for target in ["/dns", "/uri", "/subject", "/thumbprint"] {
        assert_eq!(ask(&good, target).status, 200, "{target}");
        for connector in [&nobody, &other] {
            let answer = ask(connector, target);
            answer.refused(403, "certificate_denied");
            assert_eq!(answer.header("www-authenticate"), None);
        }
    }
    assert_eq!(ask(&good, "/users/bob").status, 200);
    ask(&other, "/users/bob").refused(403, "subject_mismatch");
    ask(&nobody, "/users/bob").refused(403, "subject_mismatch");
    assert_eq!(upstream.arrived().len(), 5);
}

#[test]
fn what_a_certificate_says_cannot_be_said_by_a_header() {
    let authority = Authority::new();
    let headers = r#"
[identity]
headers = { X-Client-Subject = "certificate:subject", X-Client-Name = "certificate:uri", X-Client-Hash = "certificate:thumbprint" }
"#;
    let config = asking(&authority, "optional", &format!("{headers}{PAGES}"));
    let (sidecar, upstream, issuer) = start(&config);
    let pair = authority.issue("good", client);
    let nobody = authority.connector();
    let token = issuer.token("alice");
    for connector in [nobody.clone().showing(&pair), nobody] {
        for target in ["/me", "/open"] {
            let request = get(target)
                .bearer(&token)
                .line("X-Client-Subject: CN=root")
                .line("x_client_subject: CN=root")
                .line("X-Client-Hash: 0")
                .line("X.Client.Name: spiffe://cluster.local/ns/app/sa/root");
            let answer = call(&connector, sidecar.address, &request).unwrap();
            assert_eq!(answer.status, 200);
        }
    }
    let told: Vec<Vec<Option<String>>> = upstream
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
        Some(said(&pair).thumbprint),
    ];
    let none = vec![None; 3];
    assert_eq!(told, [all, none.clone(), none.clone(), none]);
}

/// A token that is bound (RFC 7800 section 3.1).
fn bound(cnf: &Value) -> Value {
    let mut claims = claims("alice");
    claims["cnf"] = cnf.clone();
    claims
}

#[test]
fn a_bound_token_is_good_with_its_certificate_alone_however_often_it_comes() {
    let authority = Authority::new();
    let (sidecar, upstream, issuer) = start(&asking(&authority, "optional", PAGES));
    let [good, other] = ["good", "other"].map(|name| authority.issue(name, client));
    let token = issuer.sign(&bound(&json!({ "x5t#S256": said(&good).thumbprint })));
    let nobody = authority.connector();
    let [good, other] = [good, other].map(|pair| nobody.clone().showing(&pair));
    let ask = |connector: &Connector| {
        let answer = call(connector, sidecar.address, &get("/me").bearer(&token));
        answer.unwrap().outcome()
    };
    let refused = (401, "token_confirmation".to_owned());
    // Before it is remembered, and after.
    for _ in 0..3 {
        assert_eq!(ask(&other), refused);
        assert_eq!(ask(&nobody), refused);
        assert_eq!(ask(&good), (200, String::new()));
    }
    assert_eq!(upstream.arrived().len(), 3);
    let hits = "claimgate_token_cache_lookups_total{result=\"hit\"}";
    assert!(sidecar.metric(hits).unwrap() > 5.5, "it was not remembered");
}

#[test]
fn what_is_bound_to_anything_else_is_refused_whatever_certificate_is_shown() {
    let authority = Authority::new();
    let (sidecar, upstream, issuer) = start(&asking(&authority, "required", PAGES));
    let pair = authority.issue("good", client);
    let thumbprint = said(&pair).thumbprint;
    let connector = authority.connector().showing(&pair);
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
        let answer = call(&connector, sidecar.address, &request).unwrap();
        assert_eq!(
            answer.outcome(),
            (401, "token_confirmation".to_owned()),
            "{cnf}"
        );
    }
    upstream.untouched();
}

#[test]
fn where_anything_may_be_bound_a_token_is_still_bound_to_the_certificate_that_is_shown() {
    let authority = Authority::new();
    let issuers = r#"
[issuers.lenient]
keys = { secret_env = "TEST_SECRET" }
issuer = "https://lenient.test"
allow_bound = true
"#;
    let config = asking(&authority, "optional", &format!("{issuers}{PAGES}"));
    let (sidecar, _upstream, issuer) = start(&config);
    let [good, other] = ["good", "other"].map(|name| authority.issue(name, client));
    let thumbprint = said(&good).thumbprint;
    let nobody = authority.connector();
    let [good, other] = [good, other].map(|pair| nobody.clone().showing(&pair));
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
        // Before it is remembered, and after.
        for _ in 0..2 {
            for (connector, expected) in [&good, &other, &nobody].into_iter().zip(expected) {
                let request = get("/me").bearer(&token);
                let answer = call(connector, sidecar.address, &request).unwrap();
                assert_eq!(answer.outcome(), *expected, "{cnf}");
            }
        }
    }
}

#[test]
fn a_plain_listener_beside_one_with_tls_knows_no_certificate() {
    let authority = Authority::new();
    let plain = "[[listeners]]\naddress = \"127.0.0.1:0\"\n";
    let config = asking(&authority, "required", &format!("{plain}{PAGES}"));
    let (sidecar, upstream, issuer) = start(&config);
    let pair = authority.issue("good", client);
    let token = issuer.sign(&bound(&json!({ "x5t#S256": said(&pair).thumbprint })));
    let request = get("/me").bearer(&token);
    let connector = authority.connector().showing(&pair);
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
