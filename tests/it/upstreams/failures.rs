//! Failing upstreams: retries, the retry budget and outlier detection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::harness::{
    Exchange, Latch, Next, ROUTES, Sidecar, Upstream, eventually, get, post, start_before,
    start_with,
};

const RETRIES: &str = "claimgate_upstream_retries_total{upstream=\"tasks\"}";

/// Sends requests over one connection and returns the number of 200 responses.
fn served(sidecar: &Sidecar, calls: usize) -> usize {
    let mut client = sidecar.connect();
    let succeeded = (0..calls).filter(|call| {
        let response = client.call(&get(&format!("/open/{call}")));
        response.status == 200 && response.text() == format!("/open/{call}")
    });
    succeeded.count()
}

#[test]
fn closing_every_connection_after_its_response_loses_no_request() {
    let upstream = Upstream::responding(|exchange| {
        exchange.echo();
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
fn one_of_two_endpoints_may_be_unreachable() {
    let (reachable, unreachable) = (Upstream::start(), Upstream::unreachable());
    for balance in ["round-robin", "least-pending"] {
        let url = format!(
            "url = [\"{}\", \"{}\"]\nbalance = \"{balance}\"\nejection = {{ time = \"1h\" }}",
            unreachable.url(),
            reachable.url()
        );
        let (sidecar, _issuer) = start_before(&url, ROUTES);
        assert_eq!(served(&sidecar, 50), 50, "{balance}");
        let failed = sidecar
            .metric("claimgate_upstream_connections_total{upstream=\"tasks\",outcome=\"failure\"}");
        // Ejected after five consecutive failures.
        assert_eq!(failed, Some(5.0), "{balance}");
        let ejections = sidecar.metric("claimgate_upstream_ejections_total{upstream=\"tasks\"}");
        assert_eq!(ejections, Some(1.0), "{balance}");
    }
}

#[test]
fn an_ejected_endpoint_is_restored_after_it_recovers() {
    let is_healthy = Arc::new(AtomicUsize::new(0));
    let healthy = Arc::clone(&is_healthy);
    let failing = Upstream::responding(move |exchange| {
        if healthy.load(Ordering::Relaxed) == 0 {
            return Next::Reset;
        }
        exchange.echo()
    });
    let other = Upstream::start();
    let url = format!(
        "url = [\"{}\", \"{}\"]\nejection = {{ failures = 2, time = \"50ms\" }}",
        failing.url(),
        other.url()
    );
    let (sidecar, _issuer) = start_before(&url, ROUTES);
    assert_eq!(served(&sidecar, 20), 20);
    let ejections = "claimgate_upstream_ejections_total{upstream=\"tasks\"}";
    assert!(sidecar.metric(ejections) >= Some(1.0));
    is_healthy.store(1, Ordering::Relaxed);
    let before = failing.arrived().len();
    let mut client = sidecar.connect();
    eventually("restored", || {
        assert_eq!(client.call(&get("/open/a")).status, 200);
        failing.arrived().len() > before + 3
    });
}

#[test]
fn uses_all_endpoints_if_all_are_ejected() {
    let is_healthy = Arc::new(AtomicUsize::new(0));
    let failing = || {
        let healthy = Arc::clone(&is_healthy);
        Upstream::responding(move |exchange| {
            if healthy.load(Ordering::Relaxed) == 0 {
                return Next::Reset;
            }
            exchange.echo()
        })
    };
    let (one, other) = (failing(), failing());
    let url = format!(
        "url = [\"{}\", \"{}\"]\nejection = {{ failures = 1, time = \"1h\" }}",
        one.url(),
        other.url()
    );
    let (sidecar, _issuer) = start_before(&url, ROUTES);
    assert_eq!(served(&sidecar, 5), 0);
    is_healthy.store(1, Ordering::Relaxed);
    assert_eq!(served(&sidecar, 5), 5);
}

#[test]
fn the_retry_budget_limits_retries_to_a_failing_upstream() {
    let upstream = Upstream::responding(|_| Next::Close);
    let (sidecar, upstream, _issuer) = start_with(ROUTES, upstream);
    assert_eq!(served(&sidecar, 200), 0);
    // 20 % of the requests, and the ten initial retries.
    assert_eq!(upstream.arrived().len(), 250);
    assert_eq!(sidecar.metric(RETRIES), Some(50.0));
}

#[test]
fn does_not_retry_a_request_that_may_have_been_processed() {
    let upstream = Upstream::responding(|exchange| {
        exchange.body();
        Next::Close
    });
    let (sidecar, upstream, _issuer) = start_with(ROUTES, upstream);
    for request in [
        post("/open/a", b"x"),
        post("/open/a", b""),
        crate::harness::request("PUT", "/open/a").chunked(b"x", ""),
    ] {
        sidecar
            .call(&request)
            .refused(502, "upstream_invalid_response");
    }
    assert_eq!(upstream.arrived().len(), 3);
}

#[test]
fn zero_attempts_or_a_zero_budget_disables_retries() {
    let upstream = Upstream::responding(|_| Next::Close);
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
fn does_not_retry_after_a_malformed_response() {
    let upstream = Upstream::responding(|exchange| {
        exchange.write("HTTP/1.1 two hundred\r\n\r\n");
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
fn response_timeouts_eject_an_endpoint() {
    let latch = Latch::default();
    let held = latch.clone();
    let silent = Upstream::responding(move |_: &mut Exchange| {
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
fn connects_to_a_unix_socket_created_later() {
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
