//! The endpoints of one upstream, as a worker knows them, and which is the next.

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
use super::outlier_detector::Use;
use super::resolve::{Lookup, addresses};
use super::shared::SharedUpstream;

/// How soon a look-up that failed is tried again.
const SOON: Duration = Duration::from_secs(1);

/// All endpoints at one moment.
pub(super) type List = Rc<[Rc<Endpoint>]>;

/// The endpoints of one upstream.
#[derive(Debug)]
pub(super) struct Endpoints {
    upstream: Rc<SharedUpstream>,
    lookup: Lookup,
    list: RefCell<List>,
    /// When names are looked up again; never, if there are none.
    due: Cell<Option<Instant>>,
    /// Whoever looks names up.
    looking: Arc<Mutex<()>>,
    /// Why the last look-up has failed, if it has.
    failure: RefCell<Option<String>>,
    turn: Cell<usize>,
}

impl Endpoints {
    pub(super) fn new(upstream: Rc<SharedUpstream>, lookup: Lookup) -> Self {
        let policy = &upstream.policy;
        let has_names = policy.targets.iter().any(|target| target.name().is_some());
        let fixed = policy
            .targets
            .iter()
            .filter(|target| target.name().is_none());
        let endpoint = |target: &Target| {
            Endpoint::new(Arc::new(EndpointAddress::of(target)), policy.keep_alive)
        };
        let list: List = fixed.map(|target| Rc::new(endpoint(target))).collect();
        Self {
            lookup,
            list: RefCell::new(list),
            due: Cell::new(has_names.then(Instant::now)),
            looking: Arc::default(),
            failure: RefCell::default(),
            turn: Cell::new(0),
            upstream,
        }
    }

    /// All there are, if that is known. When they are due, the addresses of names are looked up beside.
    pub(super) fn known(self: &Rc<Self>) -> Option<List> {
        if self.due.get().is_some_and(|due| due <= Instant::now()) {
            self.begin_look_up();
        }
        let list = self.list();
        (!list.is_empty()).then_some(list)
    }

    /// All there are, when their addresses have been looked up.
    pub(super) async fn found(self: &Rc<Self>) -> io::Result<List> {
        self.begin_look_up();
        let _looked_up = self.looking.lock().await;
        match &*self.failure.borrow() {
            Some(failure) if self.list.borrow().is_empty() => {
                Err(io::Error::other(failure.clone()))
            }
            Some(_) | None => Ok(self.list()),
        }
    }

    /// It goes on if nobody waits any more: what is slow for one request is there for the next.
    fn begin_look_up(self: &Rc<Self>) {
        if let Ok(turn) = Arc::clone(&self.looking).try_lock_owned() {
            let endpoints = Rc::clone(self);
            spawn_local(async move {
                endpoints.look_up().await;
                drop(turn);
            });
        }
    }

    /// What all of them have at the moment.
    pub(super) fn pool(&self) -> Pool {
        let mut sum = Pool::default();
        for endpoint in self.list().iter() {
            sum.add(endpoint.pool());
        }
        sum
    }

    fn list(&self) -> List {
        Rc::clone(&self.list.borrow())
    }

    /// Looks up every name. One that cannot be looked up stands for what it stood for.
    async fn look_up(&self) {
        let before = self.list();
        let mut list = Vec::new();
        let mut failure = None;
        for target in &self.upstream.policy.targets {
            match addresses(target, self.lookup).await {
                Ok(addresses) => {
                    list.extend(addresses.into_iter().map(|address| self.endpoint(address)))
                }
                Err(error) => {
                    let same = |endpoint: &&Rc<Endpoint>| endpoint.address.target == *target;
                    list.extend(before.iter().filter(same).map(Rc::clone));
                    failure = Some(error.to_string());
                }
            }
        }
        self.due.set(Some(Instant::now() + self.wait(failure)));
        self.list.replace(list.into());
        let list = self.list();
        let is_gone = |known: &&Rc<Endpoint>| !list.iter().any(|kept| Rc::ptr_eq(kept, known));
        before.iter().filter(is_gone).for_each(|gone| gone.retire());
    }

    /// How long the outcome of a look-up holds. That it fails is said once.
    fn wait(&self, failure: Option<String>) -> Duration {
        let name = &self.upstream.policy.name;
        let before = self.failure.replace(failure);
        match (before, &*self.failure.borrow()) {
            (None, Some(error)) => warn!("failed to look up the upstream `{name}`: {error}"),
            (Some(_), None) => info!("the upstream `{name}` can be looked up again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        match &*self.failure.borrow() {
            Some(_) => SOON.min(self.upstream.policy.dns_refresh),
            None => self.upstream.policy.dns_refresh,
        }
    }

    /// The endpoint at a place: the one that is known, with its connections, or a new one.
    fn endpoint(&self, address: Arc<EndpointAddress>) -> Rc<Endpoint> {
        let list = self.list.borrow();
        let known = list.iter().find(|endpoint| endpoint.address == address);
        known.map_or_else(
            || Rc::new(Endpoint::new(address, self.upstream.policy.keep_alive)),
            Rc::clone,
        )
    }

    /// The next one, if possible one that is in use, healthy and was not tried.
    pub(super) fn choose(&self, list: &List, tried: &[Rc<Endpoint>]) -> Option<Rc<Endpoint>> {
        if list.len() <= 1 {
            return list.first().map(Rc::clone);
        }
        let (start, now) = (self.turn.get(), Instant::now());
        let turns = || {
            let turns = list.iter().enumerate().cycle().skip(start % list.len());
            turns.take(list.len())
        };
        let is_new =
            |endpoint: &Rc<Endpoint>| !tried.iter().any(|tried| Rc::ptr_eq(tried, endpoint));
        let good =
            turns().filter(|(_, endpoint)| is_new(endpoint) && self.is_in_use(endpoint, now));
        let chosen = match self.upstream.policy.balance {
            Balance::RoundRobin => {
                let mut good = good;
                good.next()
            }
            Balance::LeastPending => good.min_by_key(|(_, endpoint)| endpoint.pending()),
        };
        // If all are out, all are used.
        let chosen = chosen.or_else(|| turns().find(|(_, endpoint)| is_new(endpoint)));
        let (address, endpoint) = chosen.or_else(|| turns().next())?;
        self.turn.set(address + 1);
        Some(Rc::clone(endpoint))
    }

    fn is_in_use(&self, endpoint: &Endpoint, now: Instant) -> bool {
        let (name, address) = (&self.upstream.policy.name, &endpoint.address);
        match endpoint.outliers.at(now, self.upstream.policy.ejection) {
            Use::In => {}
            Use::Back => info!("{address} of the upstream `{name}` is tried again"),
            Use::Out => return false,
        }
        self.upstream.policy.health_check.is_none()
            || self.upstream.state.health.is_healthy(address)
    }

    /// An endpoint has given no answer. If there are others, it may be left out for a while.
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
                "{address} of the upstream `{name}` is left out for {time:?}: it has failed {failures} times in a row"
            );
            self.upstream.state.metrics.ejected();
        }
    }
}
