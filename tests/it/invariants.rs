//! Invariants of the design, for arbitrary heads and paths.

use std::sync::LazyLock;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request};
use percent_encoding::percent_decode_str;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use claimgate::clock::UnixTime;
use claimgate::gate::Gate;
use claimgate::gate::access::Rule;
use claimgate::gate::cache::TokenCache;
use claimgate::gate::inbound::Inbound;
use claimgate::gate::issuer_id::IssuerId;
use claimgate::gate::path::CanonicalPath;
use claimgate::gate::permit::{Caller, Permit};
use claimgate::gate::refusal::Refusal;
use claimgate::gate::stop::Stop;
use claimgate::keys::KeyRing;
use claimgate::proxy::headers::Peer;
use claimgate::proxy::shared::Policy;

use crate::harness::issuer::{SECRET, claims};
use crate::harness::sidecar::compile;
use crate::harness::{Exchange, Issuer, Key, Latch, NOW, ROUTES, Upstream, get, start_with};

/// Policies with several identity headers, one per value of `credential`.
static STRIPPING: LazyLock<Policy> = LazyLock::new(|| policy("strip"));
static FORWARDING: LazyLock<Policy> = LazyLock::new(|| policy("forward"));

fn policy(credential: &str) -> Policy {
    let config = format!(
        "[identity]\ncredential = \"{credential}\"\n\
         headers = {{ \"X-User-Email\" = \"email\", \"Subject_Name\" = \"subject\" }}\n{ROUTES}"
    );
    compile(&config, &Upstream::unreachable(), &Issuer::start()).policy
}

/// Policy with a prefix replacement on every route.
static REWRITING: LazyLock<Policy> = LazyLock::new(|| {
    let mut config = String::new();
    for line in ROUTES.lines() {
        config.extend([line, "\n"]);
        for (path, rewrite) in REWRITES {
            if line.starts_with(&format!("path = \"{path}/")) {
                config.push_str(rewrite);
            }
        }
    }
    compile(&config, &Upstream::unreachable(), &Issuer::start()).policy
});

const REWRITES: [(&str, &str); 3] = [
    (
        "/api",
        "replace_prefix = { from = \"/api\", to = \"/v1/%25;x\" }\n",
    ),
    ("/me", "replace_prefix = { from = \"/\", to = \"/all\" }\n"),
    (
        "/open",
        "replace_prefix = { from = \"/open\", to = \"/\" }\n",
    ),
];

const SUBJECTS: [&str; 8] = [
    "alice",
    "alice",
    "alice",
    "bob",
    "alice@example.com",
    "Zoë",
    "a b",
    "100%",
];

/// Header name: a spelling of a managed header, a standard header, or any other.
fn name() -> impl Strategy<Value = String> {
    let managed = select(vec![
        "x-user-id",
        "x-user-email",
        "subject-name",
        "x-forwarded-for",
        "x-forwarded-host",
        "forwarded",
        "x-real-ip",
        "x-original-url",
        "remote-user",
        "x-auth-request-user",
        "http-x-user-id",
    ]);
    let separators = vec(select(vec!['-', '_', '.', '~', '!', '+', '|']), 4);
    let disguised = (managed, separators, any::<bool>()).prop_map(|(name, separators, upper)| {
        let mut separators = separators.into_iter().cycle();
        let name = name.chars().map(|c| {
            if c == '-' {
                separators.next().unwrap()
            } else {
                c
            }
        });
        let name: String = name.collect();
        if upper {
            name.to_ascii_uppercase()
        } else {
            name
        }
    });
    let other = select(vec![
        "authorization",
        "connection",
        "host",
        "via",
        "te",
        "upgrade",
        "expect",
        "content-length",
        "transfer-encoding",
        "x-request-id",
        "cookie",
    ]);
    prop_oneof![
        8 => disguised,
        1 => other.prop_map(str::to_owned),
        1 => "[a-z!#$%&'*+.^_`|~0-9-]{1,12}",
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => select(vec!["bob", "alice", "close", "X-User-Id", "chunked", "websocket", "gate.test", "3"])
            .prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(prop_oneof![0x20_u8..0x7f, 0x80_u8..=0xff], 0..12),
    ]
}

/// Path segment: an encoded subject, an attack, or any other.
fn segment() -> impl Strategy<Value = String> {
    let named = (select(SUBJECTS.to_vec()), 0_usize..100).prop_map(|(subject, style)| {
        let encode = |byte: u8| format!("%{byte:02x}");
        let bytes = subject.bytes().enumerate().map(|(at, byte)| {
            let plain =
                byte.is_ascii_alphanumeric() && (style < 75 || !(at ^ style).is_multiple_of(5));
            if plain {
                char::from(byte).to_string()
            } else {
                encode(byte)
            }
        });
        bytes.collect::<String>()
    });
    let attack = select(vec![
        "..",
        ".",
        "%2e%2e",
        "%252e",
        "..;",
        "%2f",
        "%5c",
        "%00",
        "%",
        "%zz",
        "%c0%ae",
        "",
        ";x",
        "alice;x",
        "alice%2fbob",
        "alice%00",
        "%ff",
        "Alice",
        "%25",
        "tasks",
        "{user_id}",
        "*",
        "alice%3b",
        "a%20b",
    ]);
    prop_oneof![
        8 => named,
        1 => attack.prop_map(str::to_owned),
        1 => "[!-~&&[^#? \"<>`]]{1,8}",
    ]
}

fn target() -> impl Strategy<Value = String> {
    let path = (
        select(vec!["/api/", "/api/", "/api/", "/me/", "/open/", "/"]),
        segment(),
        select(vec!["", "/tasks", "/tasks", "/tasks/1", "/notes"]),
        proptest::option::weighted(0.2, segment()),
    );
    let query = select(vec!["", "?", "?user_id=bob", "?x=/api/bob/../%2e"]);
    (path, query).prop_map(|((start, segment, end, more), query)| {
        let more = more.map(|more| format!("/{more}")).unwrap_or_default();
        format!("{start}{segment}{end}{more}{query}")
    })
}

/// `Authorization` value: a valid token, a forged one, any other, or none.
fn authorization() -> impl Strategy<Value = Option<String>> {
    let valid = select(SUBJECTS.to_vec()).prop_map(|subject| {
        let mut claims = claims(subject);
        claims["email"] = format!("{}@mail.test", subject.len()).into();
        Some(format!(
            "Bearer {}",
            Key::secret(SECRET.as_bytes()).sign(&claims)
        ))
    });
    let forged = Key::secret(b"another secret, and long enough too").sign(&claims("alice"));
    prop_oneof![
        6 => valid,
        1 => Just(None),
        1 => Just(Some(format!("Bearer {forged}"))),
        1 => "[ -~]{0,20}".prop_map(Some),
    ]
}

fn head() -> impl Strategy<Value = Option<Parts>> {
    let method = select(vec![
        "GET", "GET", "POST", "PUT", "OPTIONS", "HEAD", "TRACE", "BREW",
    ]);
    let fields = vec((name(), value()), 0..5);
    (method, target(), authorization(), fields).prop_map(|(method, target, token, fields)| {
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(target)
            .body(())
            .ok()?;
        let headers = request.headers_mut();
        headers.insert("host", HeaderValue::from_static("gate.test"));
        if let Some(token) = token {
            headers.insert("authorization", token.parse().ok()?);
        }
        for (name, value) in fields {
            let name: HeaderName = name.parse().ok()?;
            headers.append(name, HeaderValue::from_bytes(&value).ok()?);
        }
        Some(request.into_parts().0)
    })
}

/// Name as a CGI-style upstream reads it.
fn folded(name: &HeaderName) -> String {
    let dashed = name
        .as_str()
        .replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    dashed.strip_prefix("http-").unwrap_or(&dashed).to_owned()
}

/// Reports whether a header describes the client or the proxies before the gate.
fn is_forwarding_header(folded: &str) -> bool {
    folded.starts_with("x-forwarded-")
        || folded.starts_with("x-auth-request-")
        || ["forwarded", "x-real-ip", "x-original-url", "remote-user"].contains(&folded)
}

fn peer() -> Peer {
    Peer::at(Some([192, 0, 2, 7].into()))
}

fn inbound(head: &Parts) -> Inbound {
    STRIPPING.headers.inbound(&peer(), head.clone())
}

fn decide(gate: &Gate, head: &Parts, cache: &mut TokenCache) -> Result<Permit, Stop> {
    gate.decide(&inbound(head), UnixTime(NOW), cache)
}

fn send(policy: &Policy, head: Parts, permit: &Permit) -> Parts {
    let id = HeaderValue::from_static("id");
    let inbound = policy.headers.inbound(&peer(), head);
    let forwarding = policy.forwarding(permit.route());
    let headers = &policy.headers;
    let head = headers.to_upstream(&inbound, permit, forwarding, &peer(), &id, None);
    head.to_parts()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_forwarded_head_names_the_caller_and_only_the_gate_sets_it(
        head in head(),
        strips in any::<bool>(),
    ) {
        let Some(head) = head else { return Ok(()) };
        let policy: &Policy = if strips { &STRIPPING } else { &FORWARDING };
        let Ok(permit) = decide(&policy.gate, &head, &mut TokenCache::default()) else { return Ok(()) };
        let sent = send(policy, head.clone(), &permit);
        let received = |header: &str| -> Vec<&[u8]> {
            let received = sent.headers.iter().filter(|(name, _)| folded(name) == header);
            received.map(|(_, value)| value.as_bytes()).collect()
        };
        match permit.caller() {
            Caller::Anonymous => {
                prop_assert_eq!(&permit.route().access.rule, &Rule::Public);
                for header in ["x-user-id", "x-user-email", "subject-name"] {
                    prop_assert!(received(header).is_empty(), "{header}");
                }
            }
            Caller::Known(caller) => {
                let subject = caller.subject.as_str();
                prop_assert_ne!(&permit.route().access.rule, &Rule::Public);
                prop_assert_eq!(received("x-user-id"), [subject.as_bytes()]);
                prop_assert_eq!(received("subject-name"), [subject.as_bytes()]);
                let email = format!("{}@mail.test", subject.len());
                prop_assert_eq!(received("x-user-email"), [email.as_bytes()]);
                prop_assert_eq!(sent.headers.contains_key("authorization"), !strips);
                if let Rule::Owner { .. } = permit.route().access.rule {
                    let segment = head.uri.path().split('/').nth(2).unwrap();
                    let named = percent_decode_str(segment).decode_utf8().unwrap();
                    prop_assert_eq!(named.as_ref(), subject);
                }
            }
        }
        // Forwarding headers have only values that the gate wrote.
        for (name, value) in &sent.headers {
            let folded = folded(name);
            if is_forwarding_header(&folded) {
                prop_assert_eq!(name.as_str(), folded.as_str());
                let written = [&b"192.0.2.7"[..], b"http", b"gate.test"].contains(&value.as_bytes())
                    || value.as_bytes().starts_with(b"for=192.0.2.7");
                prop_assert!(written, "{name}: {value:?}");
            }
        }
        // Method and target are forwarded unchanged.
        prop_assert_eq!(&sent.uri, &head.uri);
        prop_assert_eq!(&sent.method, &head.method);
    }

    #[test]
    fn a_rewritten_path_is_canonical_and_keeps_its_remainder(head in head()) {
        let Some(head) = head else { return Ok(()) };
        let policy: &Policy = &REWRITING;
        let Ok(permit) = decide(&policy.gate, &head, &mut TokenCache::default()) else { return Ok(()) };
        let sent = send(policy, head.clone(), &permit);
        prop_assert!(CanonicalPath::parse(sent.uri.path()).is_ok(), "{}", sent.uri);
        prop_assert_eq!(sent.uri.query(), head.uri.query());
        let (original, sent) = (head.uri.path(), sent.uri.path());
        match original.split('/').nth(1) {
            Some("api") => prop_assert_eq!(sent.strip_prefix("/v1/%25;x"), original.strip_prefix("/api")),
            Some("me") => prop_assert_eq!(sent.strip_prefix("/all"), Some(original)),
            Some("open") => {
                let rest = original.strip_prefix("/open").filter(|rest| !rest.is_empty());
                prop_assert_eq!(sent, rest.unwrap_or("/"));
            }
            _ => prop_assert!(false, "{original}"),
        }
    }

    #[test]
    fn a_decision_does_not_depend_on_the_token_cache(head in head()) {
        let Some(head) = head else { return Ok(()) };
        let gate = gate();
        let mut cache = TokenCache::default();
        let once = decide(gate, &head, &mut cache);
        let twice = decide(gate, &head, &mut cache);
        let uncached = decide(&gate.clone(), &head, &mut TokenCache::default());
        prop_assert_eq!(format!("{once:?}"), format!("{twice:?}"));
        prop_assert_eq!(format!("{once:?}"), format!("{uncached:?}"));
    }

    #[test]
    fn without_keys_no_valid_token_gets_a_401(
        subject in select(SUBJECTS.to_vec()),
        target in target(),
    ) {
        let gate = gate().with_ring(IssuerId(0), KeyRing::awaited().into());
        let token = Key::ed25519("one").sign(&claims(subject));
        let built = Request::get(target)
            .header("host", "gate.test")
            .header("authorization", format!("Bearer {token}"))
            .body(());
        let Ok(request) = built else { return Ok(()) };
        let refused = match decide(&gate, &request.into_parts().0, &mut TokenCache::default()) {
            Ok(permit) => {
                prop_assert_eq!(&permit.route().access.rule, &Rule::Public);
                return Ok(());
            }
            Err(Stop::NeedsExchange(_)) => panic!("this gate has no sessions"),
            Err(Stop::Preflight(_) | Stop::Metadata(_)) => {
                panic!("this gate has neither [cors] nor [resource]")
            }
            Err(Stop::Refuse(refused)) => refused,
            Err(Stop::NeedsKeys(needs)) => {
                prop_assert_eq!(&needs.otherwise.refusal, &Refusal::KeysUnavailable);
                needs.otherwise
            }
        };
        prop_assert_ne!(refused.refusal.status().as_u16(), 401);
    }
}

fn gate() -> &'static Gate {
    &STRIPPING.gate
}

#[test]
fn the_generated_heads_cover_every_kind_of_decision() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let gate = gate();
    let (mut anonymous, mut authenticated, mut owners) = (0, 0, 0);
    let mut reasons = std::collections::BTreeMap::<&str, usize>::new();
    for _ in 0..3000 {
        let Some(head) = head().new_tree(&mut runner).unwrap().current() else {
            continue;
        };
        match decide(gate, &head, &mut TokenCache::default()) {
            Ok(permit) => match permit.route().access.rule {
                Rule::Public => anonymous += 1,
                Rule::Authenticated => authenticated += 1,
                Rule::Owner { .. } => owners += 1,
            },
            Err(stop) => {
                let refused = stop.refused().expect("this gate has no [cors]");
                *reasons.entry(refused.refusal.reason()).or_default() += 1;
            }
        }
    }
    assert!(anonymous > 50, "{anonymous} public");
    assert!(authenticated > 50, "{authenticated} authenticated");
    assert!(owners > 40, "{owners} of an owner");
    for reason in [
        "subject_mismatch",
        "path_not_canonical",
        "token_signature",
        "token_missing",
        "request_malformed",
    ] {
        assert!(
            reasons.get(reason).is_some_and(|count| *count > 20),
            "{reason}: {reasons:?}"
        );
    }
}

#[test]
fn a_policy_change_does_not_affect_a_request_in_flight() {
    let latch = Latch::default();
    let slow = latch.clone();
    let upstream = Upstream::responding(move |exchange: &mut Exchange| {
        exchange.body();
        slow.wait();
        exchange.respond(
            "200 OK",
            "X-User-Id: of the upstream\r\nX-New: of the upstream\r\n",
            "slow",
        )
    });
    let config = format!("[listen]\nmax_body_bytes = 10\n{ROUTES}");
    let (sidecar, upstream, issuer) = start_with(&config, upstream);
    let token = issuer.token("alice");
    let mut client = sidecar.connect();
    let upload = get("/api/alice/tasks")
        .bearer(&token)
        .line("Content-Length: 10");
    client.send(upload.bytes());
    upstream.wait_for(1);

    // Removes the route and the key, lowers the body limit, and adds a managed header.
    let strict = "[listen]\nmax_body_bytes = 1\n[identity]\nheaders = { \"X-New\" = \"subject\" }\n\
                 [[routes]]\npath = \"/other\"\naccess = \"public\"\n";
    let strict = compile(strict, &upstream, &issuer).policy;
    sidecar.running().shared().change_policy(|_| strict.clone());
    sidecar
        .call(&get("/api/alice/tasks").bearer(&token))
        .refused(404, "no_route");

    client.send(b"0123456789");
    latch.open();
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (200, "slow"));
    assert_eq!(response.header("x-user-id"), None);
    assert_eq!(response.header("x-new").as_deref(), Some("of the upstream"));
    // Over the same connection, the next request is original anew.
    client
        .call(&get("/api/alice/tasks").bearer(&token))
        .refused(404, "no_route");
    assert_eq!(upstream.only().body, b"0123456789");
}
