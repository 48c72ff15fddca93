//! `[upstreams.*]`, compiled.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use crate::config::{KeyPath, Upstream, Written};
use crate::proxy::upstream::{Target, UpstreamPolicy};

use super::check_time;

/// What is wrong with `http://user:password@host`, in a configuration that holds no secrets.
pub(super) const HAS_CREDENTIALS: &str =
    "must not have a user name or a password in it: the gate would not send them";

pub(super) fn compile(written: &mut Written) -> Vec<UpstreamPolicy> {
    let section = KeyPath::of("upstreams");
    if !written.has(&section) {
        written.report(
            KeyPath::default(),
            "there is no upstream: write [upstreams.NAME] with a `url`",
        );
    }
    let mut compiled = Vec::new();
    for (name, upstream) in written.config.upstreams.clone() {
        let path = section.key(&name);
        let target = match target(&upstream.url) {
            Ok(target) => target,
            Err(message) => {
                written.report(path.key("url"), message);
                // A stand-in, so that the numbers of the others are right: nothing starts with a problem.
                Target::Unix(PathBuf::new())
            }
        };
        if !upstream.allow_remote && is_remote(&target) {
            written.report(
                path.key("url"),
                format!(
                    "would send requests to {target} without encryption: name an address of this machine or a Unix \
                     socket, or say `allow_remote = true`"
                ),
            );
        }
        for (key, timeout) in timeouts(&upstream) {
            check_time(written, &path.key(key), Some(timeout));
        }
        compiled.push(UpstreamPolicy {
            name,
            target,
            connect_timeout: upstream.connect_timeout,
            response_timeout: upstream.response_timeout,
            idle_timeout: upstream.idle_timeout,
        });
    }
    compiled
}

fn timeouts(upstream: &Upstream) -> [(&'static str, Duration); 2] {
    [
        ("connect_timeout", upstream.connect_timeout),
        ("response_timeout", upstream.response_timeout),
    ]
}

fn target(url: &str) -> Result<Target, String> {
    if let Some(path) = url.strip_prefix("unix:") {
        return if path.starts_with('/') {
            Ok(Target::Unix(path.into()))
        } else {
            Err(format!("`{url}` needs an absolute path after `unix:`"))
        };
    }
    if url.contains('@') {
        // Without the URL: a password must not stand in a terminal or a log.
        return Err(HAS_CREDENTIALS.to_owned());
    }
    let wrong = || {
        format!(
            "`{url}` is not a URL of an upstream: write \"http://127.0.0.1:3000\" or \"unix:/run/api.sock\""
        )
    };
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    match uri.scheme_str() {
        Some("http") => {}
        Some(scheme @ ("https" | "h2c")) => {
            return Err(format!(
                "`{scheme}` upstreams are not supported yet: write `http://` or `unix:`"
            ));
        }
        _ => return Err(wrong()),
    }
    let authority = uri.authority().ok_or_else(wrong)?;
    if authority.host().is_empty() {
        return Err(wrong());
    }
    if uri.path() != "/" || uri.query().is_some() {
        return Err(format!(
            "`{url}` has a path: the path of a request is sent as it was judged, without a prefix"
        ));
    }
    Ok(Target::Tcp(
        authority.host().to_owned(),
        authority.port_u16().unwrap_or(80),
    ))
}

fn is_remote(target: &Target) -> bool {
    match target {
        Target::Unix(_) => false,
        Target::Tcp(host, _) => {
            let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
            let is_loopback = address.is_ok_and(|address| address.to_canonical().is_loopback());
            !is_loopback && !host.eq_ignore_ascii_case("localhost")
        }
    }
}
