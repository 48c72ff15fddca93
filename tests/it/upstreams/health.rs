//! Asking an upstream how it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::harness::{Dialogue, Http2Upstream, ROUTES, Upstream, eventually, get, start_before};

const CHECK: &str = "health_check = { path = \"/health\", interval = \"20ms\", timeout = \"5s\" }";

const HEALTHY: &str = "claimgate_upstream_healthy_endpoints{upstream=\"tasks\"}";

/// An upstream that says it is as it is told.
fn upstream() -> (Upstream, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(503));
    let told = Arc::clone(&status);
    let upstream = Upstream::answering(move |dialogue: &mut Dialogue| {
        if dialogue.target() != "/health" {
            return dialogue.echo();
        }
        let status = told.load(Ordering::Relaxed);
        dialogue.answer(&format!("{status} Told"), "", "")
    });
    (upstream, status)
}

#[test]
fn the_gate_is_ready_when_its_upstream_is() {
    let (upstream, status) = upstream();
    let tasks = format!("url = \"{}\"\n{CHECK}", upstream.url());
    let (sidecar, _issuer) = start_before(&tasks, ROUTES);
    let ready = || sidecar.admin(&get("/readyz"));
    let asked = upstream.wait_for(3).remove(0);
    assert_eq!(asked.head.line(), "GET /health HTTP/1.1");
    assert_eq!(asked.head.value("user-agent").as_deref(), Some("claimgate"));
    let address = upstream.url().replace("http://", "");
    assert_eq!(asked.head.value("host"), Some(address));
    for (told, is_ready) in [(200, true), (500, false), (302, true), (404, false)] {
        status.store(told, Ordering::Relaxed);
        eventually("told", || (ready().status == 200) == is_ready);
        let healthy = if is_ready { 1.0 } else { 0.0 };
        eventually("counted", || sidecar.metric(HEALTHY) == Some(healthy));
    }
    assert_eq!(
        ready().text(),
        "not ready: waiting for the upstream `tasks`\n"
    );
    // If none is healthy, all are used.
    assert_eq!(sidecar.call(&get("/open/a")).status, 200);
}

#[test]
fn an_endpoint_that_is_not_healthy_gets_no_requests() {
    let ((well, told_well), (sick, told_sick)) = (upstream(), upstream());
    told_well.store(204, Ordering::Relaxed);
    let tasks = format!("url = [\"{}\", \"{}\"]\n{CHECK}", sick.url(), well.url());
    let (sidecar, _issuer) = start_before(&tasks, ROUTES);
    eventually("ready", || sidecar.admin(&get("/readyz")).status == 200);
    let asked = |upstream: &Upstream| {
        let arrived = upstream.arrived();
        let real = arrived
            .iter()
            .filter(|arrived| !arrived.head.line().starts_with("GET /health "));
        real.count()
    };
    for _ in 0..10 {
        assert_eq!(sidecar.call(&get("/open/a")).status, 200);
    }
    assert_eq!((asked(&sick), asked(&well)), (0, 10));
    told_sick.store(204, Ordering::Relaxed);
    eventually("both", || sidecar.metric(HEALTHY) == Some(2.0));
    for _ in 0..10 {
        assert_eq!(sidecar.call(&get("/open/a")).status, 200);
    }
    assert_eq!((asked(&sick), asked(&well)), (5, 15));
}

#[test]
fn an_upstream_that_speaks_http_2_is_asked_in_http_2() {
    let upstream = Http2Upstream::start();
    let tasks = format!("url = \"{}\"\n{CHECK}", upstream.url());
    let (sidecar, _issuer) = start_before(&tasks, ROUTES);
    eventually("ready", || sidecar.admin(&get("/readyz")).status == 200);
    let asked = upstream.arrived().remove(0);
    assert_eq!(
        asked.uri.to_string(),
        format!("{}/health", upstream.url().replace("h2c:", "http:"))
    );
}

#[test]
fn an_upstream_that_is_not_there_is_awaited() {
    let upstream = Upstream::nowhere();
    let tasks = format!("url = \"{}\"\n{CHECK}", upstream.url());
    let (sidecar, _issuer) = start_before(&tasks, ROUTES);
    assert_eq!(sidecar.admin(&get("/readyz")).status, 503);
    sidecar
        .call(&get("/open/a"))
        .refused(502, "upstream_unreachable");
}
