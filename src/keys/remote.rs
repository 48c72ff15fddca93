//! Key sets from a URL: fetched in the background and kept while the issuer is unreachable.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Uri;
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::clock::{Clock, UnixTime};
use crate::config::DEFAULT_REFRESH;
use crate::excerpt::excerpt;
use crate::observe::metrics::IssuerMetrics;

use super::fetch::{FetchError, Fetcher};
use super::jwks::{self, KeySet};
use super::on_demand_refresh::{FetchThrottle, Refresher};
use super::{Algorithm, KeyRing, VerificationKey};

/// Delay before the first retry of a failed fetch. Each further failure doubles it.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Maximum delay before a retry, unless the issuer requests a longer one.
const MAX_RETRY: Duration = Duration::from_secs(30);

/// Maximum delay accepted from `Retry-After`.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(10);

/// Range of refresh intervals accepted from an issuer's `max-age`.
const MAX_AGE_RANGE: std::ops::RangeInclusive<Duration> =
    Duration::from_mins(1)..=Duration::from_hours(1);

/// Location of a key set and its refresh settings.
#[derive(Debug, Clone)]
pub struct RemoteKeys {
    pub location: KeySetLocation,
    pub fetcher: Fetcher,
    /// Allowed algorithms; none to let the keys decide.
    pub algorithms: Option<Vec<Algorithm>>,
    /// Refresh interval; none to follow the `max-age` of the issuer.
    pub refresh: Option<Duration>,
    /// Maximum age of the keys, counted from the last successful fetch.
    pub max_stale: Duration,
}

/// Location of a key set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySetLocation {
    /// URL of the key set.
    Set(Uri),
    /// Discovery document with the URL of the key set (OpenID Connect Discovery 1.0 section 4).
    Discovery {
        /// URL of the discovery document.
        url: Uri,
        /// Accepted values of `issuer` in the document.
        issuers: Vec<String>,
        /// Accept an `http` URL of the key set.
        allow_http: bool,
    },
}

/// Required members of a discovery document (OpenID Connect Discovery 1.0 section 3).
#[derive(Deserialize)]
struct DiscoveryDocument {
    issuer: String,
    jwks_uri: String,
}

/// Fetched key set and its freshness lifetime.
#[derive(Debug)]
pub struct Fetched {
    pub set: KeySet,
    max_age: Option<Duration>,
    /// Time of the server.
    pub date: Option<UnixTime>,
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

    /// Refreshes the key set until the task is aborted, and passes every new ring to `publish`. The keys of the initial
    /// `ring` stay in use until a fetch succeeds.
    pub async fn keep_fresh(
        self,
        mut ring: Arc<KeyRing>,
        refresher: Arc<Refresher>,
        metrics: Arc<IssuerMetrics>,
        clock: Clock,
        publish: impl Fn(Arc<KeyRing>),
    ) {
        let mut log = FetchLog::default();
        let mut throttle = FetchThrottle::new(Instant::now());
        loop {
            refresher.begin().await;
            let fetched = self.fetch().await;
            let succeeded = fetched.is_ok();
            let pause = match fetched {
                Ok(Fetched {
                    set,
                    max_age,
                    date: _,
                }) => {
                    log.success(&metrics.name, self.url(), &set);
                    let newer = KeyRing::fetched(set.keys, clock.now(), self.max_stale);
                    record_success(&metrics, &newer);
                    let kids = ring.keys().iter().filter_map(VerificationKey::kid);
                    refresher.retire(kids.filter(|kid| !newer.has(kid)));
                    ring = Arc::new(newer);
                    let max_age =
                        max_age.map(|age| age.clamp(*MAX_AGE_RANGE.start(), *MAX_AGE_RANGE.end()));
                    jittered(self.refresh.or(max_age).unwrap_or(DEFAULT_REFRESH))
                }
                Err(error) => {
                    metrics.failed.fetch_add(1, Ordering::Relaxed);
                    metrics.last_error.store(Some(Arc::new(error.to_string())));
                    ring = Arc::new(ring.after_failure());
                    log.failure(&metrics.name, self.url(), &error)
                }
            };
            publish(Arc::clone(&ring));
            refresher.end(succeeded);
            wait_until_due(&refresher, pause, &mut throttle).await;
        }
    }

    /// Configured URL: of the key set, or of the discovery document.
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
                issuers,
                allow_http,
            } => {
                let document = self.fetcher.get(url).await?.body;
                let url = key_set_url(&document, issuers, *allow_http)?;
                let found = self.fetcher.get(&url).await;
                found.map_err(|source| FetchError::KeySet {
                    url,
                    source: Box::new(source),
                })?
            }
        };
        Ok(Fetched {
            set: jwks::parse(&document.body, self.algorithms.as_deref())?,
            max_age: document.max_age,
            date: document.date,
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

/// Reads the URL of the key set from a discovery document. Its `issuer` must be identical to an accepted one (OpenID
/// Connect Discovery 1.0 section 4.3).
fn key_set_url(document: &[u8], issuers: &[String], allow_http: bool) -> Result<Uri, FetchError> {
    let invalid = |text: String| FetchError::Discovery(text);
    // RFC 8259 section 8.1: a parser may ignore a byte order mark.
    let document = document.strip_prefix(b"\xef\xbb\xbf").unwrap_or(document);
    let document: DiscoveryDocument = serde_json::from_slice(document).map_err(|_| {
        invalid(match jwks::parse(document, None) {
            Ok(_) => "this is a key set; use `jwks_url` with its URL".to_owned(),
            Err(_) => "not a JSON object with `issuer` and `jwks_uri`".to_owned(),
        })
    })?;
    if !issuers.contains(&document.issuer) {
        return Err(invalid(format!(
            "the document has the issuer `{}`, expected `{}`; if it is the issuer of your tokens, set `discovery_issuer`",
            excerpt(&document.issuer),
            issuers.join("` or `")
        )));
    }
    let url: Option<Uri> = document.jwks_uri.parse().ok();
    let url = url.filter(|url| url.host().is_some());
    match url {
        Some(url)
            if url.scheme_str() == Some("https")
                || (url.scheme_str() == Some("http") && allow_http) =>
        {
            Ok(url)
        }
        _ => Err(invalid(format!(
            "`jwks_uri` `{}` is not an https URL",
            excerpt(&document.jwks_uri)
        ))),
    }
}

/// Waits for the end of the pause, or for a requested refresh that the throttle permits.
async fn wait_until_due(refresher: &Refresher, pause: Duration, throttle: &mut FetchThrottle) {
    let due = Instant::now() + pause;
    tokio::select! {
        () = sleep_until(due) => return,
        () = refresher.requested() => {}
    }
    sleep_until(due.min(throttle.next(Instant::now()))).await;
    throttle.take(Instant::now());
}

/// Subtracts up to 10 %, so that several gates do not fetch at the same moment.
fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(1.0 - fastrand::f64() / 10.0)
}

/// Last logged outcome, so that each change is logged once, and the number of failures in a row.
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

    /// Returns the delay before the next attempt.
    fn failure(&mut self, issuer: &str, url: &Uri, error: &FetchError) -> Duration {
        let text = error.to_string();
        if self.last != text {
            warn!(issuer, %url, "failed to fetch the key set: {text}");
            self.last = text;
        }
        let doubled = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        let pause = jittered(doubled.min(MAX_RETRY));
        let retry_after = error.retry_after().unwrap_or_default();
        pause.max(retry_after.min(MAX_RETRY_AFTER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::CallError;

    #[test]
    fn rejects_a_discovery_document_of_another_issuer() {
        let of = |json: &str, allow_http| {
            let issuers = ["https://a.example", "https://a.example/"].map(str::to_owned);
            let found = key_set_url(json.as_bytes(), &issuers, allow_http);
            found
                .map(|url| url.to_string())
                .map_err(|error| error.to_string())
        };
        let valid = r#"{"issuer":"https://a.example","jwks_uri":"https://keys.example/set"}"#;
        assert_eq!(of(valid, false), Ok("https://keys.example/set".into()));
        // OpenID Connect Discovery 1.0 section 4.1: the metadata URL does not show a `/` at the end of the issuer.
        let with_slash = valid.replace("a.example", "a.example/");
        assert_eq!(of(&with_slash, false), of(valid, false));
        let other = valid.replace("a.example", "b.example");
        let error = of(&other, false).unwrap_err();
        assert_eq!(
            error,
            "discovery: the document has the issuer `https://b.example`, expected `https://a.example` or \
             `https://a.example/`; if it is the issuer of your tokens, set `discovery_issuer`"
        );
        for other in [
            "a.example//",
            "A.example",
            "a.example:443",
            "a.example/x",
            "a.example.",
        ] {
            assert!(
                of(&valid.replace("a.example", other), false).is_err(),
                "{other}"
            );
        }
        assert_eq!(of(&format!("\u{feff}{valid}"), false), of(valid, false));
        let set = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        let error = of(set, false).unwrap_err();
        assert_eq!(
            error,
            "discovery: this is a key set; use `jwks_url` with its URL"
        );
        let plain = valid.replace("https://keys", "http://keys");
        assert!(of(&plain, false).is_err() && of(&plain, true).is_ok());
        for invalid in [
            "",
            "[]",
            "{}",
            r#"{"issuer":"https://a.example","jwks_uri":"/set"}"#,
        ] {
            assert!(of(invalid, true).is_err(), "{invalid}");
        }
    }

    #[test]
    fn honors_retry_after_up_to_a_maximum() {
        let mut log = FetchLog::default();
        let url = Uri::from_static("https://a.example/jwks");
        let busy = |seconds| FetchError::Status {
            status: http::StatusCode::TOO_MANY_REQUESTS,
            retry_after: Some(Duration::from_secs(seconds)),
        };
        assert_eq!(log.failure("a", &url, &busy(60)).as_secs(), 60);
        assert_eq!(log.failure("a", &url, &busy(86_400)), MAX_RETRY_AFTER);
        let mut log = FetchLog::default();
        let slow = CallError::TooSlow(Duration::from_secs(5)).into();
        let pauses: Vec<f64> = (0..8)
            .map(|_| log.failure("a", &url, &slow).as_secs_f64())
            .collect();
        for (pause, at_most) in pauses
            .iter()
            .zip([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0])
        {
            assert!((at_most * 0.9..=at_most).contains(pause), "{pauses:?}");
        }
    }
}
