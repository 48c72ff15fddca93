//! Compiles `tls` of a listener.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::{ConfigDocument, KeyPath, Tls};
use crate::tls::server::{Clients, ServerTls, Settings};
use crate::tls::{Pair, TlsError};

/// Problem of a requirement or an identity header that needs client certificates.
pub(super) const NOT_ASKED: &str = "has no effect: no listener requests client certificates; set `client_ca` in the `tls` table of a \
     listener";

/// True if a listener has a `client_ca`, even an invalid one.
pub(super) fn requests_certificates(document: &ConfigDocument) -> bool {
    let list = KeyPath::of("listeners");
    let more = (0..).map(|index| list.index(index));
    let more = more.take_while(|listener| document.has(listener));
    let mut all = [KeyPath::of("listen")].into_iter().chain(more);
    all.any(|listener| document.has(&listener.key("tls").key("client_ca")))
}

/// Compiles the TLS settings at `path`.
pub(super) fn compile(
    document: &mut ConfigDocument,
    path: &KeyPath,
    tls: &Tls,
    warnings: &mut Vec<String>,
) -> Option<Arc<ServerTls>> {
    let of_clients = [
        ("client_crl", tls.client_crl.is_some()),
        ("client_certificate", tls.client_certificate.is_some()),
    ];
    for (key, is_set) in of_clients {
        if is_set && tls.client_ca.is_none() {
            document.report(path.key(key), "has no effect without `client_ca`");
        }
    }
    if tls.hsts.is_some_and(|hsts| hsts.as_secs() == 0) {
        document.report(path.key("hsts"), "must be at least 1s");
    }
    let mut paths = vec![(path.clone(), &tls.certificate, &tls.key)];
    let more = path.key("more");
    let more = document.elements(&more).zip(&tls.more);
    paths.extend(more.map(|(path, files)| (path, &files.certificate, &files.key)));
    let (mut pairs, mut is_valid) = (Vec::new(), true);
    for (path, certificate, key) in paths {
        let pair = Pair {
            certificate: certificate.clone(),
            key: key.clone(),
        };
        match pair.expiry() {
            Ok(Some(expiry)) if expiry <= Clock::System.now() => {
                let location = document.location(&path.key("certificate"));
                warnings.push(format!("{location}: the certificate has expired"));
            }
            Ok(_) => {}
            Err(error) => {
                is_valid = false;
                document.report(path.key(key_of(&error)), error.to_string());
            }
        }
        pairs.push(pair);
    }
    let clients = tls.client_ca.as_ref().map(|ca_file| Clients {
        ca_file: ca_file.clone(),
        crl_file: tls.client_crl.clone(),
        auth: tls.client_certificate.unwrap_or_default(),
    });
    match clients.as_ref().map(Clients::check) {
        Some(Ok(Some(expiry))) if expiry <= Clock::System.now() => {
            let location = document.location(&path.key("client_crl"));
            warnings.push(format!(
                "{location}: the revocation list has expired; client certificates of its issuer are rejected"
            ));
        }
        Some(Err(error)) => {
            is_valid = false;
            let is_list = matches!(error, TlsError::RevocationLists { .. });
            let key = if is_list { "client_crl" } else { "client_ca" };
            document.report(path.key(key), error.to_string());
        }
        Some(Ok(_)) | None => {}
    }
    if !is_valid {
        return None;
    }
    let server = ServerTls::load(Settings {
        pairs,
        min_version: tls.min_version,
        clients,
    });
    let server = server.map_err(|error| document.report(path.clone(), error.to_string()));
    server.ok().map(Arc::new)
}

/// Key of the configuration that an error is about.
fn key_of(error: &TlsError) -> &'static str {
    match error {
        TlsError::Key { .. } | TlsError::Mismatch { .. } => "key",
        TlsError::Certificates { .. } | TlsError::RevocationLists { .. } | TlsError::Library(_) => {
            "certificate"
        }
    }
}
