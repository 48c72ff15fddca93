//! Time of a decision of the gate, by token algorithm: first verification, and lookup in the token cache. Time of the
//! verification of a `DPoP` proof, which every request of a bound token needs.
//!
//! `cargo bench --bench verify`, with the tokens and proofs of `tests/fixtures`.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a failed measurement panics, and results are printed"
)]

use std::fs;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use claimgate::clock::UnixTime;
use claimgate::config::Encoding;
use claimgate::gate::Gate;
use claimgate::gate::access::Rule;
use claimgate::gate::cache::TokenCache;
use claimgate::gate::claims::ClaimPolicy;
use claimgate::gate::dpop::{self, DPOP, ExternalUrl, ProofContext, ProofPolicy};
use claimgate::gate::identity::IdentityClaim;
use claimgate::gate::inbound::{Inbound, Scheme};
use claimgate::gate::refusal::Mismatch;
use claimgate::gate::routes::{Route, RouteTable};
use claimgate::gate::subject::Namespace;
use claimgate::gate::token::DEFAULT_MAX_TOKEN_BYTES;
use claimgate::gate::verify::Issuer;
use claimgate::keys::secret::Secret;
use claimgate::keys::{Algorithm, KeyRing, pem};
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderName, Method, Request};
use serde_json::Value;

/// Algorithms with the name of their test case.
const CASES: [(Algorithm, &str); 7] = [
    (Algorithm::HS256, "HS256 with a shared secret"),
    (Algorithm::RS256, "RS256 with an RSA key in PEM"),
    (Algorithm::PS256, "PS256 with an RSA key in PEM"),
    (Algorithm::ES256, "ES256 with a P-256 key in PEM"),
    (Algorithm::ES384, "ES384 with a P-384 key in PEM"),
    (Algorithm::ES512, "ES512 with a P-521 key in PEM"),
    (Algorithm::EdDSA, "EdDSA with an Ed25519 key in PEM"),
];

/// Number of measurements of each algorithm, and minimum duration of one.
const ROUNDS: usize = 100;
const ROUND: Duration = Duration::from_millis(5);

fn main() {
    // `cargo test --benches` also runs this, without the flag, and needs no numbers.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let tokens = cases("tokens/pyjwt.json");

    println!("| algorithm | first verification, µs | token cache, µs |");
    println!("| --- | ---: | ---: |");
    for (algorithm, name) in CASES {
        let case = tokens.iter().find(|case| case["name"] == name);
        let case = case.expect("a case of this name exists");
        let now = UnixTime(case["now"].as_i64().expect("a case has a time"));
        let (gate, inbound) = (gate(case, algorithm), inbound(case));
        let decide = |cache: &mut TokenCache| {
            let decision = gate.decide(black_box(&inbound), now, cache);
            assert!(black_box(decision).is_ok());
        };
        let first = min_time(|| decide(&mut TokenCache::default()));
        let mut cache = TokenCache::default();
        let cached = min_time(|| decide(&mut cache));
        println!("| {} | {first:.1} | {cached:.2} |", algorithm.name());
    }

    let proofs = cases("dpop/clients.json");
    println!("\n| algorithm | DPoP proof, µs |");
    println!("| --- | ---: |");
    for algorithm in ProofPolicy::default().algorithms {
        let name = format!("jose: {}", algorithm.name());
        let case = proofs.iter().find(|case| case["name"] == name);
        let time = proof_time(case.expect("a case of this name exists"));
        println!("| {} | {time:.1} |", algorithm.name());
    }
}

/// Cases of a file of the fixtures.
fn cases(file: &str) -> Vec<Value> {
    let path = format!("{}/tests/fixtures/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).expect("the fixtures exist");
    let file: Value = serde_json::from_str(&text).expect("the fixtures are JSON");
    let cases = file["cases"].as_array();
    cases.expect("the fixtures have a list of cases").clone()
}

/// Time to verify a proof, in microseconds.
fn proof_time(case: &Value) -> f64 {
    let text = |value: &'static str| case[value].as_str().expect("the case has this text");
    let url = &case["url"];
    let mut headers = HeaderMap::new();
    headers.insert(DPOP, text("proof").parse().expect("a valid header value"));
    let policy = ProofPolicy::default();
    let context = ProofContext {
        method: &Method::GET,
        url: ExternalUrl {
            scheme: Scheme::Https,
            authority: url["authority"].as_str().unwrap_or_default(),
            path: url["path"].as_str().unwrap_or_default(),
        },
        token: text("token"),
        thumbprint: text("thumbprint"),
        now: UnixTime(case["now"].as_i64().expect("a case has a time")),
    };
    min_time(|| {
        let proof = dpop::verify(black_box(&headers), &context, &policy);
        assert!(black_box(proof).is_ok());
    })
}

fn gate(case: &Value, algorithm: Algorithm) -> Gate {
    let allowed = Some(&[algorithm][..]);
    let keys = match case["keys"]["secret"].as_str() {
        Some(text) => Secret::decode(text.into(), Encoding::Utf8)
            .and_then(|secret| Ok(vec![secret.verification_key(allowed)?])),
        None => pem::parse(case["keys"]["pem"].as_str().unwrap_or_default(), allowed),
    };
    let issuer = Issuer {
        name: "bench".into(),
        accepted: None,
        policy: ClaimPolicy {
            audience: None,
            subject: vec!["sub".parse().expect("a valid claim name")],
            namespace: Namespace::default(),
            leeway: 30,
            max_lifetime: None,
            authorized_party: None,
            allow_bound: false,
        },
        types: vec!["JWT".to_owned()],
        max_token_bytes: DEFAULT_MAX_TOKEN_BYTES,
        profiles: Vec::new(),
        is_introspected: false,
        dpop: claimgate::config::DpopMode::default(),
        nonce_lifetime: None,
        machines: false,
        ring: Arc::new(KeyRing::local(keys.expect("the key of the case is valid"))),
    };
    let owner = Rule::Owner {
        parameter: "user_id".into(),
        mismatch: Mismatch::Forbidden,
    };
    let (routes, _) = RouteTable::new(vec![Route::new("/api/{user_id}/tasks", owner)]);
    let identity = vec![(HeaderName::from_static("x-user-id"), IdentityClaim::Subject)];
    Gate::new(routes, vec![issuer], identity, None, 32 * 1024)
}

fn inbound(case: &Value) -> Inbound {
    let token = case["token"].as_str().unwrap_or_default();
    let request = Request::get("/api/alice/tasks")
        .header(HOST, "api.example")
        .header(AUTHORIZATION, format!("Bearer {token}"));
    Inbound {
        head: request.body(()).expect("the head is valid").into_parts().0,
        scheme: Scheme::Http,
        from_trusted_proxy: false,
        has_trusted_forwarding: false,
        client: None,
        certificate: None,
        opens_websocket: false,
    }
}

/// Time of one call in the fastest round, in microseconds. Other load on the machine can only slow a round.
fn min_time(mut call: impl FnMut()) -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let (start, mut calls) = (Instant::now(), 0_u32);
        while start.elapsed() < ROUND {
            for _ in 0..16 {
                call();
            }
            calls += 16;
        }
        start.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
    });
    rounds.fold(f64::INFINITY, f64::min)
}
