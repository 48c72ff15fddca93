//! Listening: which certificate is shown, and whose is asked for. Files that change are read again.

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

/// What is spoken (RFC 7301), the better first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The longest that a connection whose handshake has failed is still read.
const LINGER: Duration = Duration::from_secs(1);

/// How a listener proves who it is, and what it asks of its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its certificates; the first is for every client that asks for no name or for one that is in none of them.
    pub pairs: Vec<Pair>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// The clients whose certificates are asked for.
    pub clients: Option<Clients>,
}

/// Whose clients may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clients {
    /// The file with the authorities.
    pub ca_file: PathBuf,
    /// The file with the revocation lists of these authorities, and of those below them.
    pub crl_file: Option<PathBuf>,
    /// Whether all must have a certificate.
    pub auth: ClientAuth,
}

impl Clients {
    /// Whether the authorities and the lists can be used, and when the first of the lists ends.
    pub fn check(&self) -> Result<Option<UnixTime>, TlsError> {
        self.verifier().map(|(_, expiry)| expiry)
    }

    /// What judges certificates, and when the first of the revocation lists ends.
    fn verifier(&self) -> Result<(Arc<dyn ClientCertVerifier>, Option<UnixTime>), TlsError> {
        let authorities = Arc::new(pem::authorities(&self.ca_file)?);
        let mut verifier = WebPkiClientVerifier::builder_with_provider(authorities, provider());
        if self.auth == ClientAuth::Optional {
            verifier = verifier.allow_unauthenticated();
        }
        let mut expiry = None;
        if let Some(file) = &self.crl_file {
            // Of every certificate below an authority it must be known that it is not revoked: without a list of its
            // issuer, or with one that has ended, it is not.
            let read = RevocationLists::read(file)?;
            expiry = read.expiry;
            verifier = verifier
                .with_crls(read.lists)
                .enforce_revocation_expiration();
        }
        let verifier = verifier.build().map_err(|error| self.unusable(&error))?;
        Ok((verifier, expiry))
    }

    fn unusable(&self, error: &VerifierBuilderError) -> TlsError {
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

/// TLS of one listener. What it is made of can change while connections come in; each connection has what was there
/// when it came.
#[derive(Debug)]
pub struct ServerTls {
    settings: Settings,
    certificates: Arc<Certificates>,
    config: ArcSwap<ServerConfig>,
    /// When the first of the revocation lists ended, as of the start.
    lists_expiry: Option<UnixTime>,
    /// What was in the files.
    read: Fingerprints,
}

impl ServerTls {
    /// Reads all files.
    pub fn load(settings: Settings) -> Result<Self, TlsError> {
        // What changes while it is read is found to have changed.
        let read = Fingerprints::of(&settings);
        let certificates = Arc::new(Certificates::load(&settings.pairs)?);
        let (config, lists_expiry) = build(&settings, &certificates)?;
        Ok(Self {
            settings,
            certificates,
            config: ArcSwap::from(config),
            lists_expiry,
            read,
        })
    }

    /// The files with its certificates, and until when each is good.
    pub fn expiries(&self) -> impl Iterator<Item = (&Path, Option<UnixTime>)> {
        let files = self.settings.pairs.iter();
        let files = files.map(|pair| pair.certificate.as_path());
        files.zip(self.certificates.expiries())
    }

    /// The file with revocation lists, and when the first of them ends.
    pub fn lists_expiry(&self) -> Option<(&Path, Option<UnixTime>)> {
        let file = self.settings.clients.as_ref()?.crl_file.as_deref()?;
        Some((file, self.lists_expiry))
    }

    /// Agrees with a client on how to speak, and finds out who it is if it is asked.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<(TlsStream<S>, Option<Arc<ClientCertificate>>)> {
        let acceptor = TlsAcceptor::from(self.config.load_full());
        let stream = match acceptor.accept(stream).into_fallible().await {
            Ok(stream) => stream,
            Err((error, stream)) => {
                hang_up(stream).await;
                return Err(error);
            }
        };
        let shown = stream.get_ref().1.peer_certificates();
        let certificate = match shown.and_then(<[_]>::first) {
            None => None,
            // An authority has signed it, but what it says is not known: this client is not nobody.
            Some(der) => match ClientCertificate::parse(der) {
                Some(certificate) => Some(Arc::new(certificate)),
                None => return Err(io::Error::other("the client certificate cannot be read")),
            },
        };
        Ok((stream, certificate))
    }

    /// Reads again what certificates of clients are judged by; when the first of the revocation lists ends.
    fn judge_clients_anew(&self) -> Result<Option<UnixTime>, TlsError> {
        let (config, expiry) = build(&self.settings, &self.certificates)?;
        self.config.store(config);
        Ok(expiry)
    }
}

/// Lets a client read why it is not served: to close a connection with unread bytes resets it.
async fn hang_up<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let reading = async {
        stream.shutdown().await?;
        let mut scratch = [0; 1024];
        while stream.read(&mut scratch).await? > 0 {}
        io::Result::Ok(())
    };
    let _gone = timeout(LINGER, reading).await;
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
    let (builder, lists_expiry) = match &settings.clients {
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
        // A client that comes back with a ticket is not asked for its certificate again, which may have expired or be
        // revoked by now, or be of an authority that is not trusted any more.
        config.send_tls13_tickets = 0;
    }
    Ok((Arc::new(config), lists_expiry))
}

/// Reads the files of a listener again when they have changed.
#[derive(Debug)]
pub struct Reloader {
    tls: Arc<ServerTls>,
    /// What was in the files when they were last tried.
    tried: Fingerprints,
}

/// Files that have changed, and what became of that.
#[derive(Debug)]
pub struct Reloaded {
    /// The certificate, or what certificates of clients are judged by.
    pub file: PathBuf,
    /// Until when the certificate is good, or the revocation lists are; for authorities, nothing.
    pub result: Result<Option<UnixTime>, TlsError>,
}

impl Reloader {
    /// Begins with what a listener has read.
    pub fn new(tls: Arc<ServerTls>) -> Self {
        let tried = tls.read.clone();
        Self { tls, tried }
    }

    /// Reads what has changed since the last time. What cannot be used is said once, and what was there stays in force;
    /// so it does between the moments in which a certificate and its key are changed.
    pub fn look(&mut self) -> Vec<Reloaded> {
        let tls = &self.tls;
        let tried = std::mem::replace(&mut self.tried, Fingerprints::of(&tls.settings));
        let now = &self.tried;
        let mut reloaded = Vec::new();
        let compared = tried.pairs.iter().zip(&now.pairs);
        for (at, (pair, (before, now))) in tls.settings.pairs.iter().zip(compared).enumerate() {
            if before == now {
                continue;
            }
            reloaded.push(Reloaded {
                file: pair.certificate.clone(),
                result: tls.certificates.reload(at, pair),
            });
        }
        let Some(clients) = &tls.settings.clients else {
            return reloaded;
        };
        // With the authorities, the lists are read again.
        let mut lists = None;
        if tried.authorities != now.authorities {
            let result = tls.judge_clients_anew();
            lists = result.as_ref().ok().copied().map(Ok);
            reloaded.push(Reloaded {
                file: clients.ca_file.clone(),
                result: result.map(|_| None),
            });
        }
        if lists.is_none() && tried.lists != now.lists {
            lists = Some(tls.judge_clients_anew());
        }
        if let (Some(file), Some(result)) = (clients.crl_file.clone(), lists) {
            reloaded.push(Reloaded { file, result });
        }
        reloaded
    }
}

/// What stands for the content of all files of a listener.
#[derive(Debug, Clone)]
struct Fingerprints {
    pairs: Vec<Fingerprint>,
    authorities: Fingerprint,
    lists: Fingerprint,
}

impl Fingerprints {
    fn of(settings: &Settings) -> Self {
        let pairs = settings.pairs.iter();
        let clients = settings.clients.as_ref();
        let lists = clients.and_then(|clients| clients.crl_file.as_deref());
        Self {
            pairs: pairs
                .map(|pair| Fingerprint::of([pair.certificate.as_path(), &pair.key]))
                .collect(),
            authorities: Fingerprint::of(clients.map(|clients| clients.ca_file.as_path())),
            lists: Fingerprint::of(lists),
        }
    }
}
