//! Status page and its data.

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

/// The whole page: script and style are inline, and nothing else is loaded.
pub(super) const PAGE: &str = include_str!("status/page.html");

/// Refusals on the page, at most.
const MAX_REFUSALS: usize = 50;

/// Route with its description.
#[derive(Debug)]
pub struct RouteLine {
    /// Path pattern.
    pub route: String,
    /// Path pattern, access rule and requirements.
    pub rule: String,
    /// Name of the upstream.
    pub upstream: String,
}

/// Data of the page. Contains refused requests only if `is_local`.
pub(super) fn json(
    metrics: &Metrics,
    not_ready: &[String],
    routes: &[RouteLine],
    now: UnixTime,
    is_local: bool,
) -> Value {
    let routes = routes.iter();
    let routes = routes.map(|line| {
        let RouteLine {
            route,
            rule,
            upstream,
        } = line;
        json!({ "route": route, "rule": rule, "upstream": upstream })
    });
    json!({
        "now": now.0,
        "not_ready": not_ready,
        "routes": routes.collect::<Value>(),
        "metrics": metrics.summary(),
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
    /// The refusal for programs.
    pub(super) fn summary(&self, now: UnixTime) -> Value {
        json!({
            "time": self.time(now),
            "request_id": self.request_id,
            "method": self.method,
            "path": self.path,
            "route": self.route,
            "status": self.status.as_u16(),
            "reason": self.reason,
            "stage": self.stage,
            "detail": self.detail,
            "fix": self.hint,
            "subject": self.subject,
            "client": self.client,
            "stages": self.stages,
        })
    }
}

/// Headers of the page and its data. The content security policy allows the inline script and style of the page only, and
/// forbids framing.
pub(super) fn headers(content_type: &'static str) -> HeaderMap {
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
        hash_of("script"),
        hash_of("style")
    );
    let fixed = HeaderValue::from_static;
    let mut headers = HeaderMap::from_iter([
        (CONTENT_TYPE, fixed(content_type)),
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

/// CSP hash source of the page's only element with this name.
fn hash_of(element: &str) -> String {
    let start = PAGE.split_once(&format!("<{element}>"));
    let inside = start.and_then(|(_, rest)| rest.split_once(&format!("</{element}>")));
    let text = inside.map_or("", |(text, _)| text);
    format!(
        "sha256-{}",
        STANDARD.encode(digest(&SHA256, text.as_bytes()))
    )
}
