//! Counting together with other gates, in Redis: within a time that is bounded, and without it when it is away.

use std::cell::RefCell;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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

use crate::config::{self, WhenUnavailable};
use crate::files::Fingerprint;
use crate::gate::rate_limit::{RateLimitStatus, Rates, Uncounted};
use crate::gate::refusal::Refusal;
use crate::keys::secret::Secret;
use crate::observe::metrics::{RedisOutcome, WorkerMetrics};

/// How long to wait before it is looked for again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long it may take to be found again: no request waits for that.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where Redis is, and how it is used.
#[derive(Debug)]
pub struct Redis {
    /// A name or an IP address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// With TLS, and the name that its certificate must have.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// The number of its database.
    pub database: i64,
    /// Who the gate is there.
    pub username: Option<String>,
    /// And how it proves that.
    pub password: Option<Secret>,
    /// What all keys begin with.
    pub prefix: String,
    /// How long a request may wait for an answer.
    pub timeout: Duration,
    /// What becomes of requests that cannot be counted there.
    pub when_unavailable: WhenUnavailable,
    /// Whether some worker has last found it away.
    pub is_away: AtomicBool,
    /// What all of this was made of: what is configured, and the content of its files.
    pub read: (config::Redis, Fingerprint),
}

/// One worker's connection to it.
pub(super) struct Remote {
    redis: Arc<Redis>,
    script: Script,
    state: RefCell<State>,
    metrics: Arc<WorkerMetrics>,
}

enum State {
    New,
    Open(MultiplexedConnection),
    /// Somebody is looking for it, and requests do not wait.
    Away,
}

/// Why a request could not be counted.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("connect: {0}")]
    Connect(#[from] io::Error),
    #[error("{0}")]
    Redis(#[from] RedisError),
    #[error("it did not answer within {0:?}")]
    Silent(Duration),
    #[error("it gave an answer that means nothing")]
    Senseless,
}

impl Remote {
    pub(super) fn new(redis: Arc<Redis>, metrics: Arc<WorkerMetrics>) -> Rc<Self> {
        Rc::new(Self {
            redis,
            script: Script::new(include_str!("redis/count.lua")),
            state: RefCell::new(State::New),
            metrics,
        })
    }

    /// Whether this is a connection to that Redis, as configured.
    pub(super) fn is_to(&self, redis: &Arc<Redis>) -> bool {
        Arc::ptr_eq(&self.redis, redis)
    }

    /// Has a request counted, there or as is said for when it is away.
    pub(super) async fn count(self: &Rc<Self>, uncounted: &Uncounted, rates: &mut Rates<'_>) {
        if let Some(statuses) = self.ask(uncounted).await {
            rates.counted(uncounted, &statuses);
            return;
        }
        match self.redis.when_unavailable {
            WhenUnavailable::Local => rates.count_here(uncounted),
            WhenUnavailable::Allow => rates.settle(uncounted, Ok(())),
            WhenUnavailable::Refuse => rates.settle(uncounted, Err(Refusal::RateLimitUnavailable)),
        }
    }

    async fn ask(self: &Rc<Self>, uncounted: &Uncounted) -> Option<Vec<RateLimitStatus>> {
        if matches!(*self.state.borrow(), State::Away) {
            self.metrics.count_redis(RedisOutcome::Skipped);
            return None;
        }
        let limit = self.redis.timeout;
        let asked = timeout(limit, self.run(uncounted)).await;
        match asked.unwrap_or(Err(Failure::Silent(limit))) {
            Ok(statuses) => {
                self.metrics.count_redis(RedisOutcome::Success);
                self.found();
                Some(statuses)
            }
            Err(failure) => {
                self.metrics.count_redis(RedisOutcome::Failure);
                self.lose(&failure);
                None
            }
        }
    }

    async fn run(&self, uncounted: &Uncounted) -> Result<Vec<RateLimitStatus>, Failure> {
        let open = match &*self.state.borrow() {
            State::Open(connection) => Some(connection.clone()),
            State::New | State::Away => None,
        };
        let mut connection = match open {
            Some(connection) => connection,
            None => {
                let connection = self.redis.connect().await?;
                self.state.replace(State::Open(connection.clone()));
                connection
            }
        };
        let limits = uncounted.limits();
        let mut call = self.script.prepare_invoke();
        for name in uncounted.names(&self.redis.prefix) {
            call.key(name);
        }
        for limit in limits {
            call.arg(&limit.interval_and_room());
        }
        let answer: Vec<i64> = call.invoke_async(&mut connection).await?;
        let answer: Result<Vec<u64>, _> = answer.into_iter().map(u64::try_from).collect();
        let answer = answer.map_err(|_| Failure::Senseless)?;
        let (refusing, held) = answer.split_first().ok_or(Failure::Senseless)?;
        let refusing = usize::try_from(*refusing).map_err(|_| Failure::Senseless)?;
        if refusing > limits.len() {
            return Err(Failure::Senseless);
        }
        let statuses: Vec<RateLimitStatus> = if refusing == 0 {
            let held = limits.iter().zip(held);
            held.map(|(limit, held)| limit.allowed(*held)).collect()
        } else {
            let before = limits.iter().take(refusing - 1);
            let before = before.map(|limit| limit.allowed(0));
            let refused = held
                .iter()
                .take(1)
                .map(|wait| RateLimitStatus::refused(*wait));
            before.chain(refused).collect()
        };
        let expected = if refusing == 0 {
            limits.len()
        } else {
            refusing
        };
        (statuses.len() == expected)
            .then_some(statuses)
            .ok_or(Failure::Senseless)
    }

    /// From now on nobody waits for it, until it was found again.
    fn lose(self: &Rc<Self>, failure: &Failure) {
        if matches!(self.state.replace(State::Away), State::Away) {
            return;
        }
        if !self.redis.is_away.swap(true, Ordering::Relaxed) {
            let (host, port) = (&self.redis.host, self.redis.port);
            warn!("failed to count requests in Redis at {host}:{port}: {failure}");
        }
        spawn_local(look(Rc::downgrade(self)));
    }

    /// It is back when it has counted, and not as soon as it answers: it may refuse to count for long.
    fn found(&self) {
        let is_away = &self.redis.is_away;
        if is_away.load(Ordering::Relaxed) && is_away.swap(false, Ordering::Relaxed) {
            info!("requests are counted in Redis again");
        }
    }
}

/// Looks for it until it is there, or nobody wants it any more.
async fn look(remote: Weak<Remote>) {
    loop {
        sleep(PAUSE).await;
        let Some(remote) = remote.upgrade() else {
            return;
        };
        if let Ok(Ok(connection)) = timeout(PATIENCE, remote.redis.find()).await {
            remote.state.replace(State::Open(connection));
            return;
        }
    }
}

impl Redis {
    /// Connects, and sees that it answers.
    async fn find(&self) -> Result<MultiplexedConnection, Failure> {
        let mut connection = self.connect().await?;
        let _pong: String = redis::cmd("PING").query_async(&mut connection).await?;
        Ok(connection)
    }

    async fn connect(&self) -> Result<MultiplexedConnection, Failure> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => self.greet(stream).await,
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                self.greet(connector.connect(name.clone(), stream).await?)
                    .await
            }
        }
    }

    async fn greet<S>(&self, stream: S) -> Result<MultiplexedConnection, Failure>
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
        // Whoever asks has a deadline of its own.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&login, stream, config).await?;
        spawn_local(driver);
        Ok(connection)
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}
