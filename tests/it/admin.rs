//! Admin listener: probes, metrics and `/drain`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::harness::issuer::{JwksResponse, claims};
use crate::harness::{
    Issuer, Key, Latch, ROUTES, Sidecar, TASKS, Upstream, eventually, get, post, request, start,
    start_with,
};

/// Parses an exposition into the value of every series and the type of every family.
fn parse(exposition: &str) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let (mut series, mut types) = (BTreeMap::new(), BTreeMap::new());
    assert!(exposition.ends_with("# EOF\n"), "{exposition}");
    for line in exposition.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap();
            assert_eq!(
                types.insert(name.to_owned(), kind.to_owned()),
                None,
                "{name} twice"
            );
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert_eq!(
                series.insert(name.to_owned(), value.to_owned()),
                None,
                "{name} twice"
            );
        }
    }
    (series, types)
}

#[test]
fn responds_to_probes() {
    let (sidecar, upstream, _issuer) = start(ROUTES);
    for (path, text) in [
        ("/startupz", "started\n"),
        ("/readyz", "ready\n"),
        ("/livez", "alive\n"),
    ] {
        let response = sidecar.admin(&get(path));
        assert_eq!((response.status, response.text().as_str()), (200, text));
        let response = sidecar.admin(&post(path, b""));
        assert_eq!(
            (response.status, response.header("allow").as_deref()),
            (405, Some("GET, HEAD"))
        );
    }
    assert_eq!(
        sidecar.admin(&get("/open/page")).status,
        404,
        "it does not forward to the upstream"
    );
    // The request listener has none of these paths.
    for path in [
        "/startupz",
        "/readyz",
        "/livez",
        "/metrics",
        "/drain",
        "/why/1",
    ] {
        sidecar.call(&get(path)).refused(404, "no_route");
    }
    sidecar.call(&post("/drain", b"")).refused(404, "no_route");
    assert_eq!(sidecar.admin(&get("/readyz")).status, 200);
    upstream.assert_untouched();
}

#[test]
fn a_drain_needs_a_post_without_an_origin() {
    let (sidecar, _upstream, _issuer) = start(ROUTES);
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        let response = sidecar.admin(&request(method, "/drain"));
        assert_eq!(
            (response.status, response.header("allow").as_deref()),
            (405, Some("POST")),
            "{method}"
        );
    }
    // A page in a local browser can send a POST, but not without `Origin`.
    for origin in ["http://127.0.0.1:9901", "https://evil.test", "null"] {
        let response = sidecar.admin(&post("/drain", b"").line(&format!("Origin: {origin}")));
        assert_eq!(response.status, 403, "{origin}");
    }
    assert_eq!(sidecar.admin(&get("/readyz")).status, 200);
    assert_eq!(sidecar.admin(&post("/drain", b"")).status, 200);
    assert_eq!(sidecar.admin(&get("/readyz")).status, 503);
}

#[test]
fn the_exposition_parses_and_has_these_families() {
    let (sidecar, _upstream, issuer) = start(ROUTES);
    assert_eq!(
        sidecar
            .call(&get(TASKS).bearer(&issuer.token("alice")))
            .status,
        200
    );
    let response = sidecar.admin(&get("/metrics"));
    let format = response.header("content-type").unwrap();
    assert!(
        format.starts_with("application/openmetrics-text"),
        "{format}"
    );
    let (series, types) = parse(&response.text());
    let types: Vec<_> = types
        .iter()
        .map(|(name, kind)| (name.as_str(), kind.as_str()))
        .collect();
    assert_eq!(
        types,
        [
            ("claimgate_build_info", "gauge"),
            ("claimgate_config_generation", "gauge"),
            ("claimgate_config_last_reload_success", "gauge"),
            ("claimgate_config_last_reload_timestamp_seconds", "gauge"),
            ("claimgate_config_reloads", "counter"),
            ("claimgate_connections", "counter"),
            ("claimgate_connections_evicted", "counter"),
            ("claimgate_connections_limit", "gauge"),
            ("claimgate_connections_open", "gauge"),
            ("claimgate_connections_rejected", "counter"),
            ("claimgate_exchange_duration_seconds", "histogram"),
            ("claimgate_exchange_hits", "counter"),
            ("claimgate_exchanges", "counter"),
            ("claimgate_gate_duration_seconds", "histogram"),
            ("claimgate_key_fetches", "counter"),
            ("claimgate_key_last_success_timestamp_seconds", "gauge"),
            ("claimgate_keys", "gauge"),
            ("claimgate_keys_usable_until_timestamp_seconds", "gauge"),
            ("claimgate_library_warnings", "counter"),
            ("claimgate_log_lines_dropped", "counter"),
            ("claimgate_panics", "counter"),
            ("claimgate_rate_limit_buckets", "gauge"),
            ("claimgate_rate_limit_buckets_evicted", "counter"),
            ("claimgate_rate_limit_redis", "counter"),
            ("claimgate_refusals", "counter"),
            ("claimgate_request_body_bytes", "counter"),
            ("claimgate_request_duration_seconds", "histogram"),
            ("claimgate_request_heads_rejected", "counter"),
            ("claimgate_requests", "counter"),
            ("claimgate_response_body_bytes", "counter"),
            ("claimgate_spans", "counter"),
            ("claimgate_token_cache_lookups", "counter"),
            ("claimgate_token_verifications", "counter"),
            ("claimgate_upstream_connections", "counter"),
            ("claimgate_upstream_connections_open", "gauge"),
            ("claimgate_upstream_duration_seconds", "histogram"),
            ("claimgate_upstream_ejections", "counter"),
            ("claimgate_upstream_healthy_endpoints", "gauge"),
            ("claimgate_upstream_requests_active", "gauge"),
            ("claimgate_upstream_retries", "counter"),
        ]
    );
    assert_eq!(series["claimgate_keys{issuer=\"test\"}"], "1");
    assert_eq!(series["claimgate_panics_total"], "0");
}

#[test]
fn counts_every_request_by_route_method_status_and_reason() {
    let (sidecar, _upstream, issuer) = start(ROUTES);
    let token = issuer.token("alice");
    let (owner, public) = ("/api/{user_id}/tasks/{*rest}", "/open/{*rest}");
    let calls = [
        (get(TASKS).bearer(&token), owner, "GET", 200, "", 3),
        (
            post(TASKS, b"body").bearer(&token),
            owner,
            "POST",
            200,
            "",
            2,
        ),
        (
            get("/api/bob/tasks").bearer(&token),
            owner,
            "GET",
            403,
            "subject_mismatch",
            2,
        ),
        (get(TASKS), owner, "GET", 401, "token_missing", 4),
        (get("/open/page"), public, "GET", 200, "", 1),
        (get("/nowhere"), "", "GET", 404, "no_route", 2),
        (
            request("BREW", "/open/page"),
            "",
            "other",
            405,
            "method_not_allowed",
            1,
        ),
        (get("/open//page"), "", "GET", 400, "path_not_canonical", 1),
    ];
    let mut client = sidecar.connect();
    let mut all = 0;
    for (request, .., times) in &calls {
        for _ in 0..*times {
            client.call(request);
            all += 1;
        }
    }
    let (series, _) = parse(&sidecar.admin(&get("/metrics")).text());
    for (_, route, method, status, reason, times) in calls {
        let name = format!(
            "claimgate_requests_total{{route=\"{route}\",method=\"{method}\",status=\"{status}\",reason=\"{reason}\"}}"
        );
        let counted = series.get(&name).cloned();
        assert_eq!(counted, Some(times.to_string()), "{name}\n{series:#?}");
    }
    let counted = series
        .iter()
        .filter(|(name, _)| name.starts_with("claimgate_requests_total"));
    let counted = counted.map(|(_, count)| count.parse::<u32>().unwrap());
    assert_eq!(counted.sum::<u32>(), all);
    assert_eq!(series["claimgate_request_body_bytes_total"], "8");
    let duration = "claimgate_request_duration_seconds_count";
    assert_eq!(series[&format!("{duration}{{route=\"{owner}\"}}")], "11");
    let gate = "claimgate_gate_duration_seconds_count";
    assert_eq!(series[&format!("{gate}{{route=\"{owner}\"}}")], "11");
    let upstream = "claimgate_upstream_duration_seconds_count";
    assert_eq!(series[&format!("{upstream}{{route=\"{owner}\"}}")], "5");
}

#[test]
fn the_gate_duration_ends_when_the_request_is_forwarded() {
    let released = Latch::default();
    let upstream = Upstream::held(&released);
    let (sidecar, upstream, _issuer) = start_with(ROUTES, upstream);
    let mut client = sidecar.connect();
    let began = Instant::now();
    client.send(get("/open/page").bytes());
    upstream.wait_for(1);
    let arrived = Instant::now();
    eventually("some time passes", || {
        arrived.elapsed() > Duration::from_millis(100)
    });
    released.open();
    assert_eq!(client.response().status, 200);
    let sum = |part: &str| {
        let series = format!("claimgate_{part}_duration_seconds_sum{{route=\"/open/{{*rest}}\"}}");
        Duration::from_secs_f64(sidecar.metric(&series).unwrap())
    };
    assert!(sum("gate") <= arrived - began, "{:?}", sum("gate"));
    assert!(sum("upstream") > Duration::from_millis(100));
    assert!(sum("gate") + sum("upstream") <= sum("request"));
}

#[test]
fn counts_token_verifications_by_outcome() {
    let key = Key::ed25519("one");
    let (upstream, issuer) = (
        Upstream::start(),
        Issuer::publishing(JwksResponse::Keys(vec![key.clone()])),
    );
    let sidecar = Sidecar::start_fetching(ROUTES, &upstream, &issuer);
    let valid = key.sign(&claims("alice"));
    let forged = Key::ed25519_of("ed25519-stranger", "one").sign(&claims("alice"));
    let unknown = Key::ed25519_of("ed25519-second", "two").sign(&claims("alice"));
    for (token, status) in [(&valid, 200), (&valid, 200), (&forged, 401), (&forged, 401)] {
        assert_eq!(sidecar.call(&get(TASKS).bearer(token)).status, status);
    }
    let counted = |outcome| {
        let series = format!("claimgate_token_verifications_total{{outcome=\"{outcome}\"}}");
        sidecar.metric(&series).unwrap()
    };
    let (successes, failures, waiting) = (
        counted("success"),
        counted("failure"),
        counted("key_missing"),
    );
    // The first request may arrive before the keys.
    assert_eq!((successes, failures), (1.0, 2.0));
    sidecar.call(&get(TASKS).bearer(&unknown));
    assert!(counted("key_missing") > waiting);
    assert_eq!((counted("success"), counted("failure")), (1.0, 2.0));
}

#[test]
fn counts_active_and_idle_upstream_connections() {
    let released = Latch::default();
    let upstream = Upstream::responding({
        let released = released.clone();
        move |request| {
            if request.target() == "/open/slow" {
                released.wait();
            }
            request.echo()
        }
    });
    let (sidecar, upstream, _issuer) = start_with(ROUTES, upstream);
    let is = |active: f64, idle: f64, requests: f64| {
        let open = |state| {
            let name = "claimgate_upstream_connections_open";
            sidecar.metric(&format!("{name}{{upstream=\"tasks\",state=\"{state}\"}}"))
        };
        let series = "claimgate_upstream_requests_active{upstream=\"tasks\"}";
        let state = [open("active"), open("idle"), sidecar.metric(series)];
        state == [active, idle, requests].map(Some)
    };
    assert!(is(0.0, 0.0, 0.0));
    sidecar.call(&get("/open/page"));
    eventually("one is idle", || is(0.0, 1.0, 0.0));
    let mut clients: Vec<_> = (0..2).map(|_| sidecar.connect()).collect();
    for client in &mut clients {
        client.send(get("/open/slow").bytes());
    }
    upstream.wait_for(3);
    eventually("two are active", || is(2.0, 0.0, 2.0));
    released.open();
    for client in &mut clients {
        assert_eq!(client.response().status, 200);
    }
    eventually("two are idle", || is(0.0, 2.0, 0.0));
}

#[test]
fn no_client_input_becomes_a_label() {
    let (sidecar, _upstream, issuer) = start(ROUTES);
    let mut client = sidecar.connect();
    let names = || parse(&sidecar.admin(&get("/metrics")).text()).0.into_keys();
    for (path, method) in [
        ("/nowhere", "GET"),
        ("/nowhere", "BREW"),
        ("/open/page", "BREW"),
    ] {
        client.call(&request(method, path));
    }
    let before: BTreeSet<String> = names().collect();
    for number in 0..1000 {
        let path = ["/x", "/open/x", "/api/x"][number % 3];
        let method = ["GET".to_owned(), format!("M{number}")][number % 2].clone();
        let invented = request(&method, &format!("{path}{number}?{number}"))
            .bearer(&issuer.token(&format!("user{number}")))
            .line(&format!("X-Request-Id: {number}"));
        client.call(&invented);
    }
    let more: Vec<String> = names().filter(|name| !before.contains(name)).collect();
    assert!(more.len() <= 60, "{more:#?}");
    for name in more {
        assert!(
            !name.contains("user") || name.contains("{user_id}"),
            "{name}"
        );
    }
}

#[test]
fn counts_malformed_heads() {
    let (sidecar, upstream, _issuer) = start(ROUTES);
    for _ in 0..3 {
        let mut client = sidecar.connect();
        client.send("nonsense\r\n\r\n");
        client.until_closed();
    }
    eventually("three", || {
        sidecar.metric("claimgate_request_heads_rejected_total{reason=\"request_malformed\"}")
            == Some(3.0)
    });
    eventually("all closed", || {
        sidecar.metric("claimgate_connections_open") == Some(0.0)
    });
    assert_eq!(sidecar.metric("claimgate_connections_total"), Some(3.0));
    upstream.assert_untouched();
}
