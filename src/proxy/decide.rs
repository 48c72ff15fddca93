//! The decision about one request: runs the gate's stages and waits between them, for keys or for a shared rate limit.

use std::rc::Rc;

use tracing::debug;

use crate::clock::UnixTime;
use crate::gate::dpop::VerifiedProof;
use crate::gate::inbound::Inbound;
use crate::gate::permit::Permit;
use crate::gate::rate_limit::Buckets;
use crate::gate::refusal::Refusal;
use crate::gate::stop::{NeedsExchange, NeedsKeys, Stop};
use crate::keys::credential::Exchanged;
use crate::keys::on_demand_refresh::RefreshOutcome;
use crate::observe::log::printable;

use super::Proxy;
use super::exchange::Exchange;
use super::replays::Use;
use super::snapshot::Snapshot;

/// Log target of the lines about a decision.
pub(super) const TARGET: &str = "claimgate::decision";

impl Proxy {
    /// Decides, and waits for keys if the decision needs them. Returns the snapshot of the decision.
    pub(super) async fn decide(
        &self,
        mut snapshot: Rc<Snapshot>,
        inbound: &Inbound,
        exchange: &mut Exchange,
    ) -> (Rc<Snapshot>, Result<Permit, Stop>) {
        if let Some(refusal) = exchange.connection().refuses_all() {
            return (snapshot, Err(refusal.into()));
        }
        if let Some(port) = exchange.connection().listener().redirect_to_https {
            let refusal = snapshot.policy.gate.redirect(inbound, port);
            return (snapshot, Err(refusal.into()));
        }
        let mut wait = KeyWait::default();
        let mut exchanged = None;
        loop {
            let decision = self
                .run_stages(&snapshot, inbound, exchanged.as_ref(), exchange)
                .await;
            self.count_tokens(&snapshot);
            let needs = match decision {
                Err(Stop::NeedsKeys(needs)) => needs,
                Err(Stop::NeedsExchange(needs)) => {
                    // One exchange per request: a second one would be about another configuration.
                    let response = match exchanged {
                        None => self.ask_issuer(&snapshot, inbound, &needs, exchange).await,
                        Some(_) => None,
                    };
                    let Some(response) = response else {
                        return (snapshot, Err(Stop::Refuse(needs.otherwise)));
                    };
                    exchanged = Some(response);
                    continue;
                }
                Ok(_) | Err(Stop::Refuse(_) | Stop::Preflight(_) | Stop::Metadata(_)) => {
                    return (snapshot, decision);
                }
            };
            // Boxed: a wait for keys is rare, and every request would carry its size.
            match Box::pin(self.newer_snapshot(&snapshot, &needs, &mut wait)).await {
                // Newer keys come with a newer policy: the decision starts over.
                Some(newer) => snapshot = newer,
                None => return (snapshot, Err(wait.give_up(*needs))),
            }
        }
    }

    /// Runs the stages of the gate, with the rate limits between them.
    async fn run_stages(
        &self,
        snapshot: &Snapshot,
        inbound: &Inbound,
        exchanged: Option<&Exchanged>,
        exchange: &mut Exchange,
    ) -> Result<Permit, Stop> {
        let routed = snapshot.policy.gate.route(inbound)?;
        debug!(
            target: TARGET,
            request_id = exchange.request_id_text(),
            route = &*routed.route().pattern,
            "route matched"
        );
        if let Some(buckets) = routed.client_buckets()
            && !exchange.limits().is_client_counted()
        {
            exchange.limits().set_client_counted();
            let headers = &snapshot.policy.headers;
            headers.warn_about_untrusted_proxy(exchange.peer(), &inbound.head.headers);
            self.count(snapshot, buckets, exchange)
                .await
                .map_err(|refusal| routed.refuse(refusal))?;
        }
        let now = self.shared.clock.now();
        let authenticated =
            routed.authenticate(now, &mut snapshot.tokens.borrow_mut(), exchanged)?;
        if let Some(caller) = authenticated.caller() {
            debug!(
                target: TARGET,
                request_id = exchange.request_id_text(),
                subject = &*printable(caller.subject.as_str()),
                issuer = &*caller.issuer,
                "token verified"
            );
        }
        if let Some(buckets) = authenticated.subject_buckets() {
            self.count(snapshot, buckets, exchange)
                .await
                .map_err(|refusal| authenticated.refuse(refusal))?;
        }
        if let Some(proof) = authenticated.proof() {
            // Boxed: requests without a proof would carry its size.
            Box::pin(self.use_proof(snapshot, proof, now))
                .await
                .map_err(|refusal| authenticated.refuse(refusal))?;
        }
        let permit = authenticated.authorize()?;
        debug!(
            target: TARGET,
            request_id = exchange.request_id_text(),
            "request permitted"
        );
        Ok(permit)
    }

    /// Accepts a proof once, in all gates that share a Redis. While Redis is unavailable, each gate notices its own.
    async fn use_proof(
        &self,
        snapshot: &Snapshot,
        proof: &VerifiedProof,
        now: UnixTime,
    ) -> Result<(), Refusal> {
        match self.shared.replays.record(proof, now) {
            Use::First => {}
            Use::Replay => return Err(Refusal::ProofReplayed),
            Use::Unknown => return Err(Refusal::ProofsUnavailable),
        }
        if let Some(redis) = &snapshot.redis
            && redis.is_replay(proof, now).await
        {
            return Err(Refusal::ProofReplayed);
        }
        Ok(())
    }

    /// Asks the issuer about the credential of a request, or finds a fresh response.
    async fn ask_issuer(
        &self,
        snapshot: &Snapshot,
        inbound: &Inbound,
        needs: &NeedsExchange,
        exchange: &mut Exchange,
    ) -> Option<Exchanged> {
        let exchanger = snapshot.policy.exchanger(needs)?;
        let now = self.shared.clock.now();
        // Boxed: an exchange is rare, and every request would carry its size.
        let asked = Box::pin(exchanger.exchange(&needs.credential, inbound.client, now));
        let (response, set_cookie) = asked.await;
        if let Some(cookie) = set_cookie {
            exchange.set_cookie(cookie);
        }
        Some(response)
    }

    /// Adds the request to its buckets, in Redis if the policy shares them.
    async fn count(
        &self,
        snapshot: &Snapshot,
        buckets: Buckets<'_>,
        exchange: &mut Exchange,
    ) -> Result<(), Refusal> {
        let table = &self.shared.rate_limits;
        let now = self.shared.ticks(exchange.started());
        let statuses = match &snapshot.redis {
            // Boxed: requests without a limit would carry its size.
            Some(redis) => Box::pin(redis.take(buckets, table, now)).await?,
            None => table.take(buckets, now),
        };
        exchange.limits().record(buckets, &statuses)
    }

    /// Waits for a newer policy, with newer keys of the issuer. Returns `None` if a fetch ends without one, or cannot be
    /// waited for.
    async fn newer_snapshot(
        &self,
        snapshot: &Rc<Snapshot>,
        needs: &NeedsKeys,
        wait: &mut KeyWait,
    ) -> Option<Rc<Snapshot>> {
        if wait.is_over() {
            return None;
        }
        loop {
            // Keys that arrived during the decision need no fetch.
            let newest = self.snapshot();
            if !Rc::ptr_eq(&newest, snapshot) {
                return Some(newest);
            }
            let kid = needs.kid.as_deref();
            let policy = &snapshot.policy;
            let outcome = policy.fetch_keys(needs.issuer, kid, &mut wait.since).await;
            wait.outcome = Some(outcome);
            let newest = self.snapshot();
            if !Rc::ptr_eq(&newest, snapshot) {
                return Some(newest);
            }
            if outcome != RefreshOutcome::Newer {
                return None;
            }
        }
    }

    fn count_tokens(&self, snapshot: &Snapshot) {
        let counts = snapshot.tokens.borrow_mut().take_counted();
        self.metrics.count_tokens(counts);
    }
}

/// Wait of one request for newer keys.
#[derive(Debug, Default)]
struct KeyWait {
    /// Number of the last fetch begun before the first wait.
    since: Option<u64>,
    /// Outcome of the last fetch.
    outcome: Option<RefreshOutcome>,
}

impl KeyWait {
    /// Returns whether waiting longer is useless: a fetch newer than the request has ended, or none can be waited for.
    fn is_over(&self) -> bool {
        self.outcome
            .is_some_and(|outcome| outcome != RefreshOutcome::Newer)
    }

    /// Refuses the request, with 503 if the fetch could not establish whether the key exists. A signature that no known
    /// key verifies is invalid.
    fn give_up(&self, mut needs: NeedsKeys) -> Stop {
        let has_key = matches!(
            needs.otherwise.refusal,
            Refusal::TokenSignature | Refusal::TokenAlgorithm
        );
        if self.outcome == Some(RefreshOutcome::Undecided) && !has_key {
            needs.otherwise.refusal = Refusal::KeysUnavailable;
        }
        Stop::Refuse(needs.otherwise)
    }
}
