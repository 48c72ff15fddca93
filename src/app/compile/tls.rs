//! `tls` of a listener, compiled.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::{Config, KeyPath, Tls, Written};
use crate::tls::server::{Clients, ServerTls, Settings};
use crate::tls::{Pair, TlsError};

/// What is said of a rule or a header about certificates that no client is asked for.
pub(super) const NOT_ASKED: &str =
    "means nothing: no listener asks its clients for certificates, with `client_ca` in its `tls`";

/// Whether some listener asks its clients for certificates.
pub(super) fn asks_for_certificates(config: &Config) -> bool {
    let first = config.listen.tls.iter();
    let more = config.listeners.iter();
    let mut all = first.chain(more.filter_map(|listener| listener.tls.as_ref()));
    all.any(|tls| tls.client_ca.is_some())
}

/// Everything that a listener needs for TLS, at `place`.
pub(super) fn compile(
    written: &mut Written,
    place: &KeyPath,
    tls: &Tls,
    warnings: &mut Vec<String>,
) -> Option<Arc<ServerTls>> {
    if tls.client_certificate.is_some() && tls.client_ca.is_none() {
        written.report(
            place.key("client_certificate"),
            "means nothing without `client_ca`, the authorities of the clients",
        );
    }
    if tls.hsts.is_some_and(|hsts| hsts.as_secs() == 0) {
        written.report(place.key("hsts"), "must be at least a second");
    }
    let mut places = vec![(place.clone(), &tls.certificate, &tls.key)];
    let more = place.key("more");
    let more = written.elements(&more);
    let more = more.zip(&tls.more);
    places.extend(more.map(|(place, files)| (place, &files.certificate, &files.key)));
    let (mut pairs, mut warned, mut is_good) = (Vec::new(), Vec::new(), true);
    for (place, certificate, key) in places {
        let pair = Pair {
            certificate: certificate.clone(),
            key: key.clone(),
        };
        match pair.expiry() {
            Ok(expiry) => {
                if expiry.is_some_and(|expiry| expiry < Clock::System.now()) {
                    warned.push((place.key("certificate"), "has expired"));
                }
            }
            Err(error) => {
                is_good = false;
                written.report(place.key(key_of(&error)), error.to_string());
            }
        }
        pairs.push(pair);
    }
    let clients = tls.client_ca.as_ref().map(|ca_file| Clients {
        ca_file: ca_file.clone(),
        auth: tls.client_certificate.unwrap_or_default(),
    });
    for (place, what) in warned {
        warnings.push(format!("{} {what}", written.place(&place)));
    }
    if !is_good {
        return None;
    }
    let settings = Settings {
        pairs,
        min_version: tls.min_version,
        clients,
    };
    match ServerTls::load(settings) {
        Ok(server) => Some(Arc::new(server)),
        Err(error) => {
            let place = if tls.client_ca.is_some() {
                place.key("client_ca")
            } else {
                place.clone()
            };
            written.report(place, error.to_string());
            None
        }
    }
}

/// Which of a certificate and its key an error is about.
fn key_of(error: &TlsError) -> &'static str {
    match error {
        TlsError::Key { .. } | TlsError::Mismatch { .. } => "key",
        TlsError::Certificates { .. } | TlsError::Library(_) => "certificate",
    }
}
