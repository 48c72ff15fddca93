//! One upstream as a worker sees it: its endpoints, and the exchange with one of them.

mod connect;
mod connection;
mod endpoint;
mod error;
mod head;
mod http1;
mod http2;
mod place;
mod stream;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::UPGRADE;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until, timeout};

use crate::gate::permit::Permit;

use super::body::RequestBody;

pub use connect::{HTTP1, HTTP2, Protocol, Tls};
pub use error::UpstreamError;
pub use place::{Place, Target};

use connection::{Connection, Failure};
use endpoint::Endpoint;

/// How long a connection is kept without a use: less than most servers wait.
const KEEP_ALIVE: Duration = Duration::from_secs(50);

/// The largest head of an answer, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// An upstream, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamPolicy {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub target: Target,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// How long a connection may take to open.
    pub connect_timeout: Duration,
    /// How long from the whole request to the head of its answer.
    pub response_timeout: Duration,
    /// How long an answer or a WebSocket may stand still; zero is no limit.
    pub idle_timeout: Duration,
    /// Whether its interim answers are passed on.
    pub informational: bool,
}

/// The connections of one worker to one upstream.
#[derive(Debug)]
pub struct Upstream {
    policy: UpstreamPolicy,
    endpoint: Rc<Endpoint>,
}

/// The right to one connection. It goes back if the exchange ended well, and is cut otherwise, so that the upstream
/// learns at once that nobody waits.
#[derive(Debug)]
pub struct Lease {
    endpoint: Rc<Endpoint>,
    connection: Connection,
}

impl Lease {
    /// Gives the connection back: its answer has been read to the end.
    pub fn give_back(self) {
        self.endpoint.check_in(self.connection);
    }

    /// Lets the connection live on without the pool: it has been upgraded.
    pub fn let_go(self) {
        if let Connection::Http1(connection) = self.connection {
            connection.let_go();
        }
    }

    /// Whom it is with.
    pub fn place(&self) -> Arc<Place> {
        Arc::clone(&self.endpoint.place)
    }
}

/// An attempt that failed.
#[derive(Debug)]
struct Failed {
    error: UpstreamError,
    /// The request, if it may be sent once more.
    again: Option<Request<RequestBody>>,
}

impl Upstream {
    /// An upstream without any connection.
    pub fn new(policy: UpstreamPolicy) -> Self {
        let place = Arc::new(Place::of(&policy.target));
        Self {
            endpoint: Rc::new(Endpoint::new(place, KEEP_ALIVE)),
            policy,
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
        let asked = RefCell::new(Rc::clone(&self.endpoint));
        let exchange = self.send(request, &asked);
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
                    target: Arc::clone(&asked.borrow().place),
                    waited: patience,
                });
            }
        }
    }

    async fn send(
        &self,
        mut request: Request<RequestBody>,
        asked: &RefCell<Rc<Endpoint>>,
    ) -> Result<(Response<Incoming>, Lease), UpstreamError> {
        let mut attempts = 0;
        loop {
            let endpoint = Rc::clone(&self.endpoint);
            asked.replace(Rc::clone(&endpoint));
            match self.attempt(&endpoint, request, attempts > 0).await {
                Ok((response, connection)) => {
                    let lease = Lease {
                        endpoint,
                        connection,
                    };
                    return Ok((response, lease));
                }
                Err(Failed {
                    again: Some(again), ..
                }) if attempts == 0 => {
                    request = again;
                    attempts += 1;
                }
                Err(Failed { error, .. }) => return Err(error),
            }
        }
    }

    /// Tries it with one endpoint.
    async fn attempt(
        &self,
        endpoint: &Endpoint,
        mut request: Request<RequestBody>,
        fresh: bool,
    ) -> Result<(Response<Incoming>, Connection), Failed> {
        let target = || Arc::clone(&endpoint.place);
        let upgrade = request.headers().contains_key(UPGRADE);
        if upgrade && self.policy.protocol == Protocol::Http2 {
            return Err(Failed {
                error: UpstreamError::NoWebSocket { target: target() },
                again: None,
            });
        }
        loop {
            let open = if fresh {
                None
            } else {
                endpoint.check_out(upgrade).await
            };
            let (mut connection, is_new) = match open {
                Some(connection) => (connection, false),
                None => match self.connect(endpoint, upgrade).await {
                    Ok(connected) => connected,
                    Err(error) => {
                        let again = matches!(error, UpstreamError::Connect { .. });
                        let again = again.then_some(request);
                        return Err(Failed { error, again });
                    }
                },
            };
            // A connection may have been closed by the upstream in this very moment. A request that did not leave is
            // sent over the next; one that may have left is sent again only if that is harmless.
            match connection.send(request).await {
                Ok(response) => return Ok((response, connection)),
                Err(Failure::Unsent(unsent)) if is_new => {
                    return Err(Failed {
                        error: UpstreamError::Closes { target: target() },
                        again: Some(unsent),
                    });
                }
                Err(Failure::Unsent(unsent)) => request = unsent,
                Err(Failure::Sent { error, again }) => {
                    return Err(Failed {
                        error: UpstreamError::Broken {
                            target: target(),
                            source: error,
                        },
                        again: again.map(|again| again.map(|()| RequestBody::empty())),
                    });
                }
            }
        }
    }

    async fn connect(
        &self,
        endpoint: &Endpoint,
        upgrade: bool,
    ) -> Result<(Connection, bool), UpstreamError> {
        let target = || Arc::clone(&endpoint.place);
        let waited = self.policy.connect_timeout;
        let opening = endpoint.open(&self.policy.protocol, upgrade);
        match timeout(waited, opening).await {
            Ok(opened) => opened.map_err(|source| UpstreamError::Connect {
                target: target(),
                source,
            }),
            Err(_) => Err(UpstreamError::ConnectTimeout {
                target: target(),
                waited,
            }),
        }
    }
}
