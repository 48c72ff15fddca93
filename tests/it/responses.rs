//! Every row of the refusals, provoked end to end over a socket.

use std::collections::BTreeSet;

use claimgate::gate::refusal::Refusal;
use serde_json::{Value, json};

use crate::harness::issuer::{JwksResponse, SECRET, claims};
use crate::harness::{
    Authority, Client, Issuer, Key, Latch, NOW, Next, ROUTES, Request, Response, Sidecar, TASKS,
    Upstream, eventually, get, post, preflight, request, start, start_with,
};
use crate::{dpop, introspection, sessions};

/// Every rule that a request can break before the upstream.
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

/// CORS, and one rate limit of each kind.
const LIMITED: &str = r#"
[cors]
origins = ["https://app.test"]
methods = ["GET"]

[[routes]]
path = "/address"
access = "public"
rate_limit = { requests = 1, per = "1m", by = "client-address" }

[[routes]]
path = "/subject"
access = "authenticated"
rate_limit = { requests = 1, per = "1m", by = "subject" }
"#;

const INVALID: &str = "Bearer realm=\"claimgate\", error=\"invalid_token\", error_description=\"";

/// Status and reason of a response.
type Row = (u16, String);

/// Rows seen in responses of running gates.
#[derive(Default)]
struct Seen(BTreeSet<Row>);

/// Claims that [`STRICT`] accepts.
fn valid_claims() -> Value {
    let mut claims = claims("alice");
    claims["iss"] = json!("https://issuer.test");
    claims["aud"] = json!("tasks");
    claims
}

fn with(name: &str, value: Value) -> String {
    let mut claims = valid_claims();
    claims[name] = value;
    Key::secret(SECRET.as_bytes()).sign(&claims)
}

fn headed(header: &str) -> String {
    Key::secret(SECRET.as_bytes()).sign_text(header, &valid_claims().to_string())
}

impl Seen {
    /// Asserts a refusal with everything that its row has, and records it.
    #[track_caller]
    fn refused(&mut self, response: &Response, status: u16, reason: &str) {
        assert_row(response, status, reason);
        self.0.insert((status, reason.to_owned()));
    }
}

/// Asserts the body and the headers of a refusal.
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
        (_, "proof_invalid" | "proof_replayed" | "proof_nonce") => {
            let error = if reason == "proof_nonce" {
                "use_dpop_nonce"
            } else {
                "invalid_dpop_proof"
            };
            let challenge = INVALID
                .replace("Bearer", "DPoP")
                .replace("invalid_token", error);
            let algorithms = "RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA";
            Some(format!("{challenge}{detail}\", algs=\"{algorithms}\""))
        }
        // Of a request in the scheme `DPoP`.
        (_, "token_unbound") => {
            let challenge = INVALID.replace("Bearer", "DPoP");
            let algorithms = "RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA";
            Some(format!("{challenge}{detail}\", algs=\"{algorithms}\""))
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
    let has_retry = matches!(status, 429 | 503);
    assert_eq!(retry.is_some(), has_retry, "{reason}: {retry:?}");
    assert_eq!(
        response.header("allow").is_some(),
        status == 405,
        "{reason}"
    );
    let location = response.header("location");
    assert_eq!(location.is_some(), status == 308, "{reason}");
    assert!(response.header("x-request-id").is_some(), "{reason}");
}

/// Requests that [`STRICT`] rejects before the upstream, with the expected status and reason.
fn rejected_requests() -> Vec<(u16, &'static str, Request)> {
    let forged = Key::secret(b"another secret, and long enough too").sign(&valid_claims());
    let to_tasks = |token: &str| get(TASKS).bearer(token);
    let valid = with("sub", json!("alice"));
    let long = "x".repeat(9000);
    vec![
        (
            400,
            "path_not_canonical",
            get("/api/alice/../bob/tasks").bearer(&valid),
        ),
        (
            400,
            "request_malformed",
            get(TASKS).host(None).bearer(&valid),
        ),
        (404, "no_route", get("/nowhere").bearer(&valid)),
        (
            405,
            "method_not_allowed",
            request("DELETE", TASKS).bearer(&valid),
        ),
        (401, "token_missing", get(TASKS)),
        (
            401,
            "token_missing",
            get(TASKS).line("Authorization: Basic YTpi"),
        ),
        (400, "token_repeated", to_tasks(&valid).bearer(&valid)),
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
        (401, "token_signature", to_tasks(&forged)),
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
            401,
            "token_machine",
            to_tasks(&with("client_id", json!("alice"))),
        ),
        (
            403,
            "subject_mismatch",
            get("/api/bob/tasks").bearer(&valid),
        ),
        (404, "no_route", get("/hidden/bob").bearer(&valid)),
        (401, "subject_mismatch", get("/older/bob").bearer(&valid)),
        (403, "claim_denied", get("/paid/x").bearer(&valid)),
        (
            403,
            "origin_not_allowed",
            post("/page/alice", b"")
                .line(&format!("Cookie: session={valid}"))
                .line("Origin: http://evil.test"),
        ),
        (
            421,
            "request_misdirected",
            get(&format!("https://gate.test{TASKS}")).bearer(&valid),
        ),
        (
            413,
            "body_too_large",
            post(TASKS, &[b'x'; 1025]).bearer(&valid),
        ),
        (
            414,
            "target_too_long",
            get(&format!("{TASKS}?{long}")).bearer(&valid),
        ),
        (
            431,
            "headers_too_large",
            to_tasks(&valid).line(&format!("A: {long}{long}")),
        ),
    ]
}

/// Rejections before the upstream.
fn strict_refusals(seen: &mut Seen) {
    let (sidecar, upstream, _issuer) = start(STRICT);
    for (status, reason, request) in rejected_requests() {
        seen.refused(&sidecar.call(&request), status, reason);
        upstream.assert_untouched();
    }
    // The same gate forwards a valid request.
    let response = sidecar.call(&get(TASKS).bearer(&with("sub", json!("alice"))));
    assert_eq!(response.outcome(), (200, String::new()));
    upstream.only();
}

fn https_redirects(seen: &mut Seen) {
    let listener = "[[listeners]]\naddress = \"127.0.0.1:0\"\nredirect_to_https = 443\n";
    let (sidecar, upstream, _issuer) = start(&format!("{listener}{ROUTES}"));
    let response = Client::connect(sidecar.addresses()[1]).call(&get("/open/page"));
    seen.refused(&response, 308, "https_required");
    upstream.assert_untouched();
}

fn certificate_refusals(seen: &mut Seen) {
    let route = r#"
[[routes]]
path = "/partner"
access = "authenticated"
require = [{ certificate = "dns", has = "web.test" }]
"#;
    let authority = Authority::new();
    let config = authority.listen_mtls("optional") + route;
    let (sidecar, upstream, issuer) = start(&config);
    let mut client = authority.connector().connect(sidecar.address).unwrap();
    let response = client.call(&get("/partner").bearer(&issuer.token("alice")));
    seen.refused(&response, 403, "certificate_denied");
    upstream.assert_untouched();
}

fn preflight_refusals(seen: &mut Seen) {
    let (sidecar, upstream, _issuer) = start(LIMITED);
    let allowed = || preflight("https://app.test", "GET", "/address");
    assert_eq!(sidecar.call(&allowed()).status, 204);
    for (request, reason) in [
        (
            preflight("https://evil.test", "GET", "/address"),
            "preflight_origin",
        ),
        (
            preflight("https://app.test", "PUT", "/address"),
            "preflight_method",
        ),
        (
            allowed().line("Access-Control-Request-Headers: x-debug"),
            "preflight_headers",
        ),
    ] {
        seen.refused(&sidecar.call(&request), 403, reason);
    }
    upstream.assert_untouched();
}

fn rate_limit_refusals(seen: &mut Seen) {
    let requests = |issuer: &Issuer| {
        let subject = get("/subject").bearer(&issuer.token("alice"));
        [get("/address"), subject]
    };
    let (sidecar, upstream, issuer) = start(LIMITED);
    for request in requests(&issuer) {
        assert_eq!(sidecar.call(&request).status, 200);
        seen.refused(&sidecar.call(&request), 429, "rate_limited");
    }
    assert_eq!(upstream.arrived().len(), 2);

    let unreachable = Upstream::unreachable();
    let url = unreachable.url().replace("http:", "redis:");
    let redis = format!("redis = {{ url = \"{url}\", when_unavailable = \"refuse\" }}\n");
    let (sidecar, upstream, issuer) = start(&format!("{redis}{LIMITED}"));
    for request in requests(&issuer) {
        seen.refused(&sidecar.call(&request), 503, "rate_limit_unavailable");
    }
    upstream.assert_untouched();
}

fn key_refusals(seen: &mut Seen) {
    let upstream = Upstream::start();
    let key = Key::ed25519("one");
    let issuer = Issuer::publishing(JwksResponse::Keys(vec![key.clone()]));
    let sidecar = Sidecar::start_fetching(ROUTES, &upstream, &issuer);
    let known = get(TASKS).bearer(&key.sign(&claims("alice")));
    assert_eq!(sidecar.call(&known).status, 200);
    let unknown = get(TASKS).bearer(&Key::ed25519("two").sign(&claims("alice")));
    seen.refused(&sidecar.call(&unknown), 401, "token_key_unknown");

    let issuer = Issuer::publishing(JwksResponse::Closed);
    let sidecar = Sidecar::start_fetching(ROUTES, &upstream, &issuer);
    seen.refused(&sidecar.call(&known), 503, "keys_unavailable");
    upstream.only();
}

fn stalled_bodies(seen: &mut Seen) {
    let config = format!("[listen]\nbody_timeout = \"200ms\"\n{ROUTES}");
    let (sidecar, _upstream, issuer) = start(&config);
    let half = request("POST", TASKS)
        .bearer(&issuer.token("alice"))
        .line("Content-Length: 10")
        .body(b"half");
    seen.refused(&sidecar.call(&half), 408, "request_timeout");
}

fn overload(seen: &mut Seen) {
    let config = format!("[listen]\nmax_connections = 1\n{ROUTES}");
    let latch = Latch::default();
    let (sidecar, upstream, issuer) = start_with(&config, Upstream::held(&latch));
    let mut first = sidecar.connect();
    let request = get(TASKS).bearer(&issuer.token("alice"));
    first.send(request.bytes());
    upstream.wait_for(1);
    let response = sidecar.call(&request);
    seen.refused(&response, 503, "overloaded");
    assert_eq!(response.header("connection").as_deref(), Some("close"));
    latch.open();
    assert_eq!(first.response().status, 200);
    assert_eq!(first.call(&request).status, 200);
    assert_eq!(upstream.arrived().len(), 2);
}

fn late_connections(seen: &mut Seen) {
    let latch = Latch::default();
    let config = format!("[drain]\ngrace = \"10m\"\n{ROUTES}");
    let (sidecar, upstream, issuer) = start_with(&config, Upstream::held(&latch));
    let mut in_flight = sidecar.connect();
    in_flight.send(get(TASKS).bearer(&issuer.token("alice")).bytes());
    upstream.wait_for(1);
    sidecar.stop();
    // The worker serves new connections, here with a 404, until it receives the shutdown.
    eventually("a late connection is refused", || {
        let mut late = sidecar.connect();
        late.send(get("/nowhere").bytes());
        match late.read(false) {
            Ok(response) if response.status == 503 => {
                seen.refused(&response, 503, "draining");
                true
            }
            Ok(_) | Err(_) => false,
        }
    });
    latch.open();
    assert_eq!(in_flight.response().status, 200);
    upstream.only();
    assert_eq!(sidecar.wait(), 0);
}

fn upstream_failures(seen: &mut Seen) {
    let invalid = Upstream::responding(|exchange| {
        exchange.write("SSH-2.0-OpenSSH_9.2\r\n\r\n");
        Next::Close
    });
    let latch = Latch::default();
    let silent = Upstream::held(&latch);
    let config = format!("[upstreams.tasks]\nresponse_timeout = \"100ms\"\n{ROUTES}");
    for (upstream, config, status, reason) in [
        (Upstream::unreachable(), ROUTES, 502, "upstream_unreachable"),
        (invalid, ROUTES, 502, "upstream_invalid_response"),
        (silent, config.as_str(), 504, "upstream_timeout"),
    ] {
        let (sidecar, _upstream, issuer) = start_with(config, upstream);
        let response = sidecar.call(&get(TASKS).bearer(&issuer.token("alice")));
        seen.refused(&response, status, reason);
    }
    latch.open();
}

fn exchange_refusals(seen: &mut Seen) {
    let sessions = sessions::refusals();
    let others = introspection::refusals()
        .into_iter()
        .chain(dpop::refusals());
    for (response, status, reason) in sessions.into_iter().chain(others) {
        seen.refused(&response, status, reason);
    }
}

/// Status and reason in the response of a refusal.
fn row(refusal: &Refusal) -> Row {
    let (status, _, body) = refusal.response("claimgate");
    let body: Value = serde_json::from_slice(&body).unwrap();
    (status.as_u16(), body["reason"].as_str().unwrap().to_owned())
}

#[test]
fn a_running_gate_responds_with_every_row() {
    let mut seen = Seen::default();
    for provoke in [
        strict_refusals,
        https_redirects,
        certificate_refusals,
        preflight_refusals,
        rate_limit_refusals,
        key_refusals,
        stalled_bodies,
        overload,
        late_connections,
        upstream_failures,
        exchange_refusals,
    ] {
        provoke(&mut seen);
    }
    // Needs a million proofs; the store of proofs has a test of its own.
    let all = Refusal::examples().into_iter();
    let all = all.filter(|refusal| *refusal != Refusal::ProofsUnavailable);
    let all: BTreeSet<Row> = all.map(|refusal| row(&refusal)).collect();
    assert_eq!(seen.0, all);
}

#[test]
fn the_detail_of_an_expired_token_asks_for_a_new_sign_in() {
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
fn a_405_lists_the_methods_of_the_path() {
    let (sidecar, upstream, _issuer) = start(STRICT);
    let response = sidecar.call(&request("PUT", TASKS));
    response.refused(405, "method_not_allowed");
    assert_eq!(response.header("allow").as_deref(), Some("GET, HEAD, POST"));
    upstream.assert_untouched();
}

#[test]
fn a_hidden_mismatch_is_identical_to_a_missing_route() {
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
