//! Certificate authority, and a TLS client that trusts it.

use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use claimgate::tls::Pair;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    CrlDistributionPoint, CrlIssuingDistributionPoint, DnType, IsCa, KeyIdMethod, KeyPair,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;

use super::wire::{TlsStream, Wire};
use super::{Client, TIMEOUT};

/// Certificate authority. Dropping it removes its files.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Chain from this intermediate to the root, in PEM; empty for a root.
    chain: String,
    files: TempDir,
}

/// TLS client builder.
#[derive(Clone)]
pub(crate) struct Connector {
    roots: Arc<RootCertStore>,
    identity: Option<Pair>,
    versions: Vec<&'static SupportedProtocolVersion>,
    protocols: Vec<Vec<u8>>,
    name: &'static str,
    /// Bytes sent before the handshake.
    before: Vec<u8>,
    /// Shared configuration, so that later connections resume the session.
    shared: Option<Arc<ClientConfig>>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self::trusted(params())
    }

    /// Creates an authority with this common name.
    pub(crate) fn named(name: &str) -> Self {
        let mut params = params();
        params.distinguished_name.push(DnType::CommonName, name);
        Self::trusted(params)
    }

    fn trusted(params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let authority = Self {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
            chain: String::new(),
            files: TempDir::new().unwrap(),
        };
        fs::write(authority.file("ca.crt"), authority.pem()).unwrap();
        authority
    }

    /// Creates an intermediate authority.
    pub(crate) fn below(&self, name: &str, number: u64) -> Self {
        let mut params = params();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(number));
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::signed_by(params, key, &self.issuer).unwrap();
        Self {
            chain: issuer.pem() + &self.chain,
            issuer,
            files: TempDir::new().unwrap(),
        }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Path of a file in the directory of the authority.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Issues a certificate with a new key, in files of this name.
    pub(crate) fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = CertificateParams::default();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let pair = Pair {
            certificate: self.file(&format!("{name}.crt")),
            key: self.file(&format!("{name}.key")),
        };
        fs::write(&pair.certificate, certificate.pem() + &self.chain).unwrap();
        fs::write(&pair.key, key.serialize_pem()).unwrap();
        pair
    }

    /// Signs a CRL of these serial numbers, valid between the starts of these years.
    pub(crate) fn revoked(&self, numbers: &[u64], from: i32, until: i32) -> String {
        self.revoked_in_part(numbers, from, until, None)
    }

    /// Like [`Authority::revoked`], partitioned by a distribution point.
    pub(crate) fn revoked_in_part(
        &self,
        numbers: &[u64],
        from: i32,
        until: i32,
        part: Option<&str>,
    ) -> String {
        let revoked = numbers.iter().map(|number| RevokedCertParams {
            serial_number: SerialNumber::from(*number),
            revocation_time: date_time_ymd(from, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(from, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: part.map(|url| CrlIssuingDistributionPoint {
                distribution_point: CrlDistributionPoint {
                    uris: vec![url.to_owned()],
                },
                scope: None,
            }),
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// Issues a server certificate for these names.
    pub(crate) fn server(&self, name: &str, names: &[&str]) -> Pair {
        let names = names.iter().map(|name| (*name).to_owned());
        let names: Vec<String> = names.collect();
        let names = CertificateParams::new(names).unwrap().subject_alt_names;
        self.issue(name, |params| params.subject_alt_names = names)
    }

    /// `[listen.tls]` with a certificate for `gate.test` and these lines.
    pub(crate) fn listen(&self, lines: &str) -> String {
        let pair = self.server("gate", &["gate.test"]);
        format!(
            "[listen.tls]\n{}\n{lines}\n",
            written(&pair).replace(", ", "\n")
        )
    }

    /// Like [`Authority::listen`], with this mode of `client_certificate`.
    pub(crate) fn listen_mtls(&self, mode: &str) -> String {
        let ca = self.file("ca.crt");
        let ca = ca.display();
        self.listen(&format!(
            "client_ca = \"{ca}\"\nclient_certificate = \"{mode}\""
        ))
    }

    /// Client that trusts this authority and expects `gate.test`.
    pub(crate) fn connector(&self) -> Connector {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        Connector {
            roots: Arc::new(roots),
            identity: None,
            versions: rustls::ALL_VERSIONS.to_vec(),
            protocols: Vec::new(),
            name: "gate.test",
            before: Vec::new(),
            shared: None,
        }
    }
}

/// Parameters of a CA certificate.
fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// Certificate and key as keys of a configuration.
pub(crate) fn written(pair: &Pair) -> String {
    let Pair { certificate, key } = pair;
    let (certificate, key) = (certificate.display(), key.display());
    format!("certificate = \"{certificate}\", key = \"{key}\"")
}

impl Connector {
    /// Presents this client certificate on request.
    pub(crate) fn presenting(mut self, pair: &Pair) -> Self {
        self.identity = Some(pair.clone());
        self
    }

    pub(crate) fn speaking(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    pub(crate) fn offering(mut self, protocols: &[&str]) -> Self {
        self.protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        self
    }

    /// Sends and expects this server name.
    pub(crate) fn name(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    /// Sends these bytes before the handshake.
    pub(crate) fn after(mut self, bytes: &[u8]) -> Self {
        self.before = bytes.to_vec();
        self
    }

    /// Reuses one configuration from now on, so that later connections resume the session.
    pub(crate) fn resuming(mut self) -> Self {
        self.shared = Some(self.config());
        self
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        if let Some(shared) = &self.shared {
            return Arc::clone(shared);
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(Arc::clone(&self.roots));
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = CertificateDer::pem_file_iter(&pair.certificate).unwrap();
                let chain = chain.map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
                let key = any_supported_type(&key).unwrap();
                // Does not check that key and certificate match; the gate must.
                let presented = SingleCertAndKey::from(CertifiedKey::new(chain, key));
                builder.with_client_cert_resolver(Arc::new(presented))
            }
        };
        config.alpn_protocols.clone_from(&self.protocols);
        Arc::new(config)
    }

    /// Completes the handshake. With TLS 1.3, the gate rejects a client only afterwards.
    pub(crate) fn handshake(&self, address: SocketAddr) -> io::Result<TlsStream> {
        let mut connection =
            ClientConnection::new(self.config(), ServerName::try_from(self.name).unwrap()).unwrap();
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(&self.before)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(TlsStream::new(connection, stream))
    }

    pub(crate) fn connect(&self, address: SocketAddr) -> io::Result<Client> {
        let wire = Wire::tls(self.handshake(address)?);
        Ok(Client { wire })
    }
}
