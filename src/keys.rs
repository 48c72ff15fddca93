//! Keys: where they come from, what each may verify, and how old they are.
//!
//! With [`crate::gate`]'s verification the only place that names jsonwebtoken.

mod algorithm;
pub mod fetch;
pub mod jwks;
mod key;
mod key_ring;
pub mod pem;
pub mod refresh;
pub mod remote;
mod rsa;
pub mod secret;

pub use algorithm::{Algorithm, KeyKind};
pub use key::VerificationKey;
pub use key_ring::KeyRing;

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

/// Reads a file of keys or of a secret.
fn read_file(file: &std::path::Path) -> Result<Vec<u8>, KeyError> {
    std::fs::read(file).map_err(|error| KeyError::File {
        file: file.display().to_string(),
        message: error.to_string(),
    })
}
