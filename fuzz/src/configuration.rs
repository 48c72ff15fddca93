//! Configurations: any text is a valid configuration or a list of problems, and a valid one cannot fail later.

use std::path::Path;
use std::time::{Duration, Instant};

use http::Request;

use claimgate::app::App;
use claimgate::clock::UnixTime;
use claimgate::config::{Config, ConfigDocument};
use claimgate::gate::cache::TokenCache;

use super::policy::{NOW, peer};

const SECRET: &str = "the secret of this configuration, 32 bytes at least";

/// Parses and compiles the input. `SECRET` is an environment variable with a usable shared secret.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut document = match ConfigDocument::parse(Path::new("fuzz.toml"), text) {
        Ok(document) => document,
        Err(problems) => return check_problems(&problems.lines().collect::<Vec<_>>()),
    };
    // A fuzzer must not open files that its inputs name.
    if !document.config.files().is_empty() {
        return;
    }
    document.set_variable("SECRET", SECRET);
    let app = match App::compile(document) {
        Ok(app) => app,
        Err(problems) => return check_problems(&problems.lines().collect::<Vec<_>>()),
    };
    assert!(
        !format!("{app:?}").contains(SECRET),
        "`Debug` prints the secret"
    );
    check_durations(&app.config);
    for target in ["/", "/api/alice/tasks", "/open/x"] {
        let head = Request::get(target)
            .header("host", "gate.test")
            .body(())
            .expect("a request");
        let inbound = app.policy.headers.inbound(&peer(), head.into_parts().0);
        let _ = app
            .policy
            .gate
            .decide(&inbound, UnixTime(NOW), &mut TokenCache::default());
    }
}

fn check_problems(lines: &[String]) {
    assert!(!lines.is_empty(), "rejected without a problem");
    for line in lines {
        assert!(
            line.starts_with("fuzz.toml"),
            "a problem without its place: {line:?}"
        );
        assert!(!line.contains(SECRET), "a problem prints the secret");
    }
}

/// A duration that no deadline can hold would panic at the first request.
fn check_durations(config: &Config) {
    let mut all: Vec<(&str, Duration)> = vec![
        ("listen.header_timeout", config.listen.header_timeout),
        ("listen.body_timeout", config.listen.body_timeout),
        ("listen.idle_timeout", config.listen.idle_timeout),
        ("drain.grace", config.drain.grace),
    ];
    for upstream in config.upstreams.values() {
        all.extend([
            ("connect_timeout", upstream.connect_timeout),
            ("response_timeout", upstream.response_timeout),
            ("idle_timeout", upstream.idle_timeout),
            ("keep_alive", upstream.keep_alive),
            ("dns_refresh", upstream.dns_refresh),
        ]);
    }
    for route in &config.routes {
        all.extend(route.timeout.map(|timeout| ("timeout", timeout)));
        all.extend(
            route
                .request_timeout
                .map(|timeout| ("request_timeout", timeout)),
        );
    }
    for (name, duration) in all {
        assert!(
            Instant::now().checked_add(duration).is_some(),
            "{name}: {duration:?} overflows a deadline"
        );
    }
}
