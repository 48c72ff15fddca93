//! Forwarding headers, `Via`, request IDs, and headers that pass unchanged.

use std::collections::BTreeSet;

use crate::harness::{ROUTES, TASKS, get, start};

const TRUSTING: &str = "[listen]\ntrusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n";

/// Forwarding headers of a client or a proxy.
const FORWARDING: [&str; 9] = [
    "X-Forwarded-For: 192.0.2.1, 10.1.1.1",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: app.test",
    "X-Forwarded-Prefix: /app",
    "Forwarded: for=192.0.2.1;proto=https;host=app.test",
    "X-Real-IP: 192.0.2.1",
    "X_Forwarded_For: 192.0.2.9",
    "X-Original-URL: /api/bob/tasks",
    "X-Auth-Request-User: bob",
];

#[test]
fn replaces_the_forwarding_headers_of_an_untrusted_peer() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    for target in [TASKS, "/me/notes", "/open/page"] {
        let mut request = get(target).bearer(&issuer.token("alice"));
        for line in FORWARDING {
            request = request.line(line);
        }
        assert_eq!(sidecar.call(&request).status, 200);
        let head = upstream.arrived().pop().unwrap().head;
        assert_eq!(head.values("x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(head.values("x-forwarded-proto"), ["http"]);
        assert_eq!(head.values("x-forwarded-host"), ["gate.test"]);
        let forwarded = "for=127.0.0.1;host=\"gate.test\";proto=http";
        assert_eq!(head.values("forwarded"), [forwarded]);
        let text = head.text();
        for removed in ["192.0.2", "app.test", "/app", "bob", "https"] {
            assert!(!text.contains(removed), "{removed} in\n{text}");
        }
    }
}

/// Headers that Express `method-override`, Rack and Symfony, ASP.NET and Google APIs take the method from.
const METHOD_OVERRIDES: [&str; 5] = [
    "X-HTTP-Method-Override: DELETE",
    "X-HTTP-Method: DELETE",
    "X-Method-Override: DELETE",
    "x_http_method_override: DELETE",
    "X.Method.Override: DELETE",
];

#[test]
fn removes_headers_that_change_the_method_after_the_decision() {
    let readable = "\
        [[routes]]\npath = \"/items/{id}\"\naccess = \"public\"\nmethods = [\"GET\", \"POST\"]\n\n\
        [[routes]]\npath = \"/legacy/{id}\"\naccess = \"public\"\nforward_method_override = true\n\n";
    for trusting in ["", TRUSTING] {
        let (sidecar, upstream, _issuer) = start(&format!("{trusting}{readable}{ROUTES}"));
        for (target, forwarded) in [("/items/1", 0), ("/legacy/1", METHOD_OVERRIDES.len())] {
            let mut request = get(target);
            for line in METHOD_OVERRIDES {
                request = request.line(line);
            }
            assert_eq!(sidecar.call(&request).status, 200, "{target}");
            let head = upstream.arrived().pop().unwrap().head;
            let found = head.text().matches("DELETE").count();
            assert_eq!(found, forwarded, "{target}\n{}", head.text());
        }
    }
}

#[test]
fn extends_the_forwarding_headers_of_a_trusted_proxy() {
    let (sidecar, upstream, issuer) = start(&format!("{TRUSTING}{ROUTES}"));
    let mut request = get(TASKS).bearer(&issuer.token("alice"));
    for line in FORWARDING {
        request = request.line(line);
    }
    assert_eq!(sidecar.call(&request).status, 200);
    let head = upstream.only().head;
    assert_eq!(
        head.values("x-forwarded-for"),
        ["192.0.2.1, 10.1.1.1, 127.0.0.1"]
    );
    assert_eq!(head.values("x-forwarded-proto"), ["https"]);
    assert_eq!(head.values("x-forwarded-host"), ["app.test"]);
    assert_eq!(head.values("x-forwarded-prefix"), ["/app"]);
    assert_eq!(
        head.values("forwarded"),
        ["for=192.0.2.1;proto=https;host=app.test, for=127.0.0.1;host=\"gate.test\";proto=http"]
    );
    let text = head.text();
    // Other spellings, and headers that name the caller, are removed from a trusted proxy too.
    for removed in ["192.0.2.9", "bob", "Real-IP", "real-ip"] {
        assert!(!text.contains(removed), "{removed} in\n{text}");
    }
}

#[test]
fn sets_forwarding_headers_if_a_trusted_proxy_sends_none() {
    let (sidecar, upstream, issuer) = start(&format!("{TRUSTING}{ROUTES}"));
    assert_eq!(
        sidecar
            .call(&get(TASKS).bearer(&issuer.token("alice")))
            .status,
        200
    );
    let head = upstream.only().head;
    assert_eq!(head.values("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(head.values("x-forwarded-proto"), ["http"]);
    assert_eq!(head.values("x-forwarded-host"), ["gate.test"]);
}

#[test]
fn merges_repeated_forwarding_headers_of_a_trusted_proxy() {
    let (sidecar, upstream, _issuer) = start(&format!("{TRUSTING}{ROUTES}"));
    let request = get("/open/page")
        .line("X-Forwarded-For: 192.0.2.1")
        .line("X-Forwarded-For: 192.0.2.2")
        .line("Forwarded: for=192.0.2.1")
        .line("Forwarded: for=192.0.2.2");
    assert_eq!(sidecar.call(&request).status, 200);
    let head = upstream.only().head;
    assert_eq!(
        head.values("x-forwarded-for"),
        ["192.0.2.1, 192.0.2.2, 127.0.0.1"]
    );
    assert_eq!(head.values("forwarded").len(), 1);
    assert!(head.values("forwarded")[0].starts_with("for=192.0.2.1, for=192.0.2.2, for=127.0.0.1"));
}

#[test]
fn adds_via_in_both_directions() {
    let (sidecar, upstream, _issuer) = start(ROUTES);
    let response = sidecar.call(&get("/open/page").line("Via: 1.0 front"));
    assert_eq!(
        upstream.only().head.values("via"),
        ["1.0 front", "1.1 claimgate"]
    );
    assert_eq!(response.head.values("via"), ["1.1 claimgate"]);
}

#[test]
fn keeps_a_valid_request_id_and_replaces_any_other() {
    let (sidecar, upstream, _issuer) = start(ROUTES);
    let long = "x".repeat(129);
    let plain = [
        "abc",
        "0af7651916cd43dd8448eb211c80319c",
        "a-b_c.d:e/f+g=h@i",
        &long[1..],
    ];
    for id in plain {
        let response = sidecar.call(&get("/open/page").line(&format!("X-Request-Id: {id}")));
        let arrived = upstream.arrived().pop().unwrap();
        assert_eq!(arrived.head.values("x-request-id"), [id]);
        assert_eq!(response.head.values("x-request-id"), [id]);
    }
    let mut generated = BTreeSet::new();
    let invalid: [&[&str]; 7] = [
        &[],
        &["X-Request-Id:"],
        &["X-Request-Id: a b"],
        &["X-Request-Id: \"x\""],
        &["X-Request-Id: ${jndi}"],
        &["X-Request-Id: one", "X-Request-Id: two"],
        &[&format!("X-Request-Id: {long}")],
    ];
    for lines in invalid {
        let request = lines
            .iter()
            .fold(get("/open/page"), |request, line| request.line(line));
        let response = sidecar.call(&request);
        let arrived = upstream.arrived().pop().unwrap();
        let id = arrived.head.value("x-request-id").unwrap();
        assert_eq!(
            response.header("x-request-id").as_deref(),
            Some(id.as_str()),
            "{lines:?}"
        );
        assert_eq!(id.len(), 32, "{lines:?}");
        assert!(
            id.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{lines:?}: {id}"
        );
        assert!(generated.insert(id), "{lines:?}: generated twice");
    }
    // A refusal has one too, to find the request in the log.
    let response = sidecar.call(&get(TASKS).line("X-Request-Id: mine"));
    assert_eq!(response.head.values("x-request-id"), ["mine"]);
}

#[test]
fn forwards_other_request_headers_unchanged() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let lines = [
        "Accept: text/html, */*;q=0.1",
        "Cookie: a=b; c=d",
        "Cookie: e=f",
        "If-None-Match: \"x\"",
        "Content-Type: application/json",
        "X-Custom: \u{e9}",
        "Empty:",
    ];
    let mut request = get(TASKS).bearer(&issuer.token("alice"));
    for line in lines {
        request = request.line(line);
    }
    assert_eq!(sidecar.call(&request).status, 200);
    let head = upstream.only().head;
    for line in lines {
        let (name, value) = line.split_once(':').unwrap();
        let values = head.values(name);
        assert!(
            values.contains(&value.trim().to_owned()),
            "{line}: {values:?}"
        );
    }
}
