//! TLS for listeners and for outgoing connections, with certificates and keys from files.

pub mod client;
mod pem;
mod revocation;
pub mod server;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use crate::gate::certificate::ClientCertificate;

pub use client::client_config;

/// Files of a certificate chain and its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Certificate chain in PEM: the end-entity certificate, then the intermediates.
    pub certificate: PathBuf,
    /// Private key in PEM.
    pub key: PathBuf,
}

/// Error of a TLS file or of a TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file has no certificate, or an invalid one.
    #[error("{file} is not a valid certificate file: {message}")]
    Certificates { file: String, message: String },
    /// The file has no private key, or an invalid one.
    #[error("{file} is not a valid private key file: {message}")]
    Key {
        file: String,
        /// Never quotes the content of the file.
        message: String,
    },
    /// The file has no certificate revocation list (CRL), or an invalid one.
    #[error("{file} is not a valid CRL file: {message}")]
    RevocationLists { file: String, message: String },
    /// The private key belongs to another certificate.
    #[error("the key in {key} does not match the certificate in {certificate}")]
    Mismatch {
        /// File of the certificate.
        certificate: String,
        /// File of the private key.
        key: String,
    },
    /// rustls rejects the configuration.
    #[error("invalid TLS configuration: {0}")]
    Library(#[from] rustls::Error),
}

/// Reads the attributes of the first certificate in a file.
pub fn client_certificate(file: &Path) -> Result<ClientCertificate, TlsError> {
    let certificates = pem::certificates(file)?;
    let first = certificates.first();
    let read = first.and_then(|der| ClientCertificate::parse(der));
    read.ok_or_else(|| TlsError::Certificates {
        file: file.display().to_string(),
        message: "the first certificate cannot be parsed".to_owned(),
    })
}

/// Cryptography provider of every connection.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests {
    use rustls::NamedGroup;

    use super::*;

    #[test]
    fn prefers_the_hybrid_post_quantum_key_exchange() {
        // draft-ietf-tls-ecdhe-mlkem: the shared secret is safe if either X25519 or ML-KEM-768 is.
        let provider = provider();
        let groups = provider.kx_groups.iter().map(|group| group.name());
        let groups: Vec<NamedGroup> = groups.collect();
        assert_eq!(groups.first(), Some(&NamedGroup::X25519MLKEM768));
        assert!(groups.contains(&NamedGroup::X25519), "{groups:?}");
    }
}
