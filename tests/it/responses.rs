//! Every row of the table of answers, reached through a socket.

use std::collections::BTreeSet;

use claimgate::gate::refusal::Refusal;
use serde_json::json;

use crate::harness::issuer::{JwksResponse, SECRET, claims};
use crate::harness::{
    Exchange, Issuer, Key, Latch, NOW, Next, ROUTES, Request, Response, Sidecar, TASKS, Upstream,
    eventually, get, post, request, start, start_with,
};

/// The rows that no token of the table below can reach, each with the test that does.
const ELSEWHERE: [&str; 14] = [
    "certificate_denied",
    "https_required",
    "preflight_origin",
    "preflight_method",
    "preflight_headers",
    "rate_limited",
    "request_timeout",
    "keys_unavailable",
    "rate_limit_unavailable",
    "overloaded",
    "draining",
    "upstream_unreachable",
    "upstream_invalid_response",
    "upstream_timeout",
];

const STRICT: &str = r#"
[listen]
max_header_bytes = "16KiB"
max_body_bytes = "1KiB"

[issuers.test]
keys = { secret_env = "TEST_SECRET" }
issuer = "https://issuer.test"
audience = "tasks"
max_lifetime = "2h"

[[routes]]
path = "/api/{user_id}/tasks/{*rest}"
methods = ["GET", "POST"]
access = { owner = "user_id" }

[[routes]]
path = "/hidden/{user_id}"
access = { owner = "user_id" }
mismatch = 404

[[routes]]
path = "/older/{user_id}"
access = { owner = "user_id" }
mismatch = 401

[[routes]]
path = "/paid/{*rest}"
access = "authenticated"
require = [{ claim = "plan", equals = "pro" }]

[[routes]]
path = "/page/{user_id}"
access = { owner = "user_id" }
tokens = [{ cookie = "session" }]
"#;

const INVALID: &str = "Bearer realm=\"claimgate\", error=\"invalid_token\", error_description=\"";

/// Claims that everybody accepts, but for what a test changes.
fn good() -> serde_json::Value {
    let mut claims = claims("alice");
    claims["iss"] = json!("https://issuer.test");
    claims["aud"] = json!("tasks");
    claims
}

fn with(name: &str, value: serde_json::Value) -> String {
    let mut claims = good();
    claims[name] = value;
    Key::secret(SECRET.as_bytes()).sign(&claims)
}

fn headed(header: &str) -> String {
    Key::secret(SECRET.as_bytes()).sign_text(header, &good().to_string())
}

/// Asserts what every answer of the gate's own has.
#[track_caller]
fn assert_row(response: &Response, status: u16, reason: &str) {
    response.refused(status, reason);
    let body = response.json();
    assert_eq!(body["type"], "about:blank", "{reason}");
    assert_eq!(body["status"], status, "{reason}");
    assert!(!body["title"].as_str().unwrap().is_empty(), "{reason}");
    let detail = body["detail"].as_str().unwrap();
    assert!(!detail.is_empty(), "{reason}");
    assert_eq!(body.as_object().unwrap().len(), 5, "{reason}: {body}");
    assert_eq!(
        response.header("cache-control").as_deref(),
        Some("no-store"),
        "{reason}"
    );
    let challenge = match (status, reason) {
        (_, "token_missing") => Some("Bearer realm=\"claimgate\"".to_owned()),
        (_, "token_repeated") => {
            let error = "error=\"invalid_request\"";
            Some(format!(
                "Bearer realm=\"claimgate\", {error}, error_description=\"{detail}\""
            ))
        }
        (401, _) => Some(format!("{INVALID}{detail}\"")),
        (_, "claim_denied") => {
            let challenge = INVALID.replace("invalid_token", "insufficient_scope");
            Some(format!("{challenge}{detail}\""))
        }
        _ => None,
    };
    assert_eq!(response.header("www-authenticate"), challenge, "{reason}");
    let retry = response.header("retry-after");
    assert_eq!(retry.is_some(), status == 503, "{reason}: {retry:?}");
    assert_eq!(
        response.header("allow").is_some(),
        status == 405,
        "{reason}"
    );
    assert!(response.header("x-request-id").is_some(), "{reason}");
}

fn table() -> Vec<(u16, &'static str, Request)> {
    let stranger = Key::secret(b"another secret, and long enough too").sign(&good());
    let to_tasks = |token: &str| get(TASKS).bearer(token);
    let alices = with("sub", json!("alice"));
    let long = "x".repeat(9000);
    vec![
        (
            400,
            "path_not_canonical",
            get("/api/alice/../bob/tasks").bearer(&alices),
        ),
        (
            400,
            "request_malformed",
            get(TASKS).host(None).bearer(&alices),
        ),
        (404, "no_route", get("/nowhere").bearer(&alices)),
        (
            405,
            "method_not_allowed",
            request("DELETE", TASKS).bearer(&alices),
        ),
        (401, "token_missing", get(TASKS)),
        (
            401,
            "token_missing",
            get(TASKS).line("Authorization: Basic YTpi"),
        ),
        (400, "token_repeated", to_tasks(&alices).bearer(&alices)),
        (401, "token_malformed", to_tasks("a.b")),
        (
            401,
            "token_opaque",
            to_tasks("sVeJ2xKq0NzYwLb7Rt5Hc9Mf3Gp1Du8A"),
        ),
        (
            401,
            "token_malformed",
            to_tasks(&headed(r#"{"alg":"HS256","crit":["exp"]}"#)),
        ),
        (401, "token_signature", to_tasks(&stranger)),
        (
            401,
            "token_algorithm",
            to_tasks(&headed(r#"{"alg":"HS512"}"#)),
        ),
        (
            401,
            "token_algorithm",
            to_tasks(&headed(r#"{"alg":"none"}"#)),
        ),
        (
            401,
            "token_expired",
            to_tasks(&with("exp", json!(NOW - 30))),
        ),
        (
            401,
            "token_not_yet_valid",
            to_tasks(&with("nbf", json!(NOW + 31))),
        ),
        (
            401,
            "token_lifetime",
            to_tasks(&with("exp", json!(NOW + 7200))),
        ),
        (
            401,
            "token_issuer",
            to_tasks(&with("iss", json!("https://other.test"))),
        ),
        (
            401,
            "token_audience",
            to_tasks(&with("aud", json!(["notes", "mail"]))),
        ),
        (401, "token_subject", to_tasks(&with("sub", json!("")))),
        (401, "token_subject", to_tasks(&with("sub", json!(7)))),
        (
            401,
            "token_type",
            to_tasks(&headed(r#"{"alg":"HS256","typ":"dpop+jwt"}"#)),
        ),
        (
            401,
            "token_confirmation",
            to_tasks(&with("cnf", json!({ "jkt": "x" }))),
        ),
        (
            403,
            "subject_mismatch",
            get("/api/bob/tasks").bearer(&alices),
        ),
        (401, "subject_mismatch", get("/older/bob").bearer(&alices)),
        (403, "claim_denied", get("/paid/x").bearer(&alices)),
        (
            403,
            "origin_not_allowed",
            post("/page/alice", b"")
                .line(&format!("Cookie: session={alices}"))
                .line("Origin: http://evil.test"),
        ),
        (
            413,
            "body_too_large",
            post(TASKS, &[b'x'; 1025]).bearer(&alices),
        ),
        (
            414,
            "target_too_long",
            get(&format!("{TASKS}?{long}")).bearer(&alices),
        ),
        (
            431,
            "headers_too_large",
            to_tasks(&alices).line(&format!("A: {long}{long}")),
        ),
    ]
}

#[test]
fn every_refusal_is_its_row_of_the_table_and_touches_no_upstream() {
    let (sidecar, upstream, _issuer) = start(STRICT);
    for (status, reason, request) in table() {
        assert_row(&sidecar.call(&request), status, reason);
        upstream.assert_untouched();
    }
    // The same gate lets the same user in.
    let response = sidecar.call(&get(TASKS).bearer(&with("sub", json!("alice"))));
    assert_eq!(response.outcome(), (200, String::new()));
    upstream.only();
}

#[test]
fn the_table_reaches_every_row() {
    let key_unknown = "token_key_unknown";
    let mut reached: BTreeSet<&str> = table().iter().map(|(_, reason, _)| *reason).collect();
    reached.extend(ELSEWHERE);
    reached.insert(key_unknown);
    let all: BTreeSet<&str> = Refusal::examples().iter().map(Refusal::reason).collect();
    assert_eq!(reached, all);
}

#[test]
fn an_expired_token_is_told_so_in_words() {
    let (sidecar, _upstream, issuer) = start(ROUTES);
    let token = issuer.token("alice");
    assert_eq!(sidecar.call(&get(TASKS).bearer(&token)).status, 200);
    sidecar.set_time(NOW + 3600 + 30);
    let response = sidecar.call(&get(TASKS).bearer(&token));
    response.refused(401, "token_expired");
    assert_eq!(
        response.json()["detail"],
        "Token has expired. Please sign in again."
    );
}

#[test]
fn a_path_that_has_another_method_says_which() {
    let (sidecar, upstream, _issuer) = start(STRICT);
    let response = sidecar.call(&request("PUT", TASKS));
    response.refused(405, "method_not_allowed");
    assert_eq!(response.header("allow").as_deref(), Some("GET, HEAD, POST"));
    upstream.assert_untouched();
}

#[test]
fn a_hidden_mismatch_looks_like_a_path_that_does_not_exist() {
    let (sidecar, upstream, _issuer) = start(STRICT);
    let token = with("sub", json!("alice"));
    let plain = |target: &str| {
        let response = sidecar.call(&get(target).bearer(&token).line("X-Request-Id: same"));
        let head = response.head.text();
        let dated = |line: &&str| line.to_ascii_lowercase().starts_with("date:");
        let kept: Vec<&str> = head.lines().filter(|line| !dated(line)).collect();
        assert_eq!(kept.len() + 1, head.lines().count(), "{head}");
        (kept.join("\n"), response.text())
    };
    let hidden = plain("/hidden/bob");
    assert_eq!(hidden, plain("/nowhere"));
    assert!(hidden.1.contains("no_route"), "{}", hidden.1);
    upstream.assert_untouched();
}

#[test]
fn a_key_that_nobody_has_is_a_row_of_its_own() {
    let issuer = Issuer::publishing(JwksResponse::Keys(vec![Key::ed25519("one")]));
    let upstream = Upstream::start();
    let sidecar = Sidecar::start_fetching(ROUTES, &upstream, &issuer);
    let known = Key::ed25519("one").sign(&claims("alice"));
    assert_eq!(sidecar.call(&get(TASKS).bearer(&known)).status, 200);
    let unknown = Key::ed25519("two").sign(&claims("alice"));
    assert_row(
        &sidecar.call(&get(TASKS).bearer(&unknown)),
        401,
        "token_key_unknown",
    );
    assert_eq!(upstream.arrived().len(), 1);
}

#[test]
fn without_keys_nobody_is_told_that_the_token_is_bad() {
    let issuer = Issuer::publishing(JwksResponse::Closed);
    let upstream = Upstream::start();
    let sidecar = Sidecar::start_fetching(ROUTES, &upstream, &issuer);
    let token = Key::ed25519("one").sign(&claims("alice"));
    assert_row(
        &sidecar.call(&get(TASKS).bearer(&token)),
        503,
        "keys_unavailable",
    );
    upstream.assert_untouched();
}

#[test]
fn an_upstream_that_cannot_be_reached_is_502() {
    let (sidecar, _upstream, issuer) = start_with(ROUTES, Upstream::unreachable());
    let response = sidecar.call(&get(TASKS).bearer(&issuer.token("alice")));
    assert_row(&response, 502, "upstream_unreachable");
}

#[test]
fn an_upstream_that_does_not_speak_http_is_502() {
    let upstream = Upstream::responding(|exchange: &mut Exchange| {
        exchange.write("SSH-2.0-OpenSSH_9.2\r\n\r\n");
        Next::Close
    });
    let (sidecar, _upstream, issuer) = start_with(ROUTES, upstream);
    let response = sidecar.call(&get(TASKS).bearer(&issuer.token("alice")));
    assert_row(&response, 502, "upstream_invalid_response");
}

#[test]
fn an_upstream_that_does_not_answer_is_504() {
    let latch = Latch::default();
    let silent = latch.clone();
    let upstream = Upstream::responding(move |_: &mut Exchange| {
        silent.wait();
        Next::Close
    });
    let config = format!("[upstreams.tasks]\nresponse_timeout = \"100ms\"\n{ROUTES}");
    let (sidecar, _upstream, issuer) = start_with(&config, upstream);
    let response = sidecar.call(&get(TASKS).bearer(&issuer.token("alice")));
    latch.open();
    assert_row(&response, 504, "upstream_timeout");
}

#[test]
fn a_body_that_stands_still_is_408() {
    let (sidecar, _upstream, issuer) =
        start(&format!("[listen]\nbody_timeout = \"200ms\"\n{ROUTES}"));
    let half = request("POST", TASKS)
        .bearer(&issuer.token("alice"))
        .line("Content-Length: 10")
        .body(b"half");
    assert_row(&sidecar.call(&half), 408, "request_timeout");
}

#[test]
fn a_connection_above_the_limit_is_503_and_touches_no_upstream() {
    let (sidecar, upstream, issuer) = start(&format!("[listen]\nmax_connections = 1\n{ROUTES}"));
    let mut first = sidecar.connect();
    let request = get(TASKS).bearer(&issuer.token("alice"));
    assert_eq!(first.call(&request).status, 200);
    let response = sidecar.call(&request);
    assert_row(&response, 503, "overloaded");
    assert_eq!(response.header("connection").as_deref(), Some("close"));
    assert_eq!(first.call(&request).status, 200);
    assert_eq!(upstream.arrived().len(), 2);
}

#[test]
fn a_connection_that_comes_during_the_stop_is_503() {
    let latch = Latch::default();
    let upstream = Upstream::held(&latch);
    let (sidecar, upstream, issuer) =
        start_with(&format!("[drain]\ngrace = \"10m\"\n{ROUTES}"), upstream);
    let request = get(TASKS).bearer(&issuer.token("alice"));
    let mut in_flight = sidecar.connect();
    in_flight.send(request.bytes());
    upstream.wait_for(1);
    sidecar.stop();
    // Until the worker has heard of the stop, whoever comes is still served: here, with a 404.
    eventually("refused while it stops", || {
        let mut late = sidecar.connect();
        late.send(get("/nowhere").bytes());
        match late.read(false) {
            Ok(response) if response.status == 503 => {
                assert_row(&response, 503, "draining");
                true
            }
            Ok(_) | Err(_) => false,
        }
    });
    latch.open();
    assert_eq!(in_flight.response().status, 200);
    assert_eq!(upstream.arrived().len(), 1);
    assert_eq!(sidecar.wait(), 0);
}
