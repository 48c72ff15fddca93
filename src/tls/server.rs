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
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
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
    /// Whether all must have a certificate.
    pub auth: ClientAuth,
}

impl Clients {
    /// Whether the authorities can be used.
    pub fn check(&self) -> Result<(), TlsError> {
        self.verifier().map(|_| ())
    }

    fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let authorities = Arc::new(pem::authorities(&self.ca_file)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(authorities, provider());
        let verifier = match self.auth {
            ClientAuth::Required => verifier,
            ClientAuth::Optional => verifier.allow_unauthenticated(),
        };
        verifier.build().map_err(|error| TlsError::Certificates {
            file: self.ca_file.display().to_string(),
            message: error.to_string(),
        })
    }
}

/// TLS of one listener. What it is made of can change while connections come in; each connection has what was there
/// when it came.
#[derive(Debug)]
pub struct ServerTls {
    settings: Settings,
    certificates: Arc<Certificates>,
    config: ArcSwap<ServerConfig>,
    /// What was in the files.
    read: Fingerprints,
}

impl ServerTls {
    /// Reads all files.
    pub fn load(settings: Settings) -> Result<Self, TlsError> {
        // What changes while it is read is found to have changed.
        let read = Fingerprints::of(&settings);
        let certificates = Arc::new(Certificates::load(&settings.pairs)?);
        let config = build(&settings, &certificates)?;
        Ok(Self {
            settings,
            certificates,
            config: ArcSwap::from(config),
            read,
        })
    }

    /// The files with its certificates, and until when each is good.
    pub fn expiries(&self) -> impl Iterator<Item = (&Path, Option<UnixTime>)> {
        let files = self.settings.pairs.iter();
        let files = files.map(|pair| pair.certificate.as_path());
        files.zip(self.certificates.expiries())
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
) -> Result<Arc<ServerConfig>, TlsError> {
    let versions: &[_] = match settings.min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let builder =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions)?;
    let builder = match &settings.clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(clients.verifier()?),
    };
    let certificates = Arc::clone(certificates);
    let mut config = builder.with_cert_resolver(certificates);
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if settings.clients.is_none() {
        config.ticketer = Ticketer::new()?;
    } else {
        // A client that comes back with a ticket is not asked for its certificate again, which may have expired by now
        // or be of an authority that is not trusted any more.
        config.send_tls13_tickets = 0;
    }
    Ok(Arc::new(config))
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
    /// The certificate, or the authorities of the clients.
    pub file: PathBuf,
    /// Until when the certificate is good; for authorities, nothing.
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
        if let Some(clients) = &tls.settings.clients
            && tried.authorities != now.authorities
        {
            let built = build(&tls.settings, &tls.certificates);
            reloaded.push(Reloaded {
                file: clients.ca_file.clone(),
                result: built.map(|config| {
                    tls.config.store(config);
                    None
                }),
            });
        }
        reloaded
    }
}

/// What stands for the content of all files of a listener.
#[derive(Debug, Clone)]
struct Fingerprints {
    pairs: Vec<Fingerprint>,
    authorities: Fingerprint,
}

impl Fingerprints {
    fn of(settings: &Settings) -> Self {
        let pairs = settings.pairs.iter();
        let clients = settings.clients.iter();
        Self {
            pairs: pairs
                .map(|pair| Fingerprint::of([pair.certificate.as_path(), &pair.key]))
                .collect(),
            authorities: Fingerprint::of(clients.map(|clients| clients.ca_file.as_path())),
        }
    }
}
