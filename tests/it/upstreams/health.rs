//! Health checks of upstreams.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{
    Client, Exchange, Http2Upstream, Next, ROUTES, Upstream, eventually, get, request, start_before,
};

const CHECK: &str = "health_check = { path = \"/health\", interval = \"20ms\", timeout = \"20s\" }";

const HEALTHY: &str = "claimgate_upstream_healthy_endpoints{upstream=\"tasks\"}";

/// Upstream with an adjustable health status.
fn upstream() -> (Upstream, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(503));
    let current = Arc::clone(&status);
    let upstream = Upstream::responding(move |exchange: &mut Exchange| {
        if exchange.target() != "/health" {
            return exchange.echo();
        }
        let status = current.load(Ordering::Relaxed);
        let body = if status == 204 { "" } else { "body" };
        exchange.respond(&format!("{status} Status"), "X-Internal: value\r\n", body)
    });
    (upstream, status)
}

#[test]
fn the_gate_is_ready_while_its_upstream_is_healthy() {
    let (upstream, status) = upstream();
    let tasks = format!("url = \"{}\"\n{CHECK}", upstream.url());
    let (sidecar, _issuer) = start_before(&tasks, ROUTES);
    let ready = || sidecar.admin(&get("/readyz"));
    let check = upstream.wait_for(3).remove(0);
    assert_eq!(check.head.line(), "GET /health HTTP/1.1");
    assert_eq!(check.head.value("user-agent").as_deref(), Some("claimgate"));
    let address = upstream.url().replace("http://", "");
    assert_eq!(check.head.value("host"), Some(address));
    for (new_status, is_ready) in [(200, true), (500, false), (302, true), (404, false)] {
        status.store(new_status, Ordering::Relaxed);
        eventually("ready", || (ready().status == 200) == is_ready);
        let healthy = if is_ready { 1.0 } else { 0.0 };
        eventually("counted", || sidecar.metric(HEALTHY) == Some(healthy));
    }
    assert_eq!(
        ready().text(),
        "not ready: waiting for the upstream `tasks`\n"
    );
    // Without a healthy endpoint, all are used.
    assert_eq!(sidecar.call(&get("/open/a")).status, 200);
}

#[test]
fn an_unhealthy_endpoint_gets_no_requests() {
    let ((healthy, healthy_status), (unhealthy, unhealthy_status)) = (upstream(), upstream());
    healthy_status.store(204, Ordering::Relaxed);
    let tasks = format!(
        "url = [\"{}\", \"{}\"]\n{CHECK}",
        unhealthy.url(),
        healthy.url()
    );
    let (sidecar, _issuer) = start_before(&tasks, ROUTES);
    eventually("ready", || sidecar.admin(&get("/readyz")).status == 200);
    let requests = |upstream: &Upstream| {
        let arrived = upstream.arrived();
        let requests = arrived
            .iter()
            .filter(|arrived| !arrived.head.line().starts_with("GET /health "));
        requests.count()
    };
    for _ in 0..10 {
        assert_eq!(sidecar.call(&get("/open/a")).status, 200);
    }
    assert_eq!((requests(&unhealthy), requests(&healthy)), (0, 10));
    unhealthy_status.store(204, Ordering::Relaxed);
    eventually("both", || sidecar.metric(HEALTHY) == Some(2.0));
    for _ in 0..10 {
        assert_eq!(sidecar.call(&get("/open/a")).status, 200);
    }
    assert_eq!((requests(&unhealthy), requests(&healthy)), (5, 15));
}

#[test]
fn checks_an_http2_upstream_over_http2() {
    let upstream = Http2Upstream::start();
    let tasks = format!("url = \"{}\"\n{CHECK}", upstream.url());
    let (sidecar, _issuer) = start_before(&tasks, ROUTES);
    eventually("ready", || sidecar.admin(&get("/readyz")).status == 200);
    let check = upstream.arrived().remove(0);
    assert_eq!(
        check.uri.to_string(),
        format!("{}/health", upstream.url().replace("h2c:", "http:"))
    );
}

#[test]
fn the_gate_is_not_ready_while_its_upstream_is_unreachable() {
    let upstream = Upstream::unreachable();
    let tasks = format!("url = \"{}\"\n{CHECK}", upstream.url());
    let (sidecar, _issuer) = start_before(&tasks, ROUTES);
    assert_eq!(sidecar.admin(&get("/readyz")).status, 503);
    sidecar
        .call(&get("/open/a"))
        .refused(502, "upstream_unreachable");
}

#[test]
fn an_upstream_that_starts_after_the_gate_is_soon_found_healthy() {
    let (upstream, status) = upstream();
    let tasks = format!("url = \"{}\"\n{ONCE}", upstream.url());
    let (sidecar, _issuer) = start_before(&tasks, ROUTES);
    upstream.wait_for(2);
    assert_eq!(sidecar.admin(&get("/readyz")).status, 503);
    status.store(200, Ordering::Relaxed);
    eventually("ready", || sidecar.admin(&get("/readyz")).status == 200);
    // From then on, the configured interval of an hour applies.
    let checks = upstream.arrived().len();
    let until = Instant::now() + Duration::from_millis(2500);
    eventually("2.5 seconds have passed", || Instant::now() >= until);
    assert_eq!(upstream.arrived().len(), checks);
}

/// A single check if it finds the endpoint healthy, so that every further request is a probe.
const ONCE: &str = "health_check = { path = \"/health\", interval = \"1h\", timeout = \"20s\" }";

#[test]
fn forwards_a_kubelet_probe_without_its_headers() {
    let (upstream, status) = upstream();
    status.store(200, Ordering::Relaxed);
    let tasks = format!("url = \"{}\"\n{ONCE}", upstream.url());
    let (sidecar, _issuer) = start_before(&tasks, ROUTES);
    let checked = upstream.wait_for(1).remove(0);
    let probe = get("/upstream/health")
        .bearer("token")
        .line("Cookie: session=1")
        .line("X-User-Id: mallory")
        .line("X-Forwarded-For: 10.0.0.1");
    for (times, new_status) in [200, 204, 302, 404, 503].into_iter().enumerate() {
        status.store(new_status, Ordering::Relaxed);
        let response = sidecar.admin(&probe);
        assert_eq!(
            (response.status, response.text().as_str()),
            (new_status, "")
        );
        assert_eq!(response.header("x-internal"), None);
        let probed = upstream.wait_for(times + 2).remove(times + 1);
        assert_eq!(probed.head.raw, checked.head.raw, "same as a check");
    }
    // A 101 response is not a health status.
    status.store(101, Ordering::Relaxed);
    assert_eq!(sidecar.admin(&probe).status, 502);
}

#[test]
fn the_admin_listener_forwards_no_other_path() {
    let (upstream, status) = upstream();
    status.store(200, Ordering::Relaxed);
    let tasks = format!("url = \"{}\"\n{ONCE}", upstream.url());
    let (sidecar, _issuer) = start_before(&tasks, ROUTES);
    eventually("ready", || sidecar.admin(&get("/readyz")).status == 200);
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
        let response = sidecar.admin(&request(method, "/upstream/health"));
        let allowed = response.header("allow");
        assert_eq!(
            (response.status, allowed.as_deref()),
            (405, Some("GET")),
            "{method}"
        );
    }
    // Other listeners do not serve this path.
    sidecar
        .call(&get("/upstream/health"))
        .refused(404, "no_route");
    assert_eq!(upstream.arrived().len(), 1);
}

#[test]
fn a_probe_without_a_response_gets_a_502_within_its_timeout() {
    let silent = Upstream::responding(|_| Next::KeepAlive);
    for (url, path) in [
        (silent.url(), "/upstream/health"),
        (Upstream::unreachable().url(), "/upstream/health"),
        ("unix:/nowhere/socket".to_owned(), "/upstream/health"),
    ] {
        let check = ONCE.replace("20s", "50ms");
        let (sidecar, _issuer) = start_before(&format!("url = \"{url}\"\n{check}"), ROUTES);
        let response = sidecar.admin(&get(path));
        assert_eq!(
            (response.status, response.text().as_str()),
            (502, "no response\n")
        );
    }
    let (sidecar, _issuer) = start_before(&format!("url = \"{}\"", silent.url()), ROUTES);
    let response = sidecar.admin(&get("/upstream/health"));
    assert_eq!(response.status, 404, "no path without a health check");
}

#[test]
fn a_probe_needs_every_upstream_but_only_one_endpoint_of_each() {
    let ((one, status_of_one), (other, status_of_other)) = (upstream(), upstream());
    let several = format!("url = [\"{}\", \"{}\"]\n{ONCE}", one.url(), other.url());
    let (endpoints, _issuer) = start_before(&several, ROUTES);
    let tasks = format!("url = \"{}\"\n{ONCE}", one.url());
    let users = format!("[upstreams.users]\nurl = \"{}\"\n{ONCE}", other.url());
    let route = "[[routes]]\npath = \"/x\"\naccess = \"public\"\nupstream = \"users\"";
    let (upstreams, _issuer) = start_before(&tasks, &format!("{users}\n{route}"));
    for (one, other, endpoints_status, upstreams_status) in [
        (503, 500, 500, 503),
        (200, 503, 200, 503),
        (503, 204, 204, 503),
        (200, 204, 200, 204),
    ] {
        status_of_one.store(one, Ordering::Relaxed);
        status_of_other.store(other, Ordering::Relaxed);
        let probe = get("/upstream/health");
        let statuses = (
            endpoints.admin(&probe).status,
            upstreams.admin(&probe).status,
        );
        assert_eq!(
            statuses,
            (endpoints_status, upstreams_status),
            "{one} and {other}"
        );
    }
}

#[test]
fn limits_concurrent_probes() {
    let silent = Upstream::responding(|_| Next::KeepAlive);
    // The first check never ends.
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
    // The other probes wait, and the listener still responds.
    for _ in &probes {
        assert_eq!(sidecar.admin(&get("/livez")).status, 200);
    }
    assert_eq!(silent.arrived().len(), 1 + 8);
    // A disconnect frees a slot.
    drop(probes);
    let mut again = Client::connect(sidecar.running().admin_address());
    again.send("GET /upstream/health HTTP/1.1\r\nHost: gate\r\n\r\n");
    silent.wait_for(1 + 8 + 1);
}
