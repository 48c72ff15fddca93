//! Sessions of Better Auth: the gate exchanges one credential, and uses the result for a short time.

mod server;

use std::thread;

use serde_json::json;

use crate::harness::{
    Issuer, Key, Latch, NOW, ROUTES, Response, Sidecar, TASKS, Upstream, get, post, request,
};

use server::{BetterAuth, Failure, cookie};

/// Starts a gate whose issuer has sessions with these settings, with routes for `alice`.
fn start(sessions: &str) -> (Sidecar, Upstream, BetterAuth) {
    start_with("", sessions, ROUTES)
}

fn start_with(listen: &str, sessions: &str, routes: &str) -> (Sidecar, Upstream, BetterAuth) {
    let (server, upstream) = (BetterAuth::start(), Upstream::start());
    let url = server.url();
    let config = format!(
        "[listen]\nworkers = 2\n{listen}\n[issuers.app]\nbetter_auth = {{ url = \"{url}\", sessions = {sessions} }}\n{routes}"
    );
    let sidecar = Sidecar::start(&config, &upstream, &Issuer::start());
    (sidecar, upstream, server)
}

fn with_cookie(sidecar: &Sidecar, target: &str, token: &str) -> Response {
    sidecar.call(&get(target).line(&cookie(token)))
}

/// Each refusal that only an exchange of a session causes.
pub(crate) fn refusals() -> Vec<(Response, u16, &'static str)> {
    let (sidecar, _upstream, server) = start("true");
    let invalid = with_cookie(&sidecar, TASKS, &"x".repeat(32));
    server.fail(Failure::Status("500 Internal Server Error", ""));
    let failed = with_cookie(&sidecar, TASKS, &"y".repeat(32));
    vec![
        (invalid, 401, "session_invalid"),
        (failed, 503, "exchange_unavailable"),
    ]
}

#[test]
fn a_session_cookie_is_the_user_of_its_session() {
    let (sidecar, upstream, server) = start("true");
    let alice = server.sign_in("alice");
    assert_eq!(with_cookie(&sidecar, TASKS, &alice).status, 200);
    with_cookie(&sidecar, "/api/bob/tasks", &alice).refused(403, "subject_mismatch");
    assert_eq!(with_cookie(&sidecar, "/me/x", &alice).status, 200);
    let arrived = upstream.arrived();
    assert_eq!(arrived.len(), 2);
    for request in arrived {
        assert_eq!(request.head.values("x-user-id"), ["alice"]);
        assert!(!request.head.text().to_lowercase().contains("cookie"));
    }
}

#[test]
fn the_issuer_receives_one_credential_and_nothing_else_of_the_request() {
    let listen = "trusted_proxies = [\"127.0.0.1\"]";
    let (sidecar, upstream, server) = start_with(listen, "true", ROUTES);
    let alice = server.sign_in("alice");
    let fields = cookie(&alice);
    let response = sidecar.call(
        &get(TASKS)
            .line(&format!(
                "{fields}; theme=dark; better-auth.session_data=abc; better-auth.session_data.0=d; __Secure-better-auth.session_data=e"
            ))
            .line("X-Forwarded-For: 198.51.100.1, 203.0.113.7")
            .line("X-Api-Key: secret")
            .line("User-Agent: test"),
    );
    assert_eq!(response.status, 200, "{}", response.text());
    let exchanges = server.exchanges();
    assert_eq!(exchanges.len(), 1);
    let head = &exchanges[0].head;
    assert_eq!(
        head.line(),
        "GET /api/auth/token?disableRefresh=true&disableCookieCache=true HTTP/1.1"
    );
    assert_eq!(head.values("cookie"), [fields.split_once(": ").unwrap().1]);
    assert_eq!(head.values("x-forwarded-for"), ["203.0.113.7"]);
    let mut names: Vec<String> = head
        .fields()
        .into_iter()
        .map(|(name, _)| name.to_lowercase())
        .collect();
    names.sort();
    let expected = [
        "accept",
        "accept-encoding",
        "cookie",
        "host",
        "user-agent",
        "x-forwarded-for",
    ];
    assert_eq!(names, expected);
    assert_eq!(upstream.only().head.values("cookie"), ["theme=dark"]);
}

#[test]
fn a_sign_out_takes_effect_within_max_age() {
    let (sidecar, _upstream, server) = start("{ max_age = \"30s\" }");
    let alice = server.sign_in("alice");
    assert_eq!(with_cookie(&sidecar, TASKS, &alice).status, 200);
    server.sign_out(&alice);
    for (later, status) in [(0, 200), (29, 200), (30, 401), (31, 401)] {
        sidecar.set_time(NOW + later);
        let response = with_cookie(&sidecar, TASKS, &alice);
        assert_eq!(response.status, status, "{later}");
    }
    // The second exchange was rejected, and that is remembered too.
    assert_eq!(server.exchanges().len(), 2);
    sidecar.set_time(NOW + 35);
    with_cookie(&sidecar, TASKS, &alice).refused(401, "session_invalid");
    assert_eq!(server.exchanges().len(), 3);
}

#[test]
fn a_clock_that_goes_back_does_not_prolong_a_session() {
    let (sidecar, _upstream, server) = start("true");
    let alice = server.sign_in("alice");
    sidecar.set_time(NOW + 600);
    assert_eq!(with_cookie(&sidecar, TASKS, &alice).status, 200);
    server.sign_out(&alice);
    sidecar.set_time(NOW + 630);
    with_cookie(&sidecar, TASKS, &alice).refused(401, "session_invalid");
}

#[test]
fn concurrent_requests_of_all_workers_share_one_exchange() {
    let (sidecar, upstream, server) = start("true");
    let alice = server.sign_in("alice");
    let latch = Latch::default();
    server.hold(&latch);
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| assert_eq!(with_cookie(&sidecar, TASKS, &alice).status, 200));
        }
        server.wait_for_exchanges(1);
        latch.open();
    });
    assert_eq!(upstream.arrived().len(), 20);
    assert_eq!(server.exchanges().len(), 1);
    let hits = "claimgate_exchange_hits_total{issuer=\"app\",kind=\"session\"}";
    assert!(sidecar.metric(hits).unwrap() >= 1.0);
}

#[test]
fn a_session_token_works_as_a_bearer_token_with_and_without_its_signature() {
    let (sidecar, _upstream, server) = start("true");
    let alice = server.sign_in("alice");
    let signed = format!("{alice}.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    for token in [&alice, &signed] {
        assert_eq!(
            sidecar.call(&get(TASKS).bearer(token)).status,
            200,
            "{token}"
        );
        let exchanges = server.exchanges();
        let head = &exchanges.last().unwrap().head;
        assert_eq!(head.values("authorization"), [format!("Bearer {token}")]);
        assert_eq!(head.value("cookie"), None);
    }
}

#[test]
fn other_credentials_are_not_sent_to_the_issuer() {
    let (sidecar, upstream, server) = start("true");
    let alice = server.sign_in("alice");
    for line in [
        // Without its signature, of another form, and of another server.
        format!("Cookie: better-auth.session_token={alice}"),
        "Cookie: better-auth.session_token=deleted".to_owned(),
        format!(
            "Cookie: better-auth.session_token={alice}.{}",
            "A".repeat(400)
        ),
        cookie(&alice).replace("better-auth.", "other."),
        "Cookie: better-auth.session_token=".to_owned(),
        "Cookie: better-auth.session_data=e30".to_owned(),
        // An API key.
        format!("X-Api-Key: {}", "k".repeat(64)),
        format!("Authorization: Bearer {}", "k".repeat(64)),
        format!("Authorization: Basic {}", "k".repeat(32)),
    ] {
        let response = sidecar.call(&get(TASKS).line(&line));
        assert_eq!(response.status, 401, "{line}");
    }
    upstream.assert_untouched();
    assert_eq!(server.exchanges().len(), 0);
}

#[test]
fn a_header_decides_beside_a_session_cookie_without_a_fallback() {
    let (sidecar, upstream, server) = start("true");
    let (alice, bob) = (server.sign_in("alice"), server.sign_in("bob"));
    let both = |token: &str| get("/me/x").bearer(token).line(&cookie(&alice));
    assert_eq!(sidecar.call(&both(&bob)).status, 200);
    assert_eq!(upstream.only().head.values("x-user-id"), ["bob"]);
    sidecar.call(&both("a.b.c")).refused(401, "token_malformed");
    server.sign_out(&bob);
    sidecar.set_time(NOW + 60);
    sidecar.call(&both(&bob)).refused(401, "session_invalid");
    assert_eq!(upstream.arrived().len(), 1);
}

#[test]
fn a_query_token_beside_a_session_cookie_is_refused() {
    let routes = "[[routes]]\npath = \"/me/{*rest}\"\naccess = \"authenticated\"\ntokens = [{ query = \"t\" }, { session = true }]\n";
    let (sidecar, _upstream, server) = start_with("", "true", routes);
    let (alice, bob) = (server.sign_in("alice"), server.sign_in("bob"));
    let response = sidecar.call(&get(&format!("/me/x?t={bob}")).line(&cookie(&alice)));
    response.refused(400, "token_repeated");
    assert_eq!(with_cookie(&sidecar, "/me/x", &alice).status, 200);
}

#[test]
fn the_secure_cookie_wins_over_the_plain_one_and_a_repeated_one_is_refused() {
    let (sidecar, upstream, server) = start("true");
    let (alice, bob) = (server.sign_in("alice"), server.sign_in("bob"));
    let plain = cookie(&bob).replace("Cookie: ", "");
    let secure = cookie(&alice).replace("Cookie: ", "__Secure-");
    for cookies in [format!("{plain}; {secure}"), format!("{secure}; {plain}")] {
        let response = sidecar.call(&get("/me/x").line(&format!("Cookie: {cookies}")));
        assert_eq!(response.status, 200);
    }
    for request in upstream.arrived() {
        assert_eq!(request.head.values("x-user-id"), ["alice"]);
        assert_eq!(request.head.value("cookie"), None);
    }
    assert_eq!(
        server.exchanges()[0].head.values("cookie"),
        std::slice::from_ref(&secure)
    );
    for cookies in [
        format!("{plain}; {plain}"),
        format!("{secure}; a=b; {secure}"),
    ] {
        let response = sidecar.call(&get("/me/x").line(&format!("Cookie: {cookies}")));
        response.refused(400, "token_repeated");
    }
    let response = sidecar.call(&get("/me/x").line(&cookie(&alice)).line(&cookie(&alice)));
    response.refused(400, "token_repeated");
}

#[test]
fn foreign_pages_may_not_use_the_session_cookie() {
    let (sidecar, upstream, server) = start("true");
    let alice = server.sign_in("alice");
    let send = |line: &str| sidecar.call(&post(TASKS, b"{}").line(&cookie(&alice)).line(line));
    for line in [
        "Origin: https://evil.example",
        "Sec-Fetch-Site: same-site",
        "X-No: origin",
    ] {
        send(line).refused(403, "origin_not_allowed");
    }
    upstream.assert_untouched();
    assert_eq!(server.exchanges().len(), 0);
    assert_eq!(send("Sec-Fetch-Site: same-origin").status, 200);
}

#[test]
fn an_unavailable_issuer_is_a_503_and_known_sessions_go_on() {
    let (sidecar, _upstream, server) = start("true");
    let (alice, bob) = (server.sign_in("alice"), server.sign_in("bob"));
    assert_eq!(with_cookie(&sidecar, TASKS, &alice).status, 200);
    server.fail(Failure::Closed);
    let response = with_cookie(&sidecar, "/me/x", &bob);
    response.refused(503, "exchange_unavailable");
    assert_eq!(response.header("retry-after").as_deref(), Some("1"));
    assert_eq!(response.header("www-authenticate"), None);
    assert_eq!(with_cookie(&sidecar, TASKS, &alice).status, 200);
    sidecar.set_time(NOW + 30);
    with_cookie(&sidecar, TASKS, &alice).refused(503, "exchange_unavailable");
    server.fail(None);
    crate::harness::eventually("the issuer is back", || {
        with_cookie(&sidecar, TASKS, &alice).status == 200
    });
}

#[test]
fn unusable_responses_are_never_a_401() {
    let (sidecar, upstream, server) = start("true");
    let alice = server.sign_in("alice");
    for failure in [
        Failure::Status("404 Not Found", ""),
        Failure::Status("500 Internal Server Error", ""),
        Failure::Status("302 Found", "Location: /login\r\n"),
        Failure::Body("{}"),
        Failure::Body("not json"),
        Failure::Body("{\"token\":\"a.b.c\"}"),
        Failure::Body("{\"token\":7}"),
    ] {
        server.fail(failure);
        // Each failure may be remembered for a moment.
        with_cookie(&sidecar, TASKS, &alice).refused(503, "exchange_unavailable");
    }
    server.fail(None);
    for claims in [
        json!({ "iss": "https://other.example" }),
        json!({ "aud": "https://other.example" }),
        json!({ "exp": NOW - 100 }),
        json!({ "sub": 7 }),
    ] {
        server.set_claims(claims);
        sidecar.set_time(NOW + 100);
        with_cookie(&sidecar, TASKS, &alice).refused(503, "exchange_unavailable");
        sidecar.set_time(NOW + 200);
    }
    upstream.assert_untouched();
}

#[test]
fn a_rate_limited_client_waits_and_others_do_not() {
    let listen = "trusted_proxies = [\"127.0.0.1\"]";
    let (sidecar, _upstream, server) = start_with(listen, "true", ROUTES);
    let (alice, bob) = (server.sign_in("alice"), server.sign_in("bob"));
    let send = |client: &str, token: &str| {
        let from = format!("X-Forwarded-For: {client}");
        sidecar.call(&get("/me/x").line(&cookie(token)).line(&from))
    };
    server.fail(Failure::Status(
        "429 Too Many Requests",
        "X-Retry-After: 10\r\n",
    ));
    let response = send("203.0.113.1", &alice);
    response.refused(503, "exchange_unavailable");
    assert_eq!(response.header("retry-after").as_deref(), Some("10"));
    server.fail(None);
    send("203.0.113.1", &alice).refused(503, "exchange_unavailable");
    assert_eq!(send("203.0.113.2", &bob).status, 200);
    assert_eq!(server.exchanges().len(), 2);
}

#[test]
fn guessed_sessions_of_one_client_do_not_flood_the_issuer() {
    let (sidecar, _upstream, server) = start("true");
    let mut client = sidecar.connect();
    let mut statuses = std::collections::BTreeMap::new();
    for number in 0..200 {
        let guess = get(TASKS).line(&cookie(&format!("{number:x>32}")));
        *statuses.entry(client.call(&guess).status).or_insert(0) += 1;
    }
    assert!(statuses[&401] >= 20, "{statuses:?}");
    assert!(statuses[&503] >= 100, "{statuses:?}");
    assert!(server.exchanges().len() < 100);
}

#[test]
fn get_session_needs_no_jwt_plugin() {
    let routes = r#"
[[routes]]
path = "/api/{user_id}/tasks/{*rest}"
access = { owner = "user_id" }
require = [{ claim = "/user/role", equals = "admin" }]
"#;
    let sessions = "{ via = \"get-session\", max_age = \"10s\" }";
    let (sidecar, upstream, server) = start_with("", sessions, routes);
    let alice = server.sign_in("alice");
    assert_eq!(with_cookie(&sidecar, TASKS, &alice).status, 200);
    assert_eq!(upstream.only().head.values("x-user-id"), ["alice"]);
    with_cookie(&sidecar, "/api/bob/tasks", &alice).refused(403, "subject_mismatch");
    let line = server.exchanges()[0].head.line();
    assert!(
        line.starts_with("GET /api/auth/get-session?disableRefresh=true"),
        "{line}"
    );
    server.sign_out(&alice);
    sidecar.set_time(NOW + 10);
    with_cookie(&sidecar, TASKS, &alice).refused(401, "session_invalid");
    // The gate asks for no key set, and a JWT of this issuer has no key.
    assert_eq!(server.exchanges().len(), 2);
    let ready = sidecar.admin(&get("/readyz"));
    assert_eq!(ready.status, 200, "{}", ready.text());
}

#[test]
fn a_session_is_extended_once_a_day_and_its_cookie_reaches_one_client() {
    let (sidecar, _upstream, server) = start("{ refresh = true, max_age = \"30s\" }");
    let alice = server.sign_in("alice");
    let cookies_at = |later: i64| {
        sidecar.set_time(NOW + later);
        let response = with_cookie(&sidecar, TASKS, &alice);
        assert_eq!(response.status, 200);
        (
            response.header("set-cookie"),
            response.header("cache-control"),
        )
    };
    let (set_cookie, cache_control) = cookies_at(0);
    let set_cookie = set_cookie.unwrap();
    assert!(
        set_cookie.starts_with("better-auth.session_token=alice"),
        "{set_cookie}"
    );
    assert_eq!(cache_control.as_deref(), Some("no-store"));
    assert_eq!(cookies_at(1), (None, None));
    assert_eq!(cookies_at(60), (None, None));
    let lines: Vec<String> = server.exchanges().iter().map(|it| it.head.line()).collect();
    assert_eq!(
        lines[0],
        "GET /api/auth/token?disableCookieCache=true HTTP/1.1"
    );
    assert!(lines[1].contains("disableRefresh=true"), "{lines:?}");
    server.set_claims(json!({ "iat": NOW + 86_400, "exp": NOW + 87_400 }));
    assert!(cookies_at(86_400).0.is_some());
}

#[test]
fn a_session_that_ends_with_the_browser_is_not_extended() {
    let (sidecar, _upstream, server) = start("{ refresh = true }");
    let alice = server.sign_in("alice");
    for name in [
        "better-auth.dont_remember",
        "__Secure-better-auth.dont_remember",
    ] {
        let cookies = format!("{}; {name}=true", cookie(&alice));
        let response = sidecar.call(&get(TASKS).line(&cookies));
        assert_eq!(
            (response.status, response.header("set-cookie")),
            (200, None)
        );
    }
    for exchange in server.exchanges() {
        assert!(exchange.head.line().contains("disableRefresh=true"));
    }
}

#[test]
fn an_unusable_cookie_cache_gives_way_to_the_session_token() {
    let (sidecar, upstream, server) = start("{ cookie_cache = true }");
    let alice = server.sign_in("alice");
    let url = server.url();
    let key = Key::ed25519("one");
    let mut claims = json!({
        "sub": "alice", "iss": url, "aud": "better-auth:session-cache", "iat": NOW, "exp": NOW + 300,
    });
    let sign = |claims: &serde_json::Value| {
        let header =
            json!({ "alg": "EdDSA", "kid": "one", "typ": "better-auth.session-cache+jwt" });
        key.sign_text(&header.to_string(), &claims.to_string())
    };
    let valid = sign(&claims);
    let alone = |cache: &str| {
        sidecar.call(&get(TASKS).line(&format!("Cookie: better-auth.session_data={cache}")))
    };
    assert_eq!(alone(&valid).status, 200);
    assert_eq!(server.exchanges().len(), 0);
    claims["exp"] = json!(NOW - 60);
    let expired = sign(&claims);
    let (unsigned, _) = valid.rsplit_once('.').unwrap();
    let forged = format!("{unsigned}.{}", "A".repeat(86));
    for unusable in [&*expired, &*forged, "e30", "a.b.c.d.e", "not a token"] {
        assert_eq!(alone(unusable).status, 401, "{unusable}");
        let both = format!("{}; better-auth.session_data={unusable}", cookie(&alice));
        assert_eq!(
            sidecar.call(&get(TASKS).line(&both)).status,
            200,
            "{unusable}"
        );
    }
    assert_eq!(server.exchanges().len(), 1);
    assert_eq!(upstream.arrived().len(), 6);
}

#[test]
fn routes_of_other_issuers_forward_no_session() {
    let (server, upstream) = (BetterAuth::start(), Upstream::start());
    let issuer = Issuer::start();
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), crate::harness::issuer::SECRET).unwrap();
    let config = format!(
        "[issuers.app]\nbetter_auth = {{ url = \"{}\", sessions = true }}\n[issuers.test]\nkeys = {{ secret_file = \"{}\" \
         }}\nallow_any_audience = true\n[[routes]]\npath = \"/me/{{*rest}}\"\naccess = \"authenticated\"\nissuers = [\"test\"]\n",
        server.url(),
        secret.path().display()
    );
    let sidecar = Sidecar::start(&config, &upstream, &issuer);
    let alice = server.sign_in("alice");
    let cookies = format!("{}; theme=dark", cookie(&alice));
    let request = get("/me/x").bearer(&issuer.token("bob")).line(&cookies);
    assert_eq!(sidecar.call(&request).status, 200);
    assert_eq!(upstream.only().head.values("cookie"), ["theme=dark"]);
    with_cookie(&sidecar, "/me/x", &alice).refused(401, "token_missing");
}

#[test]
fn one_exchange_probes_an_issuer_that_was_unreachable() {
    let (sidecar, _upstream, server) = start("true");
    let users: Vec<String> = (0..20)
        .map(|number| server.sign_in(&format!("user{number}")))
        .collect();
    server.fail(Failure::Closed);
    with_cookie(&sidecar, "/me/x", &users[0]).refused(503, "exchange_unavailable");
    let before = server.exchanges().len();
    let latch = Latch::default();
    server.hold(&latch);
    // The pause ends after a second; then many credentials wait for one probe.
    crate::harness::eventually("a probe", || {
        if server.exchanges().len() == before {
            let mut client = sidecar.connect();
            client.send(get("/me/x").line(&cookie(&users[1])).bytes());
            drop(client);
        }
        server.exchanges().len() > before
    });
    for user in &users {
        with_cookie(&sidecar, "/me/x", user).refused(503, "exchange_unavailable");
    }
    assert_eq!(server.exchanges().len(), before + 1);
    server.fail(None);
    latch.open();
    crate::harness::eventually("the issuer is back", || {
        users
            .iter()
            .all(|user| with_cookie(&sidecar, "/me/x", user).status == 200)
    });
}

#[test]
fn a_rate_limited_probe_ends_the_outage_for_other_clients() {
    let listen = "trusted_proxies = [\"127.0.0.1\"]";
    let (sidecar, _upstream, server) = start_with(listen, "true", ROUTES);
    let (alice, bob) = (server.sign_in("alice"), server.sign_in("bob"));
    let send = |client: &str, token: &str| {
        let from = format!("X-Forwarded-For: {client}");
        sidecar.call(&get("/me/x").line(&cookie(token)).line(&from))
    };
    server.fail(Failure::Closed);
    send("203.0.113.1", &alice).refused(503, "exchange_unavailable");
    let before = server.exchanges().len();
    server.fail(Failure::Status(
        "429 Too Many Requests",
        "X-Retry-After: 10\r\n",
    ));
    crate::harness::eventually("a probe", || {
        send("203.0.113.1", &alice).refused(503, "exchange_unavailable");
        server.exchanges().len() > before
    });
    server.fail(None);
    assert_eq!(send("203.0.113.2", &bob).status, 200);
}

#[test]
fn public_routes_keep_the_session_cookie() {
    let (sidecar, upstream, server) = start("true");
    let alice = server.sign_in("alice");
    assert_eq!(with_cookie(&sidecar, "/open/x", &alice).status, 200);
    assert!(upstream.only().head.value("cookie").is_some());
    assert_eq!(server.exchanges().len(), 0);
}

#[test]
fn a_route_can_leave_the_session_cookie_out() {
    let routes = "[[routes]]\npath = \"/me/{*rest}\"\naccess = \"authenticated\"\ntokens = [{ header = \"Authorization\" }]\n";
    let (sidecar, upstream, server) = start_with("", "true", routes);
    let alice = server.sign_in("alice");
    with_cookie(&sidecar, "/me/x", &alice).refused(401, "token_missing");
    let request = request("GET", "/me/x").bearer(&alice).line(&cookie(&alice));
    assert_eq!(sidecar.call(&request).status, 200);
    assert_eq!(upstream.only().head.value("cookie"), None);
}
