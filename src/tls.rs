//! TLS: certificates and keys from files, for those that listen and for those that connect.

pub mod client;
mod pem;
mod revocation;
pub mod server;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use crate::gate::certificate::ClientCertificate;

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
    /// The file has no revocation lists.
    #[error("{file} is no file of PEM revocation lists: {message}")]
    RevocationLists {
        /// Which file.
        file: String,
        /// Why not.
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

/// What the first certificate in a file says of the client whose it is.
pub fn client_certificate(file: &Path) -> Result<ClientCertificate, TlsError> {
    let certificates = pem::certificates(file)?;
    let first = certificates.first();
    let read = first.and_then(|der| ClientCertificate::parse(der));
    read.ok_or_else(|| TlsError::Certificates {
        file: file.display().to_string(),
        message: "the first of them cannot be read".to_owned(),
    })
}

/// The cryptography of every connection.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
