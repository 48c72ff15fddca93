//! Key sets from a URL: fetched in the background, kept while the issuer is away.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Uri;
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::clock::{Clock, UnixTime};
use crate::observe::metrics::IssuerMetrics;

use super::fetch::{FetchError, Fetcher};
use super::jwks::{self, KeySet};
use super::refresh::{FetchThrottle, Refresher};
use super::{Algorithm, KeyRing, VerificationKey};

/// How soon a failed fetch is tried again; doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// How soon a failed fetch is tried again at the latest, unless the issuer asks for more patience.
const LAST_RETRY: Duration = Duration::from_secs(30);

/// The longest that an issuer is left alone because it asks for it.
const LONGEST_PATIENCE: Duration = Duration::from_mins(10);

/// How often a set is fetched, if neither the configuration nor the issuer says.
pub const REFRESH: Duration = Duration::from_mins(5);

/// What an issuer may say about how often.
const ISSUERS_REFRESH: std::ops::RangeInclusive<Duration> =
    Duration::from_mins(1)..=Duration::from_hours(1);

/// Where a key set is, and how it is kept.
#[derive(Debug, Clone)]
pub struct RemoteKeys {
    /// Where.
    pub location: KeySetLocation,
    /// How it is fetched.
    pub fetcher: Fetcher,
    /// The algorithms that the operator allows.
    pub algorithms: Option<Vec<Algorithm>>,
    /// How often it is fetched; none if the issuer may say.
    pub refresh: Option<Duration>,
    /// How long it is used after the last successful fetch.
    pub max_stale: Duration,
}

/// Where a key set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySetLocation {
    /// At this URL.
    Set(Uri),
    /// Where the issuer's own description says (OpenID Connect Discovery 1.0 section 4).
    Discovery {
        /// Where the description is.
        url: Uri,
        /// What the issuer must call itself.
        issuer: String,
        /// Whether the set may be fetched without TLS.
        allow_http: bool,
    },
}

/// What is needed of an issuer's description (OpenID Connect Discovery 1.0 section 3).
#[derive(Deserialize)]
struct Description {
    issuer: String,
    jwks_uri: String,
}

/// A set just fetched, and how long its issuer says that it is fresh.
#[derive(Debug)]
pub struct Fetched {
    /// The keys.
    pub set: KeySet,
    max_age: Option<Duration>,
}

impl RemoteKeys {
    /// Compares everything that decides which keys a fetch brings: the location, the fetcher and the algorithms.
    pub fn has_same_source(&self, other: &Self) -> bool {
        self.location == other.location
            && self.fetcher.has_same_source(&other.fetcher)
            && self.algorithms == other.algorithms
    }

    /// Compares every setting, the schedule included.
    pub fn has_same_settings(&self, other: &Self) -> bool {
        self.has_same_source(other)
            && self.refresh == other.refresh
            && self.max_stale == other.max_stale
    }

    /// Fetches the set until it is told to stop, beginning with the ring that there is, and gives every new one to
    /// `publish`.
    pub async fn keep(
        self,
        mut ring: Arc<KeyRing>,
        refresher: Arc<Refresher>,
        metrics: Arc<IssuerMetrics>,
        clock: Clock,
        publish: impl Fn(Arc<KeyRing>),
    ) {
        let mut told = FetchLog::default();
        let mut allowance = FetchThrottle::new(Instant::now());
        loop {
            refresher.begin().await;
            let fetched = self.fetch().await;
            let well = fetched.is_ok();
            let pause = match fetched {
                Ok(Fetched { set, max_age }) => {
                    told.success(&metrics.name, self.url(), &set);
                    let newer = KeyRing::fetched(set.keys, clock.now(), self.max_stale);
                    record_success(&metrics, &newer);
                    let kids = ring.keys().iter().filter_map(VerificationKey::kid);
                    refresher.retire(kids.filter(|kid| !newer.has(kid)));
                    ring = Arc::new(newer);
                    let said = max_age
                        .map(|age| age.clamp(*ISSUERS_REFRESH.start(), *ISSUERS_REFRESH.end()));
                    jittered(self.refresh.or(said).unwrap_or(REFRESH))
                }
                Err(error) => {
                    metrics.failed.fetch_add(1, Ordering::Relaxed);
                    metrics.last_error.store(Some(Arc::new(error.to_string())));
                    ring = Arc::new(ring.after_failure());
                    told.failure(&metrics.name, self.url(), &error)
                }
            };
            publish(Arc::clone(&ring));
            refresher.end(well);
            rest(&refresher, pause, &mut allowance).await;
        }
    }

    /// The URL that the configuration names.
    pub fn url(&self) -> &Uri {
        match &self.location {
            KeySetLocation::Set(url) | KeySetLocation::Discovery { url, .. } => url,
        }
    }

    /// Fetches the set once.
    pub async fn fetch(&self) -> Result<Fetched, FetchError> {
        let document = match &self.location {
            KeySetLocation::Set(url) => self.fetcher.get(url).await?,
            KeySetLocation::Discovery {
                url,
                issuer,
                allow_http,
            } => {
                let description = self.fetcher.get(url).await?.body;
                let url = key_set_of(&description, issuer, *allow_http)?;
                self.fetcher.get(&url).await?
            }
        };
        Ok(Fetched {
            set: jwks::parse(&document.body, self.algorithms.as_deref())?,
            max_age: document.max_age,
        })
    }
}

fn record_success(metrics: &IssuerMetrics, ring: &KeyRing) {
    let seconds = |time: Option<UnixTime>| time.map_or(0, |time| time.0);
    metrics.fetched.fetch_add(1, Ordering::Relaxed);
    let count = ring.keys().len() as u64;
    metrics.keys.store(count, Ordering::Relaxed);
    let (fetched_at, usable_until) = (seconds(ring.fetched_at()), seconds(ring.usable_until()));
    metrics.last_success.store(fetched_at, Ordering::Relaxed);
    metrics.usable_until.store(usable_until, Ordering::Relaxed);
    metrics.last_error.store(None);
}

/// Where the description of an issuer says that its keys are. OpenID Connect Discovery 1.0 section 4.3: it must be the
/// description of the issuer that was asked for.
fn key_set_of(description: &[u8], issuer: &str, allow_http: bool) -> Result<Uri, FetchError> {
    let wrong = |text: String| FetchError::Discovery(text);
    let description: Description = serde_json::from_slice(description)
        .map_err(|_| wrong("it is no JSON object with `issuer` and `jwks_uri`".to_owned()))?;
    if description.issuer != issuer {
        return Err(wrong(format!(
            "it is about `{}`, and `{issuer}` was asked for",
            description.issuer
        )));
    }
    let url: Option<Uri> = description.jwks_uri.parse().ok();
    let url = url.filter(|url| url.host().is_some());
    match url {
        Some(url)
            if url.scheme_str() == Some("https")
                || (url.scheme_str() == Some("http") && allow_http) =>
        {
            Ok(url)
        }
        _ => Err(wrong(format!(
            "its jwks_uri `{}` is not an https URL",
            description.jwks_uri
        ))),
    }
}

/// Waits until the next fetch is due: after the pause, or when a request asks for one and may.
async fn rest(refresher: &Refresher, pause: Duration, allowance: &mut FetchThrottle) {
    let due = Instant::now() + pause;
    tokio::select! {
        () = sleep_until(due) => return,
        () = refresher.wanted() => {}
    }
    sleep_until(due.min(allowance.next(Instant::now()))).await;
    allowance.take(Instant::now());
}

/// Up to a tenth less, so that many gates do not ask at the same moment.
fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(1.0 - fastrand::f64() / 10.0)
}

/// What was said in the log, so that each change is said once.
#[derive(Debug, Default)]
struct FetchLog {
    last: String,
    failures: u32,
}

impl FetchLog {
    fn success(&mut self, issuer: &str, url: &Uri, set: &KeySet) {
        self.failures = 0;
        let kids = set
            .keys
            .iter()
            .map(|key| key.kid().unwrap_or("(without kid)"));
        let kids = kids.collect::<Vec<_>>().join(" ");
        let text = format!("{kids} {:?}", set.skipped);
        if self.last != text {
            info!(issuer, %url, kids, "fetched the key set");
            for skipped in &set.skipped {
                warn!(issuer, %url, "skipped {skipped}");
            }
            self.last = text;
        }
    }

    /// Gives how long to wait before the next try.
    fn failure(&mut self, issuer: &str, url: &Uri, error: &FetchError) -> Duration {
        let text = error.to_string();
        if self.last != text {
            warn!(issuer, %url, "failed to fetch the key set: {text}");
            self.last = text;
        }
        let doubled = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        let pause = jittered(doubled.min(LAST_RETRY));
        let asked = error.retry_after().unwrap_or_default();
        pause.max(asked.min(LONGEST_PATIENCE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::CallError;

    #[test]
    fn a_description_must_be_of_the_issuer_that_was_asked_for() {
        let of = |json: &str, allow_http| {
            let found = key_set_of(json.as_bytes(), "https://a.example", allow_http);
            found
                .map(|url| url.to_string())
                .map_err(|error| error.to_string())
        };
        let good = r#"{"issuer":"https://a.example","jwks_uri":"https://keys.example/set"}"#;
        assert_eq!(of(good, false), Ok("https://keys.example/set".into()));
        let other = good.replace("a.example", "b.example");
        let error = of(&other, false).unwrap_err();
        assert_eq!(
            error,
            "discovery: it is about `https://b.example`, and `https://a.example` was asked for"
        );
        let plain = good.replace("https://keys", "http://keys");
        assert!(of(&plain, false).is_err() && of(&plain, true).is_ok());
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"issuer":"https://a.example","jwks_uri":"/set"}"#,
        ] {
            assert!(of(bad, true).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_issuer_that_asks_for_patience_gets_it_within_bounds() {
        let mut told = FetchLog::default();
        let url = Uri::from_static("https://a.example/jwks");
        let busy = |seconds| FetchError::Status {
            status: http::StatusCode::TOO_MANY_REQUESTS,
            retry_after: Some(Duration::from_secs(seconds)),
        };
        assert_eq!(told.failure("a", &url, &busy(60)).as_secs(), 60);
        assert_eq!(told.failure("a", &url, &busy(86_400)), LONGEST_PATIENCE);
        let mut told = FetchLog::default();
        let slow = CallError::TooSlow(Duration::from_secs(5)).into();
        let pauses: Vec<f64> = (0..8)
            .map(|_| told.failure("a", &url, &slow).as_secs_f64())
            .collect();
        for (pause, at_most) in pauses
            .iter()
            .zip([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0])
        {
            assert!((at_most * 0.9..=at_most).contains(pause), "{pauses:?}");
        }
    }
}
