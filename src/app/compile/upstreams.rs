//! Compiles `[upstreams.NAME]`.

use std::time::Duration;

use http::Uri;
use http::uri::PathAndQuery;
use rustls::pki_types::ServerName;

use crate::config::{ConfigDocument, HealthCheck, KeyPath, Upstream, UpstreamTls};
use crate::proxy::upstream::{
    HTTP1, HTTP2, HealthPolicy, Protocol, QueueLimits, SharedUpstream, Target, Tls, TlsSettings,
    UpstreamPolicy,
};
use crate::tls::client::{Trust, config};
use crate::tls::{Pair, TlsError};

use super::checks::{check_time, socket_path_problem};
use super::urls::{HAS_CREDENTIALS, is_host_like};

/// Most retries of one request. A connection that is refused is retried without the retry budget.
const MAX_RETRIES: usize = 16;

pub(super) fn compile(document: &mut ConfigDocument) -> Vec<SharedUpstream> {
    let section = KeyPath::of("upstreams");
    if document.lacks("upstreams") {
        document.report(
            KeyPath::default(),
            "no upstream is configured; add [upstreams.NAME] with a `url`",
        );
    }
    let mut compiled = Vec::new();
    for (name, upstream) in document.config.upstreams.clone() {
        let path = section.key(&name);
        for (key, time) in times(&upstream) {
            check_time(document, &path.key(key), Some(time));
        }
        check_time(
            document,
            &path.key("ejection").key("time"),
            Some(upstream.ejection.time),
        );
        let attempts = upstream.retries.attempts;
        if attempts > MAX_RETRIES {
            document.report(
                path.key("retries").key("attempts"),
                format!("must be at most {MAX_RETRIES}, got {attempts}"),
            );
        }
        if upstream.retries.budget > 100 {
            let budget = path.key("retries").key("budget");
            document.report(
                budget,
                format!(
                    "must be a percentage of at most 100, got {}",
                    upstream.retries.budget
                ),
            );
        }
        let (scheme, targets) = targets(document, &path, &upstream);
        let protocol = match scheme {
            Scheme::Https => tls(document, &path, &upstream, &targets),
            Scheme::H2c | Scheme::UnixH2c => Protocol::Http2,
            Scheme::Http | Scheme::Unix => Protocol::Http1,
        };
        if upstream.tls.is_some() && scheme != Scheme::Https {
            document.report(
                path.key("tls"),
                "has no effect unless `url` starts with `https://`",
            );
        }
        let health_check = upstream.health_check.as_ref();
        let health_check = health_check.and_then(|check| health_check_of(document, &path, check));
        let policy = UpstreamPolicy {
            targets,
            balance: upstream.balance,
            connect_timeout: upstream.connect_timeout,
            response_timeout: upstream.response_timeout,
            idle_timeout: upstream.idle_timeout,
            informational: upstream.informational,
            reuse: upstream.reuse,
            keep_alive: upstream.keep_alive,
            dns_refresh: upstream.dns_refresh,
            retries: upstream.retries,
            ejection: upstream.ejection,
            queue: match upstream.max_connections {
                0 => None,
                max_active => Some(QueueLimits {
                    max_active,
                    max_waiting: upstream.max_pending,
                }),
            },
            health_check,
            name,
        };
        compiled.push(SharedUpstream::new(policy, protocol));
    }
    compiled
}

fn times(upstream: &Upstream) -> [(&'static str, Duration); 4] {
    [
        ("connect_timeout", upstream.connect_timeout),
        ("response_timeout", upstream.response_timeout),
        ("keep_alive", upstream.keep_alive),
        ("dns_refresh", upstream.dns_refresh),
    ]
}

/// Scheme of an upstream URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
    H2c,
    Unix,
    UnixH2c,
}

/// Parses the URLs of an upstream and reports invalid ones.
fn targets(
    document: &mut ConfigDocument,
    path: &KeyPath,
    upstream: &Upstream,
) -> (Scheme, Vec<Target>) {
    let list = path.key("url");
    if upstream.url.0.is_empty() {
        document.report(list.clone(), "must list at least one URL");
    }
    let mut scheme = None;
    let mut targets = Vec::new();
    for (index, url) in upstream.url.0.iter().enumerate() {
        let element = list.index(index);
        let key = if document.has(&element) {
            element
        } else {
            list.clone()
        };
        let (found, target) = match target(url) {
            Ok(found) => found,
            Err(message) => {
                document.report(key, message);
                continue;
            }
        };
        if *scheme.get_or_insert(found) != found {
            let message = "uses a different scheme from the first URL; all URLs of an upstream must share one";
            document.report(key, message);
        } else if targets.contains(&target) {
            document.report(key, "duplicates an earlier URL");
        } else if found != Scheme::Https && !upstream.allow_remote && !target.is_local() {
            let message = format!(
                "would send requests to {target} without TLS; use a loopback address, a Unix socket or \
                 `https://`, or set `allow_remote = true`"
            );
            document.report(key, message);
        } else {
            targets.push(target);
        }
    }
    // Without a valid URL a problem was reported, and the scheme is not used.
    (scheme.unwrap_or(Scheme::Http), targets)
}

fn target(url: &str) -> Result<(Scheme, Target), String> {
    for (start, scheme) in [("unix:", Scheme::Unix), ("unix+h2c:", Scheme::UnixH2c)] {
        if let Some(path) = url.strip_prefix(start) {
            if !path.starts_with('/') {
                return Err(format!(
                    "`{url}` must have an absolute path after `{start}`"
                ));
            }
            return match socket_path_problem(path.as_ref()) {
                None => Ok((scheme, Target::Unix(path.into()))),
                Some(problem) => Err(problem),
            };
        }
    }
    if url.contains('@') {
        // The message omits the URL: it must not reveal a password.
        return Err(HAS_CREDENTIALS.to_owned());
    }
    let invalid = || {
        let meant = meant_url(url).map_or_else(
            || {
                "expected for example \"http://127.0.0.1:8000\" or \"unix:/run/api.sock\""
                    .to_owned()
            },
            |meant| format!("did you mean \"{meant}\"?"),
        );
        format!("`{url}` is not a valid upstream URL; {meant}")
    };
    let uri: Uri = url.parse().map_err(|_| invalid())?;
    let (scheme, default_port) = match uri.scheme_str() {
        Some("http") => (Scheme::Http, 80),
        Some("h2c") => (Scheme::H2c, 80),
        Some("https") => (Scheme::Https, 443),
        _ => return Err(invalid()),
    };
    let authority = uri.authority().ok_or_else(invalid)?;
    if authority.host().is_empty() {
        return Err(invalid());
    }
    if uri.path() != "/" || uri.query().is_some() {
        return Err(format!(
            "`{url}` must not have a path or a query: the path of a request is forwarded as it is; to change its start, \
             use `replace_prefix` of the route"
        ));
    }
    let port = authority.port_u16().unwrap_or(default_port);
    Ok((scheme, Target::Tcp(authority.host().to_owned(), port)))
}

/// URL meant by a text in the form of another program: `127.0.0.1:8000`, `/run/api.sock`, `ws://127.0.0.1:8000`.
fn meant_url(text: &str) -> Option<String> {
    if text.starts_with('/') {
        return Some(format!("unix:{text}"));
    }
    let (scheme, rest) = match text.split_once("://") {
        None => ("http", text),
        Some(("tcp" | "ws", rest)) => ("http", rest),
        Some(("wss" | "grpcs", rest)) => ("https", rest),
        Some(("grpc" | "h2" | "http2", rest)) => ("h2c", rest),
        Some(("unix", rest)) => return rest.starts_with('/').then(|| format!("unix:{rest}")),
        Some(_) => return None,
    };
    let rest = match rest.strip_prefix(':') {
        Some(port) => format!("127.0.0.1:{port}"),
        None if rest.bytes().all(|byte| byte.is_ascii_digit()) => format!("127.0.0.1:{rest}"),
        None => rest.to_owned(),
    };
    let url = format!("{scheme}://{rest}");
    let uri: Uri = url.parse().ok()?;
    (uri.port_u16().is_some() || uri.host().is_some_and(is_host_like)).then_some(url)
}

/// Compiles the TLS settings of an upstream.
fn tls(
    document: &mut ConfigDocument,
    path: &KeyPath,
    upstream: &Upstream,
    targets: &[Target],
) -> Protocol {
    let path = path.key("tls");
    let UpstreamTls {
        ca_file,
        certificate,
        key,
        server_name,
    } = upstream.tls.clone().unwrap_or_default();
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(Pair { certificate, key }),
        (Some(_), None) => {
            document.report(path.key("certificate"), "requires `key`");
            None
        }
        (None, Some(_)) => {
            document.report(path.key("key"), "requires `certificate`");
            None
        }
        (None, None) => None,
    };
    let server_name = server_name.and_then(|name| match ServerName::try_from(name.clone()) {
        Ok(name) => Some(name),
        Err(_) => {
            let message = format!("`{name}` is not a valid TLS server name");
            document.report(path.key("server_name"), message);
            None
        }
    });
    let unnamed = targets.iter().find(|target| target.server_name().is_err());
    if let (None, Some(target)) = (&server_name, unnamed) {
        let message = format!("{target} is not a valid TLS server name; set `tls.server_name`");
        document.report(path.clone(), message);
    }
    let trust = Trust { ca_file, identity };
    let fingerprint = trust.fingerprint();
    let offers: [&[&[u8]]; 2] = [&[HTTP2, HTTP1], &[HTTP1]];
    match offers.map(|offer| config(&trust, offer)) {
        [Ok(either), Ok(http1)] => Protocol::Tls(Tls {
            either,
            http1,
            settings: TlsSettings {
                server_name,
                trust,
                fingerprint,
            },
        }),
        [Err(error), _] | [_, Err(error)] => {
            let key = match &error {
                TlsError::Certificates { file, .. } => {
                    let is_ca = trust
                        .ca_file
                        .is_some_and(|ca| ca.display().to_string() == *file);
                    if is_ca { "ca_file" } else { "certificate" }
                }
                TlsError::Key { .. }
                | TlsError::Mismatch { .. }
                | TlsError::RevocationLists { .. }
                | TlsError::Library(_) => "key",
            };
            document.report(path.key(key), error.to_string());
            Protocol::Http1
        }
    }
}

fn health_check_of(
    document: &mut ConfigDocument,
    path: &KeyPath,
    check: &HealthCheck,
) -> Option<HealthPolicy> {
    let path = path.key("health_check");
    for (key, time) in [("interval", check.interval), ("timeout", check.timeout)] {
        check_time(document, &path.key(key), Some(time));
    }
    for (key, count) in [("unhealthy", check.unhealthy), ("healthy", check.healthy)] {
        if count == 0 {
            document.report(path.key(key), "must be greater than zero");
        }
    }
    let path_and_query = PathAndQuery::try_from(check.path.as_str()).ok();
    let Some(path_and_query) = path_and_query.filter(|_| check.path.starts_with('/')) else {
        let message = format!(
            "must be a path that starts with `/`, such as \"/health\", got `{}`",
            check.path
        );
        document.report(path.key("path"), message);
        return None;
    };
    Some(HealthPolicy {
        path: path_and_query,
        interval: check.interval,
        timeout: check.timeout,
        unhealthy: check.unhealthy,
        healthy: check.healthy,
    })
}
