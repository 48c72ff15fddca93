//! A key, bound to the algorithms that it verifies.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, VerificationAlgorithm};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;

use super::{Algorithm, KeyError, KeyKind};

/// A key and the algorithms it may verify, bound together when it is loaded.
#[derive(Clone)]
pub struct VerificationKey {
    kid: Option<String>,
    kind: KeyKind,
    pub(super) algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl VerificationKey {
    /// Binds a key to the algorithms that it may verify: those that its kind allows, of those that the key
    /// itself names or else the operator allows or else the usual one.
    pub(super) fn bind(
        key: DecodingKey,
        kind: KeyKind,
        named: Option<Algorithm>,
        allowed: Option<&[Algorithm]>,
    ) -> Result<Self, KeyError> {
        let fits = |algorithm: &Algorithm| algorithm.kind() == kind;
        let is_allowed =
            |algorithm: &Algorithm| allowed.is_none_or(|allowed| allowed.contains(algorithm));
        let algorithms: Vec<Algorithm> = match (named, allowed) {
            (Some(named), _) => vec![named],
            (None, Some(allowed)) => allowed.to_vec(),
            (None, None) => vec![kind.usual_algorithm()],
        };
        let algorithms: Vec<Algorithm> = algorithms
            .into_iter()
            .filter(fits)
            .filter(is_allowed)
            .collect();
        if algorithms.is_empty() {
            return Err(KeyError::Unusable(match named {
                Some(named) if !fits(&named) => {
                    format!("its alg {named:?} does not fit a key of kind {kind:?}")
                }
                _ => format!("no algorithm of a key of kind {kind:?} is allowed"),
            }));
        }
        Ok(Self {
            kid: None,
            kind,
            algorithms,
            key,
        })
    }

    pub(super) fn with_kid(mut self, kid: Option<String>) -> Self {
        self.kid = kid;
        self
    }

    /// Its name, if it has one.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// What it is.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// What it may verify, in words, as in `RS256 and PS256`.
    pub fn algorithms(&self) -> String {
        let names: Vec<&str> = self
            .algorithms
            .iter()
            .map(|algorithm| algorithm.name())
            .collect();
        names.join(" and ")
    }

    /// Whether it may verify this algorithm.
    pub fn is_for(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether the signature, in base64url, is this key's. False for an algorithm that it may not verify.
    pub fn verifies(&self, algorithm: Algorithm, signing_input: &[u8], signature: &str) -> bool {
        self.is_for(algorithm)
            && match algorithm.inner() {
                Some(known) => {
                    jsonwebtoken::crypto::verify(signature, signing_input, &self.key, known)
                        .unwrap_or(false)
                }
                None => p521_verifies(&self.key, signing_input, signature),
            }
    }
}

/// ES512 (RFC 7518 section 3.4), which jsonwebtoken has not, by the library that does its other work.
fn p521_verifies(key: &DecodingKey, signing_input: &[u8], signature: &str) -> bool {
    let (Ok(point), Ok(signature)) = (key.try_get_as_bytes(), URL_SAFE_NO_PAD.decode(signature))
    else {
        return false;
    };
    let verified = ECDSA_P521_SHA512_FIXED.verify_sig(point, signing_input, &signature);
    verified.is_ok()
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerificationKey({:?}, {:?})", self.kid, self.algorithms)
    }
}
