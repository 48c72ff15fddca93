//! What PEM files have in them.

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
    /// Reads both files. The key must be the certificate's.
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

    /// Until when the certificate is good; nothing if that cannot be read. Both files must be what they should be.
    pub fn expiry(&self) -> Result<Option<UnixTime>, TlsError> {
        Ok(expiry(&self.read(&provider())?))
    }
}

/// Until when a certificate is good; nothing if that cannot be read.
pub(super) fn expiry(certificate: &CertifiedKey) -> Option<UnixTime> {
    let certificate = Certificate::from_der(certificate.end_entity_cert().ok()?).ok()?;
    let until = certificate.tbs_certificate.validity.not_after;
    let until = until.to_unix_duration().as_secs();
    i64::try_from(until).ok().map(UnixTime)
}

/// The authorities in a file.
pub(super) fn authorities(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        let added = roots.add(certificate);
        added.map_err(|error| no_certificates(file, &error))?;
    }
    Ok(roots)
}

/// The certificates in a file, at least one.
pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let found: Vec<_> = found.map_err(|error| no_certificates(file, &why(&error)))?;
    if found.is_empty() {
        return Err(no_certificates(file, &"there is none in it"));
    }
    Ok(found)
}

/// Why a file cannot be read as PEM.
pub(super) fn why(error: &pem::Error) -> String {
    if let pem::Error::Io(error) = error {
        return error.to_string();
    }
    error.to_string()
}

/// The first key in a file.
fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let no_key = |message: String| TlsError::Key {
        file: file.display().to_string(),
        message,
    };
    let text = std::fs::read(file).map(Zeroizing::new);
    let text = text.map_err(|error| no_key(error.to_string()))?;
    // What the library says of a broken line may have the line in it.
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        no_key(if matches!(error, pem::Error::NoItemsFound) {
            "there is none in it".to_owned()
        } else {
            "it is not PEM".to_owned()
        })
    })
}

fn no_certificates(file: &Path, why: &impl ToString) -> TlsError {
    TlsError::Certificates {
        file: file.display().to_string(),
        message: why.to_string(),
    }
}
