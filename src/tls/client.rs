//! TLS of outgoing connections: trusted authorities and the client certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};

use crate::files::Fingerprint;

use super::{Pair, TlsError, pem, provider};

/// Files that authenticate both ends of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// Trusted authorities of server certificates; none for those of the system. Without system authorities, as in an
    /// image built from scratch, Mozilla's are used.
    pub ca_file: Option<PathBuf>,
    /// Client certificate for servers that request one (mTLS).
    pub identity: Option<Pair>,
}

impl Trust {
    /// Fingerprint of the content of the files. The authorities of the system do not count.
    pub fn fingerprint(&self) -> Fingerprint {
        let identity = self.identity.iter();
        let identity = identity.flat_map(|pair| [&pair.certificate, &pair.key]);
        Fingerprint::of(self.ca_file.iter().chain(identity).map(PathBuf::as_path))
    }
}

/// Builds a client configuration that offers these ALPN protocols in order (RFC 7301), or none.
///
/// The expected server name is an argument of each connection.
pub fn config(trust: &Trust, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = match &trust.ca_file {
        Some(file) => pem::authorities(file)?,
        None => system_authorities(),
    };
    let provider = provider();
    let identity = trust.identity.as_ref();
    let identity = identity.map(|pair| pair.read(&provider)).transpose()?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => {
            let resolver: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(identity));
            builder.with_client_cert_resolver(resolver)
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Builds a client configuration without a client certificate, which trusts the authorities in `ca_file` or else those of
/// the system.
pub fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let trust = Trust {
        ca_file: ca_file.map(Path::to_owned),
        identity: None,
    };
    config(&trust, &[])
}

fn system_authorities() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(system.certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use tempfile::TempDir;

    use super::*;

    struct Files {
        directory: TempDir,
    }

    impl Files {
        fn new() -> Self {
            let files = Self {
                directory: TempDir::new().unwrap(),
            };
            for name in ["one", "other"] {
                let CertifiedKey { cert, signing_key } =
                    generate_simple_self_signed(vec![format!("{name}.example")]).unwrap();
                files.write(&format!("{name}.crt"), &cert.pem());
                files.write(&format!("{name}.key"), &signing_key.serialize_pem());
            }
            files
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).unwrap();
        }

        fn trust(&self, certificate: &str, key: &str) -> Trust {
            Trust {
                ca_file: Some(self.path("one.crt")),
                identity: Some(Pair {
                    certificate: self.path(certificate),
                    key: self.path(key),
                }),
            }
        }
    }

    #[test]
    fn presents_the_client_certificate_and_offers_protocols_in_order() {
        let files = Files::new();
        let trust = files.trust("one.crt", "one.key");
        let config = config(&trust, &[b"h2", b"http/1.1"]).unwrap();
        assert!(config.client_auth_cert_resolver.has_certs());
        assert_eq!(config.alpn_protocols, [&b"h2"[..], b"http/1.1"]);
    }

    #[test]
    fn presents_no_client_certificate_by_default() {
        let config = client_config(None).unwrap();
        assert!(!config.client_auth_cert_resolver.has_certs());
        assert!(config.alpn_protocols.is_empty());
    }

    #[test]
    fn errors_name_the_file_and_never_quote_its_content() {
        let files = Files::new();
        files.write("empty", "");
        files.write(
            "broken.key",
            "-----BEGIN PRIVATE KEY-----\nc2VjcmV0!\n-----END PRIVATE KEY-----\n",
        );
        for (certificate, key, message) in [
            (
                "one.crt",
                "other.key",
                "other.key does not match the certificate in ",
            ),
            (
                "one.crt",
                "one.crt",
                "one.crt is not a valid private key file: no PEM private key found",
            ),
            (
                "one.crt",
                "broken.key",
                "broken.key is not a valid private key file: malformed PEM",
            ),
            (
                "one.crt",
                "no.key",
                "no.key is not a valid private key file: No such file",
            ),
            (
                "empty",
                "one.key",
                "empty is not a valid certificate file: no PEM certificate found",
            ),
            (
                "no.crt",
                "one.key",
                "no.crt is not a valid certificate file: ",
            ),
        ] {
            let error = config(&files.trust(certificate, key), &[]).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(message), "{error}");
            assert!(!error.contains("c2VjcmV0"), "{error}");
        }
    }
}
