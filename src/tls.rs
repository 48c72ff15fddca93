//! TLS: certificates and keys from files, for those that listen and for those that connect.

pub mod client;
mod pem;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use client::client_config;

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The file with the certificate, first, and those that lead to a trusted authority.
    pub certificate: PathBuf,
    /// The file with the key.
    pub key: PathBuf,
}

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file has no certificates.
    #[error("{file} is no file of PEM certificates: {message}")]
    Certificates {
        /// Which file.
        file: String,
        /// Why not.
        message: String,
    },
    /// The file has no key.
    #[error("{file} is no file with a PEM private key: {message}")]
    Key {
        /// Which file.
        file: String,
        /// Why not; never anything of what is in it.
        message: String,
    },
    /// They do not belong together.
    #[error("the key in {key} does not fit the certificate in {certificate}")]
    Mismatch {
        /// The file with the certificate.
        certificate: String,
        /// The file with the key.
        key: String,
    },
    /// The library refuses.
    #[error("TLS cannot be used: {0}")]
    Library(#[from] rustls::Error),
}

/// The cryptography of every connection.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
