//! Upstream side of one worker: connection pools, timeouts and retries.

mod address;
mod body;
mod connect;
mod connection;
mod driver;
mod endpoint;
mod error;
mod fault;
mod head;
pub mod health;
mod health_status;
pub mod http1;
mod http2;
mod id;
mod idle;
mod load_balancer;
mod outbox;
mod outlier_detector;
mod policy;
mod protocol;
mod queue;
mod request;
mod resolve;
mod retry_budget;
mod revocable_body;
mod send;
mod shared;
mod surplus;
#[cfg(test)]
mod tests;
mod timers;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::Response;
use tokio::time::{Instant, timeout};

use crate::gate::permit::Permit;
use crate::observe::metrics::Pool;

use super::request_body::Upload;

pub use address::{EndpointAddress, Target};
pub use body::{Upgraded, UpstreamBody};
pub use error::UpstreamError;
pub use fault::ExchangeFault;
pub use health_status::HealthStatus;
pub use id::UpstreamId;
pub use policy::{HealthPolicy, QueueLimits, UpstreamPolicy};
pub use protocol::{HTTP1, HTTP2, Protocol, Tls, TlsSettings};
pub use queue::Queue;
pub use request::{MAX_READ, MAX_READ_UNBUFFERED, UpstreamRequest};
pub use send::MAX_RESPONSE_FIELDS;
pub use shared::{SharedUpstream, UpstreamState};

use connection::{BodySource, Connection};
use endpoint::{Endpoint, PendingGuard};
use fault::SendError;
use load_balancer::{EndpointList, Endpoints};
use outbox::Outbox;
use queue::Slot;
use resolve::Lookup;
use retry_budget::RetryBudget;
use timers::Timers;

/// Endpoints and connection pools of one upstream in one worker.
#[derive(Debug)]
pub struct Upstream {
    shared: Rc<SharedUpstream>,
    endpoints: Rc<Endpoints>,
    budget: RetryBudget,
    timers: Rc<Timers>,
}

#[derive(Debug)]
struct FailedAttempt {
    error: UpstreamError,
    retry: Retry,
}

/// Condition for the retry of a failed attempt.
#[derive(Debug)]
enum Retry {
    /// The upstream has not processed the request.
    NotProcessed,
    /// Replayable request on a reused connection, most likely closed by the upstream at the same moment: retried without
    /// the retry budget.
    StaleConnection,
    /// Replayable request.
    Replayable,
    Never,
}

impl Upstream {
    pub fn new(shared: SharedUpstream) -> Self {
        Self::with_lookup(shared, resolve::system)
    }

    fn with_lookup(shared: SharedUpstream, lookup: Lookup) -> Self {
        let shared = Rc::new(shared);
        let outbox = Rc::new(Outbox::default());
        Self {
            endpoints: Rc::new(Endpoints::new(Rc::clone(&shared), outbox, lookup)),
            budget: RetryBudget::new(shared.policy.retries.budget),
            timers: Rc::default(),
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
    /// request.
    pub async fn exchange(
        &self,
        permit: Permit,
        mut request: UpstreamRequest,
        response_timeout: Option<Duration>,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        // Consumes the permit: it allows this one exchange.
        drop(permit);
        let response_timeout = response_timeout.unwrap_or(self.shared.policy.response_timeout);
        let slot = match &self.shared.state.queue {
            Some(queue) => Some(self.acquire_slot(queue).await?),
            None => None,
        };
        let upload = request.body.upload();
        let mut deadline = ResponseDeadline {
            response_timeout,
            idle_timeout: self.shared.policy.idle_timeout,
            began: Instant::now(),
            uploaded: upload.as_ref().map_or(0, |upload| upload.bytes()),
            moved_at: None,
        };
        let tried = RefCell::new(None);
        let mut exchange = pin!(self.send(&mut request, upload.as_deref(), &tried));
        let mut timer = self.timers.take();
        let mut ends_at = deadline.began + response_timeout;
        let received = poll_fn(|context| {
            if let Poll::Ready(received) = exchange.as_mut().poll(context) {
                return Poll::Ready(Some(received));
            }
            while timer.elapsed(ends_at, context) {
                match deadline.next(upload.as_deref(), Instant::now()) {
                    Some(next) => ends_at = next,
                    None => return Poll::Ready(None),
                }
            }
            Poll::Pending
        });
        match received.await {
            Some(received) => {
                let (response, pending) = received?;
                Ok(response.map(|source| UpstreamBody::new(source, pending, slot)))
            }
            None => Err(self.response_timeout(tried.take(), response_timeout)),
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
        request: &mut UpstreamRequest,
        upload: Option<&Upload>,
        current: &RefCell<Option<Rc<Endpoint>>>,
    ) -> Result<(Response<BodySource>, PendingGuard), UpstreamError> {
        if request.head.is_upgrade() && self.shared.protocol.is_http2() {
            return Err(UpstreamError::WebSocketOverHttp2 {
                target: self.any_address(),
            });
        }
        let list = match self.endpoints.known() {
            Some(list) => list,
            // Boxed: inline, the rare lookup would enlarge the future of every request.
            None => Box::pin(self.resolved_endpoints()).await?,
        };
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
                match self.attempt(&endpoint, request, force_new).await {
                    Ok(response) => {
                        endpoint.outliers.succeeded();
                        return Ok((response, pending));
                    }
                    Err(failed) => failed,
                };
            if upload.is_some_and(|upload| upload.fault().is_some()) {
                // The client failed to send its body.
                return Err(error);
            }
            self.endpoints.failed(&endpoint);
            let may_retry = tried.len() < self.shared.policy.retries.attempts;
            let is_retried = may_retry
                && match retry {
                    // The only endpoint would run into the same connect timeout again.
                    Retry::NotProcessed => list.len() > 1 || !error.is_connect_timeout(),
                    Retry::StaleConnection => !was_replayed,
                    Retry::Replayable => !was_replayed && self.budget.withdraw(),
                    Retry::Never => false,
                };
            if !is_retried {
                return Err(error);
            }
            was_replayed |= !matches!(retry, Retry::NotProcessed);
            tried.push(endpoint);
            self.shared.state.metrics.retried();
        }
    }

    /// Endpoints after the first DNS lookup, which counts as part of connecting.
    async fn resolved_endpoints(&self) -> Result<EndpointList, UpstreamError> {
        let waited = self.shared.policy.connect_timeout;
        match timeout(waited, self.endpoints.resolved()).await {
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
        request: &mut UpstreamRequest,
        force_new: bool,
    ) -> Result<Response<BodySource>, FailedAttempt> {
        let target = || Arc::clone(&endpoint.address);
        let invalid_response = |source| UpstreamError::InvalidResponse {
            target: target(),
            source,
        };
        let upgrade = request.head.is_upgrade();
        loop {
            let pooled = if force_new {
                None
            } else {
                endpoint.check_out(upgrade)
            };
            let (connection, is_new) = match pooled {
                Some(connection) => (connection, false),
                // Boxed: inline, the rare connect would enlarge the future of every request.
                None => match Box::pin(self.connect(endpoint, upgrade)).await {
                    Ok(connected) => connected,
                    Err(error) => {
                        let retry = Retry::NotProcessed;
                        return Err(FailedAttempt { error, retry });
                    }
                },
            };
            let is_reused = !is_new && connection.is_http1();
            // The upstream may close a pooled connection at any moment. An unsent request takes the next connection; a
            // request that may have been sent is retried only if it is replayable.
            let (error, retry) = match connection.send(request).await {
                Ok(response) => return Ok(response),
                Err(SendError::NotSent) if is_new => {
                    return Err(FailedAttempt {
                        error: UpstreamError::ConnectionClosed { target: target() },
                        retry: Retry::NotProcessed,
                    });
                }
                Err(SendError::NotSent) => continue,
                Err(SendError::NotProcessed { error, can_retry }) => {
                    (error, can_retry.then_some(Retry::NotProcessed))
                }
                Err(SendError::MaybeProcessed { error, can_retry }) => {
                    let condition = if is_reused {
                        Retry::StaleConnection
                    } else {
                        Retry::Replayable
                    };
                    (error, can_retry.then_some(condition))
                }
            };
            return Err(FailedAttempt {
                error: invalid_response(error),
                retry: retry.unwrap_or(Retry::Never),
            });
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

/// Deadline of a response head.
///
/// While the gate waits for the client to send, the body timeout applies, and to a gRPC call the idle timeout. The response
/// timeout starts when the upload is complete, or when the upstream stops reading it.
#[derive(Debug)]
struct ResponseDeadline {
    response_timeout: Duration,
    idle_timeout: Duration,
    began: Instant,
    uploaded: u64,
    /// Time at which `uploaded` was seen; `None` before the first look.
    moved_at: Option<Instant>,
}

impl ResponseDeadline {
    /// Time to look again; `None` if the response is overdue.
    fn next(&mut self, upload: Option<&Upload>, now: Instant) -> Option<Instant> {
        let finished = upload.map_or(Some(self.began), Upload::finished_at);
        let deadline = match (finished, upload) {
            (Some(finished), _) => finished.max(self.began) + self.response_timeout,
            (None, Some(upload)) if self.is_moving(upload, now) => now + self.response_timeout,
            (None, _) => now,
        };
        (deadline > now).then_some(deadline)
    }

    fn is_moving(&mut self, upload: &Upload, now: Instant) -> bool {
        if upload.bytes() > self.uploaded {
            self.uploaded = upload.bytes();
            self.moved_at = Some(now);
        }
        let moved_at = self.moved_at.unwrap_or(self.began);
        let is_idle = !self.idle_timeout.is_zero() && now >= moved_at + self.idle_timeout;
        now == moved_at || (upload.awaits_client() && !is_idle)
    }
}
