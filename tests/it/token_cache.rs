//! The token cache: time, path and policy are checked on every request.

use serde_json::json;

use crate::harness::issuer::{JwksResponse, claims};
use crate::harness::sidecar::compile;
use crate::harness::{Issuer, Key, NOW, ROUTES, Response, Sidecar, TASKS, Upstream, get, start};

#[test]
fn checks_the_validity_period_of_a_cached_token() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let mut claims = claims("alice");
    claims["nbf"] = json!(NOW);
    let request = get(TASKS).bearer(&issuer.sign(&claims));
    let mut client = sidecar.connect();
    let times = [
        (NOW, 200, ""),
        (NOW, 200, ""),
        (NOW + 3600 + 29, 200, ""),
        (NOW + 3600 + 30, 401, "token_expired"),
        (NOW + 100_000, 401, "token_expired"),
        // The clock goes back.
        (NOW + 10, 200, ""),
        (NOW - 30, 200, ""),
        (NOW - 31, 401, "token_not_yet_valid"),
        (NOW, 200, ""),
    ];
    for (now, status, reason) in times {
        sidecar.set_time(now);
        let response = client.call(&request);
        assert_eq!(response.outcome(), (status, reason.to_owned()), "{now}");
    }
    let served = times.iter().filter(|(_, status, _)| *status == 200);
    assert_eq!(upstream.arrived().len(), served.count());
}

#[test]
fn a_cached_token_gives_no_access_to_another_path() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let token = issuer.token("alice");
    let mut client = sidecar.connect();
    for _ in 0..3 {
        assert_eq!(client.call(&get(TASKS).bearer(&token)).status, 200);
        client
            .call(&get("/api/bob/tasks").bearer(&token))
            .refused(403, "subject_mismatch");
        assert_eq!(client.call(&get("/me/notes").bearer(&token)).status, 200);
        client.call(&get(TASKS)).refused(401, "token_missing");
        // Without a signature, with a longer one, and with another one.
        let (unsigned, signature) = token.rsplit_once('.').unwrap();
        let longer = format!("{token}AAAA");
        let zeros = format!("{unsigned}.{}", "A".repeat(signature.len()));
        for forged in [&format!("{unsigned}."), &longer, &zeros] {
            let response = client.call(&get(TASKS).bearer(forged));
            assert_eq!(response.status, 401, "{forged}");
        }
    }
    assert_eq!(upstream.arrived().len(), 6);
}

#[test]
fn a_policy_change_verifies_a_cached_token_again() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let request = get(TASKS).bearer(&issuer.token("alice"));
    let mut client = sidecar.connect();
    for _ in 0..3 {
        assert_eq!(client.call(&request).status, 200);
    }
    for (lines, reason) in [
        ("audience = \"tasks\"\n", "token_audience"),
        ("max_lifetime = \"1h\"\n", "token_lifetime"),
        ("subject = [\"user_id\"]\n", "token_subject"),
        ("issuer = \"https://issuer.test\"\n", "token_issuer"),
    ] {
        let config =
            format!("[issuers.test]\nkeys = {{ secret_env = \"TEST_SECRET\" }}\n{lines}{ROUTES}");
        let policy = compile(&config, &upstream, &issuer).policy;
        sidecar.running().shared().change_policy(|_| policy.clone());
        client.call(&request).refused(401, reason);
    }
    assert_eq!(upstream.arrived().len(), 3);
}

#[test]
fn keeps_many_cached_tokens_apart() {
    let (sidecar, upstream, _issuer) = start(ROUTES);
    let key = Key::secret(crate::harness::issuer::SECRET.as_bytes());
    let mut client = sidecar.connect();
    for round in 0..2 {
        for number in 0..300 {
            let user = format!("user{number}");
            let token = key.sign(&claims(&user));
            let response = client.call(&get("/me/notes").bearer(&token));
            assert_eq!(response.status, 200, "{round} {user}");
            let users = upstream.arrived().pop().unwrap().head.values("x-user-id");
            assert_eq!(users, [user], "{round}");
        }
    }
}

/// Two issuers with remote keys, and the tokens of both in the cache.
struct TwoIssuers {
    sidecar: Sidecar,
    _upstream: Upstream,
    first: Issuer,
    second: Issuer,
}

const MISSES: &str = "claimgate_token_cache_lookups_total{result=\"miss\"}";

impl TwoIssuers {
    fn start() -> Self {
        let keys = || Issuer::publishing(JwksResponse::Keys(vec![Key::ed25519("one")]));
        let (upstream, first, second) = (Upstream::start(), keys(), keys());
        let config = format!(
            "[issuers.test]\nkeys = {{ jwks_url = \"{}\" }}\nissuer = \"first\"\n\
             [issuers.second]\nkeys = {{ jwks_url = \"{}\" }}\nissuer = \"second\"\n{ROUTES}",
            first.url(),
            second.url()
        );
        let issuers = Self {
            sidecar: Sidecar::start(&config, &upstream, &first),
            _upstream: upstream,
            first,
            second,
        };
        for iss in ["first", "second"] {
            assert_eq!(issuers.call(iss, "one").status, 200);
        }
        issuers
    }

    fn call(&self, iss: &str, kid: &str) -> Response {
        let mut claims = claims("alice");
        claims["iss"] = json!(iss);
        let token = Key::ed25519(kid).sign(&claims);
        self.sidecar.call(&get(TASKS).bearer(&token))
    }

    /// Publishes another key set of the first issuer, and makes the gate fetch it.
    fn refetch(&self, response: JwksResponse) {
        self.first.publish(response);
        self.call("first", "made up")
            .refused(401, "token_key_unknown");
        assert_eq!(self.first.fetches(), 2);
    }

    /// Misses of the cache that a request with a valid token causes.
    fn misses(&self, iss: &str) -> f64 {
        let before = self.sidecar.metric(MISSES).unwrap();
        assert_eq!(self.call(iss, "one").status, 200);
        self.sidecar.metric(MISSES).unwrap() - before
    }
}

#[test]
fn a_fetch_with_the_same_keys_keeps_cached_tokens() {
    let issuers = TwoIssuers::start();
    issuers.refetch(JwksResponse::Keys(vec![Key::ed25519("one")]));
    assert!(issuers.misses("first") < 0.5);
    assert!(issuers.misses("second") < 0.5);
}

#[test]
fn a_fetch_with_other_keys_drops_cached_tokens_of_that_issuer_only() {
    let issuers = TwoIssuers::start();
    let keys = vec![Key::ed25519("one"), Key::p256("two")];
    issuers.refetch(JwksResponse::Keys(keys));
    assert!(issuers.misses("first") > 0.5);
    assert!(issuers.misses("second") < 0.5);
    assert_eq!(issuers.second.fetches(), 1);
}

#[test]
fn a_removed_key_rejects_a_cached_token() {
    let issuers = TwoIssuers::start();
    issuers.refetch(JwksResponse::Keys(vec![Key::ed25519("two")]));
    issuers
        .call("first", "one")
        .refused(401, "token_key_unknown");
    assert_eq!(issuers.call("second", "one").status, 200);
    // The same key ID with another key.
    let issuers = TwoIssuers::start();
    let replaced = Key::ed25519_of("ed25519-second", "one");
    issuers.refetch(JwksResponse::Keys(vec![replaced]));
    issuers.call("first", "one").refused(401, "token_signature");
}
