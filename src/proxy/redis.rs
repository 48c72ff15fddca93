//! Rate limits shared with other gates through Redis, within a bounded time.

use std::cell::RefCell;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError, Script};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tracing::{info, warn};

use crate::clock::{Ticks, UnixTime};
use crate::config::{self, WhenUnavailable};
use crate::files::Fingerprint;
use crate::gate::dpop::VerifiedProof;
use crate::gate::rate_limit::{Buckets, RateLimitStatus, RateLimitTable};
use crate::gate::refusal::Refusal;
use crate::keys::secret::Secret;
use crate::observe::metrics::{RedisOutcome, WorkerMetrics};

/// Pause between attempts to reconnect.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
/// Timeout of an attempt to reconnect. No request waits for it.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A Redis server, as configured.
#[derive(Debug)]
pub struct Redis {
    /// Host name or IP address.
    pub host: String,
    pub port: u16,
    /// TLS client configuration, and the name in the server certificate.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// Database number.
    pub database: i64,
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// Prefix of every key.
    pub prefix: String,
    /// Time limit of one count.
    pub timeout: Duration,
    /// Handling of requests while Redis is unavailable.
    pub when_unavailable: WhenUnavailable,
    /// Set after a failure of any worker, until the next success.
    pub is_unavailable: AtomicBool,
    /// Configuration and file contents of this value, to detect changes.
    pub source: (config::Redis, Fingerprint),
}

/// One worker's connection to Redis.
pub(super) struct RedisLimiter {
    redis: Arc<Redis>,
    script: Script,
    state: RefCell<State>,
    metrics: Arc<WorkerMetrics>,
}

enum State {
    New,
    Open(MultiplexedConnection),
    /// Reconnecting; requests do not wait.
    Unavailable,
}

/// Failure to count a request.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("connect: {0}")]
    Connect(#[from] io::Error),
    #[error("{0}")]
    Redis(#[from] RedisError),
    #[error("no response within {0:?}")]
    Timeout(Duration),
    #[error("invalid response")]
    InvalidResponse,
}

impl RedisLimiter {
    pub(super) fn new(redis: Arc<Redis>, metrics: Arc<WorkerMetrics>) -> Rc<Self> {
        Rc::new(Self {
            redis,
            script: Script::new(include_str!("redis/count.lua")),
            state: RefCell::new(State::New),
            metrics,
        })
    }

    /// Returns whether this limiter uses the given server.
    pub(super) fn is_for(&self, redis: &Arc<Redis>) -> bool {
        Arc::ptr_eq(&self.redis, redis)
    }

    /// Adds a request to its buckets in Redis. While Redis is unavailable, `when_unavailable` decides: `local` counts in
    /// the given table, `allow` counts nothing, `refuse` refuses.
    pub(super) async fn take(
        self: &Rc<Self>,
        buckets: Buckets<'_>,
        local: &RateLimitTable,
        now: Ticks,
    ) -> Result<Vec<RateLimitStatus>, Refusal> {
        if let Some(statuses) = self.attempt(self.run(buckets)).await {
            return Ok(statuses);
        }
        match self.redis.when_unavailable {
            WhenUnavailable::Local => Ok(local.take(buckets, now)),
            WhenUnavailable::Allow => Ok(Vec::new()),
            WhenUnavailable::Refuse => Err(Refusal::RateLimitUnavailable { by: buckets.key() }),
        }
    }

    /// Completes a call within the time limit; `None` while Redis is unavailable.
    async fn attempt<T>(
        self: &Rc<Self>,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Option<T> {
        if matches!(*self.state.borrow(), State::Unavailable) {
            self.metrics.count_redis(RedisOutcome::Skipped);
            return None;
        }
        let limit = self.redis.timeout;
        let result = timeout(limit, call).await;
        match result.unwrap_or(Err(Failure::Timeout(limit))) {
            Ok(result) => {
                self.metrics.count_redis(RedisOutcome::Success);
                self.mark_available();
                Some(result)
            }
            Err(failure) => {
                self.metrics.count_redis(RedisOutcome::Failure);
                self.mark_unavailable(&failure);
                None
            }
        }
    }

    /// Records the use of a proof. Returns whether another gate has recorded it; false while Redis is unavailable.
    pub(super) async fn is_replay(self: &Rc<Self>, proof: &VerifiedProof, now: UnixTime) -> bool {
        self.attempt(self.record(proof, now)).await == Some(false)
    }

    /// Sets the key of a proof unless it is set, until the proof expires.
    async fn record(&self, proof: &VerifiedProof, now: UnixTime) -> Result<bool, Failure> {
        let mut connection = self.connection().await?;
        let key = format!(
            "{}dpop:{}",
            self.redis.prefix,
            URL_SAFE_NO_PAD.encode(proof.replay_key)
        );
        let lifetime = proof.until.0.saturating_sub(now.0).max(1);
        let mut set = redis::cmd("SET");
        set.arg(key).arg(1).arg("NX").arg("EX").arg(lifetime);
        let response: Option<String> = set.query_async(&mut connection).await?;
        Ok(response.is_some())
    }

    /// Open connection, or a new one.
    async fn connection(&self) -> Result<MultiplexedConnection, Failure> {
        let open = match &*self.state.borrow() {
            State::Open(connection) => Some(connection.clone()),
            State::New | State::Unavailable => None,
        };
        if let Some(connection) = open {
            return Ok(connection);
        }
        let connection = self.redis.connect().await?;
        self.state.replace(State::Open(connection.clone()));
        Ok(connection)
    }

    async fn run(&self, buckets: Buckets<'_>) -> Result<Vec<RateLimitStatus>, Failure> {
        let mut connection = self.connection().await?;
        let limits = buckets.limits;
        let mut call = self.script.prepare_invoke();
        for name in buckets.names(&self.redis.prefix) {
            call.key(name);
        }
        for limit in limits {
            call.arg(&limit.interval_and_capacity());
        }
        let response: Vec<i64> = call.invoke_async(&mut connection).await?;
        let response: Result<Vec<u64>, _> = response.into_iter().map(u64::try_from).collect();
        let response = response.map_err(|_| Failure::InvalidResponse)?;
        let (exceeded, levels) = response.split_first().ok_or(Failure::InvalidResponse)?;
        let exceeded = usize::try_from(*exceeded).map_err(|_| Failure::InvalidResponse)?;
        if exceeded > limits.len() {
            return Err(Failure::InvalidResponse);
        }
        let statuses: Vec<RateLimitStatus> = if exceeded == 0 {
            let levels = limits.iter().zip(levels);
            levels.map(|(limit, level)| limit.allowed(*level)).collect()
        } else {
            let before = limits.iter().take(exceeded - 1);
            let before = before.map(|limit| limit.allowed(0));
            let refused = levels
                .iter()
                .take(1)
                .map(|wait| RateLimitStatus::refused(*wait));
            before.chain(refused).collect()
        };
        let expected = if exceeded == 0 {
            limits.len()
        } else {
            exceeded
        };
        (statuses.len() == expected)
            .then_some(statuses)
            .ok_or(Failure::InvalidResponse)
    }

    /// Stops using the connection and reconnects in the background.
    fn mark_unavailable(self: &Rc<Self>, failure: &Failure) {
        if matches!(self.state.replace(State::Unavailable), State::Unavailable) {
            return;
        }
        if !self.redis.is_unavailable.swap(true, Ordering::Relaxed) {
            let (host, port) = (&self.redis.host, self.redis.port);
            warn!("failed to count requests in Redis at {host}:{port}: {failure}");
        }
        spawn_local(reconnect(Rc::downgrade(self)));
    }

    /// Notes a counted request. A response to PING alone is not enough: Redis may still refuse to count.
    fn mark_available(&self) {
        let is_unavailable = &self.redis.is_unavailable;
        if is_unavailable.load(Ordering::Relaxed) && is_unavailable.swap(false, Ordering::Relaxed) {
            info!("Redis rate limiting resumed");
        }
    }
}

/// Reconnects until it succeeds or the limiter is dropped.
async fn reconnect(limiter: Weak<RedisLimiter>) {
    loop {
        sleep(RECONNECT_PAUSE).await;
        let Some(limiter) = limiter.upgrade() else {
            return;
        };
        if let Ok(Ok(connection)) = timeout(RECONNECT_TIMEOUT, limiter.redis.probe()).await {
            limiter.state.replace(State::Open(connection));
            return;
        }
    }
}

impl Redis {
    /// Connects and sends a PING.
    async fn probe(&self) -> Result<MultiplexedConnection, Failure> {
        let mut connection = self.connect().await?;
        let _pong: String = redis::cmd("PING").query_async(&mut connection).await?;
        Ok(connection)
    }

    async fn connect(&self) -> Result<MultiplexedConnection, Failure> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => self.log_in(stream).await,
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                self.log_in(connector.connect(name.clone(), stream).await?)
                    .await
            }
        }
    }

    async fn log_in<S>(&self, stream: S) -> Result<MultiplexedConnection, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut login = RedisConnectionInfo::default()
            .set_db(self.database)
            .set_skip_set_lib_name();
        if let Some(username) = &self.username {
            login = login.set_username(username);
        }
        if let Some(password) = self.password.as_ref().and_then(Secret::as_text) {
            login = login.set_password(password);
        }
        // Callers have a deadline of their own.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&login, stream, config).await?;
        spawn_local(driver);
        Ok(connection)
    }
}

impl std::fmt::Debug for RedisLimiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisLimiter").finish_non_exhaustive()
    }
}
