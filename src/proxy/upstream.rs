//! One upstream as a worker sees it: its endpoints, and the exchange with one of them.

mod address;
mod connect;
mod connection;
mod driver;
mod endpoint;
mod error;
mod head;
pub mod health;
mod health_status;
mod http1;
mod http2;
mod load_balancer;
mod outlier_detector;
mod policy;
mod protocol;
mod queue;
mod resolve;
mod retry_budget;
mod revocable_body;
mod send;
mod shared;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::UPGRADE;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until, timeout};

use crate::gate::permit::Permit;
use crate::observe::metrics::Pool;

use super::body::{RequestBody, Upload};

pub use address::{EndpointAddress, Target};
pub use error::UpstreamError;
pub use health_status::HealthStatus;
pub use policy::{HealthPolicy, QueueLimits, UpstreamPolicy};
pub use protocol::{HTTP1, HTTP2, Protocol, Tls, TlsSettings};
pub use queue::Queue;
pub use shared::{SharedUpstream, UpstreamState};

use connection::Connection;
use endpoint::{Endpoint, Pending};
use load_balancer::{Endpoints, List};
use queue::Slot;
use resolve::Lookup;
use retry_budget::RetryBudget;
use send::SendError;

/// The connections of one worker to one upstream.
#[derive(Debug)]
pub struct Upstream {
    shared: Rc<SharedUpstream>,
    endpoints: Rc<Endpoints>,
    budget: RetryBudget,
}

/// The right to one connection. It goes back if the exchange ended well, and is cut otherwise, so that the upstream
/// learns at once that nobody waits.
#[derive(Debug)]
pub struct PooledConnection {
    connection: Connection,
    with: Pending,
    slot: Option<Slot>,
}

/// An upgraded connection, which counts as one of the upstream's until this is dropped.
#[derive(Debug)]
pub struct Upgraded {
    _with: Pending,
    _slot: Option<Slot>,
}

impl PooledConnection {
    /// Gives the connection back: its answer has been read to the end.
    pub fn release(self) {
        self.with.0.check_in(self.connection);
    }

    /// Lets the connection live on without the pool: it has been upgraded.
    pub fn detach(self) -> Upgraded {
        if let Connection::Http1(connection) = self.connection {
            connection.detach();
        }
        Upgraded {
            _with: self.with,
            _slot: self.slot,
        }
    }

    /// Whom it is with.
    pub fn address(&self) -> Arc<EndpointAddress> {
        Arc::clone(&self.with.0.address)
    }
}

/// An attempt that failed.
#[derive(Debug)]
struct FailedAttempt {
    error: UpstreamError,
    again: Retry,
}

/// Whether a request may be tried once more.
#[derive(Debug)]
enum Retry {
    /// It may: the upstream has not looked at it.
    Unseen(Box<Request<RequestBody>>),
    /// It may be sent twice. Its connection had been kept, and most likely the upstream closed it in that moment.
    Stale(Box<Request<RequestBody>>),
    /// It may be sent twice.
    Twice(Box<Request<RequestBody>>),
    /// It may not.
    No,
}

impl Upstream {
    /// An upstream without any connection.
    pub fn new(shared: SharedUpstream) -> Self {
        Self::with_lookup(shared, resolve::system)
    }

    fn with_lookup(shared: SharedUpstream, lookup: Lookup) -> Self {
        let shared = Rc::new(shared);
        Self {
            endpoints: Rc::new(Endpoints::new(Rc::clone(&shared), lookup)),
            budget: RetryBudget::new(shared.policy.retries.budget),
            shared,
        }
    }

    /// Whether the pooled connections and the retry budget fit this configuration.
    pub fn can_serve(&self, wanted: &SharedUpstream) -> bool {
        self.shared.shares_state(wanted)
    }

    pub fn policy(&self) -> &UpstreamPolicy {
        &self.shared.policy
    }

    /// What is there of it at the moment.
    pub fn pool(&self) -> Pool {
        self.endpoints.pool()
    }

    /// Sends a request and waits for the head of its answer. The permit is used up: it is the proof that the gate
    /// has let the request through.
    pub async fn exchange(
        self: &Rc<Self>,
        permit: Permit,
        request: Box<Request<RequestBody>>,
    ) -> Result<(Response<Incoming>, PooledConnection), UpstreamError> {
        let patience = permit
            .route()
            .timeout
            .unwrap_or(self.shared.policy.response_timeout);
        let slot = match &self.shared.state.queue {
            Some(queue) => Some(self.enter(queue).await?),
            None => None,
        };
        let upload = request.body().upload();
        let began = Instant::now();
        let asked = RefCell::new(None);
        let exchange = self.send(request, &upload, &asked);
        tokio::pin!(exchange);
        let mut deadline = began + patience;
        let mut uploaded = upload.bytes();
        loop {
            tokio::select! {
                biased;
                answer = &mut exchange => {
                    let (response, connection, with) = answer?;
                    return Ok((response, PooledConnection { connection, with, slot }));
                }
                () = sleep_until(deadline) => {}
            }
            // The upload has its own clock while the client has to send; the answer's starts when the upload is over.
            // An upstream that reads nothing of what has come is as silent as one that does not answer.
            let now = Instant::now();
            let moves = upload.awaits_client() || upload.bytes() > uploaded;
            uploaded = upload.bytes();
            deadline = match upload.over_since() {
                Some(over) => over.max(began) + patience,
                None if moves => now + patience,
                None => now,
            };
            if deadline <= now {
                return Err(self.silent(asked.take(), patience));
            }
        }
    }

    /// Waits until it may go to the upstream: not everybody may at once.
    async fn enter(&self, queue: &Queue) -> Result<Slot, UpstreamError> {
        let slot = Box::pin(queue.acquire(self.shared.policy.connect_timeout)).await;
        slot.ok_or_else(|| UpstreamError::Full {
            name: self.shared.policy.name.clone(),
        })
    }

    fn silent(&self, asked: Option<Rc<Endpoint>>, waited: Duration) -> UpstreamError {
        let target = match asked {
            Some(endpoint) => {
                self.endpoints.failed(&endpoint);
                Arc::clone(&endpoint.address)
            }
            None => self.somewhere(),
        };
        UpstreamError::Silent { target, waited }
    }

    /// What is named when no endpoint is known.
    fn somewhere(&self) -> Arc<EndpointAddress> {
        let target = self.shared.policy.targets.first();
        let nowhere = || EndpointAddress::of(&Target::Unix(PathBuf::new()));
        Arc::new(target.map_or_else(nowhere, EndpointAddress::of))
    }

    /// Sends a request to one endpoint, and if that fails and may be tried once more, to another.
    async fn send(
        &self,
        mut request: Box<Request<RequestBody>>,
        upload: &Upload,
        asked: &RefCell<Option<Rc<Endpoint>>>,
    ) -> Result<(Response<Incoming>, Connection, Pending), UpstreamError> {
        let upgrade = request.headers().contains_key(UPGRADE);
        if upgrade && self.shared.protocol.is_http2() {
            return Err(UpstreamError::NoWebSocket {
                target: self.somewhere(),
            });
        }
        let list = self.all().await?;
        self.budget.deposit();
        let mut tried = Vec::new();
        let mut twice = false;
        loop {
            let Some(endpoint) = self.endpoints.choose(&list, &tried) else {
                return Err(UpstreamError::Closes {
                    target: self.somewhere(),
                });
            };
            asked.replace(Some(Rc::clone(&endpoint)));
            let with = Pending::with(&endpoint);
            let fresh = tried.iter().any(|tried| Rc::ptr_eq(tried, &endpoint));
            let FailedAttempt { error, again } =
                match self.attempt(&endpoint, request, upgrade, fresh).await {
                    Ok((response, connection)) => {
                        endpoint.outliers.succeeded();
                        return Ok((response, connection, with));
                    }
                    Err(failed) => failed,
                };
            if upload.fault().is_some() {
                // It was the client.
                return Err(error);
            }
            self.endpoints.failed(&endpoint);
            let may = tried.len() < self.shared.policy.retries.attempts;
            request = match again {
                // The only endpoint would let it wait as long once more.
                Retry::Unseen(again) if may && (list.len() > 1 || !error.is_slow_to_connect()) => {
                    again
                }
                Retry::Stale(again) if may && !twice => {
                    twice = true;
                    again
                }
                Retry::Twice(again) if may && !twice && self.budget.withdraw() => {
                    twice = true;
                    again
                }
                Retry::Unseen(_) | Retry::Stale(_) | Retry::Twice(_) | Retry::No => {
                    return Err(error);
                }
            };
            tried.push(endpoint);
            self.shared.state.metrics.retried();
        }
    }

    /// All endpoints. To look up a name for the first time is a part of connecting.
    async fn all(&self) -> Result<List, UpstreamError> {
        if let Some(list) = self.endpoints.known() {
            return Ok(list);
        }
        let waited = self.shared.policy.connect_timeout;
        match Box::pin(timeout(waited, self.endpoints.found())).await {
            Ok(found) => found.map_err(|source| UpstreamError::Connect {
                target: self.somewhere(),
                source,
            }),
            Err(_) => Err(UpstreamError::ConnectTimeout {
                target: self.somewhere(),
                waited,
            }),
        }
    }

    /// Tries it with one endpoint.
    async fn attempt(
        &self,
        endpoint: &Endpoint,
        mut request: Box<Request<RequestBody>>,
        upgrade: bool,
        fresh: bool,
    ) -> Result<(Response<Incoming>, Connection), FailedAttempt> {
        let target = || Arc::clone(&endpoint.address);
        let broken = |source| UpstreamError::Broken {
            target: target(),
            source,
        };
        loop {
            let open = if fresh {
                None
            } else {
                endpoint.check_out(upgrade).await
            };
            let (mut connection, is_new) = match open {
                Some(connection) => (connection, false),
                // In a box: what is seldom needed makes no connection of a client larger.
                None => match Box::pin(self.connect(endpoint, upgrade)).await {
                    Ok(connected) => connected,
                    Err(error) => {
                        let again = Retry::Unseen(request);
                        return Err(FailedAttempt { error, again });
                    }
                },
            };
            // A connection may have been closed by the upstream in this very moment. A request that did not leave is
            // sent over the next; one that may have left is sent again only if that is harmless.
            match connection.send(request).await {
                Ok(response) => return Ok((response, connection)),
                Err(SendError::NotSent(unsent)) if is_new => {
                    return Err(FailedAttempt {
                        error: UpstreamError::Closes { target: target() },
                        again: Retry::Unseen(unsent),
                    });
                }
                Err(SendError::NotSent(unsent)) => request = unsent,
                Err(SendError::NotProcessed { error, retry }) => {
                    return Err(FailedAttempt {
                        error: broken(error),
                        again: retry.map_or(Retry::No, Retry::Unseen),
                    });
                }
                Err(SendError::MaybeProcessed { error, retry }) => {
                    let is_kept = !is_new && matches!(connection, Connection::Http1(_));
                    let may = if is_kept { Retry::Stale } else { Retry::Twice };
                    return Err(FailedAttempt {
                        error: broken(error),
                        again: retry.map_or(Retry::No, may),
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
        let target = || Arc::clone(&endpoint.address);
        let waited = self.shared.policy.connect_timeout;
        let opening = endpoint.open(&self.shared.protocol, upgrade);
        let opened = timeout(waited, opening).await;
        match &opened {
            Ok(Ok((_, false))) => {}
            Ok(Ok((_, true))) => self.shared.state.metrics.connected(true),
            Ok(Err(_)) | Err(_) => self.shared.state.metrics.connected(false),
        }
        match opened {
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
