//! Rate limits by client address and by subject.

use crate::harness::issuer::{JwksResponse, claims};
use crate::harness::sidecar::compile;
use crate::harness::{
    Issuer, Key, Latch, NOW, Next, ROUTES, Request, Response, Sidecar, TASKS, Upstream, eventually,
    get, post, start, start_with,
};

/// Routes with a limit by address, by subject, by both, and without a limit.
const LIMITED: &str = r#"
[[routes]]
path = "/login"
access = "public"
rate_limit = { requests = 3, per = "1m", by = "client-address" }

[[routes]]
path = "/api/{user_id}/tasks/{*rest}"
access = { owner = "user_id" }
rate_limit = { requests = 2, per = "1m", by = "subject" }

[[routes]]
path = "/me/{*rest}"
access = "authenticated"
rate_limit = [
    { requests = 5, per = "1m", by = "client-address" },
    { requests = 2, per = "1h", by = "subject" },
]

[[routes]]
path = "/open/{*rest}"
access = "public"
"#;

fn behind_a_proxy(trusted: &str) -> (Sidecar, Upstream, Issuer) {
    start(&format!(
        "[listen]\ntrusted_proxies = [\"{trusted}\"]\n{LIMITED}"
    ))
}

fn login() -> Request {
    post("/login", b"password")
}

fn forwarded_for(client: &str) -> Request {
    login().line(&format!("X-Forwarded-For: {client}"))
}

/// `RateLimit-Policy`, `RateLimit` and `Retry-After`.
fn rate_fields(response: &Response) -> [Option<String>; 3] {
    ["ratelimit-policy", "ratelimit", "retry-after"].map(|name| response.header(name))
}

fn some<const N: usize>(texts: [&str; N]) -> [Option<String>; N] {
    texts.map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()))
}

#[test]
fn responds_429_with_retry_after_above_the_limit() {
    let (sidecar, upstream, _issuer) = start(LIMITED);
    let policy = "\"client-address-60s\";q=3;w=60";
    for left in [
        "\"client-address-60s\";r=2;t=20",
        "\"client-address-60s\";r=1;t=40",
        "\"client-address-60s\";r=0;t=60",
    ] {
        let response = sidecar.call(&login());
        assert_eq!(response.status, 200);
        assert_eq!(rate_fields(&response), some([policy, left, ""]));
    }
    for (now, wait) in [(NOW, "20"), (NOW + 19, "1")] {
        sidecar.set_time(now);
        let response = sidecar.call(&login());
        response.refused(429, "rate_limited");
        let left = format!("\"client-address-60s\";r=0;t={wait}");
        assert_eq!(rate_fields(&response), some([policy, &left, wait]));
    }
    assert_eq!(upstream.arrived().len(), 3);
    sidecar.set_time(NOW + 20);
    assert_eq!(sidecar.call(&login()).status, 200);
    sidecar.call(&login()).refused(429, "rate_limited");
    let refused = "claimgate_requests_total{route=\"/login\",method=\"POST\",status=\"429\",reason=\"rate_limited\"}";
    eventually("counted", || sidecar.metric(refused) == Some(3.0));
    assert_eq!(sidecar.metric("claimgate_rate_limit_buckets"), Some(1.0));
}

#[test]
fn a_route_without_a_limit_sends_no_rate_limit_fields() {
    let (sidecar, _upstream, _issuer) = start(LIMITED);
    for _ in 0..20 {
        let response = sidecar.call(&get("/open/page"));
        assert_eq!(response.status, 200);
        assert_eq!(rate_fields(&response), [None, None, None]);
    }
    assert_eq!(sidecar.metric("claimgate_rate_limit_buckets"), Some(0.0));
}

#[test]
fn clients_behind_a_trusted_proxy_have_separate_buckets() {
    let (sidecar, _upstream, _issuer) = behind_a_proxy("127.0.0.1");
    for client in ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1"] {
        for status in [200, 200, 200, 429] {
            let response = sidecar.call(&forwarded_for(client));
            assert_eq!(response.status, status, "{client}");
        }
    }
    // Other spellings of the same clients.
    for client in [
        "::ffff:192.0.2.1",
        "198.51.100.1, 192.0.2.1",
        "2001:db8::ffff:1",
    ] {
        sidecar
            .call(&forwarded_for(client))
            .refused(429, "rate_limited");
    }
}

#[test]
fn ignores_the_client_address_claimed_by_an_untrusted_peer() {
    let (sidecar, upstream, _issuer) = behind_a_proxy("192.0.2.200");
    for (number, status) in [(1, 200), (2, 200), (3, 200), (4, 429), (5, 429)] {
        let other = format!("198.51.100.{number}");
        let request = forwarded_for(&other)
            .line(&format!("Forwarded: for={other}"))
            .line(&format!("X-Real-IP: {other}"));
        assert_eq!(sidecar.call(&request).status, status, "{number}");
    }
    assert_eq!(upstream.arrived().len(), 3);
}

#[test]
fn limits_by_the_address_of_the_proxy_protocol_header() {
    let lines = "[listen]\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let (sidecar, _upstream, _issuer) = start(&format!("{lines}{LIMITED}"));
    let statuses = |client: &str| {
        let call = || {
            let mut connection = sidecar.connect();
            connection.send(format!("PROXY TCP6 {client} ::1 1 2\r\n"));
            connection.call(&login()).status
        };
        [call(), call()]
    };
    assert_eq!(statuses("2001:db8::1"), [200, 200]);
    assert_eq!(statuses("2001:db8::2"), [200, 429]);
    assert_eq!(statuses("2001:db8:0:1::1"), [200, 200]);
}

#[test]
fn requests_with_invalid_tokens_count_and_are_rejected_before_verification() {
    let (sidecar, upstream, issuer) = start(LIMITED);
    let invalid = Key::secret(b"another secret, 32 bytes at the least").sign(&claims("alice"));
    let requests = [
        get("/me/notes").bearer(&invalid),
        get("/me/notes").bearer("a.b.c"),
        get("/me/notes"),
        get("/me/notes").bearer(&invalid).bearer(&invalid),
        get("/me/notes").bearer(&invalid),
    ];
    for request in &requests {
        let response = sidecar.call(request);
        assert!(matches!(response.status, 400 | 401), "{}", response.status);
        assert!(response.header("ratelimit").is_some());
    }
    let verified = || sidecar.metric("claimgate_token_cache_lookups_total{result=\"miss\"}");
    let before = verified();
    for token in [&invalid, &issuer.token("alice")] {
        let response = sidecar.call(&get("/me/notes").bearer(token));
        response.refused(429, "rate_limited");
    }
    assert_eq!(verified(), before);
    upstream.assert_untouched();
}

#[test]
fn a_subject_has_one_bucket_across_connections_workers_and_addresses() {
    let listen = "[listen]\nworkers = 4\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let (sidecar, upstream, issuer) = start(&format!("{listen}{LIMITED}"));
    let mut later = claims("alice");
    later["iat"] = (NOW - 5).into();
    let tokens = [issuer.token("alice"), issuer.sign(&later)];
    let mut statuses = Vec::new();
    for number in 0..12 {
        let request = get(TASKS)
            .bearer(&tokens[number % 2])
            .line(&format!("X-Forwarded-For: 192.0.2.{number}"));
        statuses.push(sidecar.call(&request).status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [[200, 200].as_slice(), &[429; 10]].concat());
    let bob = get("/api/bob/tasks").bearer(&issuer.token("bob"));
    assert_eq!(sidecar.call(&bob).status, 200);
    assert_eq!(upstream.arrived().len(), 3);
}

#[test]
fn a_rejected_request_counts_for_its_subject_not_for_the_owner_of_the_path() {
    let (sidecar, _upstream, issuer) = start(LIMITED);
    let bob = issuer.token("bob");
    for expected in [
        (403, "subject_mismatch"),
        (403, "subject_mismatch"),
        (429, "rate_limited"),
    ] {
        let response = sidecar.call(&get(TASKS).bearer(&bob));
        response.refused(expected.0, expected.1);
    }
    let alice = get(TASKS).bearer(&issuer.token("alice"));
    assert_eq!(sidecar.call(&alice).status, 200);
}

#[test]
fn all_limits_of_a_route_must_allow_a_request() {
    let (sidecar, _upstream, issuer) = start(LIMITED);
    let statuses = |subject: &str| {
        let request = get("/me/notes").bearer(&issuer.token(subject));
        [(), (), ()].map(|()| sidecar.call(&request).status)
    };
    assert_eq!(statuses("alice"), [200, 200, 429]);
    assert_eq!(statuses("bob"), [200, 200, 429]);
    sidecar.set_time(NOW + 60);
    let response = sidecar.call(&get("/me/notes").bearer(&issuer.token("alice")));
    response.refused(429, "rate_limited");
    assert_eq!(response.header("retry-after").as_deref(), Some("1740"));
    let response = sidecar.call(&get("/me/notes").bearer(&issuer.token("carol")));
    assert_eq!(
        rate_fields(&response),
        some([
            "\"client-address-60s\";q=5;w=60, \"subject-3600s\";q=2;w=3600",
            "\"client-address-60s\";r=3;t=24, \"subject-3600s\";r=1;t=1800",
            ""
        ])
    );
}

#[test]
fn keeps_the_rate_limit_fields_of_the_upstream() {
    let upstream = Upstream::responding(|exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nRateLimit: \"own\";r=1\r\nContent-Length: 0\r\n\r\n");
        Next::KeepAlive
    });
    let (sidecar, _upstream, _issuer) = start_with(LIMITED, upstream);
    let response = sidecar.call(&login());
    let all: Vec<String> = response.head.values("ratelimit");
    assert_eq!(all, ["\"own\";r=1", "\"client-address-60s\";r=2;t=20"]);
}

#[test]
fn a_request_that_waits_for_keys_is_counted_once() {
    let route = |by: &str| {
        format!(
            "[[routes]]\npath = \"/{by}\"\naccess = \"authenticated\"\n\
             rate_limit = {{ requests = 2, per = \"1m\", by = \"{by}\" }}\n"
        )
    };
    for by in ["client-address", "subject"] {
        let (old, key) = (Key::p256("old"), Key::ed25519("new"));
        let issuer = Issuer::publishing(JwksResponse::Keys(vec![old]));
        let upstream = Upstream::start();
        let sidecar = Sidecar::start_fetching(&route(by), &upstream, &issuer);
        eventually("ready", || sidecar.admin(&get("/readyz")).status == 200);
        let fetched = Latch::default();
        let rotated = Box::new(JwksResponse::Keys(vec![key.clone()]));
        issuer.publish(JwksResponse::Delayed(fetched.clone(), rotated));

        // The unknown key ID makes the gate fetch the key set and start the policy over.
        let request = get(&format!("/{by}")).bearer(&key.sign(&claims("alice")));
        let mut waiting = sidecar.connect();
        waiting.send(request.bytes());
        eventually("the fetch starts", || issuer.fetches() == 2);
        upstream.assert_untouched();
        fetched.open();
        let response = waiting.response();
        assert_eq!(response.status, 200, "{by}");
        let left = response.header("ratelimit").unwrap();
        assert_eq!(left, format!("\"{by}-60s\";r=1;t=30"));

        assert_eq!(sidecar.call(&request).status, 200, "{by}");
        sidecar.call(&request).refused(429, "rate_limited");
        assert_eq!(upstream.arrived().len(), 2, "{by}");
    }
}

#[test]
fn buckets_survive_a_policy_change_that_keeps_the_limit() {
    let (sidecar, upstream, issuer) = start(LIMITED);
    for _ in 0..3 {
        assert_eq!(sidecar.call(&login()).status, 200);
    }
    let change_policy = |config: &str| {
        let policy = compile(config, &upstream, &issuer).policy;
        sidecar.running().shared().change_policy(|_| policy.clone());
    };
    change_policy(&format!("{LIMITED}\n{}", ROUTES.replace('/', "/new/")));
    sidecar.call(&login()).refused(429, "rate_limited");
    change_policy(&LIMITED.replace("requests = 3", "requests = 4"));
    assert_eq!(sidecar.call(&login()).status, 200);
}
