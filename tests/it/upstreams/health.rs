//! Asking an upstream how it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::harness::{
    Client, Dialogue, Http2Upstream, Next, ROUTES, Upstream, eventually, get, request, start_before,
};

const CHECK: &str = "health_check = { path = \"/health\", interval = \"20ms\", timeout = \"20s\" }";

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
        let body = if status == 204 { "" } else { "told" };
        dialogue.answer(&format!("{status} Told"), "X-Internal: told\r\n", body)
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

/// A check that is made once, so that whatever else arrives was a probe.
const ONCE: &str = "health_check = { path = \"/health\", interval = \"1h\", timeout = \"20s\" }";

#[test]
fn a_probe_of_the_kubelet_is_passed_on_and_nothing_of_it_but_that() {
    let (upstream, status) = upstream();
    let tasks = format!("url = \"{}\"\n{ONCE}", upstream.url());
    let (sidecar, _issuer) = start_before(&tasks, ROUTES);
    let checked = upstream.wait_for(1).remove(0);
    let probe = get("/upstream/health")
        .bearer("token")
        .line("Cookie: session=1")
        .line("X-User-Id: mallory")
        .line("X-Forwarded-For: 10.0.0.1");
    for (times, told) in [200, 204, 302, 404, 503].into_iter().enumerate() {
        status.store(told, Ordering::Relaxed);
        let answer = sidecar.admin(&probe);
        assert_eq!((answer.status, answer.text().as_str()), (told, ""));
        assert_eq!(answer.header("x-internal"), None);
        let asked = upstream.wait_for(times + 2).remove(times + 1);
        assert_eq!(asked.head.raw, checked.head.raw, "it is what a check sends");
    }
    // An answer that goes on to another protocol is none.
    status.store(101, Ordering::Relaxed);
    assert_eq!(sidecar.admin(&probe).status, 502);
}

#[test]
fn the_admin_listener_is_no_way_to_any_other_path() {
    let (upstream, _status) = upstream();
    let tasks = format!("url = \"{}\"\n{ONCE}", upstream.url());
    let (sidecar, _issuer) = start_before(&tasks, ROUTES);
    upstream.wait_for(1);
    for path in [
        "/upstream",
        "/upstream/",
        "/upstream/open/a",
        "/upstream/health/",
        "/upstream/health?",
        "/upstream/health?all",
        "/upstream//health",
        "/upstream/%68ealth",
        "/upstream/health/../open/a",
        "/upstream/../health",
        "/upstream/tasks/health",
        "/Upstream/health",
        "/upstreamhealth",
        "/health",
    ] {
        assert_eq!(sidecar.admin(&get(path)).status, 404, "{path}");
    }
    for method in ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = sidecar.admin(&request(method, "/upstream/health"));
        let allowed = answer.header("allow");
        assert_eq!(
            (answer.status, allowed.as_deref()),
            (405, Some("GET")),
            "{method}"
        );
    }
    // Where requests come in, it means nothing.
    sidecar
        .call(&get("/upstream/health"))
        .refused(404, "no_route");
    assert_eq!(upstream.arrived().len(), 1);
}

#[test]
fn a_probe_without_an_answer_is_502_in_time() {
    let silent = Upstream::answering(|_| Next::Stay);
    for (url, path) in [
        (silent.url(), "/upstream/health"),
        (Upstream::nowhere().url(), "/upstream/health"),
        ("unix:/nowhere/socket".to_owned(), "/upstream/health"),
    ] {
        let check = ONCE.replace("20s", "50ms");
        let (sidecar, _issuer) = start_before(&format!("url = \"{url}\"\n{check}"), ROUTES);
        let answer = sidecar.admin(&get(path));
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (502, "no response\n")
        );
    }
    let (sidecar, _issuer) = start_before(&format!("url = \"{}\"", silent.url()), ROUTES);
    let answer = sidecar.admin(&get("/upstream/health"));
    assert_eq!(answer.status, 404, "without a check, there is no path");
}

#[test]
fn of_several_upstreams_all_must_be_well_and_of_several_endpoints_one() {
    let ((one, told_one), (other, told_other)) = (upstream(), upstream());
    let several = format!("url = [\"{}\", \"{}\"]\n{ONCE}", one.url(), other.url());
    let (endpoints, _issuer) = start_before(&several, ROUTES);
    let tasks = format!("url = \"{}\"\n{ONCE}", one.url());
    let users = format!("[upstreams.users]\nurl = \"{}\"\n{ONCE}", other.url());
    let route = "[[routes]]\npath = \"/x\"\naccess = \"public\"\nupstream = \"users\"";
    let (upstreams, _issuer) = start_before(&tasks, &format!("{users}\n{route}"));
    for (one, other, of_endpoints, of_upstreams) in [
        (503, 500, 500, 503),
        (200, 503, 200, 503),
        (503, 204, 204, 503),
        (200, 204, 200, 204),
    ] {
        told_one.store(one, Ordering::Relaxed);
        told_other.store(other, Ordering::Relaxed);
        let probe = get("/upstream/health");
        let found = (
            endpoints.admin(&probe).status,
            upstreams.admin(&probe).status,
        );
        assert_eq!(found, (of_endpoints, of_upstreams), "{one} and {other}");
    }
}

#[test]
fn only_some_probes_are_under_way_at_once() {
    let silent = Upstream::answering(|_| Next::Stay);
    let check = ONCE.replace("20s", "10m");
    let (sidecar, _issuer) = start_before(&format!("url = \"{}\"\n{check}", silent.url()), ROUTES);
    silent.wait_for(1);
    let probes: Vec<_> = (0..20)
        .map(|_| {
            let mut client = Client::connect(sidecar.running().admin_address());
            client.send("GET /upstream/health HTTP/1.1\r\nHost: gate\r\n\r\n");
            client
        })
        .collect();
    silent.wait_for(1 + 8);
    // The others wait, and the listener answers all the same.
    for _ in &probes {
        assert_eq!(sidecar.admin(&get("/livez")).status, 200);
    }
    assert_eq!(silent.arrived().len(), 1 + 8);
    // Whoever leaves makes room.
    drop(probes);
    let mut again = Client::connect(sidecar.running().admin_address());
    again.send("GET /upstream/health HTTP/1.1\r\nHost: gate\r\n\r\n");
    silent.wait_for(1 + 8 + 1);
}
