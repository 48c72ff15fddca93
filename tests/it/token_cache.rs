//! The token cache: time, path and policy are checked on every request.

use serde_json::json;

use crate::harness::issuer::claims;
use crate::harness::sidecar::compile;
use crate::harness::{Key, NOW, ROUTES, TASKS, get, start};

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
