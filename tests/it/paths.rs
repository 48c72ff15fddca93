//! Request targets: canonical and forwarded unchanged, or rejected.

use serde_json::json;

use crate::harness::issuer::claims;
use crate::harness::{ROUTES, get, preflight, request, start};

/// Literals beside parameters: with a requirement, a rate limit, and neither.
const LITERALS: &str = r#"
[cors]
origins = ["https://app.example"]

[[routes]]
path = "/v1/tasks:purge"
access = "authenticated"
require = [{ claim = "role", has = "admin" }]

[[routes]]
path = "/v1/%C3%B6ffnen"
access = "authenticated"
require = [{ claim = "role", has = "admin" }]

[[routes]]
path = "/v1/{name}"
access = "authenticated"

[[routes]]
path = "/api/admin/users"
access = "authenticated"
require = [{ claim = "role", has = "admin" }]

[[routes]]
path = "/api/{section}/{*rest}"
access = "authenticated"

[[routes]]
path = "/open/login"
access = "public"
rate_limit = { requests = 1, per = "1m", by = "client-address" }

[[routes]]
path = "/open/{*rest}"
access = "public"
"#;

#[test]
fn rejects_an_ambiguous_target() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let token = issuer.token("alice");
    for target in [
        "/api/alice/../bob/tasks",
        "/api/alice/./tasks",
        "/api/alice/%2e%2e/bob/tasks",
        "/api/alice/.%2E/bob/tasks",
        "/api/alice/%252e%252e/bob/tasks",
        "/api/alice/..;/bob/tasks",
        "/api/alice/..;x=y/bob/tasks",
        "/api/alice/tasks/..",
        "/api/alice/tasks/.",
        "/api/alice%2ftasks",
        "/api/alice%2Ftasks/1",
        "/api/alice%5ctasks",
        "/api/alice%252ftasks",
        "/api/alice\\tasks",
        "/api/%c0%ae%c0%ae/tasks",
        "/api/%ff/tasks",
        "/api/alice/tasks/%",
        "/api/alice/tasks/%2",
        "/api/alice/tasks/%zz",
        "/api/%61lice/tasks",
        "/%61pi/alice/tasks",
        "/api/alice/%74asks",
        "/api/alice/tasks/%7E",
        "/api/alice/tasks/%u002e",
        "//api/alice/tasks",
        "/api//alice/tasks",
        "/api/alice//tasks",
        "/api//tasks",
        "/api/alice;x/tasks",
        "/api/alice%3bx/tasks",
        "/api/alice/tasks/%00",
        "/api/alice/tasks/%0d%0aX-User-Id:%20bob",
        "/api/alice/tasks/%09",
        "/api/alice/tasks/%7f",
        "/api/alice/tasks/%1b",
        "/api/alice/tasks/\"",
        "/api/alice/tasks/|",
        "*",
        "api/alice/tasks",
        "gate.test:80",
        "/api/alice/tasks\u{e9}",
    ] {
        let response = sidecar.call(&get(target).bearer(&token));
        assert_eq!(response.status, 400, "{target}: {}", response.text());
    }
    upstream.assert_untouched();
}

#[test]
fn names_the_fault_in_a_path_and_its_position() {
    let (sidecar, upstream, _issuer) = start(ROUTES);
    for (target, expected) in [
        (
            "/open/a|b",
            "Character 8 of the path, `|`, must be percent-encoded: `%7C`.",
        ),
        (
            "/open/a%2Db?token=secret",
            "Character 8 of the path, `%2D`, must be sent as `-`: it needs no percent-encoding.",
        ),
        (
            "/open//page",
            "The path has an empty segment at character 7: write one `/`.",
        ),
    ] {
        let response = sidecar.call(&get(target));
        response.refused(400, "path_not_canonical");
        assert_eq!(response.json()["detail"], expected, "{target}");
    }
    upstream.assert_untouched();
}

#[test]
fn another_spelling_of_a_literal_gets_no_other_access() {
    let (sidecar, upstream, issuer) = start(LITERALS);
    let token = issuer.token("alice");
    let mut admin = claims("alice");
    admin["role"] = json!("admin");
    let admin = issuer.sign(&admin);
    for (target, status) in [
        ("/v1/tasks:purge", 403),
        ("/v1/tasks%3Apurge", 400),
        ("/v1/tasks%3apurge", 400),
        ("/v1/Tasks:purge", 400),
        ("/v1/tasks:purge;x", 400),
        ("/v1/tasks:purge%3Bx", 400),
        ("/v1/%C3%B6ffnen", 403),
        ("/v1/%c3%b6ffnen", 403),
        ("/v1/%C3%96ffnen", 400),
        ("/v1/%c3%b6ffneN", 400),
        ("/api/admin/users", 403),
        ("/api/admin/users/", 400),
        ("/api/admin;x/users", 400),
        ("/api/admin;/users", 400),
        ("/api/Admin/users", 400),
        ("/api/;/admin/users", 400),
        ("/;/api/admin/users", 400),
    ] {
        let response = sidecar.call(&get(target).bearer(&token));
        assert_eq!(response.status, status, "{target}: {}", response.text());
    }
    upstream.assert_untouched();
    for target in [
        "/v1/tasks:purge",
        "/v1/%C3%B6ffnen",
        "/v1/%c3%b6ffnen",
        "/api/admin/users",
    ] {
        let response = sidecar.call(&get(target).bearer(&admin));
        assert_eq!(response.status, 200, "{target}: {}", response.text());
        let line = upstream.arrived().pop().unwrap().head.line();
        assert_eq!(line, format!("GET {target} HTTP/1.1"));
    }
    // A preflight is looked up like the request to come.
    for (target, status) in [("/v1/tasks:purge", 204), ("/v1/tasks:Purge", 400)] {
        let response = sidecar.call(&preflight("https://app.example", "GET", target));
        assert_eq!(response.status, status, "{target}");
    }
}

#[test]
fn another_spelling_of_a_literal_avoids_no_rate_limit() {
    let (sidecar, upstream, _issuer) = start(LITERALS);
    assert_eq!(sidecar.call(&get("/open/login")).status, 200);
    sidecar
        .call(&get("/open/login"))
        .refused(429, "rate_limited");
    for target in [
        "/open/login/",
        "/open/LOGIN",
        "/open/login;x=1",
        "/open/logi%C3%B1;",
        "/open/l%C3%B6gin",
    ] {
        let response = sidecar.call(&get(target));
        let is_other_name = target.contains("%C3");
        let expected = if is_other_name { 200 } else { 400 };
        assert_eq!(response.status, expected, "{target}: {}", response.text());
    }
    assert_eq!(upstream.arrived().len(), 3);
}

#[test]
fn forwards_a_canonical_target_byte_for_byte() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let token = issuer.token("alice");
    let targets = [
        "/api/alice/tasks",
        "/api/alice/tasks/",
        "/api/alice/tasks/1",
        "/api/alice/tasks/%7Bx%7d",
        "/api/alice/tasks/caf%C3%A9",
        "/api/alice/tasks/a;b=c/d",
        "/api/alice/tasks/a:b@c!$&'()*+,=~_-",
        "/api/alice/tasks/...",
        "/api/alice/tasks?",
        "/api/alice/tasks?a=b&a=%2e%2e%2f",
        "/api/alice/tasks?user_id=bob&x=/api/bob/tasks/../..",
        "/api/alice/tasks?q=a//b\\c|d",
        "/api/alice/tasks/?a?b",
    ];
    for target in targets {
        let response = sidecar.call(&get(target).bearer(&token));
        assert_eq!(response.status, 200, "{target}: {}", response.text());
        let line = upstream.arrived().pop().unwrap().head.line();
        assert_eq!(line, format!("GET {target} HTTP/1.1"));
    }
    assert_eq!(upstream.arrived().len(), targets.len());
}

#[test]
fn forwards_no_fragment() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let token = issuer.token("alice");
    let mut passed = 0;
    for target in [
        "/api/alice/tasks#/api/bob/tasks",
        "/api/alice/tasks#",
        "/api/alice/tasks?a#b",
        "/open#/../api/bob/tasks",
        "/api/bob/tasks#/open",
    ] {
        let response = sidecar.call(&get(target).bearer(&token));
        passed += usize::from(response.status == 200);
        assert!(
            matches!(response.status, 200 | 400 | 403),
            "{target}: {}",
            response.status
        );
    }
    let arrived = upstream.arrived();
    assert_eq!(arrived.len(), passed);
    for arrived in arrived {
        let line = arrived.head.line();
        assert!(!line.contains('#') && !line.contains("bob"), "{line}");
    }
}

#[test]
fn reduces_an_absolute_target_with_the_same_host_to_its_path() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let token = issuer.token("alice");
    for (target, host) in [
        ("http://gate.test/api/alice/tasks?a=b", "gate.test"),
        ("http://GATE.test/api/alice/tasks?a=b", "gate.test"),
        (
            "http://gate.test:8080/api/alice/tasks?a=b",
            "gate.test:8080",
        ),
    ] {
        let response = sidecar.call(&get(target).host(Some(host)).bearer(&token));
        assert_eq!(response.status, 200, "{target}");
        let arrived = upstream.arrived().pop().unwrap();
        assert_eq!(arrived.head.line(), "GET /api/alice/tasks?a=b HTTP/1.1");
        assert_eq!(arrived.head.value("host").as_deref(), Some(host));
    }
    let before = upstream.arrived().len();
    for (target, host) in [
        ("http://other.test/api/alice/tasks", Some("gate.test")),
        ("http://gate.test:81/api/alice/tasks", Some("gate.test")),
        ("http://alice@gate.test/api/alice/tasks", Some("gate.test")),
        (
            "http://alice@gate.test/api/alice/tasks",
            Some("alice@gate.test"),
        ),
        ("http://gate.test/api/alice/../bob/tasks", Some("gate.test")),
        ("http://gate.test/api/alice/tasks", None),
        ("http:///api/alice/tasks", Some("gate.test")),
    ] {
        let response = sidecar.call(&get(target).host(host).bearer(&token));
        assert_eq!(response.status, 400, "{target} {host:?}");
    }
    assert_eq!(upstream.arrived().len(), before);
}

#[test]
fn rejects_methods_without_a_path() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let token = issuer.token("alice");
    for (request, status) in [
        (request("OPTIONS", "*"), 405),
        (request("CONNECT", "gate.test:80"), 405),
        (request("CONNECT", "/api/alice/tasks"), 405),
        (request("TRACE", "/api/alice/tasks"), 405),
        (request("TRACE", "/open/page"), 405),
        (request("PROPFIND", "/open/page"), 405),
        (request("get", "/open/page"), 405),
    ] {
        let response = sidecar.call(&request.clone().bearer(&token));
        let sent = String::from_utf8(request.bytes()).unwrap();
        // hyper rejects a target that does not fit its method.
        assert!(
            response.status == status || response.status == 400,
            "{sent}{}",
            response.status
        );
    }
    upstream.assert_untouched();
}

#[test]
fn decides_each_pipelined_request_separately() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let alice = get("/api/alice/tasks/1").bearer(&issuer.token("alice"));
    let all = [
        (alice.clone(), 200),
        (get("/api/alice/tasks/2"), 401),
        (get("/api/bob/tasks/3").bearer(&issuer.token("alice")), 403),
        (get("/open/4"), 200),
        (get("/nowhere"), 404),
        (get("/api/bob/tasks/5").bearer(&issuer.token("bob")), 200),
        (alice, 200),
    ];
    let mut client = sidecar.connect();
    let bytes: Vec<u8> = all
        .iter()
        .flat_map(|(request, _)| request.bytes())
        .collect();
    client.send(bytes);
    for (request, status) in &all {
        let sent = String::from_utf8(request.bytes()).unwrap();
        assert_eq!(client.response().status, *status, "{sent}");
    }
    let arrived = upstream.arrived();
    let received: Vec<_> = arrived
        .iter()
        .map(|arrived| (arrived.head.line(), arrived.head.value("x-user-id")))
        .collect();
    let line = |target: &str| format!("GET {target} HTTP/1.1");
    assert_eq!(
        received,
        [
            (line("/api/alice/tasks/1"), Some("alice".to_owned())),
            (line("/open/4"), None),
            (line("/api/bob/tasks/5"), Some("bob".to_owned())),
            (line("/api/alice/tasks/1"), Some("alice".to_owned())),
        ]
    );
}
