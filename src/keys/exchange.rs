//! Exchanges: the gate asks an issuer about a credential that only the issuer can verify, and uses the response for a
//! short time.
//!
//! One exchange per credential and process: concurrent requests share it, whichever worker they came to. Everything here
//! is bounded: results, exchanges in progress, and the invalid credentials of one client.

mod limits;
mod probe;
mod request;
mod table;

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderValue, Uri};
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::clock::UnixTime;
use crate::observe::metrics::ExchangeMetrics;

use super::credential::{Credential, Exchanged, Outcome};
use super::fetch::Fetcher;

use limits::ClientLimits;
pub use probe::ProbeResponse;
use request::Response;
pub use request::{BasicCredentials, Endpoint};
use table::{Entry, Table};

/// Most exchanges of one issuer at the same time.
const MAX_CONCURRENT: usize = 32;

/// Most credentials of one issuer in exchange, including those that wait for their turn.
const MAX_RUNNING: usize = 1024;

/// Longest wait of a request for an exchange.
const WAIT_TIMEOUT: Duration = Duration::from_secs(4);

/// Time for which a rejected credential is not sent again, in seconds.
const REJECTED_TTL: i64 = 5;

/// Time for which a failed exchange is not repeated.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// Longest time of a probe: two attempts.
const PROBE_TIMEOUT: Duration = Duration::from_secs(12);

/// Time between two extensions of a session, in seconds.
const REFRESH_INTERVAL: i64 = 24 * 60 * 60;

/// Settings of the exchanges with one issuer.
#[derive(Debug, Clone)]
pub struct ExchangeSettings {
    /// Name of the issuer in the configuration.
    pub issuer: Arc<str>,
    pub url: Uri,
    pub endpoint: Endpoint,
    pub fetcher: Fetcher,
    /// Longest use of a response, in seconds.
    pub max_age: i64,
    /// Lets the issuer extend a session once a day.
    pub refresh: bool,
}

impl ExchangeSettings {
    /// Asks the issuer about a credential once, without the results of earlier exchanges: for a command. A gate uses an
    /// [`Exchanger`].
    pub async fn ask(
        &self,
        credential: &Credential,
        client: Option<IpAddr>,
        now: UnixTime,
    ) -> Exchanged {
        let response = request::send(self, credential, client, false).await;
        self.finished(credential, response, now).exchanged
    }

    /// Result of an exchange that started at `now`.
    fn finished(&self, credential: &Credential, response: Response, now: UnixTime) -> Finished {
        let (outcome, ttl, set_cookie) = match response {
            Response::Valid {
                outcome,
                set_cookie,
            } => (outcome, self.max_age, set_cookie),
            Response::Rejected => (Outcome::Rejected, REJECTED_TTL, None),
            Response::Limited { retry_after } => {
                let cause = "the issuer limits the rate of exchanges";
                (unavailable(retry_after.as_secs().max(1), cause), 0, None)
            }
            Response::Failed { cause, .. } => (unavailable(1, &cause), 0, None),
        };
        let exchanged = Exchanged {
            issuer: Arc::clone(&self.issuer),
            credential: *credential.digest(),
            outcome,
            at: now,
            fresh_until: UnixTime(now.0.saturating_add(ttl)),
        };
        Finished {
            exchanged,
            set_cookie,
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        let Self {
            issuer,
            url,
            endpoint,
            fetcher,
            max_age,
            refresh,
        } = self;
        *issuer == other.issuer
            && *url == other.url
            && *endpoint == other.endpoint
            && fetcher.has_same_source(&other.fetcher)
            && *max_age == other.max_age
            && *refresh == other.refresh
    }
}

/// A finished exchange, for the request that caused it and for those that waited.
#[derive(Debug, Clone)]
struct Finished {
    exchanged: Exchanged,
    /// Renewed session cookie, for the one client that caused the exchange.
    set_cookie: Option<HeaderValue>,
}

/// Exchanges with one issuer, shared by all workers.
#[derive(Debug)]
pub struct Exchanger {
    settings: ExchangeSettings,
    state: Mutex<State>,
    permits: Semaphore,
    metrics: Arc<ExchangeMetrics>,
}

#[derive(Debug, Default)]
struct State {
    table: Table,
    clients: ClientLimits,
    /// No exchange is attempted before this time: the issuer was unreachable. Then one exchange probes it.
    down_until: Option<Instant>,
    /// Latest end of the probe.
    probe_until: Option<Instant>,
    /// True if the last failure was logged.
    is_logged_down: bool,
}

/// Next step of a request with a credential.
enum Step {
    Done(Exchanged),
    Wait(watch::Receiver<Option<Arc<Finished>>>),
    Lead(watch::Sender<Option<Arc<Finished>>>, bool),
}

impl Exchanger {
    pub fn new(settings: ExchangeSettings) -> Self {
        Self::with_metrics(settings, Arc::default())
    }

    fn with_metrics(settings: ExchangeSettings, metrics: Arc<ExchangeMetrics>) -> Self {
        Self {
            settings,
            state: Mutex::default(),
            permits: Semaphore::new(MAX_CONCURRENT),
            metrics,
        }
    }

    /// Returns the earlier exchanger if its settings are the same, with its results; otherwise a new one that continues
    /// its metrics.
    #[must_use]
    pub fn continue_from(self: &Arc<Self>, earlier: &Arc<Self>) -> Arc<Self> {
        if self.settings.is_same(&earlier.settings) {
            return Arc::clone(earlier);
        }
        let metrics = Arc::clone(&earlier.metrics);
        Arc::new(Self::with_metrics(self.settings.clone(), metrics))
    }

    pub fn settings(&self) -> &ExchangeSettings {
        &self.settings
    }

    pub fn metrics(&self) -> &Arc<ExchangeMetrics> {
        &self.metrics
    }

    /// Exchanges a credential, or returns a result that is fresh at `now`. The second value is a cookie for the client of
    /// this request.
    pub async fn exchange(
        self: &Arc<Self>,
        credential: &Arc<Credential>,
        client: Option<IpAddr>,
        now: UnixTime,
    ) -> (Exchanged, Option<HeaderValue>) {
        let (mut finished, is_leader) = match self.step(credential, client, now) {
            Step::Done(exchanged) => return (exchanged, None),
            Step::Wait(finished) => (finished, false),
            Step::Lead(sender, refreshes) => {
                let finished = sender.subscribe();
                let (this, credential) = (Arc::clone(self), Arc::clone(credential));
                // A task of its own: the exchange serves other requests too, so it outlives this client's.
                spawn_local(async move {
                    let result = this.run(&credential, client, now, refreshes).await;
                    sender.send_replace(Some(Arc::new(result)));
                });
                (finished, true)
            }
        };
        let ended = timeout(WAIT_TIMEOUT, finished.wait_for(Option::is_some)).await;
        let ended = ended.ok().and_then(Result::ok);
        match ended.as_deref() {
            Some(Some(finished)) => {
                let set_cookie = finished.set_cookie.clone().filter(|_| is_leader);
                (finished.exchanged.clone(), set_cookie)
            }
            Some(None) | None => (self.unavailable(credential, now, 1, "timeout"), None),
        }
    }

    /// Decides what a request does, and registers the exchange that it causes.
    fn step(&self, credential: &Credential, client: Option<IpAddr>, now: UnixTime) -> Step {
        let mut state = self.lock();
        match state.table.find(credential.digest(), now) {
            Some(Entry::Done(exchanged)) => {
                self.metrics.hits.fetch_add(1, Ordering::Relaxed);
                return Step::Done(exchanged.clone());
            }
            // A closed channel is the rest of a worker that ended.
            Some(Entry::Running(finished)) if finished.has_changed().is_ok() => {
                self.metrics.hits.fetch_add(1, Ordering::Relaxed);
                return Step::Wait(finished.clone());
            }
            Some(Entry::Running(_)) | None => {}
        }
        let instant = Instant::now();
        let pause = state.pause(client, instant);
        if let Some((pause, cause)) = pause {
            let seconds = pause.as_secs_f64().ceil().max(1.0);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a pause is positive and short"
            )]
            let retry_after = seconds as u64;
            return Step::Done(self.unavailable(credential, now, retry_after, cause));
        }
        if state.table.running() >= MAX_RUNNING {
            let cause = "too many exchanges wait for the issuer";
            return Step::Done(self.unavailable(credential, now, 1, cause));
        }
        let refreshes = self.settings.refresh
            && credential.may_refresh()
            && state.table.is_refresh_due(credential.digest(), now);
        let (sender, receiver) = watch::channel(None);
        state.table.insert_running(credential.digest(), receiver);
        Step::Lead(sender, refreshes)
    }

    /// Runs one exchange and records its result.
    async fn run(
        &self,
        credential: &Credential,
        client: Option<IpAddr>,
        now: UnixTime,
        refreshes: bool,
    ) -> Finished {
        let began = Instant::now();
        let response = {
            // Infallible: the semaphore is never closed.
            let _permit = self.permits.acquire().await;
            request::send(&self.settings, credential, client, refreshes).await
        };
        self.metrics.record(response.label(), began.elapsed());
        let mut state = self.lock();
        self.log(&mut state, &response);
        state.note(client, &response, Instant::now());
        if refreshes && matches!(response, Response::Valid { .. }) {
            state.table.note_refresh(credential.digest(), now);
        }
        let finished = self.settings.finished(credential, response, now);
        let exchanged = &finished.exchanged;
        let kept = (exchanged.fresh_until > now).then(|| exchanged.clone());
        state.table.finish(credential.digest(), kept);
        finished
    }

    /// Logs each change between success and failure once.
    fn log(&self, state: &mut State, response: &Response) {
        let (issuer, url) = (&*self.settings.issuer, &self.settings.url);
        match response {
            Response::Failed { cause, .. } => {
                if !state.is_logged_down {
                    warn!(issuer, %url, "failed to exchange a credential: {cause}");
                }
                state.is_logged_down = true;
                self.metrics.last_error.store(Some(Arc::new(cause.clone())));
            }
            Response::Valid { .. } | Response::Rejected => {
                if state.is_logged_down {
                    info!(issuer, %url, "exchanges with the issuer succeed again");
                }
                state.is_logged_down = false;
                self.metrics.last_error.store(None);
            }
            Response::Limited { retry_after } => {
                let text = format!("status: 429: retry after {} s", retry_after.as_secs());
                self.metrics.last_error.store(Some(Arc::new(text)));
            }
        }
    }

    fn unavailable(
        &self,
        credential: &Credential,
        now: UnixTime,
        retry_after: u64,
        cause: &str,
    ) -> Exchanged {
        Exchanged {
            issuer: Arc::clone(&self.settings.issuer),
            credential: *credential.digest(),
            outcome: unavailable(retry_after, cause),
            at: now,
            fresh_until: now,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unavailable(retry_after: u64, cause: &str) -> Outcome {
    Outcome::Unavailable {
        retry_after,
        cause: cause.into(),
    }
}

impl State {
    /// Time until an exchange for this client may be attempted, and the cause.
    fn pause(&mut self, client: Option<IpAddr>, now: Instant) -> Option<(Duration, &'static str)> {
        let probe = self.probe_until.filter(|until| *until > now);
        if let Some(until) = self.down_until {
            let cause = "the issuer was unreachable a moment ago";
            if until > now {
                return Some((until - now, cause));
            }
            if probe.is_some() {
                return Some((FAILURE_PAUSE, cause));
            }
        }
        let pause = self.clients.pause(client, now);
        if self.down_until.is_some() && pause.is_none() {
            self.probe_until = Some(now + PROBE_TIMEOUT);
        }
        pause
    }

    fn note(&mut self, client: Option<IpAddr>, response: &Response, now: Instant) {
        let is_down = matches!(response, Response::Failed { is_down: true, .. });
        self.down_until = is_down.then(|| now + FAILURE_PAUSE);
        self.probe_until = None;
        match response {
            Response::Rejected => self.clients.note_rejected(client, now),
            Response::Limited { retry_after } => {
                self.clients.note_limited(client, now + *retry_after);
            }
            Response::Valid { .. } | Response::Failed { .. } => {}
        }
    }
}
