//! Token introspection (RFC 7662): opaque tokens, and JWTs that their issuer may have revoked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::harness::issuer::claims;
use crate::harness::{
    Arrived, Exchange, Issuer, Key, NOW, Next, ROUTES, Response, Sidecar, TASKS, Upstream, get,
};

const OPAQUE: &str = "opaque-token-of-alice";
const AUDIENCE: &str = "https://api.example";

/// Introspection endpoint with a response for each token.
struct Endpoint {
    server: Upstream,
    tokens: Arc<Mutex<BTreeMap<String, Value>>>,
}

impl Endpoint {
    fn start() -> Self {
        let tokens = Arc::<Mutex<BTreeMap<String, Value>>>::default();
        let shared = Arc::clone(&tokens);
        let server = Upstream::responding(move |exchange| respond(&shared, exchange));
        Self { server, tokens }
    }

    fn set(&self, token: &str, response: Value) {
        self.tokens
            .lock()
            .unwrap()
            .insert(token.to_owned(), response);
    }

    fn requests(&self) -> Vec<Arrived> {
        self.server.arrived()
    }
}

fn respond(tokens: &Mutex<BTreeMap<String, Value>>, exchange: &mut Exchange) -> Next {
    let Some(body) = exchange.body() else {
        return Next::Close;
    };
    // `id:secret:` and `p%20w` in the form encoding of RFC 6749 section 2.3.1.
    if exchange.head.value("authorization").as_deref() != Some("Basic Z2F0ZTpwJTIwJTNBdw==") {
        return exchange.respond("401 Unauthorized", "", "{}");
    }
    let body = String::from_utf8(body).unwrap();
    let token = body
        .strip_prefix("token=")
        .unwrap()
        .split('&')
        .next()
        .unwrap();
    let tokens = tokens.lock().unwrap();
    let response = tokens
        .get(token)
        .cloned()
        .unwrap_or_else(|| json!({ "active": false }));
    exchange.respond("200 OK", "", &response.to_string())
}

fn active() -> Value {
    json!({ "active": true, "sub": "alice", "aud": AUDIENCE, "client_id": "web", "exp": NOW + 3600, "scope": "a b" })
}

fn start_with(keys: &str, secret: &str) -> (Sidecar, Upstream, Endpoint) {
    let (endpoint, upstream) = (Endpoint::start(), Upstream::start());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("secret");
    std::fs::write(&file, format!("{secret}\n")).unwrap();
    let config = format!(
        "[issuers.oauth]\n{keys}\naudience = \"{AUDIENCE}\"\nintrospection = {{ url = \"{}\", client_id = \"gate\", client_secret_file = \"{}\" }}\n{ROUTES}",
        endpoint.server.url(),
        file.display(),
    );
    let sidecar = Sidecar::start(&config, &upstream, &Issuer::start());
    (sidecar, upstream, endpoint)
}

fn start() -> (Sidecar, Upstream, Endpoint) {
    start_with("", "p :w")
}

fn send(sidecar: &Sidecar, token: &str) -> Response {
    sidecar.call(&get(TASKS).bearer(token))
}

/// Each refusal that only introspection causes.
pub(crate) fn refusals() -> Vec<(Response, u16, &'static str)> {
    let (sidecar, _upstream, _endpoint) = start();
    vec![(send(&sidecar, OPAQUE), 401, "token_inactive")]
}

#[test]
fn an_active_opaque_token_is_its_subject() {
    let (sidecar, upstream, endpoint) = start();
    endpoint.set(OPAQUE, active());
    assert_eq!(send(&sidecar, OPAQUE).status, 200);
    assert_eq!(send(&sidecar, OPAQUE).status, 200);
    let response = sidecar.call(&get("/api/bob/tasks").bearer(OPAQUE));
    response.refused(403, "subject_mismatch");
    assert_eq!(upstream.arrived()[0].head.values("x-user-id"), ["alice"]);
    let requests = endpoint.requests();
    assert_eq!(requests.len(), 1);
    let body = String::from_utf8(requests[0].body.clone()).unwrap();
    assert_eq!(body, format!("token={OPAQUE}&token_type_hint=access_token"));
}

#[test]
fn a_revocation_takes_effect_within_max_age() {
    let (sidecar, _upstream, endpoint) = start();
    endpoint.set(OPAQUE, active());
    assert_eq!(send(&sidecar, OPAQUE).status, 200);
    endpoint.set(OPAQUE, json!({ "active": false }));
    sidecar.set_time(NOW + 9);
    assert_eq!(send(&sidecar, OPAQUE).status, 200);
    sidecar.set_time(NOW + 10);
    send(&sidecar, OPAQUE).refused(401, "token_inactive");
}

#[test]
fn an_active_token_must_be_for_this_audience_and_not_expired() {
    let (sidecar, upstream, endpoint) = start();
    for (number, (key, value, status, reason)) in [
        ("aud", json!("https://other.example"), 401, "token_audience"),
        ("aud", json!(null), 401, "token_audience"),
        ("aud", json!([AUDIENCE, 7]), 401, "token_audience"),
        ("exp", json!(NOW - 60), 401, "token_expired"),
        ("exp", json!("soon"), 401, "token_malformed"),
        ("sub", json!(7), 401, "token_subject"),
        ("cnf", json!({ "x5t#S256": "x" }), 401, "token_confirmation"),
        ("active", json!("true"), 503, "exchange_unavailable"),
        ("active", json!(1), 503, "exchange_unavailable"),
        ("active", json!(null), 503, "exchange_unavailable"),
    ]
    .into_iter()
    .enumerate()
    {
        let token = format!("{OPAQUE}-{number}");
        let mut response = active();
        response[key] = value;
        endpoint.set(&token, response);
        send(&sidecar, &token).refused(status, reason);
    }
    upstream.assert_untouched();
}

#[test]
fn an_opaque_token_of_a_machine_needs_machines() {
    let machine = json!({ "active": true, "aud": AUDIENCE, "client_id": "web", "exp": NOW + 60 });
    for (keys, status) in [("", 401), ("machines = true", 200)] {
        let (sidecar, _upstream, endpoint) = start_with(keys, "p :w");
        endpoint.set(OPAQUE, machine.clone());
        let response = sidecar.call(&get("/me/x").bearer(OPAQUE));
        assert_eq!(response.status, status, "{}", response.text());
        let response = sidecar.call(&get("/api/web/tasks").bearer(OPAQUE));
        assert_ne!(response.status, 200);
    }
}

#[test]
fn unknown_tokens_and_texts_that_are_no_tokens_are_rejected() {
    let (sidecar, upstream, endpoint) = start();
    send(&sidecar, "an-unknown-opaque-token").refused(401, "token_inactive");
    assert_eq!(endpoint.requests().len(), 1);
    for token in [
        "short",
        "with space and more text",
        &"x".repeat(600),
        "a.b.c",
    ] {
        assert_eq!(send(&sidecar, token).status, 401, "{token}");
    }
    assert_eq!(endpoint.requests().len(), 1);
    upstream.assert_untouched();
}

#[test]
fn a_wrong_client_secret_is_a_503() {
    let (sidecar, upstream, endpoint) = start_with("", "wrong");
    endpoint.set(OPAQUE, active());
    send(&sidecar, OPAQUE).refused(503, "exchange_unavailable");
    upstream.assert_untouched();
}

#[test]
fn a_jwt_is_introspected_only_after_its_local_verification() {
    let key = Key::ed25519("one");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys.json");
    let set = json!({ "keys": [key.public_jwk()] });
    std::fs::write(&file, set.to_string()).unwrap();
    let keys = format!("keys = {{ jwks_file = \"{}\" }}", file.display());
    let (sidecar, upstream, endpoint) = start_with(&keys, "p :w");
    let mut valid = claims("alice");
    valid["aud"] = json!(AUDIENCE);
    let token = key.sign(&valid);
    endpoint.set(&token, active());
    assert_eq!(send(&sidecar, &token).status, 200);
    assert_eq!(send(&sidecar, &token).status, 200);
    assert_eq!(endpoint.requests().len(), 1);

    let (unsigned, _) = token.rsplit_once('.').unwrap();
    let forged = format!("{unsigned}.{}", "A".repeat(86));
    send(&sidecar, &forged).refused(401, "token_signature");
    let mut other = valid.clone();
    other["aud"] = json!("https://other.example");
    send(&sidecar, &key.sign(&other)).refused(401, "token_audience");
    assert_eq!(endpoint.requests().len(), 1);

    endpoint.set(&token, json!({ "active": false }));
    sidecar.set_time(NOW + 10);
    send(&sidecar, &token).refused(401, "token_inactive");
    assert_eq!(upstream.arrived().len(), 2);
}
