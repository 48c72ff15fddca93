//! TLS of listeners: server certificates, client certificates (mTLS) and their hot reload.

mod certificates;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::clock::UnixTime;
use crate::config::{ClientAuth, TlsVersion};
use crate::files::Fingerprint;
use crate::gate::certificate::ClientCertificate;

use certificates::Certificates;

use super::revocation::RevocationLists;
use super::{Pair, TlsError, pem, provider};

/// ALPN protocols (RFC 7301) in order of preference.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Maximum time to read from a connection after a failed handshake.
const LINGER: Duration = Duration::from_secs(1);

/// Encrypted bytes that wait for the socket, in bytes: one record. rustls would hold 64 KiB for a client that does not read.
const MAX_UNSENT: usize = 16 * 1024;

/// TLS settings of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Server certificates. The first is the default: for clients without a server name and for unknown names.
    pub pairs: Vec<Pair>,
    /// Minimum TLS version.
    pub min_version: TlsVersion,
    /// Client certificate settings; none to request no certificate.
    pub clients: Option<Clients>,
}

/// Verification of client certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clients {
    /// Trusted authorities of client certificates.
    pub ca_file: PathBuf,
    /// CRLs of the trusted authorities and of their intermediates.
    pub crl_file: Option<PathBuf>,
    pub auth: ClientAuth,
}

impl Clients {
    /// Validates the files and returns the expiry of the CRLs.
    pub fn check(&self) -> Result<Option<UnixTime>, TlsError> {
        self.verifier().map(|(_, expiry)| expiry)
    }

    /// Builds the certificate verifier and returns it with the expiry of the CRLs.
    fn verifier(&self) -> Result<(Arc<dyn ClientCertVerifier>, Option<UnixTime>), TlsError> {
        let authorities = Arc::new(pem::authorities(&self.ca_file)?);
        let mut verifier = WebPkiClientVerifier::builder_with_provider(authorities, provider());
        if self.auth == ClientAuth::Optional {
            verifier = verifier.allow_unauthenticated();
        }
        let mut expiry = None;
        if let Some(file) = &self.crl_file {
            // Every certificate needs a current CRL of its issuer: an unknown revocation status is an error.
            let read = RevocationLists::read(file)?;
            expiry = read.expiry;
            verifier = verifier
                .with_crls(read.lists)
                .enforce_revocation_expiration();
        }
        let verifier = verifier.build().map_err(|error| self.invalid(&error))?;
        Ok((verifier, expiry))
    }

    fn invalid(&self, error: &VerifierBuilderError) -> TlsError {
        let message = error.to_string();
        match (error, &self.crl_file) {
            (VerifierBuilderError::InvalidCrl(_), Some(file)) => TlsError::RevocationLists {
                file: file.display().to_string(),
                message,
            },
            _ => TlsError::Certificates {
                file: self.ca_file.display().to_string(),
                message,
            },
        }
    }
}

/// TLS of one listener. Certificates can be reloaded while it serves; each connection keeps those of its handshake.
#[derive(Debug)]
pub struct ServerTls {
    settings: Settings,
    certificates: Arc<Certificates>,
    config: ArcSwap<ServerConfig>,
    /// Expiry of the CRLs at startup.
    crl_expiry: Option<UnixTime>,
    /// Fingerprints of the loaded files.
    loaded: Fingerprints,
}

impl ServerTls {
    /// Loads all files.
    pub fn load(settings: Settings) -> Result<Self, TlsError> {
        // Before the files are read: a change during loading is then found by the next poll.
        let loaded = Fingerprints::of(&settings);
        let certificates = Arc::new(Certificates::load(&settings.pairs)?);
        let (config, crl_expiry) = build(&settings, &certificates)?;
        Ok(Self {
            settings,
            certificates,
            config: ArcSwap::from(config),
            crl_expiry,
            loaded,
        })
    }

    /// Certificate files with the expiry of each.
    pub fn expiries(&self) -> impl Iterator<Item = (&Path, Option<UnixTime>)> {
        let files = self.settings.pairs.iter();
        let files = files.map(|pair| pair.certificate.as_path());
        files.zip(self.certificates.expiries())
    }

    /// CRL file with the earliest expiry of its lists.
    pub fn crl_expiry(&self) -> Option<(&Path, Option<UnixTime>)> {
        let file = self.settings.clients.as_ref()?.crl_file.as_deref()?;
        Some((file, self.crl_expiry))
    }

    /// Performs the handshake and returns the client certificate, if the client presented one.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<(TlsStream<S>, Option<Arc<ClientCertificate>>)> {
        let acceptor = TlsAcceptor::from(self.config.load_full());
        let mut stream = match acceptor.accept(stream).into_fallible().await {
            Ok(stream) => stream,
            Err((error, stream)) => {
                close_after_failure(stream).await;
                return Err(error);
            }
        };
        stream.get_mut().1.set_buffer_limit(Some(MAX_UNSENT));
        let presented = stream.get_ref().1.peer_certificates();
        let certificate = match presented.and_then(<[_]>::first) {
            None => None,
            // A trusted certificate that cannot be parsed is an error: the client must not pass as anonymous.
            Some(der) => match ClientCertificate::parse(der) {
                Some(certificate) => Some(Arc::new(certificate)),
                None => return Err(io::Error::other("the client certificate cannot be read")),
            },
        };
        Ok((stream, certificate))
    }

    /// Reloads the authorities and the CRLs, and returns the expiry of the CRLs.
    fn reload_clients(&self) -> Result<Option<UnixTime>, TlsError> {
        let (config, expiry) = build(&self.settings, &self.certificates)?;
        self.config.store(config);
        Ok(expiry)
    }
}

/// Shuts the connection down and drains it, so that the client can read the alert: closing a connection with unread bytes
/// resets it.
async fn close_after_failure<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let drain = async {
        stream.shutdown().await?;
        let mut scratch = [0; 1024];
        while stream.read(&mut scratch).await? > 0 {}
        io::Result::Ok(())
    };
    let _elapsed = timeout(LINGER, drain).await;
}

fn build(
    settings: &Settings,
    certificates: &Arc<Certificates>,
) -> Result<(Arc<ServerConfig>, Option<UnixTime>), TlsError> {
    let versions: &[_] = match settings.min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let builder =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions)?;
    let (builder, crl_expiry) = match &settings.clients {
        None => (builder.with_no_client_auth(), None),
        Some(clients) => {
            let (verifier, expiry) = clients.verifier()?;
            (builder.with_client_cert_verifier(verifier), expiry)
        }
    };
    let certificates = Arc::clone(certificates);
    let mut config = builder.with_cert_resolver(certificates);
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if settings.clients.is_none() {
        config.ticketer = Ticketer::new()?;
    } else {
        // A resumed session does not verify the client certificate again. Since then it may have expired or been revoked,
        // or its authority may have been removed.
        config.send_tls13_tickets = 0;
    }
    Ok((Arc::new(config), crl_expiry))
}

/// Reloads the files of a listener when they change.
#[derive(Debug)]
pub struct Reloader {
    tls: Arc<ServerTls>,
    /// Fingerprints of the files at the last attempt.
    attempted: Fingerprints,
}

/// Result of reloading one changed file.
#[derive(Debug)]
pub struct Reloaded {
    /// Certificate, authority or CRL file.
    pub file: PathBuf,
    /// Expiry of the certificate or of the CRLs; none for authorities.
    pub result: Result<Option<UnixTime>, TlsError>,
}

impl Reloader {
    pub fn new(tls: Arc<ServerTls>) -> Self {
        let attempted = tls.loaded.clone();
        Self { tls, attempted }
    }

    /// Reloads the files that have changed since the last call. An invalid file is reported once and the previous content
    /// stays in use, also while a certificate is already replaced and its key is not.
    pub fn reload_changed(&mut self) -> Vec<Reloaded> {
        let tls = &self.tls;
        let before = std::mem::replace(&mut self.attempted, Fingerprints::of(&tls.settings));
        let now = &self.attempted;
        let mut reloaded = Vec::new();
        let compared = before.pairs.iter().zip(&now.pairs);
        for (index, (pair, (before, now))) in tls.settings.pairs.iter().zip(compared).enumerate() {
            if before == now {
                continue;
            }
            reloaded.push(Reloaded {
                file: pair.certificate.clone(),
                result: tls.certificates.reload(index, pair),
            });
        }
        let Some(clients) = &tls.settings.clients else {
            return reloaded;
        };
        // Reloading the authorities reloads the CRLs too.
        let mut crls = None;
        if before.authorities != now.authorities {
            let result = tls.reload_clients();
            crls = result.as_ref().ok().copied().map(Ok);
            reloaded.push(Reloaded {
                file: clients.ca_file.clone(),
                result: result.map(|_| None),
            });
        }
        if crls.is_none() && before.crls != now.crls {
            crls = Some(tls.reload_clients());
        }
        if let (Some(file), Some(result)) = (clients.crl_file.clone(), crls) {
            reloaded.push(Reloaded { file, result });
        }
        reloaded
    }
}

/// Fingerprints of all files of a listener.
#[derive(Debug, Clone)]
struct Fingerprints {
    pairs: Vec<Fingerprint>,
    authorities: Fingerprint,
    crls: Fingerprint,
}

impl Fingerprints {
    fn of(settings: &Settings) -> Self {
        let pairs = settings.pairs.iter();
        let clients = settings.clients.as_ref();
        let crl_file = clients.and_then(|clients| clients.crl_file.as_deref());
        Self {
            pairs: pairs
                .map(|pair| Fingerprint::of([pair.certificate.as_path(), &pair.key]))
                .collect(),
            authorities: Fingerprint::of(clients.map(|clients| clients.ca_file.as_path())),
            crls: Fingerprint::of(crl_file),
        }
    }
}
