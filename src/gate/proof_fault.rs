//! Faults of proofs: the sub-causes of `invalid_dpop_proof` (RFC 9449 section 7.1).
//!
//! The texts describe the proof and never quote it. Like those of tokens, they have no character that a quoted string
//! (RFC 9110 section 5.6.4) escapes, because challenges contain them.

use std::fmt;

use super::token_fault::{Part, PartFault, TimeFault};

/// Longest accepted proof, in bytes.
pub const MAX_PROOF_BYTES: usize = 8 * 1024;

/// Longest accepted `jti`, in characters.
pub const MAX_ID_CHARACTERS: usize = 512;

/// Reason why a proof is not valid for its request. Displays as a sentence for the client's developer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProofFault {
    /// No `DPoP` header.
    Missing,
    /// Several `DPoP` headers, or several proofs in one.
    Repeated,
    TooLong,
    NotAscii,
    /// Number of parts, if it is not three.
    Parts(usize),
    /// Fault of one part.
    Part(Part, PartFault),
    /// A header member that changes the meaning of the proof: `crit`, `b64` or `zip`.
    Extension(&'static str),
    /// `typ` is not `dpop+jwt`.
    Type,
    /// `alg` is missing, unknown, symmetric or not accepted.
    Algorithm,
    /// `jwk` is missing or not an object.
    NoKey,
    PrivateKey,
    /// `alg` needs another kind of key.
    KeyKind,
    /// `alg` of the key differs from `alg` of the proof.
    KeyAlgorithm,
    /// `kid` of the key differs from `kid` of the proof.
    KeyId,
    /// The key cannot be used, for the reason in the text.
    Key(String),
    /// The token is bound to another key.
    Thumbprint,
    Signature,
    /// A required claim is missing.
    NoClaim(&'static str),
    /// A claim is not text.
    NotText(&'static str),
    /// `htm` is another method.
    Method,
    /// Fault of `htu`.
    Url(UrlFault),
    /// A time claim has no usable value.
    Time(&'static str, TimeFault),
    TooOld,
    IssuedInFuture,
    Expired,
    NotYetValid,
    /// `jti` is empty or too long.
    IdLength,
    /// `ath` is the hash of another token.
    TokenHash,
}

/// Fault of `htu`. Displays as the end of a sentence about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlFault {
    /// Not an absolute `http` or `https` URL with a valid host.
    NotAbsolute,
    Fragment,
    UserInfo,
    /// Another scheme than the request.
    Scheme,
    /// Another host or port than the request.
    Host,
    /// Another path than the request.
    Path,
}

impl fmt::Display for ProofFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => {
                "The request has no `DPoP` header. Send a proof that the key of the token signed for this request."
            }
            Self::Repeated => "The request has several DPoP proofs. Send one, in one `DPoP` header.",
            Self::TooLong => {
                return write!(f, "The proof is longer than {MAX_PROOF_BYTES} bytes.");
            }
            Self::NotAscii => "The proof has bytes outside of ASCII. Send it exactly as signed.",
            Self::Parts(parts) => {
                return write!(f, "A DPoP proof has three parts separated by dots, got {parts}.");
            }
            Self::Part(part, fault) => return write!(f, "The {part} of the proof {fault}."),
            Self::Extension(name) => {
                return write!(f, "The header of the proof has `{name}`, which is not supported.");
            }
            Self::Type => "The `typ` of the proof must be `dpop+jwt`.",
            Self::Algorithm => {
                "The `alg` of the proof is not accepted. Use an asymmetric one that the challenge lists in `algs`."
            }
            Self::NoKey => {
                "The header of the proof has no `jwk`. It must be a JSON object with the public key."
            }
            Self::PrivateKey => {
                "The `jwk` of the proof has members of a private key. Send the public ones alone, and replace the key: \
                 it is no longer secret."
            }
            Self::KeyKind => {
                "The `jwk` of the proof is not a key for its `alg`: `kty` or `crv` must be another."
            }
            Self::KeyAlgorithm => {
                "The `jwk` of the proof has another `alg` than its header. Leave it out, or make them equal."
            }
            Self::KeyId => {
                "The `jwk` of the proof has another `kid` than its header. Leave it out, or make them equal."
            }
            Self::Key(reason) => return write!(f, "The `jwk` of the proof is not usable: {reason}."),
            Self::Thumbprint => {
                "The token is bound to another key than the `jwk` of the proof. Sign with the key that the token was \
                 requested with."
            }
            Self::Signature => {
                "The signature of the proof is not valid for its `jwk`. Sign with the private key of that `jwk`."
            }
            Self::NoClaim(name) => {
                return write!(f, "The proof has no `{name}`. Every proof needs `htm`, `htu`, `iat`, `jti` and `ath`.");
            }
            Self::NotText(name) => return write!(f, "The `{name}` of the proof must be text."),
            Self::Method => {
                "The `htm` of the proof is not the method of the request. It must be equal, in the same case."
            }
            Self::Url(fault) => return write!(f, "The `htu` of the proof {fault}."),
            Self::Time(claim, fault) => return write!(f, "The `{claim}` of the proof {fault}."),
            Self::TooOld => {
                "The `iat` of the proof is too far in the past. Sign a new proof for each request, and check the clock \
                 of the client."
            }
            Self::IssuedInFuture => {
                "The `iat` of the proof is in the future. Check the clock of the client."
            }
            Self::Expired => "The `exp` of the proof is in the past. Sign a new proof for each request.",
            Self::NotYetValid => {
                "The `nbf` of the proof is in the future. Check the clock of the client."
            }
            Self::IdLength => {
                return write!(f, "The `jti` of the proof must have 1 to {MAX_ID_CHARACTERS} characters.");
            }
            Self::TokenHash => {
                "The `ath` of the proof is not the hash of the token. It must be the SHA-256 of the token in \
                 `Authorization`, in base64url."
            }
        })
    }
}

impl ProofFault {
    /// One fault of each kind.
    pub fn examples() -> Vec<Self> {
        vec![
            Self::Missing,
            Self::Repeated,
            Self::TooLong,
            Self::NotAscii,
            Self::Parts(2),
            Self::Part(Part::Header, PartFault::Encoding),
            Self::Part(Part::Claims, PartFault::DuplicateName),
            Self::Extension("crit"),
            Self::Type,
            Self::Algorithm,
            Self::NoKey,
            Self::PrivateKey,
            Self::KeyKind,
            Self::KeyAlgorithm,
            Self::KeyId,
            Self::Key("not a point on the curve".to_owned()),
            Self::Thumbprint,
            Self::Signature,
            Self::NoClaim("ath"),
            Self::NotText("htm"),
            Self::Method,
            Self::Url(UrlFault::NotAbsolute),
            Self::Url(UrlFault::Fragment),
            Self::Url(UrlFault::UserInfo),
            Self::Url(UrlFault::Scheme),
            Self::Url(UrlFault::Host),
            Self::Url(UrlFault::Path),
            Self::Time("iat", TimeFault::Milliseconds),
            Self::TooOld,
            Self::IssuedInFuture,
            Self::Expired,
            Self::NotYetValid,
            Self::IdLength,
            Self::TokenHash,
        ]
    }
}

impl fmt::Display for UrlFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAbsolute => {
                "must be an absolute URL: `http` or `https`, a host, and the path of the request"
            }
            Self::Fragment => "has a fragment. It must be the URL of the request without query and fragment",
            Self::UserInfo => "has a user name or password. It must be the URL of the request without them",
            Self::Scheme => {
                "has another scheme than the request. Sign the URL that the client sends the request to; a proxy that \
                 terminates TLS must forward the scheme"
            }
            Self::Host => {
                "has another host or port than the request. Sign the URL that the client sends the request to; a proxy \
                 must forward the host"
            }
            Self::Path => {
                "has another path than the request. Sign the path as sent, with the same case and percent-encoding"
            }
        })
    }
}
