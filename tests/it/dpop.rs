//! `DPoP` (RFC 9449): the client of a bound token proves, for each request, that it holds the key of the token.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use serde_json::{Value, json};

use crate::harness::issuer::claims;
use crate::harness::{
    Issuer, Key, NOW, ROUTES, Request, Response, Sidecar, TASKS, Upstream, get, request, start,
};

/// Client with a key of its own.
struct Holder {
    key: Key,
    next: std::cell::Cell<u32>,
}

impl Holder {
    fn new() -> Self {
        Self {
            key: Key::p256("proof").without_kid(),
            next: std::cell::Cell::new(0),
        }
    }

    fn thumbprint(&self) -> String {
        let jwk: Jwk = serde_json::from_value(self.key.public_jwk()).unwrap();
        jwk.thumbprint(ThumbprintHash::SHA256).unwrap()
    }

    /// Token of `alice` that is bound to this key.
    fn token(&self, issuer: &Issuer) -> String {
        let mut claims = claims("alice");
        claims["cnf"] = json!({ "jkt": self.thumbprint() });
        issuer.sign(&claims)
    }

    /// Claims of a new proof.
    fn claims(&self, method: &str, url: &str, token: &str) -> Value {
        let number = self.next.get();
        self.next.set(number + 1);
        let hash = URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes()));
        json!({ "htm": method, "htu": url, "iat": NOW, "jti": format!("proof-{number}"), "ath": hash })
    }

    fn sign(&self, claims: &Value) -> String {
        let header = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": self.key.public_jwk() });
        self.key.sign_text(&header.to_string(), &claims.to_string())
    }

    /// Request with a bound token and its proof.
    fn request(&self, method: &str, target: &str, url: &str, token: &str) -> Request {
        let proof = self.sign(&self.claims(method, url, token));
        bound(request(method, target), token, &proof)
    }
}

fn bound(request: Request, token: &str, proof: &str) -> Request {
    request
        .line(&format!("Authorization: DPoP {token}"))
        .line(&format!("DPoP: {proof}"))
}

/// Host of the requests of the harness.
const URL: &str = "http://gate.test/api/alice/tasks";

fn send(sidecar: &Sidecar, request: &Request) -> Response {
    sidecar.call(request)
}

/// Starts a gate that demands nonces.
fn start_with_nonce() -> (Sidecar, Issuer) {
    let issuer = Issuer::start();
    let upstream = Upstream::start();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), crate::harness::issuer::SECRET).unwrap();
    let config = format!(
        "[issuers.test]\nkeys = {{ secret_file = \"{}\" }}\nallow_any_audience = true\ndpop_nonce = \"5m\"\n{ROUTES}",
        file.path().display()
    );
    let sidecar = Sidecar::start(&config, &upstream, &issuer);
    (sidecar, issuer)
}

/// Each refusal of bound tokens and proofs.
pub(crate) fn refusals() -> Vec<(Response, u16, &'static str)> {
    let (sidecar, _upstream, issuer) = start(ROUTES);
    let holder = Holder::new();
    let (token, unbound) = (holder.token(&issuer), issuer.token("alice"));
    let request = holder.request("GET", TASKS, URL, &token);
    assert_eq!(send(&sidecar, &request).status, 200);
    let other = holder.request("GET", TASKS, "http://other.test/", &token);
    let as_dpop = holder.request("GET", TASKS, URL, &unbound);
    let (demanding, issuer) = start_with_nonce();
    let token = holder.token(&issuer);
    let without_nonce = holder.request("GET", TASKS, URL, &token);
    vec![
        (send(&sidecar, &request), 401, "proof_replayed"),
        (send(&sidecar, &other), 401, "proof_invalid"),
        (send(&sidecar, &as_dpop), 401, "token_unbound"),
        (send(&demanding, &without_nonce), 401, "proof_nonce"),
    ]
}

#[test]
fn a_bound_token_with_its_proof_is_accepted_once_for_each_proof() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let (holder, issuer) = (Holder::new(), issuer);
    let token = holder.token(&issuer);
    let first = holder.request("GET", TASKS, URL, &token);
    assert_eq!(send(&sidecar, &first).status, 200);
    let replayed = send(&sidecar, &first);
    replayed.refused(401, "proof_replayed");
    let challenge = replayed.header("www-authenticate").unwrap();
    assert!(challenge.starts_with("DPoP "), "{challenge}");
    assert!(
        challenge.contains("error=\"invalid_dpop_proof\""),
        "{challenge}"
    );
    assert!(challenge.contains("ES256"), "{challenge}");
    let second = holder.request("GET", TASKS, URL, &token);
    assert_eq!(send(&sidecar, &second).status, 200);
    for request in upstream.arrived() {
        assert_eq!(request.head.values("x-user-id"), ["alice"]);
        for name in ["authorization", "dpop"] {
            assert_eq!(request.head.value(name), None, "{name}");
        }
    }
}

#[test]
fn a_bound_token_is_no_bearer_token_and_an_unbound_one_needs_no_proof() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let holder = Holder::new();
    let token = holder.token(&issuer);
    let proof = || holder.sign(&holder.claims("GET", URL, &token));
    send(&sidecar, &get(TASKS).bearer(&token)).refused(401, "token_confirmation");
    let with_proof = get(TASKS)
        .bearer(&token)
        .line(&format!("DPoP: {}", proof()));
    send(&sidecar, &with_proof).refused(401, "token_confirmation");
    let unbound = issuer.token("alice");
    let as_dpop = holder.request("GET", TASKS, URL, &unbound);
    send(&sidecar, &as_dpop).refused(401, "token_unbound");
    upstream.assert_untouched();
    assert_eq!(send(&sidecar, &get(TASKS).bearer(&unbound)).status, 200);
}

#[test]
fn the_challenge_of_a_bound_token_has_its_scheme() {
    let (sidecar, _upstream, issuer) = start(ROUTES);
    let holder = Holder::new();
    let token = holder.token(&issuer);
    sidecar.set_time(NOW + 10_000);
    let response = send(&sidecar, &holder.request("GET", TASKS, URL, &token));
    response.refused(401, "token_expired");
    let challenges = response.head.values("www-authenticate");
    assert_eq!(challenges.len(), 1);
    assert!(challenges[0].starts_with("DPoP realm="), "{challenges:?}");
    assert!(
        challenges[0].contains("error=\"invalid_token\""),
        "{challenges:?}"
    );
    assert!(challenges[0].contains("algs=\""), "{challenges:?}");
}

#[test]
fn a_stolen_token_is_worthless_without_its_key() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let holder = Holder::new();
    let token = holder.token(&issuer);
    let without_proof = get(TASKS).line(&format!("Authorization: DPoP {token}"));
    send(&sidecar, &without_proof).refused(401, "proof_invalid");
    let thief = Holder {
        key: Key::ed25519("thief").without_kid(),
        next: std::cell::Cell::new(0),
    };
    let claims = thief.claims("GET", URL, &token);
    let header = json!({ "typ": "dpop+jwt", "alg": "EdDSA", "jwk": thief.key.public_jwk() });
    let proof = thief
        .key
        .sign_text(&header.to_string(), &claims.to_string());
    send(&sidecar, &bound(get(TASKS), &token, &proof)).refused(401, "proof_invalid");
    let header = json!({ "typ": "dpop+jwt", "alg": "EdDSA", "jwk": holder.key.public_jwk() });
    let proof = thief
        .key
        .sign_text(&header.to_string(), &claims.to_string());
    send(&sidecar, &bound(get(TASKS), &token, &proof)).refused(401, "proof_invalid");
    upstream.assert_untouched();
}

#[test]
fn a_proof_is_for_one_method_one_url_and_one_token() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let holder = Holder::new();
    let token = holder.token(&issuer);
    let mut other_claims = claims("alice");
    other_claims["cnf"] = json!({ "jkt": holder.thumbprint() });
    other_claims["jti"] = json!("other");
    let other = issuer.sign(&other_claims);
    for (method, url, proven) in [
        ("POST", URL, &token),
        ("get", URL, &token),
        ("GET", "https://gate.test/api/alice/tasks", &token),
        ("GET", "http://other.test/api/alice/tasks", &token),
        ("GET", "http://gate.test:8080/api/alice/tasks", &token),
        ("GET", "http://gate.test/api/alice/tasks/", &token),
        ("GET", "http://gate.test/api/alice/%74asks", &token),
        ("GET", "/api/alice/tasks", &token),
        ("GET", "http://gate.test/api/alice/tasks#x", &token),
        ("GET", URL, &other),
    ] {
        let proof = holder.sign(&holder.claims(method, url, proven));
        let response = send(&sidecar, &bound(get(TASKS), &token, &proof));
        response.refused(401, "proof_invalid");
    }
    upstream.assert_untouched();
    for url in [URL, "HTTP://GATE.test:80/api/alice/tasks?x=1"] {
        let target = format!("{TASKS}?a=b");
        let request = holder.request("GET", &target, url, &token);
        assert_eq!(send(&sidecar, &request).status, 200, "{url}");
    }
}

#[test]
fn the_url_is_that_of_the_client_behind_trusted_proxies_and_in_front_of_rewrites() {
    let config = "[listen]\ntrusted_proxies = [\"127.0.0.1\"]\n[[routes]]\npath = \"/api/{user_id}/tasks/{*rest}\"\naccess = { owner = \"user_id\" }\nreplace_prefix = { from = \"/api\", to = \"/v1\" }\n";
    let (sidecar, upstream, issuer) = start(config);
    let holder = Holder::new();
    let token = holder.token(&issuer);
    let external = "https://api.example.com/base/api/alice/tasks";
    let request = holder
        .request("GET", TASKS, external, &token)
        .line("X-Forwarded-Proto: https")
        .line("X-Forwarded-Host: api.example.com")
        .line("X-Forwarded-Prefix: /base");
    assert_eq!(send(&sidecar, &request).status, 200);
    assert!(upstream.only().head.line().contains("/v1/alice/tasks"));
    let repeated = holder
        .request("GET", TASKS, external, &token)
        .line("X-Forwarded-Proto: https")
        .line("X-Forwarded-Host: other.example, api.example.com")
        .line("X-Forwarded-Prefix: /base");
    send(&sidecar, &repeated).refused(401, "proof_invalid");

    let (sidecar, _upstream, issuer) = start(ROUTES);
    let token = holder.token(&issuer);
    let untrusted = holder
        .request(
            "GET",
            TASKS,
            "http://api.example.com/api/alice/tasks",
            &token,
        )
        .line("X-Forwarded-Host: api.example.com");
    send(&sidecar, &untrusted).refused(401, "proof_invalid");
}

#[test]
fn an_old_proof_and_one_of_the_future_are_refused() {
    let (sidecar, _upstream, issuer) = start(ROUTES);
    let holder = Holder::new();
    let token = holder.token(&issuer);
    for (issued, status) in [(-301, 401), (-300, 200), (5, 200), (6, 401)] {
        let mut claims = holder.claims("GET", URL, &token);
        claims["iat"] = json!(NOW + issued);
        let response = send(&sidecar, &bound(get(TASKS), &token, &holder.sign(&claims)));
        assert_eq!(response.status, status, "{issued}");
    }
}

#[test]
fn required_refuses_bearer_tokens_and_off_refuses_bound_ones() {
    let routes = r#"
[[routes]]
path = "/bound/{*rest}"
access = "authenticated"
dpop = "required"

[[routes]]
path = "/plain/{*rest}"
access = "authenticated"
dpop = "off"
"#;
    let (sidecar, _upstream, issuer) = start(routes);
    let holder = Holder::new();
    let (token, unbound) = (holder.token(&issuer), issuer.token("alice"));
    let url = |path: &str| format!("http://gate.test{path}");
    let response = send(&sidecar, &get("/bound/x").bearer(&unbound));
    response.refused(401, "token_unbound");
    let missing = send(&sidecar, &get("/bound/x"));
    for response in [response, missing] {
        let challenges = response.head.values("www-authenticate");
        assert!(challenges[0].starts_with("Bearer "), "{challenges:?}");
        assert!(challenges[1].starts_with("DPoP algs=\""), "{challenges:?}");
    }
    let request = holder.request("GET", "/bound/x", &url("/bound/x"), &token);
    assert_eq!(send(&sidecar, &request).status, 200);
    assert_eq!(
        send(&sidecar, &get("/plain/x").bearer(&unbound)).status,
        200
    );
    let request = holder.request("GET", "/plain/x", &url("/plain/x"), &token);
    send(&sidecar, &request).refused(401, "token_missing");
    send(&sidecar, &get("/plain/x").bearer(&token)).refused(401, "token_confirmation");
}

#[test]
fn a_nonce_is_demanded_and_changes_with_its_lifetime() {
    let (sidecar, issuer) = start_with_nonce();
    let holder = Holder::new();
    let token = holder.token(&issuer);
    let send_with = |nonce: Option<&str>, now: i64| {
        let mut claims = holder.claims("GET", URL, &token);
        claims["iat"] = json!(now);
        if let Some(nonce) = nonce {
            claims["nonce"] = json!(nonce);
        }
        send(&sidecar, &bound(get(TASKS), &token, &holder.sign(&claims)))
    };
    let response = send_with(None, NOW);
    response.refused(401, "proof_nonce");
    let challenge = response.header("www-authenticate").unwrap();
    assert!(
        challenge.contains("error=\"use_dpop_nonce\""),
        "{challenge}"
    );
    let nonce = response.header("dpop-nonce").unwrap();
    assert_eq!(send_with(Some(&nonce), NOW).status, 200);
    send_with(Some("other"), NOW).refused(401, "proof_nonce");
    sidecar.set_time(NOW + 300);
    assert_eq!(send_with(Some(&nonce), NOW + 300).status, 200);
    sidecar.set_time(NOW + 600);
    send_with(Some(&nonce), NOW + 600).refused(401, "proof_nonce");
}
