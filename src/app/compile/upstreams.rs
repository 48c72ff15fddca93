//! `[upstreams.*]`, compiled.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use crate::config::{KeyPath, Upstream, Written};
use crate::proxy::upstream::{Protocol, Target, UpstreamPolicy};

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
        let (protocol, target) = match target(&upstream.url) {
            Ok(target) => target,
            Err(message) => {
                written.report(path.key("url"), message);
                // A stand-in, so that the numbers of the others are right: nothing starts with a problem.
                (Protocol::Http1, Target::Unix(PathBuf::new()))
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
            protocol,
            connect_timeout: upstream.connect_timeout,
            response_timeout: upstream.response_timeout,
            idle_timeout: upstream.idle_timeout,
            informational: upstream.informational,
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

fn target(url: &str) -> Result<(Protocol, Target), String> {
    for (scheme, protocol) in [("unix:", Protocol::Http1), ("unix+h2c:", Protocol::Http2)] {
        if let Some(path) = url.strip_prefix(scheme) {
            return if path.starts_with('/') {
                Ok((protocol, Target::Unix(path.into())))
            } else {
                Err(format!("`{url}` needs an absolute path after `{scheme}`"))
            };
        }
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
    let protocol = match uri.scheme_str() {
        Some("http") => Protocol::Http1,
        Some("h2c") => Protocol::Http2,
        Some("https") => {
            return Err(
                "`https` upstreams are not supported yet: write `http://`, `h2c://` or `unix:`"
                    .to_owned(),
            );
        }
        _ => return Err(wrong()),
    };
    let authority = uri.authority().ok_or_else(wrong)?;
    if authority.host().is_empty() {
        return Err(wrong());
    }
    if uri.path() != "/" || uri.query().is_some() {
        return Err(format!(
            "`{url}` has a path: the path of a request is sent as it was judged, without a prefix"
        ));
    }
    let port = authority.port_u16().unwrap_or(80);
    Ok((protocol, Target::Tcp(authority.host().to_owned(), port)))
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
