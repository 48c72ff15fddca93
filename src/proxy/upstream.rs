//! One upstream as a worker sees it: a pool of open connections and the exchange over one of them.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, sleep_until, timeout};

use crate::gate::permit::Permit;

use super::body::RequestBody;

/// The most connections that one worker keeps open without a use.
const MAX_IDLE: usize = 256;

/// How long a connection is kept without a use: less than most servers wait.
const MAX_IDLE_TIME: Duration = Duration::from_secs(50);

/// The largest head of an answer, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// An upstream, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamPolicy {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub target: Target,
    /// How long a connection may take to open.
    pub connect_timeout: Duration,
    /// How long from the whole request to the head of its answer.
    pub response_timeout: Duration,
    /// How long an answer or a WebSocket may stand still; zero is no limit.
    pub idle_timeout: Duration,
}

/// Where an upstream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A name or an address, and a port. A name is looked up for every connection.
    Tcp(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why the upstream gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// No connection could be opened.
    #[error("connect to {target}")]
    Connect {
        /// Where to.
        target: Target,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A connection took too long to open.
    #[error("connect to {target} within {waited:?}")]
    ConnectTimeout {
        /// Where to.
        target: Target,
        /// How long it was tried.
        waited: Duration,
    },
    /// The answer took too long.
    #[error("wait for the answer of {target} longer than {waited:?}")]
    Silent {
        /// Whose.
        target: Target,
        /// How long was waited after the whole request.
        waited: Duration,
    },
    /// The connection broke, or what came was not HTTP.
    #[error("read the answer of {target}")]
    Broken {
        /// Whose.
        target: Target,
        /// What was wrong.
        #[source]
        source: hyper::Error,
    },
    /// Its answer has more than one end.
    #[error("read the answer of {target}: it says in two ways where it ends")]
    Ends {
        /// Whose.
        target: Target,
    },
    /// It switched protocols without being asked.
    #[error("read the answer of {target}: it switched protocols without being asked")]
    Switched {
        /// Whose.
        target: Target,
    },
}

/// The connections of one worker to one upstream.
#[derive(Debug)]
pub struct Upstream {
    policy: UpstreamPolicy,
    idle: RefCell<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<RequestBody>,
    task: AbortHandle,
}

/// The right to one connection. It goes back to the pool if the exchange ended well, and is cut otherwise, so
/// that the upstream learns at once that nobody waits.
#[derive(Debug)]
pub struct Lease {
    upstream: Rc<Upstream>,
    connection: Option<Connection>,
}

impl Lease {
    /// Gives the connection back: its answer has been read to the end.
    pub fn give_back(mut self) {
        if let Some(connection) = self.connection.take() {
            self.upstream.check_in(connection);
        }
    }

    /// Lets the connection live on without the pool: it has been upgraded.
    pub fn let_go(mut self) {
        self.connection = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.task.abort();
        }
    }
}

/// What is needed to send a request again: its head, if it has no body and repeating it is harmless.
type Replay = Option<Request<()>>;

impl Upstream {
    /// An upstream without any connection.
    pub fn new(policy: UpstreamPolicy) -> Self {
        Self {
            policy,
            idle: RefCell::new(Vec::new()),
        }
    }

    /// The configuration.
    pub fn policy(&self) -> &UpstreamPolicy {
        &self.policy
    }

    /// Sends a request and waits for the head of its answer. The permit is used up: it is the proof that the gate
    /// has let the request through.
    pub async fn exchange(
        self: &Rc<Self>,
        permit: Permit,
        request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Lease), UpstreamError> {
        let patience = permit
            .route()
            .timeout
            .unwrap_or(self.policy.response_timeout);
        let upload = request.body().upload();
        let exchange = self.send(request);
        tokio::pin!(exchange);
        let mut deadline = upload.over_since().unwrap_or_else(Instant::now) + patience;
        let mut uploaded = upload.bytes();
        loop {
            tokio::select! {
                biased;
                answer = &mut exchange => return answer,
                () = sleep_until(deadline) => {}
            }
            // The upload has its own clock while the client has to send; the answer's starts when the upload is over.
            // An upstream that reads nothing of what has come is as silent as one that does not answer.
            let now = Instant::now();
            let moves = upload.awaits_client() || upload.bytes() > uploaded;
            uploaded = upload.bytes();
            deadline = match upload.over_since() {
                Some(over) => over + patience,
                None if moves => now + patience,
                None => now,
            };
            if deadline <= now {
                return Err(UpstreamError::Silent {
                    target: self.policy.target.clone(),
                    waited: patience,
                });
            }
        }
    }

    async fn send(
        self: &Rc<Self>,
        mut request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Lease), UpstreamError> {
        // A connection from the pool may have been closed by the upstream in this very moment. A request that did not
        // leave is sent over the next; one that may have left is sent again only if that is harmless, and once.
        while let Some(mut connection) = self.check_out().await {
            let replay = replay_of(&request);
            match connection.sender.try_send_request(request).await {
                Ok(response) => return Ok((response, self.lease(connection))),
                Err(mut error) => match (error.take_message(), replay) {
                    (Some(unsent), _) => request = unsent,
                    (None, Some(again)) if !error.error().is_parse() => {
                        request = again.map(|()| RequestBody::empty());
                        break;
                    }
                    (None, _) => return Err(self.broken(error.into_error())),
                },
            }
        }
        let mut connection = self.connect().await?;
        match connection.sender.send_request(request).await {
            Ok(response) => Ok((response, self.lease(connection))),
            Err(error) => Err(self.broken(error)),
        }
    }

    fn lease(self: &Rc<Self>, connection: Connection) -> Lease {
        Lease {
            upstream: Rc::clone(self),
            connection: Some(connection),
        }
    }

    fn broken(&self, source: hyper::Error) -> UpstreamError {
        UpstreamError::Broken {
            target: self.policy.target.clone(),
            source,
        }
    }

    /// The connection that was used last, if it is still good.
    async fn check_out(&self) -> Option<Connection> {
        loop {
            let idle = self.idle.borrow_mut().pop()?;
            let mut connection = idle.connection;
            if idle.since.elapsed() < MAX_IDLE_TIME && connection.sender.ready().await.is_ok() {
                return Some(connection);
            }
            connection.task.abort();
        }
    }

    fn check_in(&self, connection: Connection) {
        let mut idle = self.idle.borrow_mut();
        // The first is the one that was longest without a use.
        let outdated = idle.first().is_some_and(|first| {
            first.connection.sender.is_closed()
                || first.since.elapsed() > MAX_IDLE_TIME
                || idle.len() >= MAX_IDLE
        });
        if outdated {
            idle.remove(0).connection.task.abort();
        }
        idle.push(Idle {
            connection,
            since: Instant::now(),
        });
    }

    async fn connect(&self) -> Result<Connection, UpstreamError> {
        let connected = timeout(self.policy.connect_timeout, self.open()).await;
        match connected {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(source)) => Err(UpstreamError::Connect {
                target: self.policy.target.clone(),
                source,
            }),
            Err(_) => Err(UpstreamError::ConnectTimeout {
                target: self.policy.target.clone(),
                waited: self.policy.connect_timeout,
            }),
        }
    }

    async fn open(&self) -> std::io::Result<Connection> {
        match &self.policy.target {
            Target::Tcp(host, port) => {
                let stream = match host.trim_matches(['[', ']']).parse() {
                    Ok(address) => TcpStream::connect(SocketAddr::new(address, *port)).await?,
                    Err(_) => TcpStream::connect((host.as_str(), *port)).await?,
                };
                stream.set_nodelay(true)?;
                shake_hands(stream).await
            }
            Target::Unix(path) => shake_hands(UnixStream::connect(path).await?).await,
        }
    }
}

async fn shake_hands(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> std::io::Result<Connection> {
    let mut builder = http1::Builder::new();
    // Small heads and bodies flatten into one write.
    builder
        .writev(false)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_header_size(MAX_HEAD_BYTES);
    let handshake = builder.handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(std::io::Error::other)?;
    let connection = connection.with_upgrades();
    let task = spawn_local(async move {
        // Its exchange, if it has one, learns of the failure from the sender.
        let _ended = connection.await;
    });
    Ok(Connection {
        sender,
        task: task.abort_handle(),
    })
}

/// RFC 9110 section 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
    )
}

fn replay_of(request: &Request<RequestBody>) -> Replay {
    if !request.body().is_empty() || !is_idempotent(request.method()) {
        return None;
    }
    let mut replay = Request::new(());
    *replay.method_mut() = request.method().clone();
    *replay.uri_mut() = request.uri().clone();
    *replay.headers_mut() = request.headers().clone();
    Some(replay)
}
