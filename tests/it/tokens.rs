//! Tokens made by other libraries, with their expected outcomes: the files of `fixtures/tokens`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use claimgate::clock::UnixTime;
use claimgate::config::Encoding;
use claimgate::gate::claims::ClaimPolicy;
use claimgate::gate::subject::Namespace;
use claimgate::gate::token::{BearerToken, DEFAULT_MAX_TOKEN_BYTES};
use claimgate::gate::verify::{self, Issuer, Unverified};
use claimgate::keys::secret::Secret;
use claimgate::keys::{Algorithm, KeyError, KeyRing, VerificationKey, jwks, pem};
use claimgate::tls;
use serde::Deserialize;
use serde_json::Value;

const FILES: [&str; 3] = ["pyjwt.json", "jose.json", "rfc.json"];

/// Reasons of a rejected token.
const REASONS: [&str; 12] = [
    "token_malformed",
    "token_signature",
    "token_algorithm",
    "token_key_unknown",
    "token_expired",
    "token_not_yet_valid",
    "token_lifetime",
    "token_issuer",
    "token_audience",
    "token_subject",
    "token_type",
    "token_confirmation",
];

/// Verifier, token, time and expected outcome. The README of the fixtures describes each member.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    keys: Keys,
    algorithms: Option<Vec<String>>,
    issuer: Option<Vec<String>>,
    audience: Option<Vec<String>>,
    subject: Option<Vec<String>>,
    leeway_seconds: i64,
    max_lifetime_seconds: Option<i64>,
    types: Option<Vec<String>>,
    authorized_party: Option<Vec<String>>,
    #[serde(default)]
    allow_bound: bool,
    /// Name of the client certificate.
    certificate: Option<String>,
    now: i64,
    token: String,
    expect: String,
    sub: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Keys {
    Secret(String),
    SecretBase64url(String),
    Jwks(Value),
    Pem(String),
}

#[derive(Deserialize)]
struct File {
    cases: Vec<Case>,
}

#[test]
fn every_token_of_another_library_has_its_outcome() {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut refused: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut differences = Vec::new();
    for file in FILES {
        let cases = read(file);
        assert!(
            !cases.is_empty(),
            "{file} has no cases: the test would pass on nothing"
        );
        for case in cases {
            let (expected, found) = (case.expected(), case.outcome());
            if found != expected {
                differences.push(format!(
                    "{file}: {}: expected {expected}, found {found}",
                    case.name
                ));
            }
            *counts.entry(case.expect.clone()).or_default() += 1;
            refused.entry(case.expect).or_default().insert(case.token);
        }
    }
    for (outcome, count) in &counts {
        eprintln!("{outcome:20} {count:4}");
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(counts.get("accepted").is_some_and(|count| *count > 50));
    for reason in REASONS {
        let tokens = refused.get(reason).map_or(0, BTreeSet::len);
        assert!(tokens >= 3, "only {tokens} different tokens are {reason}");
    }
}

/// A second issuer does not change an outcome.
#[test]
fn another_issuer_does_not_change_the_outcome() {
    let cases = read("jose.json");
    let other = Issuer {
        name: "stranger".into(),
        accepted: Some(vec!["https://stranger.example".to_owned()]),
        types: vec!["JWT".to_owned()],
        max_token_bytes: DEFAULT_MAX_TOKEN_BYTES,
        machines: false,
        policy: ClaimPolicy {
            audience: None,
            authorized_party: None,
            allow_bound: false,
            subject: vec!["sub".parse().unwrap()],
            namespace: Namespace::default(),
            leeway: 0,
            max_lifetime: None,
        },
        profiles: Vec::new(),
        is_introspected: false,
        dpop: claimgate::config::DpopMode::default(),
        nonce_lifetime: None,
        ring: Arc::new(KeyRing::default()),
    };
    for case in cases {
        let issuers = [other.clone(), case.issuer()];
        assert_eq!(
            case.outcome_with(&issuers),
            case.expected(),
            "{}",
            case.name
        );
    }
}

fn read(file: &str) -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/tokens")
        .join(file);
    let File { cases } = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    cases
}

impl Case {
    fn expected(&self) -> String {
        match &self.sub {
            Some(subject) => format!("{}: {subject}", self.expect),
            None => self.expect.clone(),
        }
    }

    fn outcome(&self) -> String {
        self.outcome_with(&[self.issuer()])
    }

    fn outcome_with(&self, issuers: &[Issuer]) -> String {
        let presented = self.certificate.as_ref().map(|name| {
            let file = format!("tests/fixtures/config/tls/{name}.crt");
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
            tls::client_certificate(&file).unwrap()
        });
        let verified = BearerToken::new(&self.token, DEFAULT_MAX_TOKEN_BYTES)
            .map_err(Unverified::from)
            .and_then(|token| {
                verify::verify(issuers, token, presented.as_ref(), UnixTime(self.now))
            });
        match verified {
            Ok(verified) => format!("accepted: {}", verified.subject.as_str()),
            Err(unverified) => unverified.refusal.reason().to_owned(),
        }
    }

    fn issuer(&self) -> Issuer {
        let keys = self.keys();
        let default = || vec!["sub".to_owned(), "user_id".to_owned()];
        Issuer {
            name: "fixture".into(),
            accepted: self.issuer.clone(),
            types: self.types.clone().unwrap_or_else(|| vec!["JWT".to_owned()]),
            max_token_bytes: DEFAULT_MAX_TOKEN_BYTES,
            machines: false,
            policy: ClaimPolicy {
                audience: self.audience.clone(),
                authorized_party: self.authorized_party.clone(),
                allow_bound: self.allow_bound,
                subject: self
                    .subject
                    .clone()
                    .unwrap_or_else(default)
                    .iter()
                    .map(|claim| claim.parse().unwrap())
                    .collect(),
                namespace: Namespace::default(),
                leeway: self.leeway_seconds,
                max_lifetime: self.max_lifetime_seconds,
            },
            profiles: Vec::new(),
            is_introspected: false,
            dpop: claimgate::config::DpopMode::default(),
            nonce_lifetime: None,
            ring: Arc::new(KeyRing::local(keys.unwrap_or_else(|error| {
                panic!("{}: invalid keys: {error}", self.name)
            }))),
        }
    }

    fn keys(&self) -> Result<Vec<VerificationKey>, KeyError> {
        let named = |names: &Vec<String>| {
            let named = names.iter().map(|name| Algorithm::named(name).unwrap());
            named.collect::<Vec<_>>()
        };
        let allowed = self.algorithms.as_ref().map(named);
        let allowed = allowed.as_deref();
        let secret = |text: &str, encoding| {
            let secret = Secret::decode(text.into(), encoding)?;
            Ok(vec![secret.verification_key(allowed)?])
        };
        match &self.keys {
            Keys::Secret(text) => secret(text, Encoding::Utf8),
            Keys::SecretBase64url(text) => secret(text, Encoding::Base64url),
            Keys::Jwks(set) => Ok(jwks::parse(set.to_string().as_bytes(), allowed)?.keys),
            Keys::Pem(text) => pem::parse(text, allowed),
        }
    }
}
