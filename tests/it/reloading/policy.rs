//! Hot reload of the configuration: complete or not at all.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::folder::{Folder, generation, has, open, reloads};
use crate::harness::{Issuer, Latch, Next, ROUTES, Sidecar, Upstream, eventually, get, post};

#[test]
fn detects_every_way_of_replacing_the_file() {
    let upstream = Upstream::start();
    let folder = Folder::with(&open("/written"), &upstream);
    let sidecar = folder.start();
    assert!(has(&sidecar, "/written"));

    folder.write("config.toml", &folder.text(&open("/written-over")));
    eventually("overwritten", || has(&sidecar, "/written-over"));
    assert!(!has(&sidecar, "/written"));

    folder.write("new.toml", &folder.text(&open("/renamed")));
    fs::rename(folder.path("new.toml"), folder.path("config.toml")).unwrap();
    eventually("renamed over", || has(&sidecar, "/renamed"));

    folder.publish(1, &open("/linked"));
    symlink("..data/config.toml", folder.path("link")).unwrap();
    fs::rename(folder.path("link"), folder.path("config.toml")).unwrap();
    eventually("replaced by a link", || has(&sidecar, "/linked"));
    folder.publish(2, &open("/swapped"));
    eventually("the parent link was swapped", || has(&sidecar, "/swapped"));
    assert!(!has(&sidecar, "/linked"));
    assert_eq!(generation(&sidecar), 5);
}

#[test]
fn an_invalid_configuration_keeps_the_previous_one() {
    let upstream = Upstream::start();
    let folder = Folder::with(&open("/old"), &upstream);
    let sidecar = folder.start();
    let is_loaded = || {
        sidecar
            .metric("claimgate_config_last_reload_success")
            .unwrap()
            > 0.5
    };
    assert!(is_loaded());
    let mut failures = 0.0;
    let mut fails = |what: &str| {
        failures += 1.0;
        eventually(what, || reloads(&sidecar, "failure") > failures - 0.5);
        assert!(!is_loaded() && has(&sidecar, "/old"), "{what}");
    };
    for invalid in [
        "not toml",
        "",
        &folder.text("[[routes]]\npath = \"/new\"\naccess = \"pubic\"\n"),
        &folder.text(&open("/new")).replace("http://", "ftp://"),
    ] {
        folder.write("config.toml", invalid);
        fails(invalid);
    }
    fs::remove_file(folder.path("config.toml")).unwrap();
    fails("deleted");
    assert_eq!(generation(&sidecar), 1);
    assert!(!has(&sidecar, "/new"));

    // The previous configuration becomes valid again.
    folder.write("config.toml", &folder.text(&open("/old")));
    eventually("valid again", is_loaded);
    assert!(has(&sidecar, "/old"));
    folder.write("config.toml", &folder.text(&open("/new")));
    eventually("the new configuration is active", || has(&sidecar, "/new"));
    assert!(
        reloads(&sidecar, "failure") < failures + 0.5,
        "each failure was reported once"
    );
    let since = "claimgate_config_last_reload_timestamp_seconds";
    assert!(sidecar.metric(since).unwrap() > 1.0);
}

#[test]
fn a_reload_request_takes_effect_at_once() {
    let upstream = Upstream::start();
    let folder = Folder::with(&open("/old"), &upstream);
    let sidecar = folder.start();
    folder.change(&sidecar, &open("/new"));
    assert!(has(&sidecar, "/new") && !has(&sidecar, "/old"));
}

#[test]
fn a_request_keeps_its_policy_and_its_connection() {
    let (latch, held) = (Latch::default(), Latch::default());
    let (waits, holds) = (latch.clone(), held.clone());
    let upstream = Upstream::responding(move |exchange| {
        if exchange.target() == "/held" {
            holds.open();
            waits.wait();
        }
        exchange.echo()
    });
    let folder = Folder::with(&open("/held"), &upstream);
    let sidecar = folder.start();
    let mut client = sidecar.connect();
    let mut idle = sidecar.connect();
    assert_eq!(idle.call(&get("/nothing")).status, 404);
    client.send(get("/held").bytes());
    held.wait();
    folder.change(&sidecar, &open("/other"));
    latch.open();
    assert_eq!(client.response().status, 200);
    client.call(&get("/held")).refused(404, "no_route");
    assert_eq!(client.call(&get("/other")).status, 200);
    assert_eq!(idle.call(&get("/other")).status, 200);
}

#[test]
fn limits_and_timeouts_are_reloaded() {
    let upstream = Upstream::start();
    let folder = Folder::with(&open("/open"), &upstream);
    let sidecar = folder.start();
    let mut before = sidecar.connect();
    assert_eq!(before.call(&post("/open", b"123")).status, 200);
    let listen = |lines: &str| {
        format!(
            "[listen]\naddress = \"127.0.0.1:0\"\nworkers = 1\n{lines}\n{}",
            open("/open")
        )
    };

    folder.change(&sidecar, &listen("max_body_bytes = 2"));
    before
        .call(&post("/open", b"123"))
        .refused(413, "body_too_large");

    folder.change(&sidecar, &listen("max_header_bytes = 1024"));
    let large = get("/open").line(&format!("X-Large: {}", "x".repeat(2000)));
    sidecar.call(&large).refused(431, "headers_too_large");

    folder.change(&sidecar, &listen("idle_timeout = \"10ms\""));
    let mut after = sidecar.connect();
    assert_eq!(after.call(&get("/open")).status, 200);
    after.until_closed();

    let forwarded = get("/open").line("X-Forwarded-For: 192.0.2.7");
    folder.change(&sidecar, &listen("trusted_proxies = [\"127.0.0.1\"]"));
    assert_eq!(sidecar.call(&forwarded).status, 200);
    let seen = upstream.arrived().pop().unwrap().head;
    assert!(seen.value("x-forwarded-for").unwrap().contains("192.0.2.7"));

    let mut last = sidecar.connect();
    assert_eq!(last.call(&get("/open")).status, 200);
    // In flight, the connection is not closed to make room.
    last.send("POST /open HTTP/1.1\r\nHost: gate.test\r\nContent-Length: 9\r\n\r\n");
    folder.change(&sidecar, &listen("max_connections = 1"));
    eventually("other connections closed", || {
        sidecar.connect().call(&get("/open")).outcome() == (503, "overloaded".to_owned())
    });
}

#[test]
fn the_grace_period_is_reloaded() {
    let upstream = Upstream::responding(|_| {
        std::thread::park_timeout(crate::harness::TIMEOUT);
        Next::Close
    });
    let grace = |grace: &str| format!("[drain]\ngrace = \"{grace}\"\n{}", open("/open"));
    let folder = Folder::with(&grace("1h"), &upstream);
    let sidecar = folder.start();
    let mut client = sidecar.connect();
    client.send(get("/open").bytes());
    upstream.wait_for(1);
    folder.change(&sidecar, &grace("10ms"));
    sidecar.stop();
    assert_eq!(sidecar.wait(), 1, "the request in flight was not closed");
}

#[test]
fn keeps_keys_read_at_start_and_reloads_the_rest() {
    let upstream = Upstream::start();
    let folder = Folder::with(&open("/old"), &upstream);
    let sidecar = folder.start();
    let listen = "[listen]\naddress = \"127.0.0.1:1\"\nworkers = 2\n[log]\nlevel = \"error\"\n";
    folder.change(&sidecar, &format!("{listen}{}", open("/new")));
    assert!(has(&sidecar, "/new") && !has(&sidecar, "/old"));
}

#[test]
fn no_response_of_another_policy_during_a_hundred_reloads_under_load() {
    const CHANGES: u64 = 100;
    let upstream = Upstream::start();
    let numbered = |number: u64| {
        let headers = format!("response_headers = {{ set = {{ \"X-Number\" = \"{number}\" }} }}\n");
        // A route in every second policy shifts the indices of the others.
        let other = if number.is_multiple_of(2) {
            open("/even")
        } else {
            String::new()
        };
        format!(
            "{other}[[routes]]\npath = \"/me/{{*rest}}\"\naccess = \"authenticated\"\n{headers}"
        )
    };
    let folder = Folder::with(&numbered(1), &upstream);
    let sidecar = folder.start();
    let issuer = Issuer::start();
    let request = get("/me/x").bearer(&issuer.token("alice"));
    let (oldest, newest) = (AtomicU64::new(1), AtomicU64::new(1));
    let stop = AtomicBool::new(false);
    let send = |sidecar: &Sidecar| {
        let mut client = sidecar.connect();
        let mut sent = 0;
        while !stop.load(Ordering::SeqCst) {
            let from = oldest.load(Ordering::SeqCst);
            let response = client.call(&request);
            let to = newest.load(Ordering::SeqCst);
            assert_eq!(response.status, 200, "{}", response.text());
            let number: u64 = response.header("x-number").unwrap().parse().unwrap();
            assert!(
                (from..=to).contains(&number),
                "expected {from} to {to}, got {number}"
            );
            sent += 1;
        }
        sent
    };
    let counts: Vec<u64> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| send(&sidecar))).collect();
        for number in 2..=CHANGES + 1 {
            newest.store(number, Ordering::SeqCst);
            folder.change(&sidecar, &numbered(number));
            oldest.store(number, Ordering::SeqCst);
            assert_eq!(has(&sidecar, "/even"), number.is_multiple_of(2));
        }
        stop.store(true, Ordering::SeqCst);
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    });
    assert!(counts.iter().all(|count| *count > 10), "{counts:?}");
    assert_eq!(generation(&sidecar), CHANGES + 1);
    // Connections of concurrent requests, but no new ones with each reload.
    let connections = upstream
        .arrived()
        .iter()
        .map(|arrived| arrived.connection)
        .max();
    assert!(connections.unwrap() <= 20, "{connections:?}");
}

#[test]
fn ends_a_stream_that_the_new_policy_denies() {
    let upstream = Upstream::responding(|exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n");
        std::thread::park_timeout(crate::harness::TIMEOUT);
        Next::Close
    });
    let streams = |more: &str| {
        format!(
            "[[routes]]\npath = \"/me/{{*rest}}\"\naccess = \"authenticated\"\nat_change = \"close\"\n{more}"
        )
    };
    let folder = Folder::with(&streams(""), &upstream);
    let sidecar = folder.start();
    let issuer = Issuer::start();
    let mut client = sidecar.connect();
    client.send(get("/me/x").bearer(&issuer.token("alice")).bytes());
    client.until_closed_or(b"data: 1\n\n");
    folder.change(
        &sidecar,
        &format!("{}{}", streams(""), ROUTES.replace("/me/", "/other/")),
    );
    folder.change(
        &sidecar,
        &streams("require = [{ claim = \"scope\", has = \"tasks\" }]\n"),
    );
    let rest = client.until_closed_or(b"0\r\n\r\n");
    assert!(
        rest.ends_with(b"0\r\n\r\n"),
        "the stream did not end cleanly"
    );
}
