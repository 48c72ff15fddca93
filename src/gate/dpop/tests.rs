mod draft;
mod rejections;

use std::collections::BTreeSet;

use http::HeaderValue;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;

use crate::gate::inbound::Scheme;

use super::*;

use draft::{Draft, Request};

/// Proof that another library made, or that is in an RFC, and its expected outcome.
#[derive(Deserialize)]
struct Case {
    name: String,
    #[serde(flatten)]
    request: Request,
    proof: String,
    /// `accepted`, or the fault in the form of `Debug`.
    expect: String,
    /// SHA-256 in hexadecimal, from the generator.
    replay_key: Option<String>,
    nonce: Option<String>,
}

fn outcome(result: &Result<VerifiedProof, ProofFault>) -> String {
    match result {
        Ok(_) => "accepted".to_owned(),
        Err(fault) => format!("{fault:?}"),
    }
}

fn check_cases(file: &str) -> usize {
    #[derive(Deserialize)]
    struct File {
        cases: Vec<Case>,
    }
    let file: File = serde_json::from_str(file).unwrap();
    for case in &file.cases {
        let mut headers = HeaderMap::new();
        headers.insert(DPOP, case.proof.parse().unwrap());
        let found = case.request.verify(&headers, &ProofPolicy::default());
        assert_eq!(outcome(&found), case.expect, "{}", case.name);
        let Ok(proof) = found else { continue };
        assert_eq!(proof.nonce, case.nonce, "{}", case.name);
        if let Some(expected) = &case.replay_key {
            assert_eq!(hex::encode(proof.replay_key), *expected, "{}", case.name);
        }
    }
    file.cases.len()
}

#[test]
fn verifies_the_proofs_of_rfc_9449() {
    let file = include_str!("../../../tests/fixtures/dpop/rfc.json");
    assert_eq!(check_cases(file), 2);
}

#[test]
fn verifies_the_proofs_of_other_libraries() {
    let file = include_str!("../../../tests/fixtures/dpop/clients.json");
    assert_eq!(check_cases(file), 80);
}

/// A variation of the valid proof.
type Edit = (&'static str, fn(&mut Draft));

#[test]
fn accepts_every_form_of_a_valid_proof() {
    let cases: &[Edit] = &[
        ("the proof itself", |_| {}),
        ("`typ` is a media type in another case", |it| {
            it.header["typ"] = json!("APPLICATION/DPoP+jwt");
        }),
        ("the header has members that point to other keys", |it| {
            it.header["jku"] = json!("https://evil.example/jwks");
            it.header["x5u"] = json!("https://evil.example/cert");
            it.header["x5c"] = json!(["MII"]);
        }),
        ("the key says what it is for", |it| {
            it.header["kid"] = json!("1");
            let jwk = &mut it.header["jwk"];
            jwk["kid"] = json!("1");
            jwk["alg"] = json!("ES256");
            jwk["use"] = json!("sig");
            jwk["key_ops"] = json!(["verify"]);
        }),
        ("only the key has a `kid`", |it| {
            it.header["jwk"]["kid"] = json!("1");
        }),
        ("only the header has a `kid`", |it| {
            it.header["kid"] = json!("1");
        }),
        ("the method is an unusual one", |it| {
            it.request.method = "PROPFIND".to_owned();
            it.claims["htm"] = json!("PROPFIND");
        }),
        ("`htu` has a query", |it| {
            it.claims["htu"] = json!("https://api.example/api/alice/tasks?a=/../@b");
        }),
        ("the proof is as old as it may be", |it| {
            it.request.now += 300;
        }),
        (
            "the proof is as old as it may be, and a fraction of a second younger",
            |it| {
                it.claims["iat"] = json!(1_800_000_000.5);
                it.request.now += 300;
            },
        ),
        ("the proof is as far in the future as it may be", |it| {
            it.request.now -= 5;
        }),
        ("`iat` has a fraction", |it| {
            it.claims["iat"] = json!(1_800_000_000.5);
            it.request.now -= 4;
        }),
        ("`exp` is in the next second", |it| {
            it.claims["exp"] = json!(1_800_000_001);
        }),
        ("`nbf` is as far in the future as `iat` may be", |it| {
            it.claims["nbf"] = json!(1_800_000_005);
        }),
        ("`jti` is one character", |it| {
            it.claims["jti"] = json!("1");
        }),
        ("`jti` has 512 characters of two bytes", |it| {
            it.claims["jti"] = json!("\u{eb}".repeat(512));
        }),
        ("the token is not a JWT", |it| {
            it.set_token("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zs+/==");
        }),
        ("the proof has claims of its own", |it| {
            it.claims["roles"] = json!(["a", 1, null]);
        }),
    ];
    for (name, edit) in cases {
        let mut draft = Draft::default();
        edit(&mut draft);
        assert_eq!(outcome(&draft.verify()), "accepted", "{name}");
    }
}

#[test]
fn accepts_each_asymmetric_algorithm_by_default() {
    let names = ProofPolicy::default().algorithms;
    let names: Vec<_> = names.into_iter().map(Algorithm::name).collect();
    assert_eq!(
        names,
        [
            "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
            "EdDSA"
        ]
    );
}

#[test]
fn returns_the_end_of_the_proof_and_its_nonce() {
    let mut draft = Draft::default();
    let proof = draft.verify().unwrap();
    assert_eq!(proof.nonce, None);
    // One second after the last second of a gate with a clock that is `max_future` behind.
    assert_eq!(proof.until, UnixTime(1_800_000_306));

    draft.claims["nonce"] = json!("n-1");
    draft.claims["iat"] = json!(1_799_999_990.5);
    draft.policy.max_age = 20;
    draft.policy.max_future = 0;
    let proof = draft.verify().unwrap();
    assert_eq!(proof.nonce.as_deref(), Some("n-1"));
    assert_eq!(proof.until, UnixTime(1_800_000_011));
    draft.request.now = proof.until.0 - 1;
    assert!(draft.verify().is_ok());
    draft.request.now = proof.until.0;
    assert_eq!(draft.verify(), Err(ProofFault::TooOld));
}

#[test]
fn a_replay_has_the_same_key_and_no_other_proof_has_it() {
    let key = |edit: fn(&mut Draft)| {
        let mut draft = Draft::default();
        edit(&mut draft);
        draft.verify().unwrap().replay_key
    };
    let first = key(|_| {});
    let same: &[Edit] = &[
        ("a second signature", |_| {}),
        ("a later second", |it| {
            it.claims["iat"] = json!(1_800_000_001);
        }),
        ("a nonce", |it| {
            it.claims["nonce"] = json!("1");
        }),
        ("another spelling of the URL", |it| {
            it.claims["htu"] = json!("HTTPS://API.example:443/x/../api/alice/tasks?a=b");
        }),
        ("another token of the key", |it| {
            it.set_token("other");
        }),
    ];
    for (name, edit) in same {
        assert_eq!(key(*edit), first, "{name}");
    }
    let others: &[Edit] = &[
        ("another `jti`", |it| {
            it.claims["jti"] = json!("2");
        }),
        ("another method", |it| {
            it.request.method = "POST".to_owned();
            it.claims["htm"] = json!("POST");
        }),
        ("another path", |it| {
            it.request.url.path = "/api/alice".to_owned();
            it.claims["htu"] = json!("https://api.example/api/alice");
        }),
        ("another key", |it| {
            it.use_key("ed25519");
        }),
    ];
    let mut keys = BTreeSet::from([first]);
    for (name, edit) in others {
        assert!(keys.insert(key(*edit)), "{name}");
    }
    let expected = format!(
        "{}\nGET\nhttps://api.example/api/alice/tasks\nproof-1",
        Draft::default().request.thumbprint
    );
    assert_eq!(first, sha256(&expected));
}

#[test]
fn every_fault_has_its_own_text() {
    let faults = ProofFault::examples();
    let texts: BTreeSet<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), faults.len());
    for text in texts {
        // RFC 9110 section 5.6.4, and the gRPC percent-encoding of `grpc-message`.
        let plain = |byte: u8| (b' '..=b'~').contains(&byte) && !b"\"\\%".contains(&byte);
        assert!(text.bytes().all(plain), "{text}");
        assert!(text.ends_with('.'), "{text}");
    }
}

#[test]
fn prints_no_token_and_no_proof() {
    let request = Draft::default().request;
    let method = Method::GET;
    let context = request.context(&method);
    assert_eq!(format!("{context:?}"), "ProofContext(..)");
}

fn select(texts: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::sample::select(texts).prop_map(str::to_owned)
}

/// Requests that differ in one or more of method, scheme, host, path, token and key.
fn request() -> impl Strategy<Value = (Request, &'static str)> {
    let parts = (
        select(&["GET", "HEAD", "POST", "get", "GETS"]),
        any::<bool>(),
        select(&[
            "api.example",
            "api.example:8080",
            "api.example.org",
            "[::1]",
        ]),
        select(&[
            "/", "/a", "/a/", "/A", "/a/b", "/a%20b", "/a.", "/a/...", "/b/a",
        ]),
        select(&["token", "Token", "token2", "t.o.k"]),
        proptest::sample::select(&["p256", "ed25519"][..]),
    );
    parts.prop_map(|(method, is_tls, authority, path, token, key)| {
        let mut draft = Draft::default();
        draft.use_key(key);
        let mut request = draft.request;
        request.method = method;
        request.url.scheme = if is_tls { "https" } else { "http" }.to_owned();
        request.url.authority = authority;
        request.url.path = path;
        request.token = token;
        (request, key)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_proof_is_valid_for_its_own_request_only((own, key) in request(), (other, _) in request()) {
        let mut draft = Draft::default();
        draft.use_key(key);
        draft.claims["htm"] = json!(own.method);
        draft.claims["htu"] = json!(own.url.to_string());
        draft.set_token(&own.token);
        let headers = draft.sign();
        let is_valid_for = |request: &Request| request.verify(&headers, &draft.policy).is_ok();
        prop_assert!(is_valid_for(&own));
        prop_assert_eq!(is_valid_for(&other), own == other);
        // The same with one part of the other request.
        for edit in [
            (|it, other| it.method = other.method) as fn(&mut Request, Request),
            |it, other| it.url.scheme = other.url.scheme,
            |it, other| it.url.authority = other.url.authority,
            |it, other| it.url.path = other.url.path,
            |it, other| it.token = other.token,
            |it, other| it.thumbprint = other.thumbprint,
        ] {
            let mut request = own.clone();
            edit(&mut request, other.clone());
            prop_assert_eq!(is_valid_for(&request), own == request);
        }
    }

    #[test]
    fn any_text_is_verified_without_a_panic(proof in "[ -~]{0,200}", htu in "\\PC{0,60}", path in "/[ -~]{0,20}") {
        let mut headers = HeaderMap::new();
        headers.insert(DPOP, HeaderValue::from_str(&proof).unwrap());
        prop_assert!(Draft::default().request.verify(&headers, &ProofPolicy::default()).is_err());
        let url = ExternalUrl { scheme: Scheme::Https, authority: "api.example", path: &path };
        if let Ok(normal) = url.check(&htu) {
            prop_assert_eq!(normal, format!("https://api.example{path}"));
        }
    }
}
