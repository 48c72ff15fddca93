//! Compiles `rate_limit` of a route.

use std::time::Duration;

use http::Method;

use crate::config::{self, Access, ConfigDocument, KeyPath, RateKey};
use crate::gate::rate_limit::{RateLimit, RouteLimits};

/// Longest period of a limit.
const MAX_PERIOD: Duration = Duration::from_hours(24);
/// Highest rate of a limit, in requests per second.
const MAX_REQUESTS_PER_SECOND: u64 = 10_000;

pub(super) fn compile(
    document: &mut ConfigDocument,
    path: &KeyPath,
    route: &config::Route,
    methods: &[Method],
) -> RouteLimits {
    let section = path.key("rate_limit");
    let limits = &route.rate_limit;
    let paths: Vec<KeyPath> = if limits.is_list {
        document.elements(&section).take(limits.all.len()).collect()
    } else {
        vec![section.clone()]
    };
    if limits.is_list && limits.all.is_empty() && !document.is_invalid(&section) {
        document.report(
            section,
            "must list at least one limit; omit the key for no limit",
        );
    }
    let methods: Vec<&str> = methods.iter().map(Method::as_str).collect();
    let route_name = format!("{} {}", methods.join(","), route.path);
    let (mut by_address, mut by_subject) = (Vec::new(), Vec::new());
    for (number, (limit, path)) in limits.all.iter().zip(&paths).enumerate() {
        let before = limits.all.iter().take(number);
        if before
            .clone()
            .any(|other| (other.by, other.per) == (limit.by, limit.per))
        {
            document.report(
                path.key("per"),
                "duplicates an earlier limit with the same `by` and `per`: only the stricter one would apply",
            );
        }
        check(document, path, limit);
        let compiled = || {
            let burst = limit.burst.unwrap_or(limit.requests);
            RateLimit::new(&route_name, limit.by, limit.requests, limit.per, burst)
        };
        match limit.by {
            RateKey::ClientAddress => by_address.push(compiled()),
            RateKey::Subject => {
                if route.access == Access::Public {
                    document.report(
                        path.key("by"),
                        "`subject` has no effect on a public route, which verifies no token; use `client-address`",
                    );
                }
                by_subject.push(compiled());
            }
        }
    }
    RouteLimits::new(by_address, by_subject)
}

fn check(document: &mut ConfigDocument, path: &KeyPath, limit: &config::RateLimit) {
    let config::RateLimit {
        requests,
        per,
        by: _,
        burst,
    } = limit;
    let is_whole = per.subsec_nanos() == 0;
    if !is_whole || per.is_zero() || *per > MAX_PERIOD {
        document.report(
            path.key("per"),
            format!(
                "must be a whole number of seconds between 1s and 24h, got {}",
                humantime::format_duration(*per)
            ),
        );
    }
    if *requests == 0 {
        document.report(
            path.key("requests"),
            "must be greater than zero; to reject every request, remove the route",
        );
    } else if *requests > MAX_REQUESTS_PER_SECOND.saturating_mul(per.as_secs()) {
        document.report(
            path.key("requests"),
            format!(
                "must be at most {MAX_REQUESTS_PER_SECOND} per second, got {requests} in {}",
                humantime::format_duration(*per)
            ),
        );
    } else if let Some(burst) = burst.filter(|burst| *burst == 0 || burst > requests) {
        document.report(
            path.key("burst"),
            format!("must be between 1 and `requests` ({requests}), got {burst}"),
        );
    }
}
