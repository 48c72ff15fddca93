//! Upstream side of one worker: connection pools, timeouts and retries.

mod address;
mod connect;
mod connection;
mod driver;
mod endpoint;
mod error;
mod head;
pub mod health;
mod health_status;
pub mod http1;
mod http2;
mod id;
mod load_balancer;
mod outlier_detector;
mod policy;
mod protocol;
mod queue;
mod resolve;
mod retry_budget;
mod reuse;
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

use super::request_body::{RequestBody, Upload};
use super::request_head::RequestHead;

pub use address::{EndpointAddress, Target};
pub use error::UpstreamError;
pub use health_status::HealthStatus;
pub use id::UpstreamId;
pub use policy::{HealthPolicy, QueueLimits, UpstreamPolicy};
pub use protocol::{HTTP1, HTTP2, Protocol, Tls, TlsSettings};
pub use queue::Queue;
pub use send::MAX_RESPONSE_FIELDS;
pub use shared::{SharedUpstream, UpstreamState};

use connection::Connection;
use endpoint::{Endpoint, PendingGuard};
use load_balancer::{EndpointList, Endpoints};
use queue::Slot;
use resolve::Lookup;
use retry_budget::RetryBudget;
use send::SendError;

/// Endpoints and connection pools of one upstream in one worker.
#[derive(Debug)]
pub struct Upstream {
    shared: Rc<SharedUpstream>,
    endpoints: Rc<Endpoints>,
    budget: RetryBudget,
}

/// Connection checked out of the pool. Dropping it without [`Self::release`] closes the connection, or resets its HTTP/2
/// stream, so that the upstream stops working on an abandoned request.
#[derive(Debug)]
pub struct PooledConnection {
    connection: Connection,
    pending: PendingGuard,
    slot: Option<Slot>,
}

/// Counts an upgraded connection as pending until it is dropped.
#[derive(Debug)]
pub struct Upgraded {
    _pending: PendingGuard,
    _slot: Option<Slot>,
}

impl PooledConnection {
    /// Returns the connection to the pool after a complete response.
    pub fn release(self) {
        self.pending.0.check_in(self.connection);
    }

    /// Removes an upgraded connection from the pool.
    pub fn detach(self) -> Upgraded {
        if let Connection::Http1(connection) = self.connection {
            connection.detach();
        }
        Upgraded {
            _pending: self.pending,
            _slot: self.slot,
        }
    }

    pub fn address(&self) -> Arc<EndpointAddress> {
        Arc::clone(&self.pending.0.address)
    }
}

#[derive(Debug)]
struct FailedAttempt {
    error: UpstreamError,
    retry: Retry,
}

/// Request of a failed attempt, by the condition for its retry.
#[derive(Debug)]
enum Retry {
    /// The upstream has not processed the request.
    NotProcessed(Box<Request<RequestBody>>),
    /// Replayable request on a reused connection, most likely closed by the upstream at the same moment: retried without
    /// the retry budget.
    StaleConnection(Box<Request<RequestBody>>),
    /// Replayable request.
    Replayable(Box<Request<RequestBody>>),
    Never,
}

impl Upstream {
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

    /// Returns true if the pooled connections and the retry budget fit this configuration.
    pub fn can_serve(&self, configured: &SharedUpstream) -> bool {
        self.shared.shares_state(configured)
    }

    pub fn policy(&self) -> &UpstreamPolicy {
        &self.shared.policy
    }

    /// Snapshot of the connection pools for metrics.
    pub fn pool(&self) -> Pool {
        self.endpoints.pool()
    }

    /// Sends a request and waits for the response head. Consumes the permit, which proves that the gate has allowed the
    /// request. The request has `head`, whatever its own says.
    pub async fn exchange(
        self: &Rc<Self>,
        permit: Permit,
        head: RequestHead,
        mut request: Box<Request<RequestBody>>,
        response_timeout: Option<Duration>,
    ) -> Result<(Response<Incoming>, PooledConnection), UpstreamError> {
        let sent = head.to_parts();
        *request.method_mut() = sent.method;
        *request.uri_mut() = sent.uri;
        *request.headers_mut() = sent.headers;
        // Consumes the permit: it allows this one exchange.
        drop(permit);
        let response_timeout = response_timeout.unwrap_or(self.shared.policy.response_timeout);
        let slot = match &self.shared.state.queue {
            Some(queue) => Some(self.acquire_slot(queue).await?),
            None => None,
        };
        let upload = request.body().upload();
        let began = Instant::now();
        let tried = RefCell::new(None);
        let exchange = self.send(request, &upload, &tried);
        tokio::pin!(exchange);
        let mut deadline = began + response_timeout;
        let (mut uploaded, mut moved_at) = (upload.bytes(), began);
        loop {
            tokio::select! {
                biased;
                result = &mut exchange => {
                    let (response, connection, pending) = result?;
                    return Ok((response, PooledConnection { connection, pending, slot }));
                }
                () = sleep_until(deadline) => {}
            }
            // While the gate waits for the client to send, the body timeout applies, and to a gRPC call the idle timeout.
            // The response timeout starts when the upload is complete, or when the upstream stops reading it.
            let now = Instant::now();
            if upload.bytes() > uploaded {
                (uploaded, moved_at) = (upload.bytes(), now);
            }
            let idle_timeout = self.shared.policy.idle_timeout;
            let is_idle = !idle_timeout.is_zero() && now >= moved_at + idle_timeout;
            let is_moving = now == moved_at || (upload.awaits_client() && !is_idle);
            deadline = match upload.finished_at() {
                Some(finished) => finished.max(began) + response_timeout,
                None if is_moving => now + response_timeout,
                None => now,
            };
            if deadline <= now {
                return Err(self.response_timeout(tried.take(), response_timeout));
            }
        }
    }

    async fn acquire_slot(&self, queue: &Queue) -> Result<Slot, UpstreamError> {
        let slot = Box::pin(queue.acquire(self.shared.policy.connect_timeout)).await;
        slot.ok_or_else(|| UpstreamError::QueueFull {
            name: self.shared.policy.name.clone(),
        })
    }

    fn response_timeout(&self, tried: Option<Rc<Endpoint>>, waited: Duration) -> UpstreamError {
        let target = match tried {
            Some(endpoint) => {
                self.endpoints.failed(&endpoint);
                Arc::clone(&endpoint.address)
            }
            None => self.any_address(),
        };
        UpstreamError::ResponseTimeout { target, waited }
    }

    /// Address for errors that concern no single endpoint: the first target.
    fn any_address(&self) -> Arc<EndpointAddress> {
        let target = self.shared.policy.targets.first();
        let empty = || EndpointAddress::of(&Target::Unix(PathBuf::new()));
        Arc::new(target.map_or_else(empty, EndpointAddress::of))
    }

    /// Sends a request to one endpoint, and retries it on another if the retry policy allows.
    async fn send(
        &self,
        mut request: Box<Request<RequestBody>>,
        upload: &Upload,
        current: &RefCell<Option<Rc<Endpoint>>>,
    ) -> Result<(Response<Incoming>, Connection, PendingGuard), UpstreamError> {
        let upgrade = request.headers().contains_key(UPGRADE);
        if upgrade && self.shared.protocol.is_http2() {
            return Err(UpstreamError::WebSocketOverHttp2 {
                target: self.any_address(),
            });
        }
        let list = self.endpoints().await?;
        self.budget.deposit();
        let mut tried = Vec::new();
        let mut was_replayed = false;
        loop {
            let Some(endpoint) = self.endpoints.choose(&list, &tried) else {
                return Err(UpstreamError::ConnectionClosed {
                    target: self.any_address(),
                });
            };
            current.replace(Some(Rc::clone(&endpoint)));
            let pending = PendingGuard::new(&endpoint);
            let force_new = tried.iter().any(|tried| Rc::ptr_eq(tried, &endpoint));
            let FailedAttempt { error, retry } =
                match self.attempt(&endpoint, request, upgrade, force_new).await {
                    Ok((response, connection)) => {
                        endpoint.outliers.succeeded();
                        return Ok((response, connection, pending));
                    }
                    Err(failed) => failed,
                };
            if upload.fault().is_some() {
                // The client failed to send its body.
                return Err(error);
            }
            self.endpoints.failed(&endpoint);
            let may_retry = tried.len() < self.shared.policy.retries.attempts;
            request = match retry {
                // The only endpoint would run into the same connect timeout again.
                Retry::NotProcessed(request)
                    if may_retry && (list.len() > 1 || !error.is_connect_timeout()) =>
                {
                    request
                }
                Retry::StaleConnection(request) if may_retry && !was_replayed => {
                    was_replayed = true;
                    request
                }
                Retry::Replayable(request)
                    if may_retry && !was_replayed && self.budget.withdraw() =>
                {
                    was_replayed = true;
                    request
                }
                Retry::NotProcessed(_)
                | Retry::StaleConnection(_)
                | Retry::Replayable(_)
                | Retry::Never => return Err(error),
            };
            tried.push(endpoint);
            self.shared.state.metrics.retried();
        }
    }

    /// All endpoints. The first DNS lookup counts as part of connecting.
    async fn endpoints(&self) -> Result<EndpointList, UpstreamError> {
        if let Some(list) = self.endpoints.known() {
            return Ok(list);
        }
        let waited = self.shared.policy.connect_timeout;
        match Box::pin(timeout(waited, self.endpoints.resolved())).await {
            Ok(resolved) => resolved.map_err(|source| UpstreamError::Connect {
                target: self.any_address(),
                source,
            }),
            Err(_) => Err(UpstreamError::ConnectTimeout {
                target: self.any_address(),
                waited,
            }),
        }
    }

    /// Sends a request to one endpoint.
    async fn attempt(
        &self,
        endpoint: &Endpoint,
        mut request: Box<Request<RequestBody>>,
        upgrade: bool,
        force_new: bool,
    ) -> Result<(Response<Incoming>, Connection), FailedAttempt> {
        let target = || Arc::clone(&endpoint.address);
        let invalid_response = |source| UpstreamError::InvalidResponse {
            target: target(),
            source,
        };
        loop {
            let pooled = if force_new {
                None
            } else {
                endpoint.check_out(upgrade).await
            };
            let (mut connection, is_new) = match pooled {
                Some(connection) => (connection, false),
                // Boxed: inline, the rare connect would enlarge the future of every request.
                None => match Box::pin(self.connect(endpoint, upgrade)).await {
                    Ok(connected) => connected,
                    Err(error) => {
                        let retry = Retry::NotProcessed(request);
                        return Err(FailedAttempt { error, retry });
                    }
                },
            };
            // The upstream may close a pooled connection at any moment. An unsent request takes the next connection; a
            // request that may have been sent is retried only if it is replayable.
            match connection.send(request).await {
                Ok(response) => return Ok((response, connection)),
                Err(SendError::NotSent(unsent)) if is_new => {
                    return Err(FailedAttempt {
                        error: UpstreamError::ConnectionClosed { target: target() },
                        retry: Retry::NotProcessed(unsent),
                    });
                }
                Err(SendError::NotSent(unsent)) => request = unsent,
                Err(SendError::NotProcessed { error, retry }) => {
                    return Err(FailedAttempt {
                        error: invalid_response(error),
                        retry: retry.map_or(Retry::Never, Retry::NotProcessed),
                    });
                }
                Err(SendError::MaybeProcessed { error, retry }) => {
                    let is_reused = !is_new && matches!(connection, Connection::Http1(_));
                    let condition = if is_reused {
                        Retry::StaleConnection
                    } else {
                        Retry::Replayable
                    };
                    return Err(FailedAttempt {
                        error: invalid_response(error),
                        retry: retry.map_or(Retry::Never, condition),
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
