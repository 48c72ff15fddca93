//! Keys that are fetched: at the start, when they change, and when the issuer is away.

use crate::harness::issuer::{Window, claims};
use crate::harness::wire::Wire;
use crate::harness::{Issuer, Key, Latch, ROUTES, Request, Sidecar, Upstream, eventually, get};

const TASKS: &str = "/api/alice/tasks";

fn fetching(window: Window) -> (Sidecar, Upstream, Issuer) {
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

/// Waits until the gate asks for the keys again because of a request: not so soon after the last time.
fn until_asked_again(sidecar: &Sidecar, issuer: &Issuer, request: &Request) {
    let before = issuer.fetches();
    eventually("another fetch", || {
        sidecar.call(request);
        issuer.fetches() > before
    });
}

#[test]
fn a_key_set_is_fetched_at_the_start_and_not_for_each_request() {
    let keys = [one(), Key::p256("ec"), Key::rsa("rsa")];
    let (sidecar, upstream, issuer) = fetching(Window::Keys(keys.to_vec()));
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
fn an_issuer_that_is_down_at_the_start_is_waited_for() {
    let (sidecar, upstream, issuer) = fetching(Window::Closed);
    let answer = sidecar.call(&tasks_of_alice(&one()));
    answer.refused(503, "keys_unavailable");
    assert_eq!(answer.header("retry-after").as_deref(), Some("5"));
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
    issuer.publish(Window::Keys(vec![one()]));
    eventually("ready by itself", || {
        sidecar.admin(&get("/readyz")).status == 200
    });
    assert_eq!(sidecar.call(&tasks_of_alice(&one())).status, 200);
}

#[test]
fn fifty_requests_with_a_new_key_cause_one_fetch() {
    let (sidecar, _upstream, issuer) = fetching(Window::Keys(vec![one()]));
    assert_eq!(sidecar.call(&tasks_of_alice(&one())).status, 200);
    assert_eq!(issuer.fetches(), 1);
    // Who asks first is told; then nobody knows for a while, and no other fetch is caused: it may be the name of the
    // next key.
    let made_up = tasks_of_alice(&Key::ed25519("made up"));
    sidecar.call(&made_up).refused(401, "token_key_unknown");
    for _ in 0..20 {
        sidecar.call(&made_up).refused(503, "keys_unavailable");
    }
    assert_eq!(issuer.fetches(), 2);

    let latch = Latch::default();
    let rotated = Window::Keys(vec![two()]);
    issuer.publish(Window::Held(latch.clone(), Box::new(rotated)));
    // All is ready before the first asks: nobody waits for long.
    let mut waiting: Vec<_> = (0..51).map(|_| sidecar.connect()).collect();
    let mut known = sidecar.connect();
    let [with_old, with_new] = [one(), two()].map(|key| tasks_of_alice(&key));
    waiting[0].send(with_new.bytes());
    eventually("a fetch", || issuer.fetches() == 3);
    for client in &mut waiting[1..] {
        client.send(with_new.bytes());
    }
    // Who holds a key that is known waits for nobody.
    assert_eq!(known.call(&with_old).status, 200);
    latch.open();
    for client in &mut waiting {
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(issuer.fetches(), 3);
    // The key that is gone from the set is gone from the gate, and nobody has to ask for it.
    for _ in 0..20 {
        sidecar
            .call(&tasks_of_alice(&one()))
            .refused(401, "token_key_unknown");
    }
    assert_eq!(issuer.fetches(), 3);
}

#[test]
fn an_issuer_that_goes_down_later_takes_nobodys_key_away() {
    let (sidecar, _upstream, issuer) = fetching(Window::Keys(vec![one()]));
    assert_eq!(sidecar.call(&tasks_of_alice(&one())).status, 200);
    let html = "<html>down for maintenance</html>";
    let (four, five) = ("503 Service Unavailable", "200 OK");
    let windows = [
        ("closed", Window::Closed),
        ("500", Window::answer(four, html)),
        ("garbage", Window::answer(five, html)),
        ("no keys", Window::answer(five, r#"{"keys":[]}"#)),
        (
            "a secret",
            Window::answer(five, r#"{"keys":[{"kty":"oct","k":"AAAA","kid":"two"}]}"#),
        ),
        (
            "cut off",
            Window::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{\"keys\":[".to_vec()),
        ),
    ];
    // The first is asked for by a request, the others when the gate tries again by itself.
    issuer.publish(windows[0].1.clone());
    until_asked_again(&sidecar, &issuer, &tasks_of_alice(&two()));
    eventually("it is known that nothing is known", || {
        sidecar.call(&tasks_of_alice(&two())).outcome() == (503, "keys_unavailable".to_owned())
    });
    for (what, window) in windows.into_iter().take(3).skip(1) {
        issuer.publish(window);
        let before = issuer.fetches();
        eventually("another attempt", || issuer.fetches() > before);
        assert_eq!(sidecar.call(&tasks_of_alice(&one())).status, 200, "{what}");
        sidecar
            .call(&tasks_of_alice(&two()))
            .refused(503, "keys_unavailable");
        assert_eq!(sidecar.admin(&get("/readyz")).status, 200, "{what}");
    }
    issuer.publish(Window::Keys(vec![one(), two()]));
    eventually("recovered", || {
        sidecar.call(&tasks_of_alice(&two())).status == 200
    });
}

#[test]
fn a_set_that_is_no_set_never_replaces_a_good_one() {
    // One gate each: an attempt after a failure is not made soon.
    let ok = "200 OK";
    let huge = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(300 * 1024));
    let gates: Vec<_> = [
        Window::answer(ok, "<html>"),
        Window::answer(ok, r#"{"keys":[]}"#),
        Window::answer(ok, r#"{"keys":[{"kty":"oct","k":"AAAA","kid":"two"}]}"#),
        Window::answer(ok, &huge),
        Window::answer("204 No Content", ""),
        Window::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{\"keys\":[".to_vec()),
    ]
    .into_iter()
    .map(|bad| {
        let (sidecar, upstream, issuer) = fetching(Window::Keys(vec![one()]));
        assert_eq!(sidecar.call(&tasks_of_alice(&one())).status, 200);
        issuer.publish(bad);
        (sidecar, upstream, issuer)
    })
    .collect();
    assert_eq!(gates.len(), 6);
    for (number, (sidecar, _upstream, _issuer)) in gates.iter().enumerate() {
        let failed = "claimgate_key_fetches_total{issuer=\"test\",outcome=\"failure\"}";
        eventually(&format!("a failure of {number}"), || {
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
fn a_redirect_is_not_followed() {
    let elsewhere = Issuer::publishing(Window::Keys(vec![one()]));
    let redirect = format!(
        "HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n",
        elsewhere.url()
    );
    let (sidecar, _upstream, issuer) = fetching(Window::Raw(redirect.into_bytes()));
    sidecar
        .call(&tasks_of_alice(&one()))
        .refused(503, "keys_unavailable");
    eventually("another attempt", || issuer.fetches() > 1);
    assert_eq!(elsewhere.fetches(), 0);
}

#[test]
fn only_a_200_brings_keys() {
    let keys = Window::Keys(vec![one()]).body();
    for status in [
        "302 Found",
        "500 Internal Server Error",
        "404 Not Found",
        "203 Non-Authoritative Information",
    ] {
        let (sidecar, _upstream, _issuer) = fetching(Window::answer(status, &keys));
        let answer = sidecar.call(&tasks_of_alice(&one()));
        assert_eq!(
            answer.outcome(),
            (503, "keys_unavailable".to_owned()),
            "{status}"
        );
    }
}

#[test]
fn a_set_that_is_too_large_is_refused() {
    let mut published = Window::Keys(vec![one()]).body();
    published.pop();
    let large = format!("{published},\"x\":\"{}\"}}", "x".repeat(256 * 1024));
    let (sidecar, _upstream, _issuer) = fetching(Window::answer("200 OK", &large));
    sidecar
        .call(&tasks_of_alice(&one()))
        .refused(503, "keys_unavailable");
    let fits = format!("{published},\"x\":\"{}\"}}", "x".repeat(128 * 1024));
    let (sidecar, _upstream, _issuer) = fetching(Window::answer("200 OK", &fits));
    assert_eq!(sidecar.call(&tasks_of_alice(&one())).status, 200);
}

#[test]
fn keys_are_not_used_for_longer_than_the_operator_allows() {
    let (upstream, issuer) = (
        Upstream::start(),
        Issuer::publishing(Window::Keys(vec![one()])),
    );
    let keys = format!(
        "[issuers.test]\nkeys = {{ jwks_url = \"{}\", max_stale = \"10m\" }}\n{ROUTES}",
        issuer.url()
    );
    let sidecar = Sidecar::start(&keys, &upstream, &issuer);
    assert_eq!(sidecar.call(&tasks_of_alice(&one())).status, 200);
    issuer.publish(Window::Closed);
    sidecar.set_time(crate::harness::NOW + 599);
    assert_eq!(sidecar.call(&tasks_of_alice(&one())).status, 200);
    sidecar.set_time(crate::harness::NOW + 600);
    sidecar
        .call(&tasks_of_alice(&one()))
        .refused(503, "keys_unavailable");
    assert_eq!(sidecar.admin(&get("/readyz")).status, 503);
}

#[test]
fn a_key_verifies_its_own_algorithm_and_no_other() {
    let keys = vec![one(), Key::p256("ec"), Key::rsa("rsa")];
    let (sidecar, upstream, issuer) = fetching(Window::Keys(keys));
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
        // What an attacker could take for the secret (CVE-2015-9235).
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
    // Another algorithm of the same key, and the right one under another key's name.
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
fn what_a_token_says_about_keys_causes_no_connection() {
    let (sidecar, upstream, issuer) = fetching(Window::Keys(vec![one()]));
    assert_eq!(sidecar.call(&tasks_of_alice(&one())).status, 200);
    let attackers = Issuer::publishing(Window::Keys(vec![two()]));
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
            let answer = sidecar.call(&get(TASKS).bearer(&token));
            // A name asked for again is 503: whether a fetch would bring it now, nobody knows.
            let is_refused = answer.status == 401 || (kid != "one" && answer.status == 503);
            assert!(is_refused, "{header}: {}", answer.status);
        }
    }
    assert_eq!(attackers.targets(), ["/"], "only the test itself has asked");
    assert_eq!(upstream.arrived().len(), 1);
    assert!(issuer.targets().iter().all(|target| target == "/jwks.json"));
}

#[test]
fn a_slow_issuer_holds_up_nobody_who_does_not_need_it() {
    let latch = Latch::default();
    let keys = Window::Keys(vec![one()]);
    let (sidecar, upstream, issuer) = fetching(Window::Held(latch.clone(), Box::new(keys)));
    let mut waiting = sidecar.connect();
    let request = tasks_of_alice(&one());
    eventually("a fetch", || issuer.fetches() == 1);
    waiting.send(request.bytes());
    assert_eq!(sidecar.call(&get("/open/page")).status, 200);
    assert_eq!(sidecar.call(&get(TASKS)).status, 401);
    assert_eq!(sidecar.admin(&get("/livez")).status, 200);
    latch.open();
    assert_eq!(waiting.answer().status, 200);
    assert_eq!(upstream.arrived().len(), 2);
}

/// A fetch by the test itself.
trait Body {
    fn body(&self) -> String;
}

impl Body for Window {
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
