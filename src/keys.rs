//! Keys: where they come from, what each may verify, and how old they are.
//!
//! With [`crate::gate`]'s verification the only place that names jsonwebtoken.

pub mod fetch;
pub mod jwks;
pub mod pem;
pub mod refresh;
pub mod remote;
pub mod secret;

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;

use crate::clock::UnixTime;

/// An algorithm that signs tokens (RFC 7518 section 3.1, RFC 8037 section 3.1). `none` is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the RFC's")]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    EdDSA,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 13] = [
        Self::HS256,
        Self::HS384,
        Self::HS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::EdDSA,
    ];

    /// The algorithm with this exact name. RFC 9864 calls `EdDSA` with Ed25519 `Ed25519`.
    pub fn named(name: &str) -> Option<Self> {
        if name == "Ed25519" {
            return Some(Self::EdDSA);
        }
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }

    /// Its name in the `alg` of a token.
    pub fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS384 => "HS384",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::ES512 => "ES512",
            Self::EdDSA => "EdDSA",
        }
    }

    /// The kind of key it needs.
    pub fn kind(self) -> KeyKind {
        match self {
            Self::HS256 | Self::HS384 | Self::HS512 => KeyKind::Secret,
            Self::RS256 | Self::RS384 | Self::RS512 | Self::PS256 | Self::PS384 | Self::PS512 => {
                KeyKind::Rsa
            }
            Self::ES256 => KeyKind::P256,
            Self::ES384 => KeyKind::P384,
            Self::ES512 => KeyKind::P521,
            Self::EdDSA => KeyKind::Ed25519,
        }
    }

    /// As jsonwebtoken has it, which is not all.
    pub(crate) fn inner(self) -> Option<jsonwebtoken::Algorithm> {
        Some(match self {
            Self::HS256 => jsonwebtoken::Algorithm::HS256,
            Self::HS384 => jsonwebtoken::Algorithm::HS384,
            Self::HS512 => jsonwebtoken::Algorithm::HS512,
            Self::RS256 => jsonwebtoken::Algorithm::RS256,
            Self::RS384 => jsonwebtoken::Algorithm::RS384,
            Self::RS512 => jsonwebtoken::Algorithm::RS512,
            Self::PS256 => jsonwebtoken::Algorithm::PS256,
            Self::PS384 => jsonwebtoken::Algorithm::PS384,
            Self::PS512 => jsonwebtoken::Algorithm::PS512,
            Self::ES256 => jsonwebtoken::Algorithm::ES256,
            Self::ES384 => jsonwebtoken::Algorithm::ES384,
            Self::EdDSA => jsonwebtoken::Algorithm::EdDSA,
            Self::ES512 => return None,
        })
    }
}

/// What a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// A shared secret.
    Secret,
    /// An RSA public key.
    Rsa,
    /// A public key on the curve P-256.
    P256,
    /// A public key on the curve P-384.
    P384,
    /// A public key on the curve P-521.
    P521,
    /// An Ed25519 public key.
    Ed25519,
}

impl KeyKind {
    /// The algorithm of a key that does not name one.
    pub fn usual_algorithm(self) -> Algorithm {
        match self {
            Self::Secret => Algorithm::HS256,
            Self::Rsa => Algorithm::RS256,
            Self::P256 => Algorithm::ES256,
            Self::P384 => Algorithm::ES384,
            Self::P521 => Algorithm::ES512,
            Self::Ed25519 => Algorithm::EdDSA,
        }
    }

    /// Whether a public key of this kind can verify anything: a point on the curve, an RSA key of 2048 to 8192 bits
    /// with an exponent that RSA can have. Else every token would be refused, and nobody told why.
    fn admits(self, public: &DecodingKey) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match self {
            Self::Secret => return false,
            Self::Rsa => &RSA_PKCS1_2048_8192_SHA256,
            Self::P256 => &ECDSA_P256_SHA256_FIXED,
            Self::P384 => &ECDSA_P384_SHA384_FIXED,
            Self::P521 => &ECDSA_P521_SHA512_FIXED,
            Self::Ed25519 => &ED25519,
        };
        let bytes = public.try_get_as_bytes();
        bytes.is_ok_and(|bytes| ParsedPublicKey::new(algorithm, bytes).is_ok())
    }
}

/// Why a key, or a whole source of keys, cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// The environment variable is not set, or not text.
    #[error("the environment variable {0} is not set")]
    NoVariable(String),
    /// A file could not be read.
    #[error("{file} cannot be read: {message}")]
    File {
        /// Which file.
        file: String,
        /// Why not.
        message: String,
    },
    /// The text is not in the encoding that was named.
    #[error("the secret is not {0}")]
    Encoding(&'static str),
    /// A secret that could be guessed.
    #[error("the secret has {found} bytes, and {algorithm} needs at least {needed}")]
    ShortSecret {
        /// Its length in bytes.
        found: usize,
        /// The algorithm.
        algorithm: String,
        /// The least length in bytes.
        needed: usize,
    },
    /// One key cannot be used.
    #[error("{0}")]
    Unusable(String),
}

/// A key and the algorithms it may verify, bound together when it is loaded.
#[derive(Clone)]
pub struct VerificationKey {
    kid: Option<String>,
    kind: KeyKind,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl VerificationKey {
    /// Binds a key to the algorithms that it may verify: those that its kind allows, of those that the key
    /// itself names or else the operator allows or else the usual one.
    fn bind(
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

    fn with_kid(mut self, kid: Option<String>) -> Self {
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

/// The keys of one issuer at one moment: a value that never changes.
#[derive(Debug, Clone, Default)]
pub struct KeyRing {
    keys: Vec<VerificationKey>,
    origin: Origin,
}

/// Where a ring came from, and what may therefore still be learnt.
#[derive(Debug, Clone, Copy, Default)]
enum Origin {
    /// From a secret or a file: all there is.
    #[default]
    Local,
    /// From a URL.
    Remote {
        /// Whether the last fetch succeeded.
        current: bool,
        /// When the keys are too old to be used; none if nothing was ever fetched.
        usable_until: Option<UnixTime>,
    },
}

impl KeyRing {
    /// Keys from a secret or a file.
    pub fn local(keys: Vec<VerificationKey>) -> Self {
        Self {
            keys,
            origin: Origin::Local,
        }
    }

    /// The ring of a URL that was not fetched yet.
    pub fn awaited() -> Self {
        Self {
            keys: Vec::new(),
            origin: Origin::Remote {
                current: false,
                usable_until: None,
            },
        }
    }

    /// Keys just fetched, to be used until `usable_until` if no fetch succeeds before.
    pub fn fetched(keys: Vec<VerificationKey>, usable_until: UnixTime) -> Self {
        Self {
            keys,
            origin: Origin::Remote {
                current: true,
                usable_until: Some(usable_until),
            },
        }
    }

    /// The same keys after a fetch that failed.
    #[must_use]
    pub fn after_failure(&self) -> Self {
        let origin = match self.origin {
            Origin::Local => Origin::Local,
            Origin::Remote { usable_until, .. } => Origin::Remote {
                current: false,
                usable_until,
            },
        };
        Self {
            keys: self.keys.clone(),
            origin,
        }
    }

    /// The same keys, to be used until another time.
    #[must_use]
    pub fn usable_to(&self, until: UnixTime) -> Self {
        let mut ring = self.clone();
        if let Origin::Remote { usable_until, .. } = &mut ring.origin {
            *usable_until = usable_until.and(Some(until));
        }
        ring
    }

    /// When the keys are too old to be used; none if they never are, or if nothing was ever fetched.
    pub fn usable_until(&self) -> Option<UnixTime> {
        match self.origin {
            Origin::Local => None,
            Origin::Remote { usable_until, .. } => usable_until,
        }
    }

    /// Whether there are keys that are not too old.
    pub fn is_usable(&self, now: UnixTime) -> bool {
        match self.origin {
            Origin::Local => true,
            Origin::Remote { .. } => self.usable_until().is_some_and(|until| now < until),
        }
    }

    /// Whether this is all there is to know, as far as anyone could learn.
    pub fn is_current(&self) -> bool {
        match self.origin {
            Origin::Local => true,
            Origin::Remote { current, .. } => current,
        }
    }

    /// Whether another fetch could bring more keys.
    pub fn can_grow(&self) -> bool {
        matches!(self.origin, Origin::Remote { .. })
    }

    /// Whether a key has this name.
    pub fn has(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid() == Some(kid))
    }

    /// Every key.
    pub fn keys(&self) -> &[VerificationKey] {
        &self.keys
    }

    /// The keys that a token with this `kid` may be signed with (RFC 7515 section 4.1.4): those with the
    /// name; if none has it, those without a name; for a token without one, all.
    pub fn keys_for(&self, kid: Option<&str>) -> impl Iterator<Item = &VerificationKey> {
        let is_known = kid.is_some() && self.keys.iter().any(|key| key.kid() == kid);
        self.keys.iter().filter(move |key| match kid {
            None => true,
            Some(_) if is_known => key.kid() == kid,
            Some(_) => key.kid.is_none(),
        })
    }
}

/// Whether an RSA modulus is as long as RFC 7518 section 3.3 asks: 2048 bits.
fn is_long_enough(modulus: &[u8]) -> bool {
    let modulus = without_zeros(modulus);
    match modulus.first() {
        Some(first) if modulus.len() == 2048 / 8 => *first >= 0x80,
        _ => modulus.len() > 2048 / 8,
    }
}

/// A number without the zeros at its front.
fn without_zeros(mut bytes: &[u8]) -> &[u8] {
    while let [0, rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

/// Reads a file of keys or of a secret.
fn read_file(file: &std::path::Path) -> Result<Vec<u8>, KeyError> {
    std::fs::read(file).map_err(|error| KeyError::File {
        file: file.display().to_string(),
        message: error.to_string(),
    })
}
