use crate::clock::UnixTime;
use std::net::{IpAddr, Ipv4Addr};

use http::header::{AUTHORIZATION, COOKIE, HeaderName};

use crate::gate::access::Rule;
use crate::gate::caller_kind::CallerKind;
use crate::gate::permit::KnownCaller;
use crate::gate::routes::Route;
use crate::gate::subject::Subject;

use super::*;

const X_USER_ID: HeaderName = HeaderName::from_static("x-user-id");
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

fn policy(credential: Credential, trusted: &str) -> HeaderPolicy {
    HeaderPolicy {
        managed: Arc::new(ManagedNames::new(&[X_USER_ID])),
        trusted_headers: Vec::new(),
        credential,
        trusted_proxies: vec![trusted.parse().unwrap()],
        has_warned: Arc::default(),
    }
}

fn alice() -> Caller {
    let subject = Subject::new("alice").unwrap();
    Caller::Known(Arc::new(KnownCaller {
        kind: CallerKind::User,
        headers: Arc::new([(X_USER_ID, subject.to_header_value())]),
        subject,
        issuer: "test".into(),
        expires: UnixTime(100),
    }))
}

fn head(fields: &[(&str, &str)]) -> Parts {
    let mut request = http::Request::get("/api/alice/tasks?a=1").header("host", "api.example");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn sent(policy: &HeaderPolicy, caller: &Caller, fields: &[(&str, &str)]) -> HeaderMap {
    let peer = Peer::at(Some(CLIENT));
    let inbound = policy.inbound(&peer, head(fields));
    let id = HeaderValue::from_static("id-1");
    let route = Route::new("/api/{user_id}/tasks", Rule::Authenticated);
    let permit = Permit::forged(caller.clone(), route, "/api/alice/tasks?a=1");
    let head = policy.to_upstream(&inbound, &permit, &Forwarding::default(), &peer, &id, None);
    let parts = head.to_parts();
    assert_eq!(parts.uri, "/api/alice/tasks?a=1");
    parts.headers
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name).iter();
    values
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .collect()
}

#[test]
fn replaces_a_clients_identity_header_in_every_spelling() {
    let policy = policy(Credential::Strip, "10.0.0.0/8");
    let spoofed = [
        ("x-user-id", "mallory"),
        ("x-user-id", "eve"),
        ("x_user_id", "mallory"),
        ("x.user.id", "mallory"),
        ("http_x_user_id", "mallory"),
    ];
    let headers = sent(&policy, &alice(), &spoofed);
    assert_eq!(values(&headers, "x-user-id"), ["alice"]);
    let anonymous = sent(&policy, &Caller::Anonymous, &spoofed);
    for headers in [headers, anonymous] {
        let mallory = headers
            .values()
            .any(|value| value == "mallory" || value == "eve");
        assert!(!mallory, "{headers:?}");
    }
}

#[test]
fn strips_hop_by_hop_headers() {
    let policy = policy(Credential::Strip, "10.0.0.0/8");
    let headers = sent(
        &policy,
        &alice(),
        &[
            ("connection", "close, x-once"),
            ("connection", "X-Twice"),
            ("x-once", "1"),
            ("x-twice", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic YTpi"),
            ("te", "trailers"),
            ("trailer", "x-user-id"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
            ("expect", "100-continue"),
            ("x-kept", "1"),
        ],
    );
    let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "forwarded",
            "host",
            "via",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-kept",
            "x-request-id",
            "x-user-id"
        ]
    );
}

#[test]
fn forwards_a_credential_only_if_configured_or_unverified() {
    let token = [("authorization", "Bearer a.b.c"), ("cookie", "a=b")];
    let strip = policy(Credential::Strip, "10.0.0.0/8");
    let forward = policy(Credential::Forward, "10.0.0.0/8");
    for (policy, caller, is_forwarded) in [
        (&strip, alice(), false),
        (&strip, Caller::Anonymous, true),
        (&forward, alice(), true),
    ] {
        let headers = sent(policy, &caller, &token);
        assert_eq!(
            headers.contains_key(AUTHORIZATION),
            is_forwarded,
            "{policy:?} {caller:?}"
        );
        assert!(headers.contains_key(COOKIE));
    }
}

#[test]
fn replaces_the_forwarding_headers_of_an_untrusted_peer() {
    let policy = policy(Credential::Strip, "10.0.0.0/8");
    let headers = sent(
        &policy,
        &Caller::Anonymous,
        &[
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-prefix", "/admin"),
            ("x_forwarded_for", "1.2.3.4"),
            ("forwarded", "for=1.2.3.4"),
            ("x-real-ip", "1.2.3.4"),
            ("x-original-url", "/admin"),
            ("remote-user", "root"),
        ],
    );
    assert_eq!(values(&headers, "x-forwarded-for"), ["192.0.2.7"]);
    assert_eq!(values(&headers, "x-forwarded-proto"), ["http"]);
    assert_eq!(values(&headers, "x-forwarded-host"), ["api.example"]);
    assert_eq!(
        values(&headers, "forwarded"),
        ["for=192.0.2.7;host=\"api.example\";proto=http"]
    );
    for removed in [
        "x-forwarded-prefix",
        "x_forwarded_for",
        "x-real-ip",
        "x-original-url",
        "remote-user",
    ] {
        assert!(!headers.contains_key(removed), "{removed}");
    }
}

#[test]
fn extends_the_forwarding_headers_of_a_trusted_peer() {
    let policy = policy(Credential::Strip, "192.0.2.0/24");
    let headers = sent(
        &policy,
        &Caller::Anonymous,
        &[
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "public.example"),
            ("x_forwarded_for", "1.2.3.4"),
            ("forwarded", "for=203.0.113.9;proto=https"),
            ("x-real-ip", "1.2.3.4"),
        ],
    );
    assert_eq!(
        values(&headers, "x-forwarded-for"),
        ["203.0.113.9, 192.0.2.1, 192.0.2.7"]
    );
    assert_eq!(values(&headers, "x-forwarded-proto"), ["https"]);
    assert_eq!(values(&headers, "x-forwarded-host"), ["public.example"]);
    assert_eq!(
        values(&headers, "forwarded"),
        ["for=203.0.113.9;proto=https, for=192.0.2.7;host=\"api.example\";proto=http"]
    );
    assert!(!headers.contains_key("x_forwarded_for") && !headers.contains_key("x-real-ip"));
}

#[test]
fn the_client_is_the_last_address_outside_the_trusted_proxies() {
    let policy = policy(Credential::Strip, "192.0.2.0/24");
    let peer = Peer::at(Some(CLIENT));
    for (chain, client) in [
        (vec![], "192.0.2.7"),
        (vec!["203.0.113.9"], "203.0.113.9"),
        (vec!["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
        (vec!["1.1.1.1, 203.0.113.9, 192.0.2.1"], "203.0.113.9"),
        (vec!["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
        (vec!["192.0.2.9"], "192.0.2.9"),
        (vec!["203.0.113.9, unknown"], "192.0.2.7"),
        (vec!["203.0.113.9, _hidden"], "192.0.2.7"),
        // With a port, in brackets, mapped, with a zone, and with empty elements.
        (vec!["203.0.113.9:5678"], "203.0.113.9"),
        (vec!["203.0.113.9:5678, 192.0.2.1:80"], "203.0.113.9"),
        (vec!["[2001:db8::1]:443"], "2001:db8::1"),
        (vec!["[2001:db8::1]"], "2001:db8::1"),
        (vec!["::ffff:203.0.113.9"], "203.0.113.9"),
        (vec!["203.0.113.9, ::ffff:192.0.2.1"], "203.0.113.9"),
        (vec!["203.0.113.9,[::ffff:192.0.2.1]:80"], "203.0.113.9"),
        (vec!["fe80::1%eth0"], "fe80::1"),
        (vec!["203.0.113.9, , 192.0.2.1,"], "203.0.113.9"),
        (vec!["203.0.113.9", ""], "203.0.113.9"),
        // Bytes that a client sends do not hide the address that the proxy appends.
        (vec!["\u{ff}, 203.0.113.9"], "203.0.113.9"),
    ] {
        let fields: Vec<_> = chain
            .iter()
            .map(|value| ("x-forwarded-for", *value))
            .collect();
        let found = policy.client_address(&peer, &head(&fields).headers);
        assert_eq!(found, client.parse().ok(), "{chain:?}");
    }
    let untrusted = Peer::at("198.51.100.1".parse().ok());
    let found = policy.client_address(&untrusted, &head(&[("x-forwarded-for", "1.1.1.1")]).headers);
    assert_eq!(found, untrusted.address);
}

#[test]
fn the_client_is_read_from_forwarded_without_x_forwarded_for() {
    let policy = policy(Credential::Strip, "192.0.2.0/24");
    let peer = Peer::at(Some(CLIENT));
    for (fields, client) in [
        (vec![("forwarded", "for=203.0.113.9")], "203.0.113.9"),
        (
            vec![("forwarded", "For=\"203.0.113.9:5678\";proto=https")],
            "203.0.113.9",
        ),
        (
            vec![("forwarded", "for=\"[2001:db8::1]:443\"")],
            "2001:db8::1",
        ),
        (
            vec![("forwarded", "for=1.1.1.1, for=203.0.113.9, for=192.0.2.1")],
            "203.0.113.9",
        ),
        (
            vec![
                ("forwarded", "for=1.1.1.1"),
                ("forwarded", "FOR=203.0.113.9"),
            ],
            "203.0.113.9",
        ),
        (
            vec![("forwarded", "for=\"x, for=203.0.113.9")],
            "203.0.113.9",
        ),
        (
            vec![("forwarded", "for=203.0.113.9, for=_hidden")],
            "192.0.2.7",
        ),
        (
            vec![("forwarded", "for=203.0.113.9, proto=http")],
            "192.0.2.7",
        ),
        (
            vec![
                ("forwarded", "for=1.1.1.1"),
                ("x-forwarded-for", "203.0.113.9"),
            ],
            "203.0.113.9",
        ),
    ] {
        let found = policy.client_address(&peer, &head(&fields).headers);
        assert_eq!(found, client.parse().ok(), "{fields:?}");
    }
    // The upstream reads one chain, whichever header it prefers.
    let headers = sent(
        &policy,
        &Caller::Anonymous,
        &[(
            "forwarded",
            "for=\"[2001:db8::1]:443\";proto=https, for=_hidden",
        )],
    );
    assert_eq!(
        values(&headers, "x-forwarded-for"),
        ["2001:db8::1, unknown, 192.0.2.7"]
    );
    assert_eq!(values(&headers, "x-forwarded-proto"), ["https"]);
}

#[test]
fn the_scheme_is_the_first_that_a_trusted_peer_reports() {
    let policy = policy(Credential::Strip, "192.0.2.0/24");
    for (fields, scheme, forwarded) in [
        (vec![("x-forwarded-proto", "https")], Scheme::Https, "https"),
        (vec![("x-forwarded-proto", "HTTPS")], Scheme::Https, "HTTPS"),
        (
            vec![("x-forwarded-proto", "https,http")],
            Scheme::Https,
            "https",
        ),
        (
            vec![("x-forwarded-proto", " https , http")],
            Scheme::Https,
            "https",
        ),
        (
            vec![("x-forwarded-proto", "http, https")],
            Scheme::Http,
            "http",
        ),
        (
            vec![
                ("x-forwarded-proto", "https"),
                ("x-forwarded-proto", "http"),
            ],
            Scheme::Https,
            "https",
        ),
        (vec![("x-forwarded-proto", "wss")], Scheme::Https, "wss"),
        (vec![("x-forwarded-proto", "gopher")], Scheme::Http, "http"),
        (vec![("x-forwarded-proto", "")], Scheme::Http, "http"),
        (
            vec![(
                "forwarded",
                "for=1.1.1.1;proto=https, for=192.0.2.1;proto=http",
            )],
            Scheme::Https,
            "https",
        ),
        (
            vec![("forwarded", "PROTO=\"https\"")],
            Scheme::Https,
            "https",
        ),
        (
            vec![("forwarded", "for=1.1.1.1"), ("forwarded", "proto=https")],
            Scheme::Https,
            "https",
        ),
        (
            vec![("forwarded", "proto=https"), ("x-forwarded-proto", "http")],
            Scheme::Http,
            "http",
        ),
        (vec![], Scheme::Http, "http"),
    ] {
        let peer = Peer::at(Some(CLIENT));
        assert_eq!(
            policy.scheme(&peer, &head(&fields).headers),
            scheme,
            "{fields:?}"
        );
        let headers = sent(&policy, &Caller::Anonymous, &fields);
        assert_eq!(
            values(&headers, "x-forwarded-proto"),
            [forwarded],
            "{fields:?}"
        );
        let untrusted = Peer::at("198.51.100.1".parse().ok());
        assert_eq!(
            policy.scheme(&untrusted, &head(&fields).headers),
            Scheme::Http
        );
    }
    // The proxy terminates TLS for its own connection to the gate only.
    let mut peer = Peer::at(Some(CLIENT));
    peer.scheme = Scheme::Https;
    let plain = head(&[("x-forwarded-proto", "http")]).headers;
    assert_eq!(policy.scheme(&peer, &plain), Scheme::Http);
}

#[test]
fn a_chunked_body_stays_chunked() {
    let policy = policy(Credential::Strip, "10.0.0.0/8");
    let headers = sent(&policy, &alice(), &[("transfer-encoding", "chunked")]);
    assert_eq!(values(&headers, "transfer-encoding"), ["chunked"]);
}

#[test]
fn strips_hop_by_hop_and_identity_headers_of_a_response() {
    let policy = policy(Credential::Strip, "10.0.0.0/8");
    let mut headers = head(&[
        ("connection", "keep-alive, x-once"),
        ("x-once", "1"),
        ("keep-alive", "timeout=5"),
        ("x_user_id", "alice"),
        ("proxy-authenticate", "Basic"),
        ("x-kept", "1"),
        ("via", "1.0 other"),
    ])
    .headers;
    policy.to_client(&mut headers);
    let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["host", "via", "x-kept"]);
    assert_eq!(values(&headers, "via"), ["1.0 other", "1.1 claimgate"]);
}

#[test]
fn replaces_an_invalid_or_repeated_request_id() {
    let id = |fields: &[(&str, &str)]| {
        request_id(&head(fields).headers)
            .to_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(id(&[("x-request-id", "abc-123")]), "abc-123");
    for invalid in ["", "a b", "a\"b", "é", &"a".repeat(129)] {
        let generated = id(&[("x-request-id", invalid)]);
        assert!(
            generated.len() == 32 && generated.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{generated}"
        );
    }
    assert_ne!(id(&[("x-request-id", "a"), ("x-request-id", "b")]), "a");
    assert_ne!(id(&[]), id(&[]));
}

#[test]
fn recognizes_only_a_websocket_upgrade() {
    let opens = |fields: &[(&str, &str)]| websocket::is_opened_by(&head(fields));
    assert!(opens(&[
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket")
    ]));
    assert!(!opens(&[("connection", "upgrade"), ("upgrade", "h2c")]));
    assert!(!opens(&[
        ("connection", "upgrade"),
        ("upgrade", "websocket, h2c")
    ]));
    assert!(!opens(&[
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("upgrade", "h2c")
    ]));
    assert!(!opens(&[("upgrade", "websocket")]));
}

/// PROTOCOL-HTTP2.md of gRPC: `"application/grpc" [("+proto" / "+json" / {custom})]`.
#[test]
fn a_grpc_call_has_the_exact_media_type() {
    let is_call = |kinds: &[&'static str]| {
        let mut headers = HeaderMap::new();
        for kind in kinds {
            headers.append(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        is_grpc_call(&headers)
    };
    for kind in [
        "application/grpc",
        "Application/gRPC",
        "application/grpc+proto",
        "application/grpc+json",
        "application/grpc;charset=utf-8",
        "application/grpc ; a=b",
    ] {
        assert!(is_call(&[kind]), "{kind}");
    }
    for kind in [
        "",
        "application/grp",
        "application/grpcx",
        "application/grpc-web",
        "application/grpc-web+proto",
        "application/grpc,text/plain",
        "text/plain;application/grpc",
    ] {
        assert!(!is_call(&[kind]), "{kind}");
    }
    assert!(!is_call(&[]));
    assert!(!is_call(&["application/grpc", "application/grpc"]));
}
