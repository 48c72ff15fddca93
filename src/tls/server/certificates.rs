//! Server certificates of a listener, selected by server name (SNI).

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::verify_server_name;
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::clock::UnixTime;
use crate::tls::pem::expiry;
use crate::tls::{Pair, TlsError, provider};

/// One certificate for each pair of files, in configuration order.
#[derive(Debug)]
pub(super) struct Certificates(Vec<ArcSwap<CertifiedKey>>);

impl Certificates {
    pub(super) fn load(pairs: &[Pair]) -> Result<Self, TlsError> {
        let provider = provider();
        let loaded = pairs.iter().map(|pair| pair.read(&provider));
        let loaded = loaded.map(|pair| pair.map(ArcSwap::from_pointee));
        Ok(Self(loaded.collect::<Result<_, _>>()?))
    }

    /// Replaces one certificate with the current content of its files, if that is valid, and returns its expiry.
    pub(super) fn reload(&self, index: usize, pair: &Pair) -> Result<Option<UnixTime>, TlsError> {
        let read = pair.read(&provider())?;
        let expiry = expiry(&read);
        if let Some(certificate) = self.0.get(index) {
            certificate.store(Arc::new(read));
        }
        Ok(expiry)
    }

    pub(super) fn expiries(&self) -> impl Iterator<Item = Option<UnixTime>> {
        self.0.iter().map(|certificate| expiry(&certificate.load()))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        let name = name.and_then(|name| ServerName::try_from(name).ok());
        let named = name.and_then(|name| {
            let mut all = self.0.iter().map(ArcSwap::load_full);
            all.find(|certificate| has_name(certificate, &name))
        });
        named.or_else(|| Some(self.0.first()?.load_full()))
    }
}

fn has_name(certificate: &CertifiedKey, name: &ServerName<'_>) -> bool {
    let certificate = certificate.end_entity_cert();
    let parsed = certificate.and_then(ParsedCertificate::try_from);
    parsed.is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
}
