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

use super::endpoint::Endpoint;
use super::place::{Place, Target};
use super::policy::UpstreamPolicy;
use super::resolve::{Lookup, places};
use super::standing::Use;

/// How soon a look-up that failed is tried again.
const SOON: Duration = Duration::from_secs(1);

/// All endpoints at one moment.
pub(super) type List = Rc<[Rc<Endpoint>]>;

/// The endpoints of one upstream.
#[derive(Debug)]
pub(super) struct Endpoints {
    policy: Rc<UpstreamPolicy>,
    lookup: Lookup,
    list: RefCell<List>,
    /// When names are looked up again; never, if there are none.
    due: Cell<Option<Instant>>,
    looking: Mutex<()>,
    turn: Cell<usize>,
}

impl Endpoints {
    pub(super) fn new(policy: Rc<UpstreamPolicy>, lookup: Lookup) -> Self {
        let has_names = policy.targets.iter().any(|target| target.name().is_some());
        let fixed = policy
            .targets
            .iter()
            .filter(|target| target.name().is_none());
        let endpoint =
            |target: &Target| Endpoint::new(Arc::new(Place::of(target)), policy.keep_alive);
        let list: List = fixed.map(|target| Rc::new(endpoint(target))).collect();
        Self {
            lookup,
            list: RefCell::new(list),
            due: Cell::new(has_names.then(Instant::now)),
            looking: Mutex::default(),
            turn: Cell::new(0),
            policy,
        }
    }

    /// All there are. Whoever comes first waits for the addresses of names; after that they are looked up beside.
    pub(super) async fn all(self: &Rc<Self>) -> io::Result<List> {
        if self.due.get().is_some_and(|due| due <= Instant::now()) {
            if self.list.borrow().is_empty() {
                let _turn = self.looking.lock().await;
                if self.list.borrow().is_empty() {
                    self.look_up().await?;
                }
            } else if self.looking.try_lock().is_ok() {
                let endpoints = Rc::clone(self);
                spawn_local(async move {
                    let _turn = endpoints.looking.lock().await;
                    if let Err(error) = endpoints.look_up().await {
                        let name = &endpoints.policy.name;
                        warn!(
                            "failed to look up the upstream `{name}`, which stays where it was: {error}"
                        );
                    }
                });
            }
        }
        Ok(Rc::clone(&self.list.borrow()))
    }

    /// Looks up every name. One that cannot be looked up stands for what it stood for.
    async fn look_up(&self) -> io::Result<()> {
        let mut list = Vec::new();
        let mut failed = None;
        for target in &self.policy.targets {
            match places(target, self.lookup).await {
                Ok(places) => list.extend(places.into_iter().map(|place| self.endpoint(place))),
                Err(error) => {
                    let before = self.list.borrow();
                    let same = before
                        .iter()
                        .filter(|endpoint| endpoint.place.target == *target);
                    list.extend(same.map(Rc::clone));
                    failed = Some(error);
                }
            }
        }
        let wait = match failed {
            Some(_) => SOON.min(self.policy.dns_refresh),
            None => self.policy.dns_refresh,
        };
        self.due.set(Some(Instant::now() + wait));
        let is_empty = list.is_empty();
        let before = self.list.replace(list.into());
        let list = self.list.borrow();
        for gone in before.iter() {
            if !list.iter().any(|endpoint| Rc::ptr_eq(endpoint, gone)) {
                gone.retire();
            }
        }
        match failed {
            Some(error) if is_empty || !before.is_empty() => Err(error),
            Some(_) | None => Ok(()),
        }
    }

    /// The endpoint at a place: the one that is known, with its connections, or a new one.
    fn endpoint(&self, place: Arc<Place>) -> Rc<Endpoint> {
        let list = self.list.borrow();
        let known = list.iter().find(|endpoint| endpoint.place == place);
        known.map_or_else(
            || Rc::new(Endpoint::new(place, self.policy.keep_alive)),
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
        let chosen = match self.policy.balance {
            Balance::RoundRobin => {
                let mut good = good;
                good.next()
            }
            Balance::LeastPending => good.min_by_key(|(_, endpoint)| endpoint.pending()),
        };
        // If all are out, all are used.
        let chosen = chosen.or_else(|| turns().find(|(_, endpoint)| is_new(endpoint)));
        let (place, endpoint) = chosen.or_else(|| turns().next())?;
        self.turn.set(place + 1);
        Some(Rc::clone(endpoint))
    }

    fn is_in_use(&self, endpoint: &Endpoint, now: Instant) -> bool {
        let (name, place) = (&self.policy.name, &endpoint.place);
        match endpoint.standing.at(now, self.policy.ejection) {
            Use::In => {}
            Use::Back => info!("{place} of the upstream `{name}` is tried again"),
            Use::Out => return false,
        }
        self.policy.health_check.is_none() || self.policy.common.health.is_healthy(place)
    }

    /// An endpoint has given no answer. If there are others, it may be left out for a while.
    pub(super) fn failed(&self, endpoint: &Endpoint) {
        if self.list.borrow().len() <= 1 {
            return;
        }
        if let Some(time) = endpoint
            .standing
            .failed(self.policy.ejection, Instant::now())
        {
            let (name, place) = (&self.policy.name, &endpoint.place);
            let failures = self.policy.ejection.failures;
            warn!(
                "{place} of the upstream `{name}` is left out for {time:?}: it has failed {failures} times in a row"
            );
            self.policy.common.metrics.ejected();
        }
    }
}
