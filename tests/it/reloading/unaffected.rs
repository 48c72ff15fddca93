//! What a change of the configuration does not concern goes on.

use std::fs;
use std::sync::Arc;

use super::folder::{Folder, has, open};
use crate::harness::issuer::{Window, claims};
use crate::harness::sidecar::compile;
use crate::harness::{Authority, Issuer, Key, Latch, NOW, Sidecar, Upstream, eventually, get};

const ME: &str = "[[routes]]\npath = \"/me/{*rest}\"\naccess = \"authenticated\"\n";

/// An issuer with keys of its own, and others that have no say.
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
fn the_connections_to_an_upstream_that_has_not_changed_are_kept() {
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
    // Before and after the other one, by its name.
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
fn an_upstream_that_has_changed_is_another_and_what_was_counted_goes_on() {
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
    // It is gone, and comes back.
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
fn keys_that_were_fetched_are_kept() {
    let key = Key::ed25519("one");
    let issuer = Issuer::publishing(Window::Keys(vec![key.clone()]));
    let upstream = Upstream::start();
    let folder = Folder::with(&fetching(&issuer, ""), &upstream);
    let sidecar = folder.start();
    let request = get("/me/x").bearer(&key.sign(&claims("alice")));
    assert_eq!(sidecar.call(&request).status, 200);
    // Whoever fetches now gets nothing.
    issuer.publish(Window::Closed);
    for number in 0..5 {
        let more = open(&format!("/{number}"));
        folder.change(&sidecar, &format!("{}{more}", fetching(&issuer, "")));
        assert_eq!(sidecar.call(&request).status, 200, "{number}");
    }
    // Nor does it matter where the issuer stands among others.
    let config = fetching(&issuer, "").replace("[issuers.a]", "[issuers.z]");
    folder.change(&sidecar, &config);
    assert_eq!(sidecar.call(&request).status, 200);
    assert_eq!(issuer.fetches(), 1);
    assert_eq!(fetches(&sidecar, "success"), Some(1.0));

    // Fetched at other times, it is the same key set.
    folder.change(&sidecar, &fetching(&issuer, ", refresh = \"7m\""));
    eventually("it is fetched again", || issuer.fetches() >= 2);
    assert_eq!(sidecar.call(&request).status, 200);
    assert_eq!(fetches(&sidecar, "success"), Some(1.0));
}

#[test]
fn keys_already_fetched_are_used_as_long_as_the_newest_configuration_says() {
    let key = Key::ed25519("one");
    let issuer = Issuer::publishing(Window::Keys(vec![key.clone()]));
    let upstream = Upstream::start();
    let stale = |hours: u32| fetching(&issuer, &format!(", max_stale = \"{hours}h\""));
    let folder = Folder::with(&stale(2), &upstream);
    let sidecar = folder.start();
    let lasting = serde_json::json!({ "sub": "alice", "exp": NOW + 360_000 });
    let request = get("/me/x").bearer(&key.sign(&lasting));
    assert_eq!(sidecar.call(&request).status, 200);
    issuer.publish(Window::Closed);
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
fn newer_keys_come_to_the_issuer_wherever_it_stands_by_then() {
    let (one, two) = (Key::ed25519("one"), Key::p256("two"));
    let issuer = Issuer::publishing(Window::Keys(vec![one.clone()]));
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
    issuer.publish(Window::Keys(vec![two.clone()]));
    assert_eq!(ask(&two), 200);
    assert_eq!(ask(&one), 401);
    assert_eq!(issuer.fetches(), 2);
}

#[test]
fn a_new_issuer_is_waited_for_and_one_that_is_gone_is_left_alone() {
    let key = Key::ed25519("one");
    let (first, second) = (
        Issuer::publishing(Window::Keys(vec![key.clone()])),
        Issuer::publishing(Window::Closed),
    );
    let upstream = Upstream::start();
    let folder = Folder::with(&fetching(&first, ", refresh = \"10ms\""), &upstream);
    let sidecar = folder.start();
    let request = get("/me/x").bearer(&key.sign(&claims("alice")));
    assert_eq!(sidecar.call(&request).status, 200);
    eventually("it is fetched now and then", || first.fetches() > 2);

    // Another place is another trust: nothing of the keys before is good.
    folder.change(&sidecar, &fetching(&second, ""));
    sidecar.call(&request).refused(503, "keys_unavailable");
    let ready = sidecar.admin(&get("/readyz"));
    assert_eq!(ready.status, 503);
    assert!(
        ready.text().contains("the keys of the issuer `remote`"),
        "{}",
        ready.text()
    );
    let (left, asked) = (first.fetches(), second.fetches());
    second.publish(Window::Keys(vec![key]));
    eventually("its keys have come", || {
        sidecar.call(&request).status == 200
    });
    eventually("it is ready", || {
        sidecar.admin(&get("/readyz")).status == 200
    });
    assert!(second.fetches() > asked);
    // The second waited for a second: a hundred times as long as the first would have.
    assert!(first.fetches() <= left + 1, "{} {left}", first.fetches());

    folder.change(&sidecar, ME);
    sidecar.call(&request).refused(401, "token_algorithm");
    assert_eq!(sidecar.admin(&get("/readyz")).status, 200);
    // It counts no key any more, and has not forgotten what it did.
    assert_eq!(sidecar.metric("claimgate_keys{issuer=\"remote\"}"), None);
    assert!(fetches(&sidecar, "success").unwrap() > 2.5);
}

#[test]
fn who_waits_for_keys_of_an_issuer_that_is_gone_is_judged_by_what_is_there() {
    let held = Latch::default();
    let window = Window::Held(held.clone(), Box::new(Window::Closed));
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
    assert_eq!(client.answer().status, 200);
    held.open();
}

#[test]
fn an_upstream_is_asked_on_how_it_is() {
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
    assert!(is_ready(), "an upstream that has not changed is as it was");
    let asked = upstream.arrived().len();
    eventually("it is asked on", || upstream.arrived().len() > asked + 3);
    // Without a check, nobody asks.
    folder.put(&sidecar, "config.toml", &folder.text(&open("/open")));
    assert_eq!(
        sidecar.metric("claimgate_upstream_healthy_endpoints{upstream=\"tasks\"}"),
        None
    );
}

#[test]
fn an_upstream_with_tls_is_the_same_as_long_as_its_files_are() {
    let authority = Authority::new();
    let ca = authority.file("ca.crt");
    let config = format!(
        "[upstreams.tasks]\nurl = \"https://127.0.0.1:1\"\ntls = {{ ca_file = {ca:?} }}\n{}",
        open("/open")
    );
    let (upstream, issuer) = (Upstream::nowhere(), Issuer::start());
    let compiled = || {
        compile(&config, &upstream, &issuer)
            .policy
            .upstreams
            .remove(0)
    };
    let before = compiled();
    let mut same = compiled();
    assert_ne!(same, before);
    same.succeed(&before);
    assert_eq!(same, before);
    fs::write(&ca, Authority::new().pem()).unwrap();
    let mut other = compiled();
    other.succeed(&before);
    assert_ne!(other, before);
}

#[test]
fn redis_is_the_same_as_long_as_what_is_said_of_it_is() {
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
        "another password, which would do as a secret",
    );
    assert!(!Arc::ptr_eq(&before, &used()));
}

#[test]
fn a_collector_of_spans_can_come_and_go() {
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
