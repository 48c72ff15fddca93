//! Key sets from a URL: fetched in the background, kept while the issuer is away.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tracing::{info, warn};

use crate::clock::{Clock, UnixTime};
use crate::observe::metrics::IssuerMetrics;

use super::jwks::{self, KeySet};
use super::{Algorithm, KeyError, KeyRing};

/// The largest key set, in bytes.
const MAX_BYTES: usize = 256 * 1024;

/// How long a connection to the issuer may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a whole fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a request waits for a fetch that it has asked for.
const PATIENCE: Duration = Duration::from_secs(3);

/// How soon after a fetch a request may cause another.
const COOL_DOWN: Duration = Duration::from_secs(5);

/// How soon a failed fetch is tried again; doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// How soon a failed fetch is tried again at the latest.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Where a key set is, and how it is kept.
#[derive(Debug, Clone)]
pub struct RemoteKeys {
    /// Where.
    pub url: Uri,
    /// The algorithms that the operator allows.
    pub algorithms: Option<Vec<Algorithm>>,
    /// How often it is fetched.
    pub refresh: Duration,
    /// How long it is used after the last successful fetch.
    pub max_stale: Duration,
    /// How the issuer proves who it is.
    pub tls: Arc<rustls::ClientConfig>,
}

/// Why a key set could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The name has no address.
    #[error("look up {host}: {source}")]
    Lookup {
        /// The name.
        host: String,
        /// Why not.
        source: std::io::Error,
    },
    /// No connection.
    #[error("connect: {0}")]
    Connect(std::io::Error),
    /// No secure connection.
    #[error("agree on TLS: {0}")]
    Tls(std::io::Error),
    /// No answer that is HTTP.
    #[error("read the answer: {0}")]
    Http(hyper::Error),
    /// Not 200. A redirect is not followed.
    #[error("read the answer: its status is {0}")]
    Status(http::StatusCode),
    /// The body broke off or is too large.
    #[error("read the key set: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// Nothing in it can be used.
    #[error("use the key set: {0}")]
    Keys(#[from] KeyError),
    /// It took too long.
    #[error("fetch within {0:?}")]
    TooSlow(Duration),
    /// The URL is not one that can be fetched.
    #[error("understand the URL")]
    Url,
}

/// How requests ask for a fetch: all that ask while one runs share it.
#[derive(Debug, Default)]
pub struct Refresher {
    wanted: Notify,
    rounds: watch::Sender<u64>,
}

impl Refresher {
    /// Asks for a fetch and waits until one has ended or none is due. False if that took too long.
    pub async fn ask(&self) -> bool {
        let mut rounds = self.rounds.subscribe();
        rounds.mark_unchanged();
        self.wanted.notify_one();
        timeout(PATIENCE, rounds.changed()).await.is_ok()
    }
}

impl RemoteKeys {
    /// Fetches the set for as long as the process lives, and gives every new ring to `publish`.
    pub async fn keep(
        self,
        refresher: Arc<Refresher>,
        metrics: Arc<IssuerMetrics>,
        clock: Clock,
        publish: impl Fn(KeyRing),
    ) {
        let mut ring = KeyRing::awaited();
        let mut failures = Failures::default();
        loop {
            let fetched = self.fetch().await;
            let pause = match fetched {
                Ok(set) => {
                    ring = self.learn(set, &metrics, clock.now(), &mut failures);
                    jittered(self.refresh)
                }
                Err(error) => {
                    metrics.failed.fetch_add(1, Ordering::Relaxed);
                    ring = ring.after_failure();
                    failures.note(&metrics.name, &self.url, &error)
                }
            };
            publish(ring.clone());
            refresher.rounds.send_modify(|rounds| *rounds += 1);
            rest(&refresher, pause).await;
        }
    }

    fn learn(
        &self,
        set: KeySet,
        metrics: &IssuerMetrics,
        now: UnixTime,
        failures: &mut Failures,
    ) -> KeyRing {
        let issuer = metrics.name.as_str();
        let known: Vec<&str> = set
            .keys
            .iter()
            .map(|key| key.kid().unwrap_or("(without kid)"))
            .collect();
        if failures.news(&known, &set.skipped) {
            info!(issuer, url = %self.url, kids = known.join(" "), "fetched the key set");
            for skipped in &set.skipped {
                warn!(issuer, url = %self.url, "skipped {skipped}");
            }
        }
        metrics.fetched.fetch_add(1, Ordering::Relaxed);
        metrics.keys.store(set.keys.len() as u64, Ordering::Relaxed);
        metrics.last_success.store(now.0, Ordering::Relaxed);
        let usable = i64::try_from(self.max_stale.as_secs()).unwrap_or(i64::MAX);
        KeyRing::fetched(set.keys, UnixTime(now.0.saturating_add(usable)))
    }

    /// Fetches the set once.
    pub async fn fetch(&self) -> Result<KeySet, FetchError> {
        let fetched = timeout(FETCH_TIMEOUT, self.get()).await;
        let json = fetched.unwrap_or(Err(FetchError::TooSlow(FETCH_TIMEOUT)))?;
        Ok(jwks::parse(&json, self.algorithms.as_deref())?)
    }

    async fn get(&self) -> Result<Bytes, FetchError> {
        let secure = self.url.scheme_str() == Some("https");
        let host = self
            .url
            .host()
            .ok_or(FetchError::Url)?
            .trim_matches(['[', ']']);
        let port = self.url.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tcp = connect(host, port).await?;
        if !secure {
            return self.request(tcp).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| FetchError::Url)?;
        let tls = TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, tcp)
            .await;
        self.request(tls.map_err(FetchError::Tls)?).await
    }

    async fn request(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
    ) -> Result<Bytes, FetchError> {
        let target = self
            .url
            .path_and_query()
            .map_or("/", |target| target.as_str());
        let host = self
            .url
            .authority()
            .map_or("", |authority| authority.as_str());
        let request = Request::get(target)
            .header(HOST, host)
            .header(ACCEPT, "application/jwk-set+json, application/json")
            .header(USER_AGENT, concat!("claimgate/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .map_err(|_| FetchError::Url)?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(FetchError::Http)?;
        let exchange = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(FetchError::Http)?;
            if response.status() != http::StatusCode::OK {
                return Err(FetchError::Status(response.status()));
            }
            let body = Limited::new(response.into_body(), MAX_BYTES)
                .collect()
                .await;
            Ok(body.map_err(FetchError::Body)?.to_bytes())
        };
        tokio::pin!(exchange);
        tokio::select! {
            fetched = &mut exchange => fetched,
            ended = connection => {
                ended.map_err(FetchError::Http)?;
                exchange.await
            }
        }
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, FetchError> {
    let addresses = lookup_host((host, port))
        .await
        .map_err(|source| FetchError::Lookup {
            host: host.to_owned(),
            source,
        })?;
    let addresses: Vec<_> = addresses.collect();
    let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(addresses.as_slice())).await;
    connected
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        .map_err(FetchError::Connect)
}

/// Waits until the next fetch is due: after the pause, or when a request asks for one and the last is not too recent.
async fn rest(refresher: &Refresher, pause: Duration) {
    let ended = Instant::now();
    loop {
        tokio::select! {
            () = sleep_until(ended + pause) => return,
            () = refresher.wanted.notified() => {
                if ended.elapsed() >= COOL_DOWN {
                    return;
                }
                refresher.rounds.send_modify(|rounds| *rounds += 1);
            }
        }
    }
}

/// Up to a tenth less, so that many gates do not ask at the same moment.
fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(1.0 - fastrand::f64() / 10.0)
}

/// What was said in the log, so that it is said once for each change.
#[derive(Default)]
struct Failures {
    in_a_row: u32,
    said: String,
}

impl Failures {
    fn note(&mut self, issuer: &str, url: &Uri, error: &FetchError) -> Duration {
        let text = error.to_string();
        if self.said != text {
            warn!(issuer, %url, "failed to fetch the key set: {text}");
            self.said = text;
        }
        let pause = FIRST_RETRY
            .saturating_mul(2_u32.saturating_pow(self.in_a_row))
            .min(LAST_RETRY);
        self.in_a_row = self.in_a_row.saturating_add(1);
        jittered(pause)
    }

    fn news(&mut self, known: &[&str], skipped: &[String]) -> bool {
        self.in_a_row = 0;
        let text = format!("{known:?} {skipped:?}");
        let is_news = self.said != text;
        self.said = text;
        is_news
    }
}

impl fmt::Debug for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Failures({})", self.in_a_row)
    }
}
