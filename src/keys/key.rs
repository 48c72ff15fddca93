//! Verification key: a key bound to its algorithms.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED, VerificationAlgorithm};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, DecodingKeyKind};

use super::{Algorithm, KeyError, KeyKind};

/// Key and the algorithms it verifies, bound together when the key is loaded.
#[derive(Clone)]
pub struct VerificationKey {
    kid: Option<String>,
    kind: KeyKind,
    pub(super) algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl VerificationKey {
    /// Binds a key to its algorithms: the `alg` of the key, else the allowed algorithms, else the default of its kind.
    /// Each must fit the kind of key and be allowed.
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
            (None, None) => vec![kind.default_algorithm()],
        };
        let algorithms: Vec<Algorithm> = algorithms
            .into_iter()
            .filter(fits)
            .filter(is_allowed)
            .collect();
        if algorithms.is_empty() {
            return Err(KeyError::Unusable(match named {
                Some(named) if !fits(&named) => {
                    format!("`alg` {named:?} does not fit a key of kind {kind:?}")
                }
                _ => format!("no allowed algorithm fits a key of kind {kind:?}"),
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

    /// Key ID (RFC 7517 section 4.5).
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Algorithms as text, as in `RS256 and PS256`.
    pub fn algorithms(&self) -> String {
        let names: Vec<&str> = self
            .algorithms
            .iter()
            .map(|algorithm| algorithm.name())
            .collect();
        names.join(" and ")
    }

    pub fn is_for(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Reports whether a token can select both keys: they have the same `kid` and share an algorithm.
    pub(super) fn competes_with(&self, other: &Self) -> bool {
        self.kid == other.kid && self.algorithms.iter().any(|shared| other.is_for(*shared))
    }

    /// Verifies a signature in base64url. False for an algorithm that the key is not bound to.
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

/// Compares the key material, its algorithms and its key ID. Not for secrets: the time depends on the bytes.
impl PartialEq for VerificationKey {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            kid,
            kind,
            algorithms,
            key,
        } = self;
        *kid == other.kid
            && *kind == other.kind
            && *algorithms == other.algorithms
            && material(key) == material(&other.key)
    }
}

/// Bytes of a key: its modulus and exponent, or its only part.
fn material(key: &DecodingKey) -> (&[u8], &[u8]) {
    match key.kind() {
        DecodingKeyKind::SecretOrDer(bytes) => (bytes, &[]),
        DecodingKeyKind::RsaModulusExponent { n, e } => (n, e),
    }
}

/// Verifies ES512 (RFC 7518 section 3.4) with aws-lc-rs; jsonwebtoken does not support it.
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
