//! Time of a decision of the gate, by token algorithm: first verification, and lookup in the token cache. Time with a
//! `DPoP` proof, which every request of a bound token needs, beside that of the proof's signature alone.
//!
//! `cargo bench --bench verify`, with the tokens and keys of `tests/fixtures`.

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

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claimgate::clock::UnixTime;
use claimgate::config::Encoding;
use claimgate::gate::Gate;
use claimgate::gate::access::Rule;
use claimgate::gate::cache::TokenCache;
use claimgate::gate::claims::ClaimPolicy;
use claimgate::gate::dpop::DPOP;
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
use http::{HeaderName, Request};
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{DecodingKey, EncodingKey, Header, crypto};
use serde_json::{Value, json};

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

/// Algorithms of proofs with a private key. jsonwebtoken has no ES512.
const PROOFS: [(Algorithm, &str, ReadKey); 5] = [
    (Algorithm::RS256, "rsa", EncodingKey::from_rsa_pem),
    (Algorithm::PS256, "rsa", EncodingKey::from_rsa_pem),
    (Algorithm::ES256, "p256", EncodingKey::from_ec_pem),
    (Algorithm::ES384, "p384", EncodingKey::from_ec_pem),
    (Algorithm::EdDSA, "ed25519", EncodingKey::from_ed_pem),
];

type ReadKey = fn(&[u8]) -> jsonwebtoken::errors::Result<EncodingKey>;

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

    let [(shared, name), ..] = CASES;
    let case = tokens.iter().find(|case| case["name"] == name);
    let case = case.expect("a case of this name exists");
    println!("\n| algorithm of the proof | signature alone, µs | token cache and proof, µs |");
    println!("| --- | ---: | ---: |");
    for (algorithm, file, read) in PROOFS {
        let key = read(fixture(&format!("keys/{file}.private.pem")).as_bytes());
        let bound = Bound::sign(case, algorithm, &key.expect("a valid private key"));
        let signature = bound.signature_time();
        let decision = bound.decision_time(&gate(case, shared));
        println!("| {} | {signature:.1} | {decision:.1} |", algorithm.name());
    }
}

/// Text of a file of the fixtures.
fn fixture(file: &str) -> String {
    let path = format!("{}/tests/fixtures/{file}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(path).expect("the fixture exists")
}

/// Cases of a file of the fixtures.
fn cases(file: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(&fixture(file)).expect("the fixtures are JSON");
    let cases = file["cases"].as_array();
    cases.expect("the fixtures have a list of cases").clone()
}

/// A request with a token that is bound to a key, and with a proof of the key.
struct Bound {
    inbound: Inbound,
    proof: String,
    algorithm: jsonwebtoken::Algorithm,
    key: Jwk,
    now: UnixTime,
}

impl Bound {
    /// Signs the token with the shared secret of the case, and the proof with the key.
    fn sign(case: &Value, algorithm: Algorithm, key: &EncodingKey) -> Self {
        let now = case["now"].as_i64().expect("a case has a time");
        let secret = case["keys"]["secret"]
            .as_str()
            .expect("a case has a secret");
        let algorithm: jsonwebtoken::Algorithm = algorithm.name().parse().expect("a known name");
        let jwk = Jwk::from_encoding_key(key, algorithm).expect("the key has a public key");
        let thumbprint = jwk.thumbprint(ThumbprintHash::SHA256);
        let thumbprint = thumbprint.expect("the key has a thumbprint");
        let claims =
            json!({ "sub": "alice", "iat": now, "exp": now + 900, "cnf": { "jkt": thumbprint } });
        let secret = EncodingKey::from_secret(secret.as_bytes());
        let token = jsonwebtoken::encode(&Header::default(), &claims, &secret);
        let token = token.expect("the token can be signed");
        let header = Header {
            typ: Some("dpop+jwt".to_owned()),
            jwk: Some(jwk.clone()),
            ..Header::new(algorithm)
        };
        let hash = URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes()));
        let claims = json!({
            "htm": "GET", "htu": "http://api.example/api/alice/tasks", "iat": now, "ath": hash,
            "jti": "6bb6a7a4-5b6c-4c3c-9d0f-5f8f5e0f6a51",
        });
        let proof = jsonwebtoken::encode(&header, &claims, key).expect("the proof can be signed");
        let mut inbound = inbound(&json!({ "token": token }));
        let headers = &mut inbound.head.headers;
        let value = |text: &str| text.parse().expect("a valid header value");
        headers.insert(AUTHORIZATION, value(&format!("DPoP {token}")));
        headers.insert(DPOP, value(&proof));
        Self {
            inbound,
            proof,
            algorithm,
            key: jwk,
            now: UnixTime(now),
        }
    }

    /// Time in which jsonwebtoken verifies the signature of the proof with a key that it has read before.
    fn signature_time(&self) -> f64 {
        let key = DecodingKey::from_jwk(&self.key).expect("the key is valid");
        let (message, signature) = self.proof.rsplit_once('.').expect("a proof has parts");
        min_time(|| {
            let message = black_box(message).as_bytes();
            let verified = crypto::verify(signature, message, &key, self.algorithm);
            assert!(black_box(verified).is_ok_and(|is_valid| is_valid));
        })
    }

    /// Time of a decision about the request, with its token in the cache. The store of replays is not part of it.
    fn decision_time(&self, gate: &Gate) -> f64 {
        let mut cache = TokenCache::default();
        min_time(|| {
            let decision = gate.decide(black_box(&self.inbound), self.now, &mut cache);
            assert!(black_box(decision).is_ok());
        })
    }
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
