//! Path rewrites and header edits of a route.

use crate::harness::{Exchange, Upstream, get, post, start, start_with};

const ROUTES: &str = r#"
[[routes]]
path = "/api/{user_id}/tasks/{*rest}"
access = { owner = "user_id" }
replace_prefix = { from = "/api", to = "/v1/internal" }
request_headers = { set = { "X-Tenant" = "acme" }, remove = ["X-Debug"] }
response_headers = { set = { "Cache-Control" = "no-store" }, remove = ["Server"] }

[[routes]]
path = "/open/{*rest}"
access = "public"
replace_prefix = { from = "/open", to = "/" }

[[routes]]
path = "/live/{user_id}"
access = { owner = "user_id" }
tokens = [{ query = "access_token" }]
replace_prefix = { from = "/live", to = "/socket" }
"#;

#[test]
fn replaces_the_prefix_and_keeps_the_rest_of_the_target() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let token = issuer.token("a@b");
    let cases = [
        (
            "/api/a%40b/tasks/1;x?q=/api/%2e%2e",
            "/v1/internal/a%40b/tasks/1;x?q=/api/%2e%2e",
        ),
        ("/api/a%40b/tasks", "/v1/internal/a%40b/tasks"),
        ("/api/a@b/tasks/", "/v1/internal/a@b/tasks/"),
        (
            "http://gate.test/api/a@b/tasks/?",
            "/v1/internal/a@b/tasks/?",
        ),
        ("/open", "/"),
        ("/open/", "/"),
        ("/open?a", "/?a"),
        ("/open/open/1", "/open/1"),
    ];
    for (target, expected) in cases {
        let response = sidecar.call(&get(target).bearer(&token));
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, expected),
            "{target}"
        );
    }
    assert_eq!(upstream.arrived().len(), cases.len());
}

/// One field with the whole external prefix, outermost first: Spring concatenates the parts of a list, Werkzeug reads one
/// value, and Traefik sends the prefix that it strips.
#[test]
fn sends_the_replaced_prefix() {
    let trusting = format!("[listen]\ntrusted_proxies = [\"127.0.0.0/8\"]\n{ROUTES}{PUBLIC}");
    let untrusting = format!("{ROUTES}{PUBLIC}");
    for (target, sent, untrusted, trusted) in [
        ("/open/1", None, Some("/open"), Some("/open")),
        ("/open/1", Some("/app"), Some("/open"), Some("/app/open")),
        (
            "/open/1",
            Some("/app/, /v2/"),
            Some("/open"),
            Some("/app/v2/open"),
        ),
        ("/open/1", Some("/"), Some("/open"), Some("/open")),
        ("/open/1", Some("//evil.test"), Some("/open"), Some("/open")),
        ("/open/1", Some("/a/../b"), Some("/open"), Some("/open")),
        (
            "/open/1",
            Some("https://evil.test"),
            Some("/open"),
            Some("/open"),
        ),
        ("/kept", None, None, None),
        ("/kept", Some("/app"), None, Some("/app")),
        ("/kept", Some("//evil.test"), None, None),
    ] {
        for (config, expected) in [(&untrusting, untrusted), (&trusting, trusted)] {
            let (sidecar, upstream, _issuer) = start(config);
            let mut request = get(target);
            if let Some(sent) = sent {
                request = request.line(&format!("X-Forwarded-Prefix: {sent}"));
            }
            assert_eq!(sidecar.call(&request).status, 200);
            let found = upstream.only().head.values("x-forwarded-prefix");
            assert_eq!(found, Vec::from_iter(expected), "{target} {sent:?}");
        }
    }
}

const PUBLIC: &str = "\n[[routes]]\npath = \"/kept\"\naccess = \"public\"\n";

#[test]
fn matches_a_rewritten_route_by_the_received_path() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let token = issuer.token("alice");
    let refused = [
        ("/api/bob/tasks", 403, "subject_mismatch"),
        ("/v1/internal/alice/tasks", 404, "no_route"),
        ("/api/alice/../bob/tasks", 400, "path_not_canonical"),
        ("/open/../api/bob/tasks", 400, "path_not_canonical"),
        ("/open//api/bob/tasks", 400, "path_not_canonical"),
        ("/openapi/bob/tasks", 404, "no_route"),
    ];
    for (target, status, reason) in refused {
        sidecar
            .call(&get(target).bearer(&token))
            .refused(status, reason);
    }
    upstream.assert_untouched();
}

#[test]
fn removes_a_query_token_from_a_rewritten_target() {
    let (sidecar, _upstream, issuer) = start(ROUTES);
    let token = issuer.token("alice");
    let response = sidecar.call(&get(&format!("/live/alice?a=1&access_token={token}&b=2")));
    assert_eq!(response.text(), "/socket/alice?a=1&b=2");
}

#[test]
fn sets_request_headers_over_every_spelling_and_removes_by_name() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let request = post("/api/alice/tasks", b"body")
        .bearer(&issuer.token("alice"))
        .line("X-Tenant: evil")
        .line("x_tenant: evil")
        .line("Connection: X-Tenant")
        .line("X-Debug: 1")
        .line("x-debug: 2")
        .line("X-Other: 3");
    assert_eq!(sidecar.call(&request).status, 200);
    let arrived = upstream.only();
    assert_eq!(arrived.head.values("x-tenant"), ["acme"]);
    assert_eq!(arrived.head.values("x-user-id"), ["alice"]);
    assert_eq!(arrived.head.values("x-other"), ["3"]);
    assert!(
        !arrived.head.text().contains("evil"),
        "{}",
        arrived.head.text()
    );
    assert_eq!(arrived.head.values("x-debug"), Vec::<String>::new());
    assert_eq!(arrived.body, b"body");
}

#[test]
fn edits_responses_of_the_upstream_and_not_refusals() {
    let upstream = Upstream::responding(|exchange: &mut Exchange| {
        exchange.body();
        let lines =
            "Server: uvicorn\r\nCache-Control: public\r\nCache-Control: max-age=9\r\nX-Kept: 1\r\n";
        exchange.respond("200 OK", lines, "")
    });
    let (sidecar, _upstream, issuer) = start_with(ROUTES, upstream);
    let token = issuer.token("alice");
    let response = sidecar.call(&get("/api/alice/tasks").bearer(&token));
    assert_eq!(response.head.values("cache-control"), ["no-store"]);
    assert_eq!(response.head.values("server"), Vec::<String>::new());
    assert_eq!(response.head.values("x-kept"), ["1"]);
    // Another route has its own edits, here none.
    let response = sidecar.call(&get("/open"));
    assert_eq!(
        response.head.values("cache-control"),
        ["public", "max-age=9"]
    );
    let own = sidecar.call(&get("/api/bob/tasks").bearer(&token));
    own.refused(403, "subject_mismatch");
    let plain = sidecar.call(&get("/live/bob?access_token=x"));
    assert_eq!(
        own.head.values("cache-control"),
        plain.head.values("cache-control")
    );
}
