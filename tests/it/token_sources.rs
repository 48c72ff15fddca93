//! Token sources: header, cookie, query and WebSocket subprotocol, their removal, and the origin check for cookies.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::harness::issuer::claims;
use crate::harness::{
    Arrived, Exchange, Issuer, Next, Request, Sidecar, Upstream, get, post, request, start,
    start_with,
};

const SOURCES: &str = r#"
[[routes]]
path = "/any/{user_id}"
access = { owner = "user_id" }
tokens = [
    { header = "Authorization" },
    { header = "X-Token" },
    { cookie = "session" },
    { query = "access_token" },
    { websocket = "bearer" },
]

[[routes]]
path = "/page/{user_id}"
access = { owner = "user_id" }
tokens = [{ cookie = "session" }]
origins = ["https://app.test"]

[[routes]]
path = "/plain/{user_id}"
access = { owner = "user_id" }

[[routes]]
path = "/open"
access = "public"
"#;

const FORWARD: &str = "[identity]\ncredential = \"forward\"\n";

/// One request per token source, each with the lines that hold the token.
fn everywhere(token: &str) -> Vec<(Request, Vec<String>)> {
    let (first, second) = token.split_at(token.len() / 2);
    let any = || get("/any/alice?a=%20&b");
    let of = |lines: &[String]| {
        let request = lines.iter().fold(any(), |request, line| request.line(line));
        (request, lines.to_vec())
    };
    vec![
        of(&[format!("Authorization: Bearer {token}")]),
        of(&[format!("X-Token: {token}")]),
        of(&[format!("X-Token: bearer {token}")]),
        of(&[format!("Cookie: session={token}")]),
        of(&[format!("Cookie: session=\"{token}\"")]),
        of(&[format!("Cookie: __Secure-session={token}")]),
        of(&[format!("Cookie: __Host-session={token}")]),
        of(&[format!("Cookie: session.1={second}; session.0={first}")]),
        of(&[
            format!("Cookie: session.1={second}"),
            format!("Cookie: session.0={first}"),
        ]),
        (
            get(&format!("/any/alice?a=%20&access_token={token}&b")),
            Vec::new(),
        ),
        handshake(&format!("bearer, {token}")),
        handshake(&format!(
            "base64url.bearer.authorization.k8s.io.{}",
            URL_SAFE_NO_PAD.encode(token)
        )),
    ]
}

fn handshake(subprotocols: &str) -> (Request, Vec<String>) {
    let line = format!("Sec-WebSocket-Protocol: {subprotocols}");
    let request = get("/any/alice?a=%20&b").line(&line).websocket();
    (request, vec![line])
}

fn last(upstream: &Upstream) -> Arrived {
    upstream.arrived().pop().expect("a request")
}

#[test]
fn finds_and_removes_the_token_in_every_source() {
    let (sidecar, upstream, issuer) = start(SOURCES);
    let token = issuer.token("alice");
    let requests = everywhere(&token);
    assert_eq!(requests.len(), 12);
    for (request, lines) in requests {
        let response = sidecar.call(&request);
        assert_eq!(response.outcome(), (200, String::new()), "{lines:?}");
        let head = last(&upstream).head;
        assert_eq!(head.values("x-user-id"), ["alice"]);
        assert_eq!(head.line(), "GET /any/alice?a=%20&b HTTP/1.1", "{lines:?}");
        let text = head.text();
        for part in token.split('.') {
            assert!(!text.contains(&part[..part.len() / 3]), "{lines:?}\n{text}");
        }
        for name in [
            "authorization",
            "x-token",
            "cookie",
            "sec-websocket-protocol",
        ] {
            assert_eq!(head.values(name), Vec::<String>::new(), "{lines:?}");
        }
    }
}

#[test]
fn credential_forward_keeps_the_token_in_its_source() {
    let (sidecar, upstream, issuer) = start(&format!("{FORWARD}{SOURCES}"));
    let token = issuer.token("alice");
    for (request, lines) in everywhere(&token) {
        assert_eq!(sidecar.call(&request).status, 200, "{lines:?}");
        let head = last(&upstream).head;
        let text = head.text().to_ascii_lowercase();
        for line in &lines {
            let line = line.to_ascii_lowercase();
            assert!(text.contains(&line), "{line}\n{text}");
        }
        if lines.is_empty() {
            let line = format!("GET /any/alice?a=%20&access_token={token}&b HTTP/1.1");
            assert_eq!(head.line(), line);
        }
    }
}

#[test]
fn a_token_of_every_source_is_bound_to_the_path() {
    let (sidecar, upstream, issuer) = start(SOURCES);
    for (request, _) in everywhere(&issuer.token("bob")) {
        sidecar.call(&request).refused(403, "subject_mismatch");
        upstream.assert_untouched();
    }
}

#[test]
fn joins_a_token_split_over_several_cookies() {
    let (sidecar, upstream, issuer) = start(SOURCES);
    let mut claims = claims("alice");
    claims["session"] = json!("x".repeat(4500));
    let token = issuer.sign(&claims);
    let (first, rest) = token.split_at(3000);
    let (second, third) = rest.split_at(3000);
    let name = "__Secure-session";
    let complete = format!("Cookie: a=1; {name}.0={first}; {name}.1={second}; {name}.2={third}");
    assert_eq!(
        sidecar.call(&get("/page/alice").line(&complete)).status,
        200
    );
    assert_eq!(upstream.only().head.values("cookie"), ["a=1"]);
    let incomplete = format!("Cookie: a=1; {name}.0={first}; {name}.2={third}");
    let incomplete = sidecar.call(&get("/page/alice").line(&incomplete));
    incomplete.refused(401, "token_malformed");
    upstream.only();
}

#[test]
fn rejects_two_tokens_in_any_sources() {
    let (sidecar, upstream, issuer) = start(SOURCES);
    let token = issuer.token("alice");
    let lines = [
        format!("Authorization: Bearer {token}"),
        format!("X-Token: {token}"),
        format!("Cookie: session={token}"),
        format!("Cookie: __Host-session={token}"),
        format!("Cookie: session.0={token}"),
        format!("Sec-WebSocket-Protocol: bearer, {token}"),
    ];
    let mut checked = 0;
    for query in [String::new(), format!("?access_token={token}")] {
        for one in &lines {
            for other in &lines {
                let any = get(&format!("/any/alice{query}"))
                    .websocket()
                    .line(one)
                    .line(other);
                sidecar.call(&any).refused(400, "token_repeated");
                checked += 1;
            }
            if !query.is_empty() {
                let any = get(&format!("/any/alice{query}")).websocket().line(one);
                sidecar.call(&any).refused(400, "token_repeated");
            }
        }
    }
    let twice = format!("/any/alice?access_token={token}&access_token={token}");
    sidecar.call(&get(&twice)).refused(400, "token_repeated");
    assert_eq!(checked, 72);
    upstream.assert_untouched();
}

/// CGI (RFC 3875 section 4.1.18) and WSGI read `X_Token` as `X-Token`: the upstream would see another token.
#[test]
fn another_spelling_of_a_token_header_is_never_forwarded() {
    let (sidecar, upstream, issuer) = start(SOURCES);
    let token = issuer.token("alice");
    for name in [
        "X_Token",
        "x.token",
        "HTTP_X_TOKEN",
        "XToken",
        "HTTP_AUTHORIZATION",
    ] {
        let spelled = format!("{name}: Bearer {token}");
        let alone = sidecar.call(&get("/any/alice").line(&spelled));
        alone.refused(401, "token_missing");
        let detail = alone.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("another spelling"), "{detail}");
        for valid in [
            format!("Authorization: Bearer {token}"),
            format!("X-Token: {token}"),
            format!("Cookie: session={token}"),
        ] {
            let both = get("/any/alice").line(&spelled).line(&valid);
            sidecar.call(&both).refused(400, "token_repeated");
        }
    }
    upstream.assert_untouched();
}

/// Cloudflare Access and Google IAP send a token in a header that the gate otherwise removes.
#[test]
fn reads_a_token_from_the_header_of_a_proxy() {
    let route = r#"
[[routes]]
path = "/access/{user_id}"
access = { owner = "user_id" }
tokens = [{ header = "Cf-Access-Jwt-Assertion" }]
"#;
    for (credential, kept) in [("strip", 0), ("forward", 1)] {
        let config = format!("[identity]\ncredential = \"{credential}\"\n{route}");
        let (sidecar, upstream, issuer) = start(&config);
        let request = get("/access/alice")
            .line(&format!(
                "Cf-Access-Jwt-Assertion: {}",
                issuer.token("alice")
            ))
            .line("Cf-Access-Authenticated-User-Email: bob@example.com");
        assert_eq!(sidecar.call(&request).status, 200);
        let head = upstream.only().head;
        assert_eq!(head.values("cf-access-jwt-assertion").len(), kept);
        let email = head.values("cf-access-authenticated-user-email");
        assert_eq!(email, Vec::<String>::new());
    }
}

#[test]
fn accepts_a_long_token_of_an_issuer_that_allows_it() {
    let config = format!(
        "[listen]\nmax_header_bytes = \"64KiB\"\n\
         [issuers.test]\nkeys = {{ secret_env = \"TEST_SECRET\" }}\nmax_token_bytes = \"20KiB\"\n{SOURCES}"
    );
    let (sidecar, upstream, issuer) = start(&config);
    let long = |bytes: usize| {
        let mut claims = claims("alice");
        claims["groups"] = json!("x".repeat(bytes));
        issuer.sign(&claims)
    };
    let accepted = get("/plain/alice").bearer(&long(14_000));
    assert_eq!(sidecar.call(&accepted).status, 200);
    let refused = sidecar.call(&get("/plain/alice").bearer(&long(16_000)));
    refused.refused(401, "token_malformed");
    assert_eq!(
        refused.json()["detail"],
        "The token is longer than 20480 bytes, the limit of this service."
    );
    upstream.only();
}

#[test]
fn ignores_sources_that_the_route_does_not_name() {
    let (sidecar, upstream, issuer) = start(SOURCES);
    let token = issuer.token("alice");
    let cookie = format!("Cookie: a=1; session={token}");
    let header = format!("X-Token: {token}");
    let target = format!("/plain/alice?access_token={token}");
    let elsewhere = || get(&target).line(&cookie).line(&header);
    sidecar.call(&elsewhere()).refused(401, "token_missing");
    upstream.assert_untouched();
    // Beside a token, they pass unchanged.
    assert_eq!(sidecar.call(&elsewhere().bearer(&token)).status, 200);
    let head = last(&upstream).head;
    assert_eq!(head.line(), format!("GET {target} HTTP/1.1"));
    assert_eq!(head.values("cookie"), [format!("a=1; session={token}")]);
    assert_eq!(head.values("x-token"), [token.as_str()]);
    assert_eq!(head.values("authorization"), Vec::<String>::new());
    // So does `Authorization` where the route does not name it, even twice.
    let page = get("/page/alice").line(&cookie);
    let page = page.line("Authorization: Basic YTpi").bearer("other");
    assert_eq!(sidecar.call(&page).status, 200);
    let head = last(&upstream).head;
    assert_eq!(head.values("authorization"), ["Basic YTpi", "Bearer other"]);
    assert_eq!(head.values("cookie"), ["a=1"]);
    let bearer = get("/page/alice").bearer(&token);
    sidecar.call(&bearer).refused(401, "token_missing");
}

#[test]
fn a_public_route_forwards_every_credential_unchanged() {
    let (sidecar, upstream, _issuer) = start(SOURCES);
    let open = request("POST", "/open?access_token=1&access_token=2");
    let open = open.line("Cookie: session=1; session=2").line("X-Token: 3");
    let open = open
        .line("Content-Length: 0")
        .line("Origin: https://evil.test");
    let open = open.bearer("4").bearer("5");
    assert_eq!(sidecar.call(&open).status, 200);
    let head = upstream.only().head;
    assert_eq!(
        head.line(),
        "POST /open?access_token=1&access_token=2 HTTP/1.1"
    );
    assert_eq!(head.values("cookie"), ["session=1; session=2"]);
    assert_eq!(head.values("x-token"), ["3"]);
    assert_eq!(head.values("authorization"), ["Bearer 4", "Bearer 5"]);
}

#[test]
fn unsafe_methods_with_a_cookie_need_an_allowed_origin() {
    let (sidecar, upstream, issuer) = start(SOURCES);
    let cookie = format!("Cookie: session={}", issuer.token("alice"));
    // The token is cached from here on; the origin check still applies.
    assert_eq!(sidecar.call(&get("/page/alice").line(&cookie)).status, 200);
    let (yes, no) = ((200, String::new()), (403, "origin_not_allowed".to_owned()));
    let cases: [(&[&str], _); 16] = [
        (&["Origin: https://app.test"], &yes),
        (&["Origin: http://gate.test"], &yes),
        (&["Sec-Fetch-Site: same-origin"], &yes),
        (
            &["Origin: https://app.test", "Sec-Fetch-Site: cross-site"],
            &yes,
        ),
        (&[], &no),
        (&["Origin: https://evil.test"], &no),
        (&["Origin: https://gate.test"], &yes),
        (&["Origin: null", "Sec-Fetch-Site: same-origin"], &yes),
        (&["Origin: null", "Sec-Fetch-Site: same-site"], &no),
        (
            &["Origin: http://gate.test", "Sec-Fetch-Site: cross-site"],
            &no,
        ),
        (&["Origin: http://app.test"], &no),
        (&["Origin: null"], &no),
        (
            &["Origin: https://app.test", "Origin: https://evil.test"],
            &no,
        ),
        (&["Sec-Fetch-Site: same-site"], &no),
        (&["Sec-Fetch-Site: none"], &no),
        (
            &["Origin: https://evil.test", "Sec-Fetch-Site: same-origin"],
            &no,
        ),
    ];
    for (lines, expected) in cases {
        for method in ["POST", "PUT", "PATCH", "DELETE", "GET", "HEAD", "OPTIONS"] {
            let request = request(method, "/page/alice").line(&cookie);
            let request = lines
                .iter()
                .fold(request, |request, line| request.line(line));
            let is_safe = matches!(method, "GET" | "HEAD" | "OPTIONS");
            let expected = if is_safe { &yes } else { expected };
            assert_eq!(
                sidecar.call(&request).outcome(),
                *expected,
                "{method} {lines:?}"
            );
        }
    }
    // 16 of each safe method, 6 of each other, and the first.
    assert_eq!(upstream.arrived().len(), 3 * 16 + 4 * 6 + 1);
}

#[test]
fn checks_the_origin_of_cookies_only() {
    let (sidecar, upstream, issuer) = start(SOURCES);
    let token = issuer.token("alice");
    let evil = |request: Request| request.line("Origin: https://evil.test");
    let query = format!("/any/alice?access_token={token}");
    let bearer = post("/any/alice", b"").bearer(&token);
    let header = post("/any/alice", b"").line(&format!("X-Token: {token}"));
    // An empty cookie is no token.
    let beside = bearer.clone().line("Cookie: a=1; session=");
    let passing = [bearer, header, post(&query, b""), beside];
    for request in passing {
        assert_eq!(sidecar.call(&evil(request)).outcome(), (200, String::new()));
    }
    assert_eq!(upstream.arrived().len(), 4);
    let cookie = post("/any/alice", b"").line(&format!("Cookie: session={token}"));
    sidecar
        .call(&evil(cookie))
        .refused(403, "origin_not_allowed");
    assert_eq!(upstream.arrived().len(), 4);
}

#[test]
fn only_a_trusted_proxy_sets_the_scheme_of_the_own_origin() {
    let trusting = format!("[listen]\ntrusted_proxies = [\"127.0.0.0/8\"]\n{SOURCES}");
    let outcome = |sidecar: &Sidecar, issuer: &Issuer, origin: &str, proto: &str| {
        let request = post("/page/alice", b"")
            .line(&format!("Cookie: session={}", issuer.token("alice")))
            .line(&format!("Origin: {origin}"))
            .line(&format!("X-Forwarded-Proto: {proto}"));
        sidecar.call(&request).status
    };
    let (trusting, _behind, issuer) = start(&trusting);
    let (distrusting, _upstream, other) = start(SOURCES);
    for (origin, proto, trusted, untrusted) in [
        // Another proxy in front may terminate TLS.
        ("https://gate.test", "https", 200, 200),
        ("https://gate.test", "http", 200, 200),
        ("http://gate.test", "https", 403, 200),
        ("http://gate.test", "http", 200, 200),
        ("https://gate.test", "https, http", 200, 200),
        (
            "https://gate.test",
            "https\r\nX-Forwarded-Proto: http",
            200,
            200,
        ),
    ] {
        assert_eq!(
            outcome(&trusting, &issuer, origin, proto),
            trusted,
            "{origin} {proto}"
        );
        assert_eq!(
            outcome(&distrusting, &other, origin, proto),
            untrusted,
            "{origin} {proto}"
        );
    }
}

/// Responds with 101 and these header lines.
fn switching(chosen: &'static str) -> Upstream {
    Upstream::responding(move |exchange: &mut Exchange| {
        exchange.write(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{chosen}\r\n"
        ));
        Next::Close
    })
}

#[test]
fn takes_the_token_of_a_websocket_from_its_subprotocols() {
    for (offered, forwarded, chosen, expected) in [
        ("bearer, TOKEN", None, "", "bearer"),
        ("chat, bearer, TOKEN, v2", Some("chat, v2"), "", "bearer"),
        (
            "bearer, TOKEN, chat",
            Some("chat"),
            "Sec-WebSocket-Protocol: chat\r\n",
            "chat",
        ),
    ] {
        let (sidecar, upstream, issuer) = start_with(SOURCES, switching(chosen));
        let offered = offered.replace("TOKEN", &issuer.token("alice"));
        let response = sidecar.call(&handshake(&offered).0);
        assert_eq!(response.status, 101, "{offered}");
        let forwarded: Vec<&str> = forwarded.into_iter().collect();
        assert_eq!(
            upstream.only().head.values("sec-websocket-protocol"),
            forwarded
        );
        assert_eq!(response.head.values("sec-websocket-protocol"), [expected]);
    }
    // With the token in another source, or forwarded, the upstream alone selects the subprotocol.
    let forward = format!("{FORWARD}{SOURCES}");
    for (config, in_the_query) in [(SOURCES, true), (&forward, false)] {
        let (sidecar, _upstream, issuer) = start_with(config, switching(""));
        let token = issuer.token("alice");
        let request = if in_the_query {
            get(&format!("/any/alice?access_token={token}")).websocket()
        } else {
            handshake(&format!("bearer, {token}")).0
        };
        let response = sidecar.call(&request);
        assert_eq!(response.status, 101);
        assert_eq!(response.header("sec-websocket-protocol"), None);
    }
}

#[test]
fn ignores_subprotocols_without_a_websocket_handshake() {
    let (sidecar, upstream, issuer) = start(SOURCES);
    let token = issuer.token("alice");
    let line = format!("Sec-WebSocket-Protocol: bearer, {token}");
    let plain = get("/any/alice").line(&line);
    sidecar.call(&plain).refused(401, "token_missing");
    upstream.assert_untouched();
    // It is not forwarded either.
    assert_eq!(sidecar.call(&plain.bearer(&token)).status, 200);
    let head = upstream.only().head;
    assert_eq!(head.values("sec-websocket-protocol"), Vec::<String>::new());
}

#[test]
fn rejects_a_websocket_with_a_cookie_from_another_origin() {
    let (sidecar, upstream, issuer) = start_with(SOURCES, switching(""));
    let cookie = format!("Cookie: session={}", issuer.token("alice"));
    let socket = || get("/page/alice").line(&cookie).websocket();
    for request in [socket(), socket().line("Origin: https://evil.test")] {
        sidecar.call(&request).refused(403, "origin_not_allowed");
    }
    upstream.assert_untouched();
    let own = socket().line("Origin: https://app.test");
    assert_eq!(sidecar.call(&own).status, 101);
}
