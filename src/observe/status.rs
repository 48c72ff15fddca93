//! The status page, and what it shows.

use std::cmp::Reverse;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::clock::UnixTime;

use super::metrics::Metrics;
use super::refusals::RefusalRecord;

/// All of it: no other file, and nothing from elsewhere.
pub(super) const PAGE: &str = include_str!("status/page.html");

/// How many refusals it shows.
const MAX_REFUSALS: usize = 50;

/// A route, in words.
#[derive(Debug)]
pub struct RouteLine {
    /// The path as configured.
    pub route: String,
    /// What it demands.
    pub rule: String,
}

/// What the page shows. Single requests are shown to this machine alone.
pub(super) fn json(
    metrics: &Metrics,
    awaits: &[String],
    routes: &[RouteLine],
    now: UnixTime,
    is_local: bool,
) -> Value {
    let routes = routes.iter();
    let routes = routes.map(|line| json!({ "route": line.route, "rule": line.rule }));
    json!({
        "now": now.0,
        "awaits": awaits,
        "routes": routes.collect::<Value>(),
        "counted": metrics.summary(),
        "refusals": is_local.then(|| refusals(metrics, now)),
    })
}

fn refusals(metrics: &Metrics, now: UnixTime) -> Value {
    let workers = metrics.workers.iter();
    let mut last: Vec<_> = workers
        .flat_map(|worker| worker.refusals.last(MAX_REFUSALS))
        .collect();
    last.sort_by_key(|refusal| Reverse(refusal.at));
    let last = last.iter().take(MAX_REFUSALS);
    last.map(|refusal| refusal.summary(now)).collect()
}

impl RefusalRecord {
    fn summary(&self, now: UnixTime) -> Value {
        json!({
            "time": self.time(now),
            "request_id": self.request_id,
            "method": self.method,
            "path": self.path,
            "route": self.route,
            "status": self.status,
            "reason": self.reason,
            "subject": self.subject,
            "client": self.client,
            "stages": self.stages,
        })
    }
}

/// The head of an answer for a browser: what is not in the page itself does not run, and nobody else may show it.
pub(super) fn headers(kind: &'static str) -> HeaderMap {
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
        hash_of("script"),
        hash_of("style")
    );
    let fixed = HeaderValue::from_static;
    let mut headers = HeaderMap::from_iter([
        (CONTENT_TYPE, fixed(kind)),
        (CACHE_CONTROL, fixed("no-store")),
        (X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
        (X_FRAME_OPTIONS, fixed("DENY")),
        (REFERRER_POLICY, fixed("no-referrer")),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            fixed("same-origin"),
        ),
    ]);
    headers.extend(
        policy
            .parse()
            .map(|policy| (CONTENT_SECURITY_POLICY, policy)),
    );
    headers
}

/// How the policy names the one element of this kind.
fn hash_of(element: &str) -> String {
    let start = PAGE.split_once(&format!("<{element}>"));
    let inside = start.and_then(|(_, rest)| rest.split_once(&format!("</{element}>")));
    let text = inside.map_or("", |(text, _)| text);
    format!(
        "sha256-{}",
        STANDARD.encode(digest(&SHA256, text.as_bytes()))
    )
}
