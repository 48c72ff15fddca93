//! A reload keeps everything that did not change.

use std::fs;
use std::sync::Arc;

use super::folder::{Folder, has, open};
use crate::harness::issuer::{JwksResponse, claims};
use crate::harness::sidecar::compile;
use crate::harness::{Authority, Issuer, Key, Latch, NOW, Sidecar, Upstream, eventually, get};

const ME: &str = "[[routes]]\npath = \"/me/{*rest}\"\naccess = \"authenticated\"\n";

/// A remote issuer next to a local one.
fn fetching(issuer: &Issuer, more: &str) -> String {
    let others = "[issuers.a]\nkeys = { secret_file = \"{secret}\" }\nissuer = \"a\"\n";
    let url = issuer.url();
    format!("{others}[issuers.remote]\nkeys = {{ jwks_url = \"{url}\"{more} }}\n{ME}")
}

fn fetches(sidecar: &Sidecar, outcome: &str) -> Option<f64> {
    let labels = format!("issuer=\"remote\",outcome=\"{outcome}\"");
    sidecar.metric(&format!("claimgate_key_fetches_total{{{labels}}}"))
}

const UNTIL: &str = "claimgate_keys_usable_until_timestamp_seconds{issuer=\"remote\"}";

fn connections(sidecar: &Sidecar, upstream: &str) -> Option<f64> {
    let labels = format!("upstream=\"{upstream}\",outcome=\"success\"");
    sidecar.metric(&format!("claimgate_upstream_connections_total{{{labels}}}"))
}

#[test]
fn keeps_connections_to_an_unchanged_upstream() {
    let upstream = Upstream::start();
    let folder = Folder::with(&open("/open"), &upstream);
    let sidecar = folder.start();
    for number in 0..5 {
        assert!(has(&sidecar, "/open"));
        folder.change(
            &sidecar,
            &format!("{}{}", open("/open"), open(&format!("/{number}"))),
        );
    }
    // Its name sorts before and after the existing one.
    for name in ["a", "z"] {
        let other = format!("[upstreams.{name}]\nurl = \"http://127.0.0.1:1\"\n");
        let route = open("/open") + "upstream = \"tasks\"\n";
        folder.change(&sidecar, &format!("{other}{route}"));
        assert!(has(&sidecar, "/open"));
    }
    let arrived = upstream.arrived();
    assert_eq!(arrived.len(), 7);
    assert!(
        arrived.iter().all(|arrived| arrived.connection == 1),
        "{arrived:#?}"
    );
}

#[test]
fn replaces_a_changed_upstream_and_keeps_its_counters() {
    let upstream = Upstream::start();
    let folder = Folder::with(&open("/open"), &upstream);
    let sidecar = folder.start();
    assert!(has(&sidecar, "/open"));
    let config = folder.text(&open("/open"));
    folder.put(
        &sidecar,
        "config.toml",
        &config.replace("url = ", "max_connections = 7\nurl = "),
    );
    assert!(has(&sidecar, "/open"));
    assert_eq!(connections(&sidecar, "tasks"), Some(2.0));
    // It is removed and added again.
    folder.put(
        &sidecar,
        "config.toml",
        &config.replace("upstreams.tasks", "upstreams.other"),
    );
    assert!(has(&sidecar, "/open"));
    assert_eq!(connections(&sidecar, "tasks"), Some(2.0));
    assert_eq!(connections(&sidecar, "other"), Some(1.0));
    folder.put(&sidecar, "config.toml", &config);
    assert!(has(&sidecar, "/open"));
    assert_eq!(connections(&sidecar, "tasks"), Some(3.0));
    assert_eq!(connections(&sidecar, "other"), Some(1.0));
}

#[test]
fn keeps_fetched_keys() {
    let key = Key::ed25519("one");
    let issuer = Issuer::publishing(JwksResponse::Keys(vec![key.clone()]));
    let upstream = Upstream::start();
    let folder = Folder::with(&fetching(&issuer, ""), &upstream);
    let sidecar = folder.start();
    let request = get("/me/x").bearer(&key.sign(&claims("alice")));
    assert_eq!(sidecar.call(&request).status, 200);
    // Fetches fail from here on.
    issuer.publish(JwksResponse::Closed);
    for number in 0..5 {
        let more = open(&format!("/{number}"));
        folder.change(&sidecar, &format!("{}{more}", fetching(&issuer, "")));
        assert_eq!(sidecar.call(&request).status, 200, "{number}");
    }
    // The index of the issuer does not matter.
    let config = fetching(&issuer, "").replace("[issuers.a]", "[issuers.z]");
    folder.change(&sidecar, &config);
    assert_eq!(sidecar.call(&request).status, 200);
    assert_eq!(issuer.fetches(), 1);
    assert_eq!(fetches(&sidecar, "success"), Some(1.0));

    // With another refresh interval, it is the same key set.
    folder.change(&sidecar, &fetching(&issuer, ", refresh = \"7m\""));
    eventually("it is fetched again", || issuer.fetches() >= 2);
    assert_eq!(sidecar.call(&request).status, 200);
    assert_eq!(fetches(&sidecar, "success"), Some(1.0));
}

#[test]
fn applies_a_new_max_stale_to_fetched_keys() {
    let key = Key::ed25519("one");
    let issuer = Issuer::publishing(JwksResponse::Keys(vec![key.clone()]));
    let upstream = Upstream::start();
    let stale = |hours: u32| fetching(&issuer, &format!(", max_stale = \"{hours}h\""));
    let folder = Folder::with(&stale(2), &upstream);
    let sidecar = folder.start();
    let lasting = serde_json::json!({ "sub": "alice", "exp": NOW + 360_000 });
    let request = get("/me/x").bearer(&key.sign(&lasting));
    assert_eq!(sidecar.call(&request).status, 200);
    issuer.publish(JwksResponse::Closed);
    let until = || sidecar.metric(UNTIL).unwrap();

    sidecar.set_time(NOW + 3 * 3600);
    sidecar.call(&request).refused(503, "keys_unavailable");
    assert!((until() - 1_800_007_200.0).abs() < 1.0);
    folder.change(&sidecar, &stale(4));
    assert_eq!(sidecar.call(&request).status, 200);
    assert!((until() - 1_800_014_400.0).abs() < 1.0);
    folder.change(&sidecar, &stale(1));
    sidecar.call(&request).refused(503, "keys_unavailable");
    assert_eq!(fetches(&sidecar, "success"), Some(1.0));
}

#[test]
fn refreshed_keys_reach_an_issuer_whose_index_changed() {
    let (one, two) = (Key::ed25519("one"), Key::p256("two"));
    let issuer = Issuer::publishing(JwksResponse::Keys(vec![one.clone()]));
    let upstream = Upstream::start();
    let folder = Folder::with(&fetching(&issuer, ""), &upstream);
    let sidecar = folder.start();
    let ask = |key: &Key| {
        sidecar
            .call(&get("/me/x").bearer(&key.sign(&claims("alice"))))
            .status
    };
    assert_eq!(ask(&one), 200);
    let config = fetching(&issuer, "").replace("[issuers.a]", "[issuers.z]");
    folder.change(&sidecar, &config);
    issuer.publish(JwksResponse::Keys(vec![two.clone()]));
    assert_eq!(ask(&two), 200);
    assert_eq!(issuer.fetches(), 2);
    // A key ID that is not in the set any more is looked up once more.
    assert_eq!(ask(&one), 401);
    assert_eq!(issuer.fetches(), 3);
}

#[test]
fn waits_for_the_keys_of_a_new_issuer_and_stops_fetching_those_of_a_removed_one() {
    let key = Key::ed25519("one");
    let (first, second) = (
        Issuer::publishing(JwksResponse::Keys(vec![key.clone()])),
        Issuer::publishing(JwksResponse::Closed),
    );
    let upstream = Upstream::start();
    let folder = Folder::with(&fetching(&first, ", refresh = \"10ms\""), &upstream);
    let sidecar = folder.start();
    let request = get("/me/x").bearer(&key.sign(&claims("alice")));
    assert_eq!(sidecar.call(&request).status, 200);
    eventually("it is fetched now and then", || first.fetches() > 2);

    // Keys from another URL are not trusted before they are fetched.
    folder.change(&sidecar, &fetching(&second, ""));
    sidecar.call(&request).refused(503, "keys_unavailable");
    let ready = sidecar.admin(&get("/readyz"));
    assert_eq!(ready.status, 503);
    assert!(
        ready.text().contains("the keys of the issuer `remote`"),
        "{}",
        ready.text()
    );
    let (first_fetches, second_fetches) = (first.fetches(), second.fetches());
    second.publish(JwksResponse::Keys(vec![key]));
    eventually("its keys have come", || {
        sidecar.call(&request).status == 200
    });
    eventually("it is ready", || {
        sidecar.admin(&get("/readyz")).status == 200
    });
    assert!(second.fetches() > second_fetches);
    // The second waited for a second, a hundred refresh intervals of the first.
    assert!(
        first.fetches() <= first_fetches + 1,
        "{} {first_fetches}",
        first.fetches()
    );

    folder.change(&sidecar, ME);
    sidecar.call(&request).refused(401, "token_algorithm");
    assert_eq!(sidecar.admin(&get("/readyz")).status, 200);
    // It reports no keys any more, but keeps its counters.
    assert_eq!(sidecar.metric("claimgate_keys{issuer=\"remote\"}"), None);
    assert!(fetches(&sidecar, "success").unwrap() > 2.5);
}

#[test]
fn a_request_waiting_for_keys_of_a_removed_issuer_uses_the_new_policy() {
    let held = Latch::default();
    let window = JwksResponse::Delayed(held.clone(), Box::new(JwksResponse::Closed));
    let issuer = Issuer::publishing(window);
    let upstream = Upstream::start();
    let config = format!(
        "[issuers.test]\nkeys = {{ jwks_url = \"{}\" }}\n{ME}",
        issuer.url()
    );
    let folder = Folder::with(&config, &upstream);
    let sidecar = folder.start();
    let mut client = sidecar.connect();
    client.send(get("/me/x").bearer(&issuer.token("alice")).bytes());
    eventually("it fetches", || issuer.fetches() == 1);
    folder.change(&sidecar, ME);
    assert_eq!(client.response().status, 200);
    held.open();
}

#[test]
fn health_checks_continue_across_a_reload() {
    let upstream = Upstream::start();
    let folder = Folder::with(&open("/open"), &upstream);
    let check =
        "health_check = { path = \"/health\", interval = \"10ms\", timeout = \"20s\" }\nurl = ";
    let config = folder.text(&open("/open")).replace("url = ", check);
    folder.write("config.toml", &config);
    let sidecar = folder.start();
    let is_ready = || sidecar.admin(&get("/readyz")).status == 200;
    eventually("it is healthy", is_ready);
    folder.put(
        &sidecar,
        "config.toml",
        &format!("{config}{}", open("/other")),
    );
    assert!(is_ready(), "an unchanged upstream keeps its health");
    let checks = upstream.arrived().len();
    eventually("health checks continue", || {
        upstream.arrived().len() > checks + 3
    });
    // Without a health check, there is no health.
    folder.put(&sidecar, "config.toml", &folder.text(&open("/open")));
    assert_eq!(
        sidecar.metric("claimgate_upstream_healthy_endpoints{upstream=\"tasks\"}"),
        None
    );
}

#[test]
fn an_upstream_with_tls_changes_with_its_files() {
    let authority = Authority::new();
    let ca = authority.file("ca.crt");
    let config = format!(
        "[upstreams.tasks]\nurl = \"https://127.0.0.1:1\"\ntls = {{ ca_file = {ca:?} }}\n{}",
        open("/open")
    );
    let (upstream, issuer) = (Upstream::unreachable(), Issuer::start());
    let compiled = || {
        compile(&config, &upstream, &issuer)
            .policy
            .upstreams
            .remove(0)
    };
    let before = compiled();
    let mut same = compiled();
    assert!(!same.shares_state(&before));
    same.inherit_state(&before);
    assert!(same.shares_state(&before));
    fs::write(&ca, Authority::new().pem()).unwrap();
    let mut other = compiled();
    other.inherit_state(&before);
    assert!(!other.shares_state(&before));
}

#[test]
fn redis_changes_with_its_settings_and_files() {
    let upstream = Upstream::start();
    let redis = "[redis]\nurl = \"redis://127.0.0.1:1\"\npassword_file = \"{secret}\"\n";
    let config = format!("{redis}{}", open("/open"));
    let folder = Folder::with(&config, &upstream);
    let sidecar = folder.start();
    let used = || sidecar.running().shared().policy().redis.clone().unwrap();
    let before = used();
    folder.change(&sidecar, &format!("{config}{}", open("/other")));
    assert!(Arc::ptr_eq(&before, &used()));
    folder.put(
        &sidecar,
        "secret",
        "another password, long enough for a secret",
    );
    assert!(!Arc::ptr_eq(&before, &used()));
}

#[test]
fn tracing_can_be_added_and_removed() {
    let (upstream, collector) = (Upstream::start(), Upstream::start());
    let folder = Folder::with(&open("/open"), &upstream);
    let sidecar = folder.start();
    assert!(has(&sidecar, "/open"));
    let tracing = format!("[tracing]\nurl = \"{}\"\n", collector.url());
    folder.change(&sidecar, &format!("{tracing}{}", open("/open")));
    assert!(has(&sidecar, "/open"));
    collector.wait_for(1);
    folder.change(&sidecar, &open("/open"));
    assert!(has(&sidecar, "/open"));
    let arrived = upstream.arrived().into_iter();
    let traced: Vec<bool> = arrived
        .map(|arrived| arrived.head.value("traceparent").is_some())
        .collect();
    assert_eq!(traced, [false, true, false]);
}
