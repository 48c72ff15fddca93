//! Public key in the header of a proof.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::gate::claims::Claims;
use crate::gate::jws::CompactJws;
use crate::gate::proof_fault::ProofFault;
use crate::keys::{Algorithm, KeyKind, VerificationKey, jwks};

/// Members of private and secret keys (RFC 7518 sections 6.2.2, 6.3.2 and 6.4.1, RFC 8037 section 2).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Public key of a proof. It proves nothing until its thumbprint is that of the token.
pub(super) struct ProofKey {
    key: VerificationKey,
    /// SHA-256 thumbprint (RFC 7638) in base64url.
    pub(super) thumbprint: String,
}

impl ProofKey {
    /// Reads `jwk`, for this algorithm of the proof.
    pub(super) fn read(header: &Claims, algorithm: Algorithm) -> Result<Self, ProofFault> {
        let Some(Value::Object(jwk)) = header.get("jwk") else {
            return Err(ProofFault::NoKey);
        };
        if PRIVATE.into_iter().any(|name| jwk.contains_key(name)) {
            return Err(ProofFault::PrivateKey);
        }
        if !is_of_kind(jwk, algorithm.kind()) {
            return Err(ProofFault::KeyKind);
        }
        let is_contradicted = |name: &str, is_same: &dyn Fn(&str) -> bool| {
            let text = jwk.get(name).and_then(Value::as_str);
            text.is_some_and(|text| !is_same(text))
        };
        if is_contradicted("alg", &|name| Algorithm::named(name) == Some(algorithm)) {
            return Err(ProofFault::KeyAlgorithm);
        }
        if let Some(kid) = header.get("kid")
            && is_contradicted("kid", &|name| kid == name)
        {
            return Err(ProofFault::KeyId);
        }
        let key = jwks::parse_key(Value::Object(jwk.clone()), Some(&[algorithm]));
        let key = key.map_err(|error| ProofFault::Key(error.to_string()))?;
        let thumbprint = thumbprint(jwk, algorithm.kind());
        Ok(Self { key, thumbprint })
    }

    pub(super) fn verifies(&self, algorithm: Algorithm, proof: &CompactJws<'_>) -> bool {
        let signed = proof.signing_input.as_bytes();
        self.key.verifies(algorithm, signed, proof.signature)
    }
}

fn is_of_kind(jwk: &Map<String, Value>, kind: KeyKind) -> bool {
    let name = kind.name();
    let (kty, crv) = name.split_once(' ').unwrap_or((name, ""));
    let has = |name: &str, text: &str| jwk.get(name).is_some_and(|value| value == text);
    has("kty", kty) && (crv.is_empty() || has("crv", crv))
}

/// SHA-256 thumbprint of a key: the required members of its kind alone, in the order of their names, without white space
/// (RFC 7638 section 3, RFC 8037 section 2).
fn thumbprint(jwk: &Map<String, Value>, kind: KeyKind) -> String {
    let names: &[&str] = match kind {
        KeyKind::Rsa => &["e", "kty", "n"],
        KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => &["crv", "kty", "x", "y"],
        KeyKind::Ed25519 => &["crv", "kty", "x"],
        KeyKind::Secret => &["k", "kty"],
    };
    let text = |name: &str| jwk.get(name).and_then(Value::as_str).unwrap_or_default();
    // The values are names and base64url, which JSON does not escape.
    let members = names
        .iter()
        .map(|name| format!("\"{name}\":\"{}\"", text(name)));
    let members: Vec<String> = members.collect();
    let json = format!("{{{}}}", members.join(","));
    URL_SAFE_NO_PAD.encode(digest(&SHA256, json.as_bytes()))
}

impl fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProofKey(..)")
    }
}
