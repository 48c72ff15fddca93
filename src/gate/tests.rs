use http::Request;
use http::header::{AUTHORIZATION, HOST};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;

use crate::config::Encoding;
use crate::keys::secret::Secret;

use super::claim_path::ClaimPath;
use super::claims::ClaimPolicy;
use super::refusal::Mismatch;
use super::requirement::{Attribute, Expected, Requirement};
use super::subject::Namespace;
use super::token::DEFAULT_MAX_TOKEN_BYTES;
use super::*;

const SECRET: &str = "a secret of thirty-two bytes or more";
/// Header fields of a request.
type Fields<'a> = &'a [(&'a str, &'a str)];

const NOW: UnixTime = UnixTime(1_000_000);

fn gate(ring: KeyRing) -> Gate {
    let owner = Rule::Owner {
        parameter: "user_id".into(),
        mismatch: Mismatch::Forbidden,
    };
    let (routes, problems) = RouteTable::new(vec![
        Route::new("/health", Rule::Public),
        Route::new("/me", Rule::Authenticated),
        Route::new("/api/{user_id}/tasks/{*rest}", owner),
    ]);
    assert!(problems.is_empty());
    let issuer = Issuer {
        name: "test".into(),
        accepted: None,
        types: vec!["JWT".into()],
        max_token_bytes: DEFAULT_MAX_TOKEN_BYTES,
        machines: false,
        policy: ClaimPolicy {
            audience: None,
            authorized_party: None,
            allow_bound: false,
            subject: vec!["sub".parse().unwrap(), "user_id".parse().unwrap()],
            namespace: Namespace::default(),
            leeway: 30,
            max_lifetime: None,
        },
        profiles: Vec::new(),
        is_introspected: false,
        dpop: crate::config::DpopMode::default(),
        nonce_lifetime: None,
        ring: Arc::new(ring),
    };
    let email = (
        HeaderName::from_static("x-user-email"),
        IdentityClaim::Named(ClaimPath::parse("email").unwrap()),
    );
    let identity = vec![
        (HeaderName::from_static("x-user-id"), IdentityClaim::Subject),
        email,
    ];
    Gate::new(routes, vec![issuer], identity, None, 32 * 1024)
}

fn with_secret() -> Gate {
    let secret = Secret::decode(SECRET.into(), Encoding::Utf8).unwrap();
    gate(KeyRing::local(vec![secret.verification_key(None).unwrap()]))
}

fn token(subject: &str) -> String {
    let claims = json!({"sub": subject, "email": "a@example.com", "exp": NOW.0 + 60});
    encode(
        &Header::new(Algorithm::HS256),
        &claims,
        &EncodingKey::from_secret(SECRET.as_bytes()),
    )
    .unwrap()
}

fn head(target: &str, fields: &[(&str, &str)]) -> Parts {
    let mut request = Request::get(target).header(HOST, "api.example");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn decide(
    gate: &Gate,
    head: &Parts,
    now: UnixTime,
    cache: &mut TokenCache,
) -> Result<Permit, Stop> {
    gate.decide(&Inbound::plain(head.clone()), now, cache)
}

/// Request without a certificate, before any exchange.
const PLAIN: Presented<'static> = Presented {
    shown: Possession {
        certificate: None,
        has_proof: false,
    },
    now: NOW,
    exchanged: None,
};

fn decided(gate: &Gate, head: &Parts) -> String {
    match decide(gate, head, NOW, &mut TokenCache::default()) {
        Ok(permit) => match permit.caller() {
            Caller::Anonymous => "anonymous".into(),
            Caller::Known(caller) => caller.subject.as_str().into(),
        },
        Err(Stop::Preflight(_)) => "preflight".into(),
        Err(Stop::Metadata(_)) => "metadata".into(),
        Err(Stop::Refuse(refused)) => refused.refusal.reason().into(),
        Err(Stop::NeedsExchange(_)) => "needs an exchange".into(),
        Err(Stop::NeedsKeys(needs)) => {
            format!("needs keys, or {}", needs.otherwise.refusal.reason())
        }
    }
}

#[test]
fn decides_from_a_request_head() {
    let gate = with_secret();
    let alice = format!("Bearer {}", token("alice"));
    let mail = format!("Bearer {}", token("a+b@example.com"));
    let alice = [(AUTHORIZATION.as_str(), alice.as_str())];
    let mail = [(AUTHORIZATION.as_str(), mail.as_str())];
    let cases: [(&str, Fields<'_>, &str); 20] = [
        ("/health", &[], "anonymous"),
        (
            "/health",
            &[("authorization", "Bearer nonsense")],
            "anonymous",
        ),
        ("/me", &alice, "alice"),
        ("/me", &[], "token_missing"),
        ("/api/alice/tasks", &alice, "alice"),
        ("/api/alice/tasks?user_id=bob", &alice, "alice"),
        ("/api/%61lice/tasks", &alice, "path_not_canonical"),
        ("/api/bob/tasks", &alice, "subject_mismatch"),
        (
            "/api/bob/tasks?x=/api/alice/tasks",
            &alice,
            "subject_mismatch",
        ),
        ("/api/Alice/tasks", &alice, "subject_mismatch"),
        ("/api/alice/../bob/tasks", &alice, "path_not_canonical"),
        ("/api/alice;a/tasks", &alice, "path_not_canonical"),
        ("/api/a+b%40example.com/tasks", &mail, "a+b@example.com"),
        ("/api/a+b@example.com/tasks", &mail, "a+b@example.com"),
        ("/elsewhere", &alice, "no_route"),
        (
            "/api/alice/tasks",
            &[("connection", "x-user-id")],
            "request_malformed",
        ),
        (
            "/health",
            &[("connection", "close, X_User_Id")],
            "request_malformed",
        ),
        (
            "/health",
            &[("host", "second.example")],
            "request_malformed",
        ),
        ("http://api.example/health", &[], "anonymous"),
        ("http://other.example/health", &[], "request_malformed"),
    ];
    for (target, fields, expected) in cases {
        assert_eq!(
            decided(&gate, &head(target, fields)),
            expected,
            "{target} {fields:?}"
        );
    }
}

#[test]
fn rejects_an_invalid_host() {
    let gate = with_secret();
    for host in [
        "",
        "a b",
        "user@api.example",
        "a/b",
        "a,b",
        "a:b:c",
        "[::1",
        "é",
    ] {
        let mut head = head("/health", &[]);
        head.headers
            .insert(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        assert_eq!(decided(&gate, &head), "request_malformed", "{host:?}");
    }
    let mut without = head("/health", &[]);
    without.headers.remove(HOST);
    assert_eq!(decided(&gate, &without), "request_malformed");
}

#[test]
fn rejects_an_oversized_target_or_head() {
    let gate = with_secret();
    let target = format!("/{}", "a".repeat(MAX_TARGET_BYTES));
    assert_eq!(decided(&gate, &head(&target, &[])), "target_too_long");
    let value = "a".repeat(32 * 1024);
    assert_eq!(
        decided(&gate, &head("/health", &[("x-a", &value)])),
        "headers_too_large"
    );
}

#[test]
fn needs_keys_to_decide_about_a_token() {
    let gate = gate(KeyRing::awaited());
    let bearer = format!("Bearer {}", token("alice"));
    let head = head("/me", &[("authorization", &bearer)]);
    assert_eq!(decided(&gate, &head), "needs keys, or keys_unavailable");
}

#[test]
fn writes_claims_as_identity_headers() {
    let gate = with_secret();
    let bearer = format!("Bearer {}", token("alice"));
    let head = head("/me", &[("authorization", &bearer)]);
    let permit = decide(&gate, &head, NOW, &mut TokenCache::default()).unwrap();
    let Caller::Known(caller) = permit.caller() else {
        panic!("anonymous");
    };
    let headers: Vec<String> = caller
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {value:?}"))
        .collect();
    assert_eq!(
        headers,
        ["x-user-id: \"alice\"", "x-user-email: \"a@example.com\""]
    );
}

#[test]
fn expires_a_cached_token() {
    let gate = with_secret();
    let mut cache = TokenCache::default();
    let bearer = format!("Bearer {}", token("alice"));
    let head = head("/me", &[("authorization", &bearer)]);
    for (now, expected) in [
        (0, None),
        (0, None),
        (89, None),
        (90, Some("token_expired")),
        (0, None),
    ] {
        let stop = decide(&gate, &head, UnixTime(NOW.0 + now), &mut cache).err();
        let reason = stop.map(|stop| stop.refused().unwrap().refusal.reason());
        assert_eq!(reason, expected, "after {now} seconds");
    }
    assert_eq!(cache.take_counted().misses, 1);
}

#[test]
fn caches_only_the_claims_that_requirements_read() {
    let gate = with_secret();
    let mut cache = TokenCache::default();
    let bearer = token("alice");
    let plain = gate.identify(
        BearerToken::new(&bearer, DEFAULT_MAX_TOKEN_BYTES).unwrap(),
        &PLAIN,
        &mut cache,
    );
    assert_eq!(*plain.unwrap().claims, Claims::default());

    let requirement = Requirement {
        attribute: Attribute::Claim(ClaimPath::parse("email.x").unwrap()),
        expected: Expected::Has("a".into()),
    };
    let mut ruled = Route::new("/mail", Rule::Authenticated);
    ruled.access.requirements.exempt = Some(requirement);
    let (routes, _) = RouteTable::new(vec![ruled]);
    let gate = Gate::new(routes, gate.issuers, Vec::new(), None, 32 * 1024);
    let mut cache = TokenCache::default();
    for _ in 0..2 {
        let known = gate.identify(
            BearerToken::new(&bearer, DEFAULT_MAX_TOKEN_BYTES).unwrap(),
            &PLAIN,
            &mut cache,
        );
        let kept = known.unwrap().claims;
        assert_eq!(
            *kept,
            Claims::parse(br#"{"email":"a@example.com"}"#).unwrap()
        );
    }
    assert_eq!(cache.take_counted().hits, 1);
}

#[test]
fn checks_the_owner_for_every_request_of_a_cached_token() {
    let gate = with_secret();
    let mut cache = TokenCache::default();
    let bearer = format!("Bearer {}", token("alice"));
    for (target, is_forwarded) in [
        ("/api/alice/tasks", true),
        ("/api/bob/tasks", false),
        ("/api/alice/tasks", true),
    ] {
        let head = head(target, &[("authorization", &bearer)]);
        let decision = decide(&gate, &head, NOW, &mut cache);
        assert_eq!(decision.is_ok(), is_forwarded, "{target}");
    }
}
