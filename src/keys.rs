//! Verification keys: loading, fetching, algorithms and age.
//!
//! Only this module and the token verification in [`crate::gate`] depend on jsonwebtoken.

mod algorithm;
pub mod credential;
pub mod exchange;
pub mod fetch;
pub mod jwks;
mod key;
mod key_ring;
pub mod on_demand_refresh;
pub mod pem;
pub mod remote;
mod rsa;
pub mod secret;

use std::path::Path;

pub use algorithm::{Algorithm, KeyKind};
pub use key::VerificationKey;
pub use key_ring::KeyRing;

/// Error of a key or of a whole key source.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// The environment variable is not set or is not UTF-8.
    #[error("{}", missing(.0, "not set"))]
    NoVariable(String),
    /// The environment variable is an empty text.
    #[error("{}", missing(.0, "empty"))]
    EmptyVariable(String),
    /// A file could not be read.
    #[error("{file} cannot be read: {message}")]
    File { file: String, message: String },
    /// The secret is not in the configured encoding.
    #[error("the secret is not valid {0}")]
    Encoding(&'static str),
    /// The secret is shorter than the hash of an algorithm (RFC 7518 section 3.2).
    #[error("the secret has {found} bytes, and {algorithm} needs at least {needed}")]
    ShortSecret {
        /// Length in bytes.
        found: usize,
        algorithm: String,
        /// Minimum length in bytes.
        needed: usize,
    },
    /// A key cannot be used, for the reason in the text.
    #[error("{0}")]
    Unusable(String),
}

/// Message about a missing or empty environment variable. A name that may be the secret itself is not repeated.
fn missing(name: &str, state: &str) -> String {
    let is_spelled = |is_letter: fn(&char) -> bool| {
        name.chars()
            .all(|c| is_letter(&c) || c.is_ascii_digit() || c == '_')
    };
    let is_name = is_spelled(char::is_ascii_uppercase)
        || (is_spelled(char::is_ascii_lowercase) && name.contains('_'));
    let longest = if name.contains('_') { 64 } else { 24 };
    if is_name && (1..=longest).contains(&name.len()) {
        format!(
            "the environment variable {name} is {state}; set it in the environment that starts the gate"
        )
    } else {
        "must be the name of an environment variable that is set, such as \"BETTER_AUTH_SECRET\", and not the secret itself"
            .to_owned()
    }
}

fn read_file(file: &Path) -> Result<Vec<u8>, KeyError> {
    std::fs::read(file).map_err(|error| KeyError::File {
        file: file.display().to_string(),
        message: error.to_string(),
    })
}
