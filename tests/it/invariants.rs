//! The invariants of the design, for any head and any path.

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
use claimgate::gate::path::CanonicalPath;
use claimgate::gate::permit::{Caller, Permit};
use claimgate::gate::refusal::Refusal;
use claimgate::gate::stop::Stop;
use claimgate::gate::verify::IssuerId;
use claimgate::keys::KeyRing;
use claimgate::proxy::headers::Peer;
use claimgate::proxy::shared::Policy;

use crate::harness::issuer::{SECRET, claims};
use crate::harness::sidecar::compile;
use crate::harness::{Dialogue, Issuer, Key, Latch, NOW, ROUTES, Upstream, get, start_with};

/// More than one identity header, and both ways to treat the token.
static STRIPPING: LazyLock<Policy> = LazyLock::new(|| policy("strip"));
static FORWARDING: LazyLock<Policy> = LazyLock::new(|| policy("forward"));

fn policy(credential: &str) -> Policy {
    let config = format!(
        "[identity]\ncredential = \"{credential}\"\n\
         headers = {{ \"X-User-Email\" = \"email\", \"Subject_Name\" = \"subject\" }}\n{ROUTES}"
    );
    compile(&config, &Upstream::nowhere(), &Issuer::start()).policy
}

/// The same routes, each with another start for the upstream.
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
    compile(&config, &Upstream::nowhere(), &Issuer::start()).policy
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

/// A name that is or looks like one that only the gate may write, or is any other.
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

/// A segment of a path: a name in some encoding, or what an attacker puts there.
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
    let odd = select(vec![
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
        1 => odd.prop_map(str::to_owned),
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

/// A token that is good, or is not.
fn authorization() -> impl Strategy<Value = Option<String>> {
    let good = select(SUBJECTS.to_vec()).prop_map(|subject| {
        let mut claims = claims(subject);
        claims["email"] = format!("{}@mail.test", subject.len()).into();
        Some(format!(
            "Bearer {}",
            Key::secret(SECRET.as_bytes()).sign(&claims)
        ))
    });
    let strangers = Key::secret(b"another secret, and long enough too").sign(&claims("alice"));
    prop_oneof![
        6 => good,
        1 => Just(None),
        1 => Just(Some(format!("Bearer {strangers}"))),
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

/// What the upstream would take a name for.
fn folded(name: &HeaderName) -> String {
    let dashed = name
        .as_str()
        .replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    dashed.strip_prefix("http-").unwrap_or(&dashed).to_owned()
}

/// What may be written of the way, and only by the gate.
fn speaks_of_the_way(folded: &str) -> bool {
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
    let Inbound {
        mut head,
        opens_websocket,
        ..
    } = policy.headers.inbound(&peer(), head);
    let forwarding = policy.forwarding(permit.route());
    let headers = &policy.headers;
    headers.to_upstream(&mut head, permit, forwarding, &peer(), &id, opens_websocket);
    head
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_forwarded_says_who_the_caller_is_and_nothing_else_does(
        head in head(),
        strips in any::<bool>(),
    ) {
        let Some(head) = head else { return Ok(()) };
        let policy: &Policy = if strips { &STRIPPING } else { &FORWARDING };
        let Ok(permit) = decide(&policy.gate, &head, &mut TokenCache::default()) else { return Ok(()) };
        let sent = send(policy, head.clone(), &permit);
        let heard = |header: &str| -> Vec<&[u8]> {
            let heard = sent.headers.iter().filter(|(name, _)| folded(name) == header);
            heard.map(|(_, value)| value.as_bytes()).collect()
        };
        match permit.caller() {
            Caller::Anonymous => {
                prop_assert_eq!(&permit.route().access.rule, &Rule::Public);
                for header in ["x-user-id", "x-user-email", "subject-name"] {
                    prop_assert!(heard(header).is_empty(), "{header}");
                }
            }
            Caller::Known(caller) => {
                let subject = caller.subject.as_str();
                prop_assert_ne!(&permit.route().access.rule, &Rule::Public);
                prop_assert_eq!(heard("x-user-id"), [subject.as_bytes()]);
                prop_assert_eq!(heard("subject-name"), [subject.as_bytes()]);
                let email = format!("{}@mail.test", subject.len());
                prop_assert_eq!(heard("x-user-email"), [email.as_bytes()]);
                prop_assert_eq!(sent.headers.contains_key("authorization"), !strips);
                if let Rule::Owner { .. } = permit.route().access.rule {
                    let segment = head.uri.path().split('/').nth(2).unwrap();
                    let named = percent_decode_str(segment).decode_utf8().unwrap();
                    prop_assert_eq!(named.as_ref(), subject);
                }
            }
        }
        // Of the way speaks only what the gate wrote: it knows the peer's address.
        for (name, value) in &sent.headers {
            let folded = folded(name);
            if speaks_of_the_way(&folded) {
                prop_assert_eq!(name.as_str(), folded.as_str());
                let written = [&b"192.0.2.7"[..], b"http", b"gate.test"].contains(&value.as_bytes())
                    || value.as_bytes().starts_with(b"for=192.0.2.7");
                prop_assert!(written, "{name}: {value:?}");
            }
        }
        // What was judged is what is sent.
        prop_assert_eq!(&sent.uri, &head.uri);
        prop_assert_eq!(&sent.method, &head.method);
    }

    #[test]
    fn a_path_whose_start_is_replaced_has_one_reading_and_the_same_end(head in head()) {
        let Some(head) = head else { return Ok(()) };
        let policy: &Policy = &REWRITING;
        let Ok(permit) = decide(&policy.gate, &head, &mut TokenCache::default()) else { return Ok(()) };
        let sent = send(policy, head.clone(), &permit);
        prop_assert!(CanonicalPath::parse(sent.uri.path()).is_ok(), "{}", sent.uri);
        prop_assert_eq!(sent.uri.query(), head.uri.query());
        let (judged, sent) = (head.uri.path(), sent.uri.path());
        match judged.split('/').nth(1) {
            Some("api") => prop_assert_eq!(sent.strip_prefix("/v1/%25;x"), judged.strip_prefix("/api")),
            Some("me") => prop_assert_eq!(sent.strip_prefix("/all"), Some(judged)),
            Some("open") => {
                let end = judged.strip_prefix("/open").filter(|end| !end.is_empty());
                prop_assert_eq!(sent, end.unwrap_or("/"));
            }
            _ => prop_assert!(false, "{judged}"),
        }
    }

    #[test]
    fn a_decision_is_the_same_twice(head in head()) {
        let Some(head) = head else { return Ok(()) };
        let gate = gate();
        let mut cache = TokenCache::default();
        let once = decide(gate, &head, &mut cache);
        let twice = decide(gate, &head, &mut cache);
        let afresh = decide(&gate.clone(), &head, &mut TokenCache::default());
        prop_assert_eq!(format!("{once:?}"), format!("{twice:?}"));
        prop_assert_eq!(format!("{once:?}"), format!("{afresh:?}"));
    }

    #[test]
    fn without_keys_nobody_is_told_that_a_good_token_is_bad(
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
            Err(Stop::Preflight(_)) => panic!("this gate has no [cors]"),
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
fn the_generated_heads_reach_every_kind_of_decision() {
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
fn a_policy_that_changes_during_a_request_does_not_change_it() {
    let latch = Latch::default();
    let slow = latch.clone();
    let upstream = Upstream::answering(move |dialogue: &mut Dialogue| {
        dialogue.body();
        slow.wait();
        dialogue.answer(
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

    // No route any more, no key, no body, and another header that only the gate may write.
    let harsh = "[listen]\nmax_body_bytes = 1\n[identity]\nheaders = { \"X-New\" = \"subject\" }\n\
                 [[routes]]\npath = \"/other\"\naccess = \"public\"\n";
    let harsh = compile(harsh, &upstream, &issuer).policy;
    sidecar.running().shared().change_policy(|_| harsh.clone());
    sidecar
        .call(&get("/api/alice/tasks").bearer(&token))
        .refused(404, "no_route");

    client.send(b"0123456789");
    latch.open();
    let answer = client.answer();
    assert_eq!((answer.status, answer.text().as_str()), (200, "slow"));
    assert_eq!(answer.header("x-user-id"), None);
    assert_eq!(answer.header("x-new").as_deref(), Some("of the upstream"));
    // Over the same connection, the next request is judged anew.
    client
        .call(&get("/api/alice/tasks").bearer(&token))
        .refused(404, "no_route");
    assert_eq!(upstream.only().body, b"0123456789");
}
