//! Upstreams in trouble: what a client sees of it, and what the upstream is spared.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::harness::{
    Dialogue, Latch, Next, ROUTES, Sidecar, Upstream, eventually, get, post, start_before,
    start_with,
};

const RETRIES: &str = "claimgate_upstream_retries_total{upstream=\"tasks\"}";

/// Calls so often over one connection, and gives how many were answered 200.
fn served(sidecar: &Sidecar, calls: usize) -> usize {
    let mut client = sidecar.connect();
    let good = (0..calls).filter(|call| {
        let answer = client.call(&get(&format!("/open/{call}")));
        answer.status == 200 && answer.text() == format!("/open/{call}")
    });
    good.count()
}

#[test]
fn an_upstream_that_closes_every_connection_after_its_answer_loses_no_request() {
    let upstream = Upstream::answering(|dialogue| {
        dialogue.echo();
        Next::Close
    });
    let (sidecar, _upstream, _issuer) = start_with(ROUTES, upstream);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| served(&sidecar, 500)))
            .collect();
        let served: usize = clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .sum();
        assert_eq!(served, 2000);
    });
}

#[test]
fn of_two_endpoints_one_may_be_dead() {
    let (alive, dead) = (Upstream::start(), Upstream::nowhere());
    for balance in ["round-robin", "least-pending"] {
        let url = format!(
            "url = [\"{}\", \"{}\"]\nbalance = \"{balance}\"\nejection = {{ time = \"1h\" }}",
            dead.url(),
            alive.url()
        );
        let (sidecar, _issuer) = start_before(&url, ROUTES);
        assert_eq!(served(&sidecar, 50), 50, "{balance}");
        let failed = sidecar
            .metric("claimgate_upstream_connections_total{upstream=\"tasks\",outcome=\"failure\"}");
        // After five failures in a row it was left out.
        assert_eq!(failed, Some(5.0), "{balance}");
        let ejections = sidecar.metric("claimgate_upstream_ejections_total{upstream=\"tasks\"}");
        assert_eq!(ejections, Some(1.0), "{balance}");
    }
}

#[test]
fn an_endpoint_that_is_left_out_comes_back_when_it_answers_again() {
    let is_well = Arc::new(AtomicUsize::new(0));
    let well = Arc::clone(&is_well);
    let sick = Upstream::answering(move |dialogue| {
        if well.load(Ordering::Relaxed) == 0 {
            return Next::Reset;
        }
        dialogue.echo()
    });
    let other = Upstream::start();
    let url = format!(
        "url = [\"{}\", \"{}\"]\nejection = {{ failures = 2, time = \"50ms\" }}",
        sick.url(),
        other.url()
    );
    let (sidecar, _issuer) = start_before(&url, ROUTES);
    assert_eq!(served(&sidecar, 20), 20);
    let ejections = "claimgate_upstream_ejections_total{upstream=\"tasks\"}";
    assert!(sidecar.metric(ejections) >= Some(1.0));
    is_well.store(1, Ordering::Relaxed);
    let before = sick.arrived().len();
    let mut client = sidecar.connect();
    eventually("back", || {
        assert_eq!(client.call(&get("/open/a")).status, 200);
        sick.arrived().len() > before + 3
    });
}

#[test]
fn if_all_endpoints_are_left_out_all_are_used() {
    let is_well = Arc::new(AtomicUsize::new(0));
    let sick = || {
        let well = Arc::clone(&is_well);
        Upstream::answering(move |dialogue| {
            if well.load(Ordering::Relaxed) == 0 {
                return Next::Reset;
            }
            dialogue.echo()
        })
    };
    let (one, other) = (sick(), sick());
    let url = format!(
        "url = [\"{}\", \"{}\"]\nejection = {{ failures = 1, time = \"1h\" }}",
        one.url(),
        other.url()
    );
    let (sidecar, _issuer) = start_before(&url, ROUTES);
    assert_eq!(served(&sidecar, 5), 0);
    is_well.store(1, Ordering::Relaxed);
    assert_eq!(served(&sidecar, 5), 5);
}

#[test]
fn an_upstream_that_always_breaks_gets_few_requests_twice() {
    let upstream = Upstream::answering(|_| Next::Close);
    let (sidecar, upstream, _issuer) = start_with(ROUTES, upstream);
    assert_eq!(served(&sidecar, 200), 0);
    // A fifth of them, and ten that are free.
    assert_eq!(upstream.arrived().len(), 250);
    assert_eq!(sidecar.metric(RETRIES), Some(50.0));
}

#[test]
fn what_may_have_been_done_is_not_done_again() {
    let upstream = Upstream::answering(|dialogue| {
        dialogue.body();
        Next::Close
    });
    let (sidecar, upstream, _issuer) = start_with(ROUTES, upstream);
    for asked in [
        post("/open/a", b"x"),
        post("/open/a", b""),
        crate::harness::request("PUT", "/open/a").chunked(b"x", ""),
    ] {
        sidecar
            .call(&asked)
            .refused(502, "upstream_invalid_response");
    }
    assert_eq!(upstream.arrived().len(), 3);
}

#[test]
fn nothing_is_tried_again_if_the_configuration_says_so() {
    let upstream = Upstream::answering(|_| Next::Close);
    let tasks = format!("url = \"{}\"\nretries = {{ attempts = 0 }}", upstream.url());
    let (sidecar, _issuer) = start_before(&tasks, ROUTES);
    assert_eq!(served(&sidecar, 10), 0);
    assert_eq!(upstream.arrived().len(), 10);
    let tasks = format!("url = \"{}\"\nretries = {{ budget = 0 }}", upstream.url());
    let (sidecar, _issuer) = start_before(&tasks, ROUTES);
    assert_eq!(served(&sidecar, 10), 0);
    assert_eq!(upstream.arrived().len(), 20);
}

#[test]
fn garbage_is_a_broken_upstream_and_not_asked_twice() {
    let upstream = Upstream::answering(|dialogue| {
        dialogue.write("HTTP/1.1 two hundred\r\n\r\n");
        Next::Close
    });
    let (sidecar, upstream, _issuer) = start_with(ROUTES, upstream);
    for _ in 0..5 {
        sidecar
            .call(&get("/open/a"))
            .refused(502, "upstream_invalid_response");
    }
    assert_eq!(upstream.arrived().len(), 5);
}

#[test]
fn an_endpoint_that_is_silent_is_left_out_too() {
    let latch = Latch::default();
    let held = latch.clone();
    let silent = Upstream::answering(move |_: &mut Dialogue| {
        held.wait();
        Next::Close
    });
    let other = Upstream::start();
    let url = format!(
        "url = [\"{}\", \"{}\"]\nresponse_timeout = \"2s\"\nejection = {{ failures = 2, time = \"1h\" }}",
        silent.url(),
        other.url()
    );
    let (sidecar, _issuer) = start_before(&url, ROUTES);
    assert_eq!(served(&sidecar, 20), 18);
    assert_eq!(silent.arrived().len(), 2);
    latch.open();
}

#[test]
fn a_unix_socket_is_served_again_when_it_is_there_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let tasks = format!("url = \"unix:{}\"", path.display());
    let (sidecar, _issuer) = start_before(&tasks, ROUTES);
    sidecar
        .call(&get("/open/a"))
        .refused(502, "upstream_unreachable");
    let upstream = Upstream::on_unix_socket();
    let there = upstream.url().replace("unix:", "");
    std::os::unix::fs::symlink(there, path).unwrap();
    assert_eq!(served(&sidecar, 5), 5);
}
