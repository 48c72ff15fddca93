//! CORS: preflights, and the response headers that let pages of other origins read responses.

use http::Version;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, VARY};

use crate::harness::hyper_client::{self, HyperClient, VERSIONS};
use crate::harness::{
    Latch, Request, Response, TASKS, Upstream, get, post, preflight, request, start, start_before,
    start_with,
};

const APP: &str = "https://app.example";

const POLICY: &str = r#"
[cors]
origins = ["https://app.example", "https://*.preview.example"]
headers = ["Authorization", "Content-Type", "X-Tenant"]
expose = ["Link", "Retry-After"]
max_age = "1h"

[listen]
max_body_bytes = "1KiB"

[[routes]]
path = "/api/{user_id}/tasks/{*rest}"
methods = ["GET", "POST"]
access = { owner = "user_id" }

[[routes]]
path = "/api/{user_id}/tasks/{*rest}"
methods = ["DELETE", "OPTIONS"]
access = { owner = "user_id" }

[[routes]]
path = "/anyone/{*rest}"
access = "public"
cors = { origins = ["*"], methods = ["GET", "PATCH"], headers = [], max_age = "0s" }

[[routes]]
path = "/session/{user_id}"
access = { owner = "user_id" }
tokens = [{ cookie = "session" }]
cors = { origins = ["https://app.example"], credentials = true }

[[routes]]
path = "/own/{*rest}"
access = "public"
cors = false
"#;

fn from(origin: &str, request: Request) -> Request {
    request.line(&format!("Origin: {origin}"))
}

/// CORS headers and `Vary` of a response, sorted.
fn cors_headers(response: &Response) -> Vec<String> {
    let fields = response.head.fields();
    let fields = fields.into_iter().filter(|(name, _)| {
        let name = name.to_ascii_lowercase();
        name == "vary" || name.starts_with("access-control-")
    });
    let mut fields: Vec<String> = fields
        .map(|(name, value)| format!("{}: {value}", name.to_ascii_lowercase()))
        .collect();
    fields.sort();
    fields
}

const PREFLIGHT_VARY: &str =
    "vary: origin, access-control-request-method, access-control-request-headers";
const EXPOSE: &str = "access-control-expose-headers: \
    www-authenticate, dpop-nonce, retry-after, ratelimit, ratelimit-policy, x-request-id, grpc-status, grpc-message";

#[test]
fn responds_to_a_preflight_without_a_token_or_an_upstream() {
    let (sidecar, upstream, _issuer) = start(POLICY);
    let request = preflight(APP, "POST", TASKS)
        .line("Access-Control-Request-Headers: authorization,content-type")
        .line("Access-Control-Request-Headers: X-Tenant");
    let response = sidecar.call(&request);
    assert_eq!(response.status, 204, "{}", response.head.text());
    assert_eq!(
        cors_headers(&response),
        [
            "access-control-allow-headers: authorization, content-type, x-tenant",
            "access-control-allow-methods: GET, HEAD, POST",
            "access-control-allow-origin: https://app.example",
            "access-control-max-age: 3600",
            PREFLIGHT_VARY,
        ]
    );
    assert!(response.header("x-request-id").is_some());
    assert_eq!(response.header("content-length"), None);
    // Of two routes with the same path, the one with the requested method applies.
    let response = sidecar.call(&preflight(APP, "DELETE", TASKS));
    assert_eq!(
        response.header("access-control-allow-methods").as_deref(),
        Some("DELETE, OPTIONS")
    );
    let preview = sidecar.call(&preflight("https://pr-7.preview.example", "GET", TASKS));
    assert_eq!(
        preview.header("access-control-allow-origin").as_deref(),
        Some("https://pr-7.preview.example")
    );
    upstream.assert_untouched();
    let route = "route=\"/api/{user_id}/tasks/{*rest}\"";
    let rest = "method=\"OPTIONS\",status=\"204\",reason=\"\"";
    let series = &format!("claimgate_requests_total{{{route},{rest}}}");
    assert_eq!(sidecar.metric(series), Some(3.0));
}

#[test]
fn a_rejected_preflight_has_a_reason_and_no_cors_headers() {
    let (sidecar, upstream, _issuer) = start(POLICY);
    let cases = [
        (
            403,
            "preflight_origin",
            preflight("https://evil.example", "GET", TASKS),
        ),
        (
            403,
            "preflight_origin",
            preflight("http://app.example", "GET", TASKS),
        ),
        (
            403,
            "preflight_origin",
            preflight("https://app.example.evil.example", "GET", TASKS),
        ),
        (
            403,
            "preflight_origin",
            preflight("https://preview.example", "GET", TASKS),
        ),
        (
            403,
            "preflight_origin",
            preflight("https://a.b.preview.example", "GET", TASKS),
        ),
        (403, "preflight_origin", preflight("null", "GET", TASKS)),
        (
            403,
            "preflight_method",
            preflight(APP, "DELETE", "/anyone/1"),
        ),
        (
            403,
            "preflight_headers",
            preflight(APP, "GET", TASKS)
                .line("Access-Control-Request-Headers: authorization, x-debug"),
        ),
        (
            403,
            "preflight_headers",
            preflight(APP, "GET", "/anyone/1")
                .line("Access-Control-Request-Headers: authorization"),
        ),
        (
            403,
            "preflight_origin",
            preflight("https://evil.example", "GET", "/nowhere"),
        ),
        (
            403,
            "preflight_origin",
            preflight("https://evil.example", "PUT", TASKS),
        ),
        (
            403,
            "preflight_headers",
            preflight(APP, "GET", "/nowhere").line("Access-Control-Request-Headers: x-debug"),
        ),
        (
            400,
            "path_not_canonical",
            preflight(APP, "GET", "/api/../x"),
        ),
    ];
    for (status, reason, request) in cases {
        let response = sidecar.call(&request);
        response.refused(status, reason);
        let expected: &[&str] = &[PREFLIGHT_VARY];
        assert_eq!(cors_headers(&response), expected, "{reason}");
    }
    upstream.assert_untouched();
}

#[test]
fn a_preflight_without_a_route_lets_the_page_read_the_404_or_405() {
    let (sidecar, upstream, _issuer) = start(POLICY);
    for (method, target, status, reason) in [
        ("GET", "/nowhere", 404, "no_route"),
        ("DELETE", "/api", 404, "no_route"),
        ("PUT", TASKS, 405, "method_not_allowed"),
        // Fetch does not normalize `patch` to upper case (Fetch standard section 4.6, "normalize").
        ("patch", TASKS, 405, "method_not_allowed"),
    ] {
        let request = preflight(APP, method, target)
            .line("Access-Control-Request-Headers: authorization, x-tenant");
        let response = sidecar.call(&request);
        assert_eq!(response.status, 204, "{method} {target}");
        assert_eq!(
            cors_headers(&response),
            [
                "access-control-allow-headers: authorization, content-type, x-tenant",
                &format!("access-control-allow-methods: {method}"),
                "access-control-allow-origin: https://app.example",
                "access-control-max-age: 3600",
                PREFLIGHT_VARY,
            ]
        );
        let response = sidecar.call(&from(APP, self::request(method, target)));
        response.refused(status, reason);
        let origin = response.header("access-control-allow-origin");
        assert_eq!(origin.as_deref(), Some(APP), "{method} {target}");
    }
    // At a path whose upstream handles CORS, the preflight is an ordinary request.
    sidecar
        .call(&preflight(APP, "GET", "/own/page"))
        .refused(200, "");
    assert_eq!(upstream.arrived().len(), 1);
}

#[test]
fn a_rejected_preflight_names_the_header() {
    let (sidecar, _upstream, _issuer) = start(POLICY);
    let long = "x".repeat(65);
    for (names, expected) in [
        (
            "authorization, X-Debug, x-other",
            "the header `x-debug` here.",
        ),
        ("x-debug\"<script>", "one of these headers here."),
        ("\u{e9}", "one of these headers here."),
        (long.as_str(), "one of these headers here."),
    ] {
        let request =
            preflight(APP, "GET", TASKS).line(&format!("Access-Control-Request-Headers: {names}"));
        let response = sidecar.call(&request);
        response.refused(403, "preflight_headers");
        let detail = response.json()["detail"].as_str().unwrap().to_owned();
        assert_eq!(
            detail,
            format!("Pages of other origins may not send {expected}")
        );
    }
}

#[test]
fn treats_options_without_preflight_headers_as_a_plain_request() {
    let (sidecar, upstream, issuer) = start(POLICY);
    let options = || request("OPTIONS", TASKS);
    let method = "Access-Control-Request-Method: POST";
    let cases = [
        options(),
        from(APP, options()),
        options().line(method),
        from(APP, from(APP, options())).line(method),
        from(APP, options()).line(method).line(method),
    ];
    for (index, case) in cases.into_iter().enumerate() {
        sidecar.call(&case).refused(401, "token_missing");
        assert_eq!(upstream.arrived().len(), index);
        let response = sidecar.call(&case.bearer(&issuer.token("alice")));
        assert_eq!(response.status, 200, "{index}");
    }
}

#[test]
fn an_allowed_origin_can_read_every_response() {
    let (sidecar, upstream, issuer) = start(POLICY);
    let alice = issuer.token("alice");
    let cases = [
        (200, "", get(TASKS).bearer(&alice)),
        (401, "token_missing", get(TASKS)),
        (401, "token_malformed", get(TASKS).bearer("a.b")),
        (
            403,
            "subject_mismatch",
            get("/api/bob/tasks").bearer(&alice),
        ),
        (404, "no_route", get("/nowhere")),
        (405, "method_not_allowed", request("PUT", TASKS)),
        (400, "path_not_canonical", get("/api/alice/../bob/tasks")),
        (
            413,
            "body_too_large",
            post(TASKS, &[b'x'; 1025]).bearer(&alice),
        ),
        (
            431,
            "headers_too_large",
            get(TASKS).line(&format!("A: {}", "x".repeat(40_000))),
        ),
    ];
    let expected = [
        "access-control-allow-origin: https://app.example".to_owned(),
        format!("{EXPOSE}, link"),
        "vary: origin".to_owned(),
    ];
    for (status, reason, case) in cases {
        let response = sidecar.call(&from(APP, case.clone()));
        assert_eq!(response.outcome(), (status, reason.to_owned()));
        assert_eq!(cors_headers(&response), expected, "{reason}");
        // Other origins get `Vary` alone, so that caches keep the responses apart.
        for other in ["https://evil.example", "null", "http://app.example"] {
            let response = sidecar.call(&from(other, case.clone()));
            assert_eq!(response.outcome(), (status, reason.to_owned()));
            assert_eq!(
                cors_headers(&response),
                ["vary: origin"],
                "{other} {reason}"
            );
        }
        assert_eq!(
            cors_headers(&sidecar.call(&case)),
            ["vary: origin"],
            "{reason}"
        );
        let two = from("https://evil.example", from(APP, case));
        assert_eq!(
            cors_headers(&sidecar.call(&two)),
            ["vary: origin"],
            "{reason}"
        );
    }
    // The requests of other origins are served too: CORS restricts browsers only.
    assert_eq!(upstream.arrived().len(), 6);
}

#[test]
fn an_allowed_origin_can_read_a_429_and_preflights_do_not_count() {
    let limited = "[[routes]]\npath = \"/few\"\naccess = \"public\"\n\
                   rate_limit = { requests = 1, per = \"1m\", by = \"client-address\" }\n";
    let (sidecar, upstream, _issuer) = start(&format!("{POLICY}{limited}"));
    for _ in 0..3 {
        assert_eq!(sidecar.call(&preflight(APP, "GET", "/few")).status, 204);
    }
    let request = from(APP, get("/few"));
    assert_eq!(sidecar.call(&request).status, 200);
    let response = sidecar.call(&request);
    response.refused(429, "rate_limited");
    assert_eq!(
        response.header("access-control-allow-origin").as_deref(),
        Some(APP)
    );
    assert!(response.header("retry-after").is_some());
    assert_eq!(upstream.arrived().len(), 1);
}

#[test]
fn an_allowed_origin_can_read_a_503_of_a_full_gate() {
    let policy = POLICY.replace("max_body_bytes", "max_connections = 1\nmax_body_bytes");
    let latch = Latch::default();
    let (sidecar, upstream, issuer) = start_with(&policy, Upstream::held(&latch));
    let request = from(APP, get(TASKS).bearer(&issuer.token("alice")));
    let mut first = sidecar.connect();
    first.send(request.bytes());
    upstream.wait_for(1);
    let response = sidecar.call(&request);
    latch.open();
    response.refused(503, "overloaded");
    assert_eq!(
        response.header("access-control-allow-origin").as_deref(),
        Some(APP)
    );
}

#[test]
fn an_allowed_origin_can_read_a_502() {
    let issuer = crate::harness::Issuer::start();
    let sidecar = crate::harness::Sidecar::start(POLICY, &Upstream::unreachable(), &issuer);
    let response = sidecar.call(&from(APP, get(TASKS).bearer(&issuer.token("alice"))));
    response.refused(502, "upstream_unreachable");
    assert_eq!(
        response.header("access-control-allow-origin").as_deref(),
        Some(APP)
    );
}

#[test]
fn an_allowed_origin_can_read_the_refusal_of_a_grpc_call() {
    let (sidecar, _upstream, _issuer) = start(POLICY);
    let call = post(TASKS, b"").line("Content-Type: application/grpc-web+proto");
    let response = sidecar.call(&from(APP, call));
    assert_eq!(response.header("grpc-status").as_deref(), Some("16"));
    assert_eq!(
        response.header("access-control-allow-origin").as_deref(),
        Some(APP)
    );
    let exposed = response.header("access-control-expose-headers").unwrap();
    assert!(exposed.contains("grpc-status, grpc-message"), "{exposed}");
}

#[test]
fn replaces_the_cors_headers_of_the_upstream() {
    let lines = "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Origin: https://evil.example\r\n\
                 ACCESS-CONTROL-ALLOW-CREDENTIALS: true\r\nAccess-Control-Expose-Headers: X-Secret\r\n\
                 Access-Control-Anything: x\r\nVary: Accept-Encoding\r\nVary: Cookie\r\n";
    let upstream = Upstream::responding(move |exchange| exchange.respond("200 OK", lines, "x"));
    let (sidecar, upstream, issuer) = start_with(POLICY, upstream);
    let alice = issuer.token("alice");
    let response = sidecar.call(&from(APP, get(TASKS).bearer(&alice)));
    assert_eq!(
        cors_headers(&response),
        [
            "access-control-allow-origin: https://app.example".to_owned(),
            format!("{EXPOSE}, link"),
            "vary: Accept-Encoding, Cookie, origin".to_owned(),
        ]
    );
    let response = sidecar.call(&from("https://evil.example", get(TASKS).bearer(&alice)));
    assert_eq!(
        cors_headers(&response),
        ["vary: Accept-Encoding, Cookie, origin"]
    );

    // With `cors = false`, the upstream responds to browsers itself, including preflights.
    let before = upstream.arrived().len();
    for request in [
        from("https://evil.example", get("/own/1")),
        preflight("https://evil.example", "PUT", "/own/1"),
    ] {
        let response = sidecar.call(&request);
        assert_eq!(
            (response.status, cors_headers(&response).len()),
            (200, 7),
            "{response:?}"
        );
    }
    assert_eq!(upstream.arrived().len(), before + 2);
}

#[test]
fn without_cors_forwards_preflights_and_cors_headers() {
    let lines = "Access-Control-Allow-Origin: *\r\n";
    let upstream = Upstream::responding(move |exchange| exchange.respond("200 OK", lines, ""));
    let routes = "[[routes]]\npath = \"/open\"\naccess = \"public\"\n";
    let (sidecar, upstream, _issuer) = start_with(routes, upstream);
    for request in [preflight(APP, "GET", "/open"), from(APP, get("/open"))] {
        let response = sidecar.call(&request);
        assert_eq!(cors_headers(&response), ["access-control-allow-origin: *"]);
    }
    assert_eq!(upstream.arrived().len(), 2);
    assert!(cors_headers(&sidecar.call(&from(APP, get("/nowhere")))).is_empty());
}

#[test]
fn any_origin_gets_the_same_response_with_a_wildcard() {
    let (sidecar, upstream, _issuer) = start(POLICY);
    for request in [
        get("/anyone/1"),
        from("https://evil.example", get("/anyone/1")),
        from("null", get("/anyone/1")),
    ] {
        let response = sidecar.call(&request);
        assert_eq!(
            cors_headers(&response),
            ["access-control-allow-origin: *", EXPOSE]
        );
    }
    assert_eq!(upstream.arrived().len(), 3);
    let response = sidecar.call(&preflight("https://evil.example", "PATCH", "/anyone/1"));
    assert_eq!(response.status, 204);
    assert_eq!(
        cors_headers(&response),
        [
            "access-control-allow-methods: GET, HEAD, PATCH",
            "access-control-allow-origin: *",
            "access-control-max-age: 0",
            PREFLIGHT_VARY,
        ]
    );
}

#[test]
fn credentials_allow_cookies_and_origins_still_guards_unsafe_methods() {
    let (sidecar, upstream, issuer) = start(POLICY);
    let cookie = format!("Cookie: session={}", issuer.token("alice"));
    let response = sidecar.call(&preflight(APP, "GET", "/session/alice"));
    let credentials = "access-control-allow-credentials";
    assert_eq!(response.header(credentials).as_deref(), Some("true"));
    let response = sidecar.call(&from(APP, get("/session/alice").line(&cookie)));
    assert_eq!(
        (response.status, response.header(credentials).as_deref()),
        (200, Some("true"))
    );
    let evil = from("https://evil.example", get("/session/alice").line(&cookie));
    assert_eq!(cors_headers(&sidecar.call(&evil)), ["vary: origin"]);
    // `origins` of the route guards unsafe methods and does not name this origin.
    let response = sidecar.call(&from(APP, post("/session/alice", b"").line(&cookie)));
    response.refused(403, "origin_not_allowed");
    assert_eq!(response.header(credentials).as_deref(), Some("true"));
    // A route without cookies does not allow credentials.
    let response = sidecar.call(&preflight(APP, "GET", TASKS));
    assert_eq!(response.header(credentials), None);
    assert_eq!(upstream.arrived().len(), 2);
}

#[test]
fn responds_to_preflights_over_both_versions() {
    let address = hyper_client::serve(|_| async { http::Response::new(hyper_client::text("")) });
    let (sidecar, _issuer) = start_before(&hyper_client::tasks(Version::HTTP_2, address), POLICY);
    for version in VERSIONS {
        hyper_client::run(async {
            let mut client = HyperClient::connect(sidecar.address, version).await;
            for (method, origin, status) in [
                ("GET", APP, 204),
                ("PUT", APP, 204),
                ("GET", "https://evil.example", 403),
            ] {
                let request = http::Request::builder()
                    .method("OPTIONS")
                    .uri(TASKS)
                    .header("origin", origin)
                    .header("access-control-request-method", method);
                let response = client
                    .call(request.body(hyper_client::text("")).unwrap())
                    .await
                    .unwrap();
                assert_eq!(response.status, status, "{version:?} {method}");
                let allowed = response.headers.get(ACCESS_CONTROL_ALLOW_ORIGIN);
                assert_eq!(allowed.is_some(), status == 204, "{version:?} {method}");
                assert_eq!(response.headers.get_all(VARY).iter().count(), 1);
            }
        });
    }
}
