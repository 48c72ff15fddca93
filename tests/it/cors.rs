//! Pages of other origins: what browsers ask before they let one send, and what they need to let it read.

use http::Version;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, VARY};

use crate::harness::hyper_client::{self, Either, VERSIONS};
use crate::harness::{
    Answer, Request, Upstream, get, post, request, start, start_before, start_with,
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

const TASKS: &str = "/api/alice/tasks";

/// What a browser asks before a page may send this.
fn preflight(origin: &str, method: &str, target: &str) -> Request {
    let method = format!("Access-Control-Request-Method: {method}");
    from(origin, request("OPTIONS", target).line(&method))
}

fn from(origin: &str, request: Request) -> Request {
    request.line(&format!("Origin: {origin}"))
}

/// Everything that an answer says to browsers, and what it varies by.
fn said(answer: &Answer) -> Vec<String> {
    let fields = answer.head.fields();
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

const ASKED: &str = "vary: origin, access-control-request-method, access-control-request-headers";
const EXPOSED: &str = "access-control-expose-headers: \
    www-authenticate, retry-after, ratelimit, ratelimit-policy, x-request-id, grpc-status, grpc-message";

#[test]
fn a_preflight_is_answered_without_a_token_and_reaches_no_upstream() {
    let (sidecar, upstream, _issuer) = start(POLICY);
    let asked = preflight(APP, "POST", TASKS)
        .line("Access-Control-Request-Headers: authorization,content-type")
        .line("Access-Control-Request-Headers: X-Tenant");
    let answer = sidecar.call(&asked);
    assert_eq!(answer.status, 204, "{}", answer.head.text());
    assert_eq!(
        said(&answer),
        [
            "access-control-allow-headers: authorization, content-type, x-tenant",
            "access-control-allow-methods: GET, HEAD, POST",
            "access-control-allow-origin: https://app.example",
            "access-control-max-age: 3600",
            ASKED,
        ]
    );
    assert!(answer.header("x-request-id").is_some());
    assert_eq!(answer.header("content-length"), None);
    // Of two routes of one path, the one that has the method.
    let answer = sidecar.call(&preflight(APP, "DELETE", TASKS));
    assert_eq!(
        answer.header("access-control-allow-methods").as_deref(),
        Some("DELETE, OPTIONS")
    );
    let preview = sidecar.call(&preflight("https://pr-7.preview.example", "GET", TASKS));
    assert_eq!(
        preview.header("access-control-allow-origin").as_deref(),
        Some("https://pr-7.preview.example")
    );
    upstream.untouched();
    let route = "route=\"/api/{user_id}/tasks/{*rest}\"";
    let rest = "method=\"OPTIONS\",status=\"204\",reason=\"\"";
    let series = &format!("claimgate_requests_total{{{route},{rest}}}");
    assert_eq!(sidecar.metric(series), Some(3.0));
}

#[test]
fn a_preflight_that_is_not_allowed_is_told_why_and_allows_nothing() {
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
        (405, "method_not_allowed", preflight(APP, "PUT", TASKS)),
        (405, "method_not_allowed", preflight(APP, "get", TASKS)),
        (405, "method_not_allowed", preflight(APP, "TRACE", TASKS)),
        (404, "no_route", preflight(APP, "GET", "/nowhere")),
        (
            400,
            "path_not_canonical",
            preflight(APP, "GET", "/api/../x"),
        ),
    ];
    for (status, reason, asked) in cases {
        let answer = sidecar.call(&asked);
        answer.refused(status, reason);
        let expected: &[&str] = &[ASKED];
        assert_eq!(said(&answer), expected, "{reason}");
    }
    upstream.untouched();
}

#[test]
fn an_options_request_that_is_no_preflight_is_a_request_like_any_other() {
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
    for (place, case) in cases.into_iter().enumerate() {
        sidecar.call(&case).refused(401, "token_missing");
        assert_eq!(upstream.arrived().len(), place);
        let answer = sidecar.call(&case.bearer(&issuer.token("alice")));
        assert_eq!(answer.status, 200, "{place}");
    }
}

#[test]
fn an_allowed_page_can_read_every_answer() {
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
        format!("{EXPOSED}, link"),
        "vary: origin".to_owned(),
    ];
    for (status, reason, case) in cases {
        let answer = sidecar.call(&from(APP, case.clone()));
        assert_eq!(answer.outcome(), (status, reason.to_owned()));
        assert_eq!(said(&answer), expected, "{reason}");
        // Another page is told nothing, and a cache that the answer is not for everybody.
        for other in ["https://evil.example", "null", "http://app.example"] {
            let answer = sidecar.call(&from(other, case.clone()));
            assert_eq!(answer.outcome(), (status, reason.to_owned()));
            assert_eq!(said(&answer), ["vary: origin"], "{other} {reason}");
        }
        assert_eq!(said(&sidecar.call(&case)), ["vary: origin"], "{reason}");
        let two = from("https://evil.example", from(APP, case));
        assert_eq!(said(&sidecar.call(&two)), ["vary: origin"], "{reason}");
    }
    // What is not allowed to read is served all the same: CORS protects nothing from those who are no browsers.
    assert_eq!(upstream.arrived().len(), 6);
}

#[test]
fn an_allowed_page_can_read_that_it_calls_too_often_and_asking_is_not_counted() {
    let limited = "[[routes]]\npath = \"/few\"\naccess = \"public\"\n\
                   rate_limit = { requests = 1, per = \"1m\", by = \"client-address\" }\n";
    let (sidecar, upstream, _issuer) = start(&format!("{POLICY}{limited}"));
    for _ in 0..3 {
        assert_eq!(sidecar.call(&preflight(APP, "GET", "/few")).status, 204);
    }
    let asked = from(APP, get("/few"));
    assert_eq!(sidecar.call(&asked).status, 200);
    let answer = sidecar.call(&asked);
    answer.refused(429, "rate_limited");
    assert_eq!(
        answer.header("access-control-allow-origin").as_deref(),
        Some(APP)
    );
    assert!(answer.header("retry-after").is_some());
    assert_eq!(upstream.arrived().len(), 1);
}

#[test]
fn an_allowed_page_can_read_that_the_gate_is_full() {
    let policy = POLICY.replace("max_body_bytes", "max_connections = 1\nmax_body_bytes");
    let (sidecar, _upstream, issuer) = start(&policy);
    let asked = from(APP, get(TASKS).bearer(&issuer.token("alice")));
    let mut first = sidecar.connect();
    assert_eq!(first.call(&asked).status, 200);
    let answer = sidecar.call(&asked);
    answer.refused(503, "overloaded");
    assert_eq!(
        answer.header("access-control-allow-origin").as_deref(),
        Some(APP)
    );
}

#[test]
fn an_allowed_page_can_read_that_the_upstream_is_away() {
    let issuer = crate::harness::Issuer::start();
    let sidecar = crate::harness::Sidecar::start(POLICY, &Upstream::nowhere(), &issuer);
    let answer = sidecar.call(&from(APP, get(TASKS).bearer(&issuer.token("alice"))));
    answer.refused(502, "upstream_unreachable");
    assert_eq!(
        answer.header("access-control-allow-origin").as_deref(),
        Some(APP)
    );
}

#[test]
fn an_allowed_page_can_read_the_refusal_of_a_grpc_call() {
    let (sidecar, _upstream, _issuer) = start(POLICY);
    let call = post(TASKS, b"").line("Content-Type: application/grpc-web+proto");
    let answer = sidecar.call(&from(APP, call));
    assert_eq!(answer.header("grpc-status").as_deref(), Some("16"));
    assert_eq!(
        answer.header("access-control-allow-origin").as_deref(),
        Some(APP)
    );
    let exposed = answer.header("access-control-expose-headers").unwrap();
    assert!(exposed.contains("grpc-status, grpc-message"), "{exposed}");
}

#[test]
fn what_the_upstream_tells_browsers_is_replaced() {
    let lines = "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Origin: https://evil.example\r\n\
                 ACCESS-CONTROL-ALLOW-CREDENTIALS: true\r\nAccess-Control-Expose-Headers: X-Secret\r\n\
                 Access-Control-Anything: x\r\nVary: Accept-Encoding\r\nVary: Cookie\r\n";
    let upstream = Upstream::answering(move |dialogue| dialogue.answer("200 OK", lines, "x"));
    let (sidecar, upstream, issuer) = start_with(POLICY, upstream);
    let alice = issuer.token("alice");
    let answer = sidecar.call(&from(APP, get(TASKS).bearer(&alice)));
    assert_eq!(
        said(&answer),
        [
            "access-control-allow-origin: https://app.example".to_owned(),
            format!("{EXPOSED}, link"),
            "vary: Accept-Encoding, Cookie, origin".to_owned(),
        ]
    );
    let answer = sidecar.call(&from("https://evil.example", get(TASKS).bearer(&alice)));
    assert_eq!(said(&answer), ["vary: Accept-Encoding, Cookie, origin"]);

    // Where the route says `false`, the upstream answers browsers itself, preflights too.
    let before = upstream.arrived().len();
    for asked in [
        from("https://evil.example", get("/own/1")),
        preflight("https://evil.example", "PUT", "/own/1"),
    ] {
        let answer = sidecar.call(&asked);
        assert_eq!((answer.status, said(&answer).len()), (200, 7), "{answer:?}");
    }
    assert_eq!(upstream.arrived().len(), before + 2);
}

#[test]
fn without_a_policy_nothing_is_changed_and_nothing_is_answered() {
    let lines = "Access-Control-Allow-Origin: *\r\n";
    let upstream = Upstream::answering(move |dialogue| dialogue.answer("200 OK", lines, ""));
    let routes = "[[routes]]\npath = \"/open\"\naccess = \"public\"\n";
    let (sidecar, upstream, _issuer) = start_with(routes, upstream);
    for asked in [preflight(APP, "GET", "/open"), from(APP, get("/open"))] {
        let answer = sidecar.call(&asked);
        assert_eq!(said(&answer), ["access-control-allow-origin: *"]);
    }
    assert_eq!(upstream.arrived().len(), 2);
    assert!(said(&sidecar.call(&from(APP, get("/nowhere")))).is_empty());
}

#[test]
fn what_everybody_may_read_is_the_same_for_everybody() {
    let (sidecar, upstream, _issuer) = start(POLICY);
    for asked in [
        get("/anyone/1"),
        from("https://evil.example", get("/anyone/1")),
        from("null", get("/anyone/1")),
    ] {
        let answer = sidecar.call(&asked);
        assert_eq!(said(&answer), ["access-control-allow-origin: *", EXPOSED]);
    }
    assert_eq!(upstream.arrived().len(), 3);
    let answer = sidecar.call(&preflight("https://evil.example", "PATCH", "/anyone/1"));
    assert_eq!(answer.status, 204);
    assert_eq!(
        said(&answer),
        [
            "access-control-allow-methods: GET, HEAD, PATCH",
            "access-control-allow-origin: *",
            "access-control-max-age: 0",
            ASKED,
        ]
    );
}

#[test]
fn a_page_that_may_send_cookies_may_read_by_one_and_change_what_its_route_lets_it() {
    let (sidecar, upstream, issuer) = start(POLICY);
    let cookie = format!("Cookie: session={}", issuer.token("alice"));
    let answer = sidecar.call(&preflight(APP, "GET", "/session/alice"));
    let credentials = "access-control-allow-credentials";
    assert_eq!(answer.header(credentials).as_deref(), Some("true"));
    let answer = sidecar.call(&from(APP, get("/session/alice").line(&cookie)));
    assert_eq!(
        (answer.status, answer.header(credentials).as_deref()),
        (200, Some("true"))
    );
    let evil = from("https://evil.example", get("/session/alice").line(&cookie));
    assert_eq!(said(&sidecar.call(&evil)), ["vary: origin"]);
    // `origins` of the route is about what changes something, and does not name this page.
    let answer = sidecar.call(&from(APP, post("/session/alice", b"").line(&cookie)));
    answer.refused(403, "origin_not_allowed");
    assert_eq!(answer.header(credentials).as_deref(), Some("true"));
    // A token that a page has to send itself needs no cookie.
    let answer = sidecar.call(&preflight(APP, "GET", TASKS));
    assert_eq!(answer.header(credentials), None);
    assert_eq!(upstream.arrived().len(), 2);
}

#[test]
fn browsers_are_answered_alike_over_both_versions() {
    let address = hyper_client::serve(|_| async { http::Response::new(hyper_client::text("")) });
    let (sidecar, _issuer) = start_before(&hyper_client::tasks(Version::HTTP_2, address), POLICY);
    for version in VERSIONS {
        hyper_client::run(async {
            let mut client = Either::connect(sidecar.address, version).await;
            for (method, status) in [("GET", 204), ("PUT", 405)] {
                let asked = http::Request::builder()
                    .method("OPTIONS")
                    .uri(TASKS)
                    .header("origin", APP)
                    .header("access-control-request-method", method);
                let seen = client
                    .ask(asked.body(hyper_client::text("")).unwrap())
                    .await
                    .unwrap();
                assert_eq!(seen.status, status, "{version:?} {method}");
                let allowed = seen.headers.get(ACCESS_CONTROL_ALLOW_ORIGIN);
                assert_eq!(allowed.is_some(), status == 204, "{version:?} {method}");
                assert_eq!(seen.headers.get_all(VARY).iter().count(), 1);
            }
        });
    }
}
