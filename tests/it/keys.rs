//! Fetched key sets: at startup, after a key rotation and while the issuer is unreachable.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;

use crate::harness::issuer::{JwksResponse, claims};
use crate::harness::wire::Wire;
use crate::harness::{
    Issuer, Key, Latch, NOW, ROUTES, Request, Sidecar, TASKS, Upstream, eventually, get,
};

fn fetching(window: JwksResponse) -> (Sidecar, Upstream, Issuer) {
    let (upstream, issuer) = (Upstream::start(), Issuer::publishing(window));
    let sidecar = Sidecar::start_fetching(ROUTES, &upstream, &issuer);
    (sidecar, upstream, issuer)
}

fn tasks_of_alice(key: &Key) -> Request {
    get(TASKS).bearer(&key.sign(&claims("alice")))
}

fn one() -> Key {
    Key::ed25519("one")
}

fn two() -> Key {
    Key::ed25519_of("ed25519-second", "two")
}

/// Sends a request until it causes another fetch, which the throttle delays.
fn wait_for_refetch(sidecar: &Sidecar, issuer: &Issuer, request: &Request) {
    let before = issuer.fetches();
    eventually("another fetch", || {
        sidecar.call(request);
        issuer.fetches() > before
    });
}

#[test]
fn fetches_the_key_set_at_startup_and_not_for_each_request() {
    let keys = [one(), Key::p256("ec"), Key::rsa("rsa")];
    let (sidecar, upstream, issuer) = fetching(JwksResponse::Keys(keys.to_vec()));
    for key in keys.iter().chain(&keys) {
        assert_eq!(
            sidecar.call(&tasks_of_alice(key)).status,
            200,
            "{:?}",
            key.kid
        );
    }
    assert_eq!(issuer.targets(), ["/jwks.json"]);
    assert_eq!(upstream.arrived().len(), 6);
    assert_eq!(sidecar.admin(&get("/readyz")).status, 200);
}

#[test]
fn retries_an_issuer_that_is_down_at_startup() {
    let (sidecar, upstream, issuer) = fetching(JwksResponse::Closed);
    let response = sidecar.call(&tasks_of_alice(&one()));
    response.refused(503, "keys_unavailable");
    assert_eq!(response.header("retry-after").as_deref(), Some("5"));
    let ready = sidecar.admin(&get("/readyz"));
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("`test`"), "{}", ready.text());
    assert_eq!(sidecar.admin(&get("/livez")).status, 200);
    assert_eq!(sidecar.admin(&get("/startupz")).status, 200);
    assert_eq!(
        sidecar.call(&get("/open/page")).status,
        200,
        "a public route needs no keys"
    );
    assert_eq!(upstream.arrived().len(), 1);
    issuer.publish(JwksResponse::Keys(vec![one()]));
    eventually("the gate becomes ready", || {
        sidecar.admin(&get("/readyz")).status == 200
    });
    assert_eq!(sidecar.call(&tasks_of_alice(&one())).status, 200);
}

#[test]
fn coalesces_fifty_requests_with_a_new_key_into_one_fetch() {
    let (sidecar, _upstream, issuer) = fetching(JwksResponse::Keys(vec![one()]));
    assert_eq!(sidecar.call(&tasks_of_alice(&one())).status, 200);
    assert_eq!(issuer.fetches(), 1);
    // The first request waits for a fetch. Further requests with this `kid` are undecided for a while and cause no fetch:
    // the next key may have this key ID.
    let made_up = tasks_of_alice(&Key::ed25519("made up"));
    sidecar.call(&made_up).refused(401, "token_key_unknown");
    for _ in 0..20 {
        sidecar.call(&made_up).refused(503, "keys_unavailable");
    }
    assert_eq!(issuer.fetches(), 2);

    let latch = Latch::default();
    let rotated = JwksResponse::Keys(vec![two()]);
    issuer.publish(JwksResponse::Delayed(latch.clone(), Box::new(rotated)));
    // Connect before the first request, so that no request waits for long.
    let mut waiting: Vec<_> = (0..51).map(|_| sidecar.connect()).collect();
    let mut known = sidecar.connect();
    let [with_old, with_new] = [one(), two()].map(|key| tasks_of_alice(&key));
    waiting[0].send(with_new.bytes());
    eventually("a fetch", || issuer.fetches() == 3);
    for client in &mut waiting[1..] {
        client.send(with_new.bytes());
    }
    // A request with a known key does not wait.
    assert_eq!(known.call(&with_old).status, 200);
    latch.open();
    for client in &mut waiting {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(issuer.fetches(), 3);
    // A key removed from the set is rejected after one more fetch, which confirms it.
    for _ in 0..20 {
        sidecar
            .call(&tasks_of_alice(&one()))
            .refused(401, "token_key_unknown");
    }
    assert_eq!(issuer.fetches(), 4);
}

#[test]
fn fetches_again_for_a_key_that_a_stale_response_removed() {
    // OpenID Connect Core section 10.1.1: an unfamiliar `kid` makes the verifier fetch the key set again.
    let rotated = JwksResponse::Keys(vec![one(), two()]);
    let (sidecar, _upstream, issuer) = fetching(rotated.clone());
    assert_eq!(sidecar.call(&tasks_of_alice(&two())).status, 200);
    // One of several servers of the issuer still has the old set.
    issuer.publish(JwksResponse::Keys(vec![one()]));
    sidecar
        .call(&tasks_of_alice(&Key::ed25519("made up")))
        .refused(401, "token_key_unknown");
    issuer.publish(rotated);
    assert_eq!(sidecar.call(&tasks_of_alice(&two())).status, 200);
    assert_eq!(issuer.fetches(), 3);
}

#[test]
fn fetches_a_replaced_key_with_the_same_kid_after_a_minute() {
    for [old, new] in [
        [one(), Key::ed25519_of("ed25519-second", "one")],
        // With another algorithm.
        [one(), Key::p256("one")],
        [one().without_kid(), Key::p256("one").without_kid()],
    ] {
        let (sidecar, _upstream, issuer) = fetching(JwksResponse::Keys(vec![old.clone()]));
        assert_eq!(sidecar.call(&tasks_of_alice(&old)).status, 200);
        issuer.publish(JwksResponse::Keys(vec![new.clone()]));
        sidecar.set_time(NOW + 59);
        assert_eq!(sidecar.call(&tasks_of_alice(&new)).status, 401);
        assert_eq!(issuer.fetches(), 1);
        sidecar.set_time(NOW + 60);
        assert_eq!(sidecar.call(&tasks_of_alice(&new)).status, 200);
        assert_eq!(sidecar.call(&tasks_of_alice(&old)).status, 401);
        assert_eq!(issuer.fetches(), 2);
    }
}

#[test]
fn forged_signatures_cause_one_fetch_a_minute_and_are_never_undecided() {
    let (sidecar, _upstream, issuer) = fetching(JwksResponse::Keys(vec![one()]));
    assert_eq!(sidecar.call(&tasks_of_alice(&one())).status, 200);
    let forged = tasks_of_alice(&Key::ed25519_of("ed25519-stranger", "one"));
    for minute in 1..4 {
        sidecar.set_time(NOW + 60 * minute);
        for _ in 0..20 {
            sidecar.call(&forged).refused(401, "token_signature");
        }
        assert_eq!(issuer.fetches(), 1 + usize::try_from(minute).unwrap());
    }
    // No key of a set can verify these algorithms.
    sidecar.set_time(NOW + 600);
    let payload = claims("alice").to_string();
    for alg in ["HS256", "none", "ES256K"] {
        let token = one().sign_text(&format!(r#"{{"alg":"{alg}","kid":"one"}}"#), &payload);
        sidecar
            .call(&get(TASKS).bearer(&token))
            .refused(401, "token_algorithm");
    }
    assert_eq!(issuer.fetches(), 4);
    issuer.publish(JwksResponse::Closed);
    for _ in 0..20 {
        sidecar.call(&forged).refused(401, "token_signature");
    }
    assert_eq!(sidecar.call(&tasks_of_alice(&one())).status, 200);
}

#[test]
fn invented_key_ids_neither_delay_a_rotation_nor_flood_the_issuer() {
    let (sidecar, _upstream, issuer) = fetching(JwksResponse::Keys(vec![one()]));
    assert_eq!(sidecar.call(&tasks_of_alice(&one())).status, 200);
    let (began, is_over) = (Instant::now(), AtomicBool::new(false));
    let numbers = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let kid = format!("invented {}", numbers.fetch_add(1, Ordering::Relaxed));
                    sidecar.call(&tasks_of_alice(&Key::ed25519(&kid)));
                }
            });
        }
        // The burst is used up: one fetch every five seconds is left.
        eventually("the burst of fetches", || issuer.fetches() >= 5);
        issuer.publish(JwksResponse::Keys(vec![one(), two()]));
        let published = Instant::now();
        eventually("the new key", || {
            sidecar.call(&tasks_of_alice(&two())).status == 200
        });
        let delay = published.elapsed();
        assert!(delay < Duration::from_secs(8), "{delay:?}");
        is_over.store(true, Ordering::Relaxed);
    });
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    let bound = 1 + 4 + seconds / 5 + 1;
    assert!(issuer.fetches() <= bound, "{}", issuer.fetches());
    assert!(numbers.into_inner() > 8);
}

/// A gate with OIDC discovery at `path` of a provider, whose metadata has this issuer. `{host}` is the provider.
fn discovering(
    path: &str,
    metadata_issuer: &str,
    more: &str,
) -> (Sidecar, Upstream, [Issuer; 2], String) {
    let keys = Issuer::publishing(JwksResponse::Keys(vec![one()]));
    let provider = Issuer::start();
    let url = provider.url();
    let host = url.strip_suffix("/jwks.json").unwrap();
    let document = serde_json::json!({
        "issuer": metadata_issuer.replace("{host}", host),
        "jwks_uri": keys.url(),
    });
    provider.publish(JwksResponse::with_status("200 OK", &document.to_string()));
    let more = more.replace("{host}", host);
    let config =
        format!("[issuers.test]\nkeys = {{ discovery = \"{host}{path}\"{more} }}\n{ROUTES}");
    let upstream = Upstream::start();
    let sidecar = Sidecar::start(&config, &upstream, &provider);
    let host = host.to_owned();
    (sidecar, upstream, [provider, keys], host)
}

#[test]
fn discovers_the_keys_of_an_issuer_with_a_slash_at_its_end() {
    // OpenID Connect Discovery 1.0 section 4.1: a `/` at the end of the issuer is removed before the well-known path is
    // appended. RFC 8414 section 3.1: the same before it is inserted.
    let oidc = "/.well-known/openid-configuration";
    let oauth = "/.well-known/oauth-authorization-server";
    for (path, issuer) in [
        (oidc.to_owned(), "{host}"),
        (oidc.to_owned(), "{host}/"),
        (
            format!("/application/o/tasks{oidc}"),
            "{host}/application/o/tasks/",
        ),
        (format!("/realms/shop{oidc}"), "{host}/realms/shop"),
        (format!("{oauth}/api/auth"), "{host}/api/auth"),
        (format!("/tenant{oidc}?appid=1"), "{host}/tenant/"),
    ] {
        let (sidecar, _upstream, [provider, _keys], host) = discovering(&path, issuer, "");
        let mut claims = claims("alice");
        claims["iss"] = issuer.replace("{host}", &host).into();
        let request = get(TASKS).bearer(&one().sign(&claims));
        assert_eq!(sidecar.call(&request).status, 200, "{path} {issuer}");
        assert_eq!(provider.targets(), [path]);
    }
}

#[test]
fn requires_the_exact_issuer_in_discovery_metadata() {
    // OpenID Connect Discovery 1.0 section 4.3.
    let path = "/.well-known/openid-configuration";
    let sts = "https://sts.example/tenant/";
    let named = r#", discovery_issuer = "https://sts.example/tenant/""#;
    for (issuer, more, iss, status) in [
        ("{host}//", "", "{host}", 503),
        ("{host}/tenant", "", "{host}", 503),
        (sts, "", "{host}", 503),
        (sts, named, sts, 200),
        ("https://sts.example/tenant", named, sts, 503),
        ("{host}", named, sts, 503),
        (sts, named, "https://sts.example/tenant", 401),
        (sts, named, "{host}", 401),
    ] {
        let (sidecar, _upstream, _issuers, host) = discovering(path, issuer, more);
        let mut claims = claims("alice");
        claims["iss"] = iss.replace("{host}", &host).into();
        let response = sidecar.call(&get(TASKS).bearer(&one().sign(&claims)));
        assert_eq!(response.status, status, "{issuer} {more} {iss}");
    }
}

#[test]
fn keeps_fetched_keys_while_the_issuer_is_down() {
    let (sidecar, _upstream, issuer) = fetching(JwksResponse::Keys(vec![one()]));
    assert_eq!(sidecar.call(&tasks_of_alice(&one())).status, 200);
    let html = "<html>down for maintenance</html>";
    let (unavailable, ok) = ("503 Service Unavailable", "200 OK");
    let windows = [
        ("closed", JwksResponse::Closed),
        ("500", JwksResponse::with_status(unavailable, html)),
        ("garbage", JwksResponse::with_status(ok, html)),
        ("no keys", JwksResponse::with_status(ok, r#"{"keys":[]}"#)),
        (
            "a secret",
            JwksResponse::with_status(ok, r#"{"keys":[{"kty":"oct","k":"AAAA","kid":"two"}]}"#),
        ),
        (
            "cut off",
            JwksResponse::Raw(
                b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{\"keys\":[".to_vec(),
            ),
        ),
    ];
    // A request causes the first fetch; the gate retries the others on its own.
    issuer.publish(windows[0].1.clone());
    wait_for_refetch(&sidecar, &issuer, &tasks_of_alice(&two()));
    eventually("the unknown key is undecided", || {
        sidecar.call(&tasks_of_alice(&two())).outcome() == (503, "keys_unavailable".to_owned())
    });
    for (what, window) in windows.into_iter().take(3).skip(1) {
        issuer.publish(window);
        let before = issuer.fetches();
        eventually("another fetch", || issuer.fetches() > before);
        assert_eq!(sidecar.call(&tasks_of_alice(&one())).status, 200, "{what}");
        sidecar
            .call(&tasks_of_alice(&two()))
            .refused(503, "keys_unavailable");
        assert_eq!(sidecar.admin(&get("/readyz")).status, 200, "{what}");
    }
    issuer.publish(JwksResponse::Keys(vec![one(), two()]));
    eventually("the new key is accepted", || {
        sidecar.call(&tasks_of_alice(&two())).status == 200
    });
}

#[test]
fn keeps_the_key_set_when_a_fetch_brings_an_invalid_one() {
    // One gate for each response: the back-off delays the next fetch after a failure.
    let ok = "200 OK";
    let huge = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(300 * 1024));
    let gates: Vec<_> = [
        JwksResponse::with_status(ok, "<html>"),
        JwksResponse::with_status(ok, r#"{"keys":[]}"#),
        JwksResponse::with_status(ok, r#"{"keys":[{"kty":"oct","k":"AAAA","kid":"two"}]}"#),
        JwksResponse::with_status(ok, &huge),
        JwksResponse::with_status("204 No Content", ""),
        JwksResponse::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{\"keys\":[".to_vec()),
    ]
    .into_iter()
    .map(|invalid| {
        let (sidecar, upstream, issuer) = fetching(JwksResponse::Keys(vec![one()]));
        assert_eq!(sidecar.call(&tasks_of_alice(&one())).status, 200);
        issuer.publish(invalid);
        (sidecar, upstream, issuer)
    })
    .collect();
    assert_eq!(gates.len(), 6);
    for (number, (sidecar, _upstream, _issuer)) in gates.iter().enumerate() {
        let failed = "claimgate_key_fetches_total{issuer=\"test\",outcome=\"failure\"}";
        eventually(&format!("failed fetch {number}"), || {
            sidecar.call(&tasks_of_alice(&two()));
            sidecar.metric(failed) >= Some(1.0)
        });
        assert_eq!(sidecar.call(&tasks_of_alice(&one())).status, 200);
        sidecar
            .call(&tasks_of_alice(&two()))
            .refused(503, "keys_unavailable");
    }
}

#[test]
fn follows_no_redirect() {
    let elsewhere = Issuer::publishing(JwksResponse::Keys(vec![one()]));
    let redirect = format!(
        "HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n",
        elsewhere.url()
    );
    let (sidecar, _upstream, issuer) = fetching(JwksResponse::Raw(redirect.into_bytes()));
    sidecar
        .call(&tasks_of_alice(&one()))
        .refused(503, "keys_unavailable");
    eventually("another fetch", || issuer.fetches() > 1);
    assert_eq!(elsewhere.fetches(), 0);
}

#[test]
fn accepts_keys_with_status_200_only() {
    let keys = JwksResponse::Keys(vec![one()]).body();
    for status in [
        "302 Found",
        "500 Internal Server Error",
        "404 Not Found",
        "203 Non-Authoritative Information",
    ] {
        let (sidecar, _upstream, _issuer) = fetching(JwksResponse::with_status(status, &keys));
        let response = sidecar.call(&tasks_of_alice(&one()));
        assert_eq!(
            response.outcome(),
            (503, "keys_unavailable".to_owned()),
            "{status}"
        );
    }
}

#[test]
fn rejects_a_key_set_that_is_too_large() {
    let mut published = JwksResponse::Keys(vec![one()]).body();
    published.pop();
    let large = format!("{published},\"x\":\"{}\"}}", "x".repeat(256 * 1024));
    let (sidecar, _upstream, _issuer) = fetching(JwksResponse::with_status("200 OK", &large));
    sidecar
        .call(&tasks_of_alice(&one()))
        .refused(503, "keys_unavailable");
    let fits = format!("{published},\"x\":\"{}\"}}", "x".repeat(128 * 1024));
    let (sidecar, _upstream, _issuer) = fetching(JwksResponse::with_status("200 OK", &fits));
    assert_eq!(sidecar.call(&tasks_of_alice(&one())).status, 200);
}

#[test]
fn expires_keys_after_max_stale() {
    let (upstream, issuer) = (
        Upstream::start(),
        Issuer::publishing(JwksResponse::Keys(vec![one()])),
    );
    let keys = format!(
        "[issuers.test]\nkeys = {{ jwks_url = \"{}\", max_stale = \"10m\" }}\n{ROUTES}",
        issuer.url()
    );
    let sidecar = Sidecar::start(&keys, &upstream, &issuer);
    assert_eq!(sidecar.call(&tasks_of_alice(&one())).status, 200);
    issuer.publish(JwksResponse::Closed);
    sidecar.set_time(NOW + 599);
    assert_eq!(sidecar.call(&tasks_of_alice(&one())).status, 200);
    sidecar.set_time(NOW + 600);
    sidecar
        .call(&tasks_of_alice(&one()))
        .refused(503, "keys_unavailable");
    assert_eq!(sidecar.admin(&get("/readyz")).status, 503);
}

#[test]
fn verifies_only_the_algorithm_of_a_key() {
    let keys = vec![one(), Key::p256("ec"), Key::rsa("rsa")];
    let (sidecar, upstream, issuer) = fetching(JwksResponse::Keys(keys));
    let published: serde_json::Value = serde_json::from_str(&issuer.body()).unwrap();
    assert_eq!(sidecar.call(&tasks_of_alice(&one())).status, 200);
    let payload = claims("alice").to_string();
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/keys");
    for (number, (kid, file)) in [("one", "ed25519"), ("ec", "p256"), ("rsa", "rsa")]
        .into_iter()
        .enumerate()
    {
        let pem = std::fs::read_to_string(format!("{directory}/{file}.public.pem")).unwrap();
        let begins = pem.find("-----BEGIN").unwrap();
        let jwk = &published["keys"][number];
        let part = |name: &str| jwk[name].as_str().unwrap_or_default().to_owned();
        // Public values that an attacker could use as an HMAC secret (CVE-2015-9235).
        for secret in [
            pem.clone(),
            pem[begins..].to_owned(),
            pem[begins..].trim_end().to_owned(),
            jwk.to_string(),
            part("x"),
            part("n"),
            kid.to_owned(),
            String::new(),
        ] {
            let attacker = Key::secret(secret.as_bytes());
            for header in [
                format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#),
                format!(r#"{{"alg":"HS256","kid":"{kid}","typ":"JWT"}}"#),
                r#"{"alg":"HS256"}"#.to_owned(),
            ] {
                let token = attacker.sign_text(&header, &payload);
                sidecar
                    .call(&get(TASKS).bearer(&token))
                    .refused(401, "token_algorithm");
            }
        }
    }
    // Another algorithm with the same key, and the right algorithm with the `kid` of another key.
    for (header, reason) in [
        (r#"{"alg":"RS384","kid":"rsa"}"#, "token_algorithm"),
        (r#"{"alg":"PS256","kid":"rsa"}"#, "token_algorithm"),
        (r#"{"alg":"rs256","kid":"rsa"}"#, "token_algorithm"),
        (r#"{"alg":"RS256","kid":"ec"}"#, "token_algorithm"),
    ] {
        let token = Key::rsa("rsa").sign_text(header, &payload);
        sidecar
            .call(&get(TASKS).bearer(&token))
            .refused(401, reason);
    }
    assert_eq!(upstream.arrived().len(), 1);
}

#[test]
fn selects_keys_that_share_a_kid_by_type_and_algorithm() {
    // RFC 7517 section 4.5. The first two have the same type and algorithm.
    let ed25519 = ["ed25519", "ed25519-second"].map(|file| Key::ed25519_of(file, "1"));
    let rsa = [Algorithm::RS256, Algorithm::RS384, Algorithm::PS512]
        .map(|algorithm| Key::rsa("1").with_algorithm(algorithm));
    let keys = [&ed25519[..], &[Key::p256("1")], &rsa].concat();
    let (sidecar, _upstream, issuer) = fetching(JwksResponse::Keys(keys.clone()));
    for key in &keys {
        assert_eq!(sidecar.call(&tasks_of_alice(key)).status, 200);
    }
    assert_eq!(issuer.fetches(), 1);
    sidecar
        .call(&tasks_of_alice(&Key::ed25519_of("ed25519-stranger", "1")))
        .refused(401, "token_signature");
    sidecar
        .call(&tasks_of_alice(
            &Key::rsa("1").with_algorithm(Algorithm::RS512),
        ))
        .refused(401, "token_algorithm");
}

#[test]
fn ignores_key_references_in_a_token_header() {
    let (sidecar, upstream, issuer) = fetching(JwksResponse::Keys(vec![one()]));
    assert_eq!(sidecar.call(&tasks_of_alice(&one())).status, 200);
    let attackers = Issuer::publishing(JwksResponse::Keys(vec![two()]));
    let jwk: serde_json::Value = serde_json::from_str(&attackers.body()).unwrap();
    let (url, jwk) = (attackers.url(), &jwk["keys"][0]);
    let payload = claims("alice").to_string();
    for kid in ["one", "two", &url] {
        for more in [
            format!(r#""jku":"{url}""#),
            format!(r#""x5u":"{url}""#),
            format!(r#""jwk":{jwk}"#),
            r#""x5c":["MIIB"]"#.to_owned(),
        ] {
            let header = format!(r#"{{"alg":"EdDSA","kid":"{kid}",{more}}}"#);
            let token = two().sign_text(&header, &payload);
            let response = sidecar.call(&get(TASKS).bearer(&token));
            // A repeated unknown `kid` gets 503: another fetch could bring the key.
            let is_refused = response.status == 401 || (kid != "one" && response.status == 503);
            assert!(is_refused, "{header}: {}", response.status);
        }
    }
    assert_eq!(
        attackers.targets(),
        ["/"],
        "a connection other than the one of the test"
    );
    assert_eq!(upstream.arrived().len(), 1);
    assert!(issuer.targets().iter().all(|target| target == "/jwks.json"));
}

#[test]
fn a_slow_issuer_delays_only_requests_that_need_its_keys() {
    let latch = Latch::default();
    let keys = JwksResponse::Keys(vec![one()]);
    let (sidecar, upstream, issuer) =
        fetching(JwksResponse::Delayed(latch.clone(), Box::new(keys)));
    let mut waiting = sidecar.connect();
    let request = tasks_of_alice(&one());
    eventually("a fetch", || issuer.fetches() == 1);
    waiting.send(request.bytes());
    assert_eq!(sidecar.call(&get("/open/page")).status, 200);
    assert_eq!(sidecar.call(&get(TASKS)).status, 401);
    assert_eq!(sidecar.admin(&get("/livez")).status, 200);
    latch.open();
    assert_eq!(waiting.response().status, 200);
    assert_eq!(upstream.arrived().len(), 2);
}

/// Body of a published key set, fetched by the test.
trait Body {
    fn body(&self) -> String;
}

impl Body for JwksResponse {
    fn body(&self) -> String {
        Issuer::publishing(self.clone()).body()
    }
}

impl Body for Issuer {
    fn body(&self) -> String {
        let url = self.url();
        let address = url.strip_prefix("http://").unwrap();
        let (address, _) = address.split_once('/').unwrap();
        let mut wire = Wire::tcp(std::net::TcpStream::connect(address).unwrap());
        wire.write(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let head = wire.read_head().unwrap().unwrap();
        String::from_utf8(wire.read_body(&head).unwrap().0).unwrap()
    }
}
