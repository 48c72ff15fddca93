//! Certificates and private keys from PEM files.

use std::path::Path;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use zeroize::Zeroizing;

use crate::clock::UnixTime;

use super::{Pair, TlsError, provider};

impl Pair {
    /// Reads both files. The key must match the certificate.
    pub(super) fn read(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let chain = certificates(&self.certificate)?;
        let key = private_key(&self.key)?;
        let pair = CertifiedKey::from_der(chain, key, provider);
        if let Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) = pair {
            return Err(TlsError::Mismatch {
                certificate: self.certificate.display().to_string(),
                key: self.key.display().to_string(),
            });
        }
        Ok(pair?)
    }

    /// Reads both files and returns the expiry of the certificate; none if it cannot be parsed.
    pub fn expiry(&self) -> Result<Option<UnixTime>, TlsError> {
        Ok(expiry(&self.read(&provider())?))
    }
}

/// Expiry of the end-entity certificate; none if it cannot be parsed.
pub(super) fn expiry(certificate: &CertifiedKey) -> Option<UnixTime> {
    let certificate = Certificate::from_der(certificate.end_entity_cert().ok()?).ok()?;
    let until = certificate.tbs_certificate.validity.not_after;
    let until = until.to_unix_duration().as_secs();
    i64::try_from(until).ok().map(UnixTime)
}

/// Reads trusted certificate authorities.
pub(super) fn authorities(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        let added = roots.add(certificate);
        added.map_err(|error| invalid_certificates(file, &error))?;
    }
    Ok(roots)
}

/// Reads certificates, at least one.
pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let found: Vec<_> = found.map_err(|error| invalid_certificates(file, &cause(&error)))?;
    if found.is_empty() {
        return Err(invalid_certificates(file, &"no PEM certificate found"));
    }
    Ok(found)
}

/// Describes a PEM error. For an I/O error, only its cause: the file is named elsewhere.
pub(super) fn cause(error: &pem::Error) -> String {
    if let pem::Error::Io(error) = error {
        return error.to_string();
    }
    error.to_string()
}

/// Reads the first private key of a file.
fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let invalid = |message: String| TlsError::Key {
        file: file.display().to_string(),
        message,
    };
    let text = std::fs::read(file).map(Zeroizing::new);
    let text = text.map_err(|error| invalid(error.to_string()))?;
    // The text of a PEM error may quote a line of the file.
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        invalid(if matches!(error, pem::Error::NoItemsFound) {
            "no PEM private key found".to_owned()
        } else {
            "malformed PEM".to_owned()
        })
    })
}

fn invalid_certificates(file: &Path, message: &impl ToString) -> TlsError {
    TlsError::Certificates {
        file: file.display().to_string(),
        message: message.to_string(),
    }
}
