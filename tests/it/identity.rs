//! Identity headers: set by the gate, never by the client.

use serde_json::json;

use crate::harness::issuer::{SECRET, claims};
use crate::harness::upstream::Arrived;
use crate::harness::{Key, NOW, ROUTES, Upstream, get, request, start};

/// One target per kind of route, with the expected `X-User-Id`.
const KINDS: [(&str, Option<&str>); 3] = [
    ("/api/alice/tasks", Some("alice")),
    ("/me/notes", Some("alice")),
    ("/open/page", None),
];

/// Spellings that some upstream may read as `X-User-Id`.
const SPELLINGS: [&[&str]; 14] = [
    &["X-User-Id: bob"],
    &["x-user-id: bob"],
    &["X-USER-ID:bob"],
    &["x_user_id: bob"],
    &["X_User_Id: bob"],
    &["X.User.Id: bob"],
    &["x-user_id: bob"],
    &["x~user!id: bob"],
    &["HTTP_X_USER_ID: bob"],
    &["Http-X-User-Id: bob"],
    &["X-UserId: carol"],
    &["HTTP_XUSERID: carol"],
    &["X-User-Id: bob", "X-User-Id: carol"],
    &["X-User-Id: alice", "x_user_id: bob", "X.USER.ID: carol"],
];

fn folded(name: &str) -> String {
    let dashed = name
        .to_ascii_lowercase()
        .replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    dashed.strip_prefix("http-").unwrap_or(&dashed).to_owned()
}

/// Every value that some upstream may read as this header.
fn readable_as(arrived: &Arrived, header: &str) -> Vec<String> {
    let fields = arrived
        .head
        .fields()
        .into_iter()
        .chain(arrived.trailers.fields());
    let matching = fields.filter(|(name, _)| folded(name) == header);
    matching.map(|(_, value)| value).collect()
}

#[track_caller]
fn assert_user(upstream: &Upstream, subject: Option<&str>, what: &str) {
    let arrived = upstream.arrived();
    let last = arrived.last().unwrap();
    let expected: Vec<_> = subject.map(str::to_owned).into_iter().collect();
    assert_eq!(
        readable_as(last, "x-user-id"),
        expected,
        "{what}\n{}",
        last.head.text()
    );
    assert!(
        !last.head.text().contains("carol"),
        "{what}\n{}",
        last.head.text()
    );
}

#[test]
fn removes_the_client_user_id_in_every_spelling() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    for (target, subject) in KINDS {
        for spelling in SPELLINGS {
            let mut spoofed = get(target).bearer(&issuer.token("alice"));
            for line in spelling {
                spoofed = spoofed.line(line);
            }
            let what = format!("{target} {spelling:?}");
            assert_eq!(sidecar.call(&spoofed).status, 200, "{what}");
            assert_user(&upstream, subject, &what);
        }
    }
    assert_eq!(upstream.arrived().len(), KINDS.len() * SPELLINGS.len());
}

/// Names that real proxies and frameworks trust, one of each family; the unit tests have them all.
const TRUSTED: [&str; 24] = [
    "CF-Connecting-IP",
    "True-Client-IP",
    "Client-IP",
    "X-Cluster-Client-IP",
    "X-Client-IP",
    "X-Host",
    "X-Envoy-External-Address",
    "X-Authenticated-Userid",
    "X-UserId",
    "XUserId",
    "X-Consumer-Username",
    "X-User-Email",
    "Fastly-Client-IP",
    "X-Goog-IAP-JWT-Assertion",
    "X-MS-CLIENT-PRINCIPAL-ID",
    "X-Amzn-Oidc-Identity",
    "Remote-Groups",
    "X-WEBAUTH-USER",
    "SSL-Client-Verify",
    "Client-Cert",
    "Tailscale-User-Login",
    "OIDC_CLAIM_sub",
    "SCRIPT_NAME",
    "X-Forwarded-Client-Cert",
];

#[test]
fn removes_the_headers_that_upstreams_trust_from_a_proxy() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    for (target, _) in KINDS {
        let mut spoofed = get(target).bearer(&issuer.token("alice"));
        for name in TRUSTED {
            spoofed = spoofed.line(&format!("{name}: carol"));
            spoofed = spoofed.line(&format!("HTTP_{}: carol", name.replace('-', "_")));
        }
        let spoofed = spoofed.line("X-Request-Kind: kept");
        assert_eq!(sidecar.call(&spoofed).status, 200, "{target}");
        let head = upstream.arrived().pop().unwrap().head;
        assert!(!head.text().contains("carol"), "{}", head.text());
        assert_eq!(head.values("x-request-kind"), ["kept"]);
    }
}

#[test]
fn keeps_the_named_headers_of_a_trusted_proxy_only() {
    for (network, kept) in [("127.0.0.0/8", true), ("192.0.2.0/24", false)] {
        let config = format!(
            "[listen]\ntrusted_proxies = [\"{network}\"]\ntrusted_headers = [\"CF-Connecting-IP\"]\n{ROUTES}"
        );
        let (sidecar, upstream, _issuer) = start(&config);
        let request = get("/open/page")
            .line("CF-Connecting-IP: 192.0.2.7")
            .line("CF_Connecting_IP: 192.0.2.8")
            .line("True-Client-IP: 192.0.2.9");
        assert_eq!(sidecar.call(&request).status, 200);
        let head = upstream.only().head;
        let expected: &[&str] = if kept { &["192.0.2.7"] } else { &[] };
        assert_eq!(head.values("cf-connecting-ip"), expected, "{network}");
        assert!(!head.text().contains("192.0.2.8"), "{}", head.text());
        assert!(!head.text().contains("192.0.2.9"), "{}", head.text());
    }
}

/// Two issuers with a subject `alice` each, and one with a prefix.
const TWO_ISSUERS: &str = r#"
[issuers.test]
keys = { secret_env = "TEST_SECRET" }
issuer = "https://a.test"

[issuers.okta]
keys = { secret_env = "TEST_SECRET" }
issuer = "https://b.test"
subject_prefix = "okta:"

[identity]
headers = { "X-Account" = "subject", "X-Sub" = "sub" }
"#;

#[test]
fn a_subject_prefix_separates_the_users_of_two_issuers() {
    let (sidecar, upstream, issuer) = start(&format!("{TWO_ISSUERS}{ROUTES}"));
    let call = |target: &str, iss: &str, subject: &str| {
        let mut claims = claims(subject);
        claims["iss"] = json!(iss);
        sidecar.call(&get(target).bearer(&issuer.sign(&claims)))
    };
    let (a, b) = ("https://a.test", "https://b.test");
    assert_eq!(call("/api/alice/tasks", a, "alice").status, 200);
    assert_user(&upstream, Some("alice"), a);
    for target in ["/api/okta:alice/tasks", "/api/okta%3Aalice/tasks"] {
        assert_eq!(call(target, b, "alice").status, 200, "{target}");
        assert_user(&upstream, Some("okta:alice"), target);
        let head = upstream.arrived().pop().unwrap().head;
        assert_eq!(head.values("x-account"), ["okta:alice"]);
        assert_eq!(head.values("x-sub"), ["alice"]);
    }
    let before = upstream.arrived().len();
    call("/api/alice/tasks", b, "alice").refused(403, "subject_mismatch");
    call("/api/okta:alice/tasks", a, "alice").refused(403, "subject_mismatch");
    // No issuer can name a subject of another namespace.
    call("/api/okta:alice/tasks", a, "okta:alice").refused(401, "token_subject");
    assert_eq!(upstream.arrived().len(), before);
}

#[test]
fn a_claim_with_a_large_number_has_its_exact_digits_or_no_header() {
    let config = format!("[identity]\nheaders = {{ \"X-Account\" = \"account\" }}\n{ROUTES}");
    let (sidecar, upstream, _issuer) = start(&config);
    for (number, expected) in [
        ("9007199254740993", Some("9007199254740993")),
        ("18446744073709551615", Some("18446744073709551615")),
        ("123456789012345678901234567890", None),
        ("123456789012345678901234567891", None),
        ("9007199254740993.0", None),
    ] {
        let payload = format!(r#"{{"sub":"alice","exp":{},"account":{number}}}"#, NOW + 60);
        let token = Key::secret(SECRET.as_bytes()).sign_text(r#"{"alg":"HS256"}"#, &payload);
        assert_eq!(sidecar.call(&get("/me/x").bearer(&token)).status, 200);
        let last = upstream.arrived().pop().unwrap();
        let expected: Vec<_> = expected.map(str::to_owned).into_iter().collect();
        assert_eq!(readable_as(&last, "x-account"), expected, "{number}");
    }
}

#[test]
fn removes_a_user_id_in_a_trailer() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    for (target, subject) in KINDS {
        let spoofed = request("POST", target)
            .bearer(&issuer.token("alice"))
            .line("Trailer: X-User-Id")
            .chunked(b"body", "X-User-Id: bob\r\nx_user_id: bob\r\n");
        assert_eq!(sidecar.call(&spoofed).status, 200, "{target}");
        assert_user(&upstream, subject, target);
        let last = upstream.arrived().pop().unwrap();
        assert_eq!(
            (last.body.as_slice(), last.trailers.text()),
            (&b"body"[..], String::new())
        );
    }
}

#[test]
fn rejects_a_connection_header_that_names_a_managed_header() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    for (target, _) in KINDS {
        for option in [
            "X-User-Id",
            "close, x_user_id",
            "HTTP_X_USER_ID",
            "Authorization",
            "Host",
        ] {
            let attack = get(target)
                .bearer(&issuer.token("alice"))
                .line(&format!("Connection: {option}"));
            sidecar.call(&attack).refused(400, "request_malformed");
            let second = get(target)
                .bearer(&issuer.token("alice"))
                .line("Connection: keep-alive")
                .line(&format!("Connection: {option}"));
            sidecar.call(&second).refused(400, "request_malformed");
        }
    }
    upstream.assert_untouched();
}

#[test]
fn compares_the_subject_with_the_segment_decoded_once() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    for (subject, segment) in [
        ("alice@example.com", "alice%40example.com"),
        ("alice@example.com", "alice@example.com"),
        ("Zoë", "Zo%C3%AB"),
        ("用户", "%E7%94%A8%E6%88%B7"),
        ("a b", "a%20b"),
        ("auth0|42", "auth0%7C42"),
        ("100%", "100%25"),
    ] {
        let target = format!("/api/{segment}/tasks");
        let response = sidecar.call(&get(&target).bearer(&issuer.token(subject)));
        assert_eq!(response.status, 200, "{subject} {segment}");
        assert_user(&upstream, Some(subject), segment);
        let line = upstream.arrived().pop().unwrap().head.line();
        assert_eq!(line, format!("GET {target} HTTP/1.1"));
    }
    let before = upstream.arrived().len();
    for (subject, segment) in [
        ("alice", "Alice"),
        ("alice", "alic%C3%A9"),
        ("alice", "alice%20"),
        // Composed and decomposed forms of the same letters.
        ("Zoë", "Zoe%CC%88"),
        ("k", "%E2%84%AA"),
        ("alice", "alice%E2%80%8B"),
        ("alice%40example.com", "alice%40example.com"),
        ("alice", "{user_id}"),
        ("alice", ":user_id"),
        ("alice", "*"),
        ("alice", "me"),
    ] {
        let target = format!("/api/{segment}/tasks");
        let response = sidecar.call(&get(&target).bearer(&issuer.token(subject)));
        assert!(
            response.outcome() == (403, "subject_mismatch".to_owned())
                || response.outcome() == (400, "path_not_canonical".to_owned()),
            "{subject} {segment}: {:?}",
            response.outcome()
        );
    }
    assert_eq!(upstream.arrived().len(), before);
}

#[test]
fn identity_headers_come_from_claims_only() {
    let config = format!(
        "[identity]\nheaders = {{ \"X-User-Email\" = \"email\", \"X-Tenant\" = \"org\", \"X-Caller\" = \"subject\" }}\n{ROUTES}"
    );
    let (sidecar, upstream, issuer) = start(&config);
    let mut alice = claims("alice");
    alice["email"] = json!("alice@example.com");
    alice["org"] = json!({ "not": "a text" });
    let spoofed = |target: &str| {
        get(target)
            .bearer(&issuer.sign(&alice))
            .line("x_user_email: bob@example.com")
            .line("X-User-Email: bob@example.com")
            .line("X-Tenant: bobs")
            .line("x.caller: bob")
    };
    for (target, subject) in KINDS {
        assert_eq!(sidecar.call(&spoofed(target)).status, 200, "{target}");
        assert_user(&upstream, subject, target);
        let last = upstream.arrived().pop().unwrap();
        let email: Vec<_> = subject
            .map(|_| "alice@example.com".to_owned())
            .into_iter()
            .collect();
        assert_eq!(readable_as(&last, "x-user-email"), email, "{target}");
        let caller: Vec<_> = subject.map(str::to_owned).into_iter().collect();
        assert_eq!(readable_as(&last, "x-caller"), caller, "{target}");
        // An object sets no header; the header of the client is removed nevertheless.
        assert_eq!(
            readable_as(&last, "x-tenant"),
            Vec::<String>::new(),
            "{target}"
        );
    }
}

#[test]
fn a_claim_path_or_array_sets_one_header_or_none() {
    let config = format!(
        "[identity.headers]\n\
         \"X-Roles\" = \"realm_access.roles\"\n\
         \"X-Teams\" = \"/https:~1~1app.example~1teams\"\n{ROUTES}"
    );
    let (sidecar, upstream, issuer) = start(&config);
    for (roles, teams, expected) in [
        (
            json!(["admin", "editor"]),
            json!(["é", 7]),
            [Some("admin,editor"), Some("é,7")],
        ),
        (json!("admin"), json!(7.5), [Some("admin"), Some("7.5")]),
        (json!(["a,admin"]), json!(["a", null]), [None, None]),
        (json!(["a\r\nX-User-Id: bob"]), json!("a\nb"), [None, None]),
        (json!([]), json!({ "a": "b" }), [None, None]),
    ] {
        let mut alice = claims("alice");
        alice["realm_access"] = json!({ "roles": roles });
        alice["https://app.example/teams"] = teams;
        // A claim whose name equals the dotted path.
        alice["realm_access.roles"] = json!("carol");
        let request = get("/me/notes")
            .bearer(&issuer.sign(&alice))
            .line("X-Roles: bob")
            .line("x_teams: bob");
        assert_eq!(sidecar.call(&request).status, 200, "{alice}");
        assert_user(&upstream, Some("alice"), &alice.to_string());
        let last = upstream.arrived().pop().unwrap();
        for (header, expected) in ["x-roles", "x-teams"].into_iter().zip(expected) {
            let expected: Vec<_> = expected.map(str::to_owned).into_iter().collect();
            assert_eq!(readable_as(&last, header), expected, "{header}: {alice}");
        }
    }
}

#[test]
fn forwards_the_token_only_with_credential_forward() {
    for (credential, forwarded) in [
        ("", false),
        ("[identity]\ncredential = \"forward\"\n", true),
    ] {
        let (sidecar, upstream, issuer) = start(&format!("{credential}{ROUTES}"));
        let token = issuer.token("alice");
        for (target, subject) in KINDS {
            sidecar.call(&get(target).bearer(&token));
            let received = upstream
                .arrived()
                .pop()
                .unwrap()
                .head
                .value("authorization");
            // A public route does not read the token and forwards it.
            let expected = (forwarded || subject.is_none()).then(|| format!("Bearer {token}"));
            assert_eq!(received, expected, "{credential}{target}");
        }
    }
}

#[test]
fn removes_the_user_id_from_a_response() {
    let upstream = Upstream::responding(|exchange| {
        exchange.respond(
            "200 OK",
            "X-User-Id: alice\r\nx_user_id: alice\r\nKept: yes\r\n",
            "",
        )
    });
    let (sidecar, _upstream, _issuer) = crate::harness::start_with(ROUTES, upstream);
    let response = sidecar.call(&get("/open/page"));
    assert_eq!(response.header("kept").as_deref(), Some("yes"));
    assert!(
        !response.head.text().contains("alice"),
        "{}",
        response.head.text()
    );
}
