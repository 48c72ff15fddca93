//! Endpoints of one upstream in one worker: DNS refresh and load balancing.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::spawn_local;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::config::Balance;
use crate::observe::metrics::Pool;

use super::address::{EndpointAddress, Target};
use super::endpoint::Endpoint;
use super::outbox::Outbox;
use super::outlier_detector::OutlierState;
use super::resolve::{Lookup, addresses};
use super::shared::SharedUpstream;

/// Interval between DNS lookups after a failure.
const FAILED_LOOKUP_RETRY: Duration = Duration::from_secs(1);

pub(super) type EndpointList = Rc<[Rc<Endpoint>]>;

#[derive(Debug)]
pub(super) struct Endpoints {
    upstream: Rc<SharedUpstream>,
    outbox: Rc<Outbox>,
    lookup: Lookup,
    list: RefCell<EndpointList>,
    /// Time of the next DNS lookup; none without host names.
    lookup_due: Cell<Option<Instant>>,
    /// Held during a DNS lookup.
    lookup_in_progress: Arc<Mutex<()>>,
    /// Error of the last DNS lookup.
    lookup_error: RefCell<Option<String>>,
    /// Index of the endpoint to try first.
    next: Cell<usize>,
}

impl Endpoints {
    pub(super) fn new(upstream: Rc<SharedUpstream>, outbox: Rc<Outbox>, lookup: Lookup) -> Self {
        let policy = &upstream.policy;
        let has_names = policy.targets.iter().any(|target| target.name().is_some());
        let fixed = policy
            .targets
            .iter()
            .filter(|target| target.name().is_none());
        let endpoint =
            |target: &Target| Endpoint::new(Arc::new(EndpointAddress::of(target)), policy, &outbox);
        let list: EndpointList = fixed.map(|target| Rc::new(endpoint(target))).collect();
        Self {
            lookup,
            list: RefCell::new(list),
            lookup_due: Cell::new(has_names.then(Instant::now)),
            lookup_in_progress: Arc::default(),
            lookup_error: RefCell::default(),
            next: Cell::new(0),
            outbox,
            upstream,
        }
    }

    /// Known endpoints; none before the first successful DNS lookup. Starts a background lookup if one is due.
    pub(super) fn known(self: &Rc<Self>) -> Option<EndpointList> {
        if self
            .lookup_due
            .get()
            .is_some_and(|due| due <= Instant::now())
        {
            self.start_lookup();
        }
        let list = self.list();
        (!list.is_empty()).then_some(list)
    }

    /// Endpoints after a DNS lookup.
    pub(super) async fn resolved(self: &Rc<Self>) -> io::Result<EndpointList> {
        self.start_lookup();
        let _finished = self.lookup_in_progress.lock().await;
        match &*self.lookup_error.borrow() {
            Some(error) if self.list.borrow().is_empty() => Err(io::Error::other(error.clone())),
            Some(_) | None => Ok(self.list()),
        }
    }

    /// Starts a background lookup unless one is in progress. It outlives the request, so that a slow lookup serves the
    /// next one.
    fn start_lookup(self: &Rc<Self>) {
        if let Ok(guard) = Arc::clone(&self.lookup_in_progress).try_lock_owned() {
            let endpoints = Rc::clone(self);
            spawn_local(async move {
                endpoints.lookup_all().await;
                drop(guard);
            });
        }
    }

    /// Sum over the connection pools of all endpoints.
    pub(super) fn pool(&self) -> Pool {
        let mut sum = Pool::default();
        for endpoint in self.list().iter() {
            sum.add(endpoint.pool());
        }
        sum
    }

    fn list(&self) -> EndpointList {
        Rc::clone(&self.list.borrow())
    }

    /// Looks up every host name. A failed lookup keeps the known endpoints of that name.
    async fn lookup_all(&self) {
        let before = self.list();
        let mut list = Vec::new();
        let mut failure = None;
        for target in &self.upstream.policy.targets {
            match addresses(target, self.lookup).await {
                Ok(addresses) => {
                    list.extend(addresses.into_iter().map(|address| self.endpoint(address)));
                }
                Err(error) => {
                    let same = |endpoint: &&Rc<Endpoint>| endpoint.address.target == *target;
                    list.extend(before.iter().filter(same).map(Rc::clone));
                    failure = Some(error.to_string());
                }
            }
        }
        self.lookup_due
            .set(Some(Instant::now() + self.lookup_interval(failure)));
        self.list.replace(list.into());
        let list = self.list();
        let is_removed = |known: &&Rc<Endpoint>| !list.iter().any(|kept| Rc::ptr_eq(kept, known));
        before
            .iter()
            .filter(is_removed)
            .for_each(|removed| removed.retire());
    }

    /// Time until the next lookup. Logs only the first of several failures.
    fn lookup_interval(&self, failure: Option<String>) -> Duration {
        let name = &self.upstream.policy.name;
        let before = self.lookup_error.replace(failure);
        match (before, &*self.lookup_error.borrow()) {
            (None, Some(error)) => warn!("failed to resolve the upstream `{name}`: {error}"),
            (Some(_), None) => info!("upstream `{name}` resolved again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        match &*self.lookup_error.borrow() {
            Some(_) => FAILED_LOOKUP_RETRY.min(self.upstream.policy.dns_refresh),
            None => self.upstream.policy.dns_refresh,
        }
    }

    /// Known endpoint with this address and its connections, or a new one.
    fn endpoint(&self, address: Arc<EndpointAddress>) -> Rc<Endpoint> {
        let list = self.list.borrow();
        let known = list.iter().find(|endpoint| endpoint.address == address);
        known.map_or_else(
            || Rc::new(Endpoint::new(address, &self.upstream.policy, &self.outbox)),
            Rc::clone,
        )
    }

    /// Chooses the next endpoint: preferably untried, healthy and not ejected.
    pub(super) fn choose(
        &self,
        list: &EndpointList,
        tried: &[Rc<Endpoint>],
    ) -> Option<Rc<Endpoint>> {
        if list.len() <= 1 {
            return list.first().map(Rc::clone);
        }
        let (start, now) = (self.next.get(), Instant::now());
        let in_turn = || {
            let rotated = list.iter().enumerate().cycle().skip(start % list.len());
            rotated.take(list.len())
        };
        let is_untried =
            |endpoint: &Rc<Endpoint>| !tried.iter().any(|tried| Rc::ptr_eq(tried, endpoint));
        let available = in_turn()
            .filter(|(_, endpoint)| is_untried(endpoint) && self.is_available(endpoint, now));
        let chosen = match self.upstream.policy.balance {
            Balance::RoundRobin => {
                let mut available = available;
                available.next()
            }
            Balance::LeastPending => available.min_by_key(|(_, endpoint)| endpoint.pending()),
        };
        // If no endpoint is available, all are used.
        let chosen = chosen.or_else(|| in_turn().find(|(_, endpoint)| is_untried(endpoint)));
        let (index, endpoint) = chosen.or_else(|| in_turn().next())?;
        self.next.set(index + 1);
        Some(Rc::clone(endpoint))
    }

    fn is_available(&self, endpoint: &Endpoint, now: Instant) -> bool {
        let (name, address) = (&self.upstream.policy.name, &endpoint.address);
        match endpoint.outliers.state(now, self.upstream.policy.ejection) {
            OutlierState::Active => {}
            OutlierState::Restored => {
                info!("endpoint {address} of the upstream `{name}` restored");
            }
            OutlierState::Ejected => return false,
        }
        self.upstream.policy.health_check.is_none()
            || self.upstream.state.health.is_healthy(address)
    }

    /// Notes a failed request. Ejects the endpoint after consecutive failures, unless it is the only one.
    pub(super) fn failed(&self, endpoint: &Endpoint) {
        if self.list.borrow().len() <= 1 {
            return;
        }
        if let Some(time) = endpoint
            .outliers
            .failed(self.upstream.policy.ejection, Instant::now())
        {
            let (name, address) = (&self.upstream.policy.name, &endpoint.address);
            let failures = self.upstream.policy.ejection.failures;
            warn!(
                "endpoint {address} of the upstream `{name}` ejected for {time:?} after {failures} consecutive failures"
            );
            self.upstream.state.metrics.ejected();
        }
    }
}
