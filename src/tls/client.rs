//! Connecting: whom to trust, and who to be.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};

use crate::files::Fingerprint;

use super::{Pair, TlsError, pem, provider};

/// How two ends of a connection prove to each other who they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// The authorities of the server's certificate; none for those of the system, and where the system has none, as in
    /// an image from scratch, of Mozilla.
    pub ca_file: Option<PathBuf>,
    /// What is shown to a server that asks who connects.
    pub identity: Option<Pair>,
}

impl Trust {
    /// What stands for the content of its files; nothing for the system's authorities.
    pub fn fingerprint(&self) -> Fingerprint {
        let identity = self.identity.iter();
        let identity = identity.flat_map(|pair| [&pair.certificate, &pair.key]);
        Fingerprint::of(self.ca_file.iter().chain(identity).map(PathBuf::as_path))
    }
}

/// What is needed to connect. The protocols are offered in this order (RFC 7301), or no such offer is made.
///
/// The name that the server's certificate must have is given with each connection.
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
            let shown: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(identity));
            builder.with_client_cert_resolver(shown)
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// How an issuer proves who it is: by a certificate of the authorities in `ca_file`, or else of the system's.
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
    fn a_pair_is_shown_and_the_protocols_are_offered_in_their_order() {
        let files = Files::new();
        let trust = files.trust("one.crt", "one.key");
        let config = config(&trust, &[b"h2", b"http/1.1"]).unwrap();
        assert!(config.client_auth_cert_resolver.has_certs());
        assert_eq!(config.alpn_protocols, [&b"h2"[..], b"http/1.1"]);
    }

    #[test]
    fn a_server_learns_nothing_about_who_connects_unless_told() {
        let config = client_config(None).unwrap();
        assert!(!config.client_auth_cert_resolver.has_certs());
        assert!(config.alpn_protocols.is_empty());
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_file_and_without_its_content() {
        let files = Files::new();
        files.write("empty", "");
        files.write(
            "broken.key",
            "-----BEGIN PRIVATE KEY-----\nc2VjcmV0!\n-----END PRIVATE KEY-----\n",
        );
        for (certificate, key, said) in [
            (
                "one.crt",
                "other.key",
                "other.key does not fit the certificate in ",
            ),
            (
                "one.crt",
                "one.crt",
                "one.crt is no file with a PEM private key: there is none in it",
            ),
            (
                "one.crt",
                "broken.key",
                "broken.key is no file with a PEM private key: it is not PEM",
            ),
            (
                "one.crt",
                "no.key",
                "no.key is no file with a PEM private key: No such file",
            ),
            (
                "empty",
                "one.key",
                "empty is no file of PEM certificates: there is none in it",
            ),
            (
                "no.crt",
                "one.key",
                "no.crt is no file of PEM certificates: ",
            ),
        ] {
            let error = config(&files.trust(certificate, key), &[]).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(said), "{error}");
            assert!(!error.contains("c2VjcmV0"), "{error}");
        }
    }
}
