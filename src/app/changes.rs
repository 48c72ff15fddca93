//! Differences between two configurations, for the log.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::config::{Config, Listen, Route};

/// Differences that take effect at once. `files` are the files with changed contents.
pub(super) fn differences(before: &Config, after: &Config, files: &[PathBuf]) -> Vec<String> {
    let Config {
        listen: _,
        listeners: _,
        admin: _,
        drain,
        log,
        identity,
        cors,
        upstreams,
        issuers,
        redis,
        resource,
        tracing,
        routes: _,
    } = after;
    let mut changes = Vec::new();
    by_name(&mut changes, "route", &routes(before), &routes(after));
    by_name(&mut changes, "issuer", &before.issuers, issuers);
    by_name(&mut changes, "upstream", &before.upstreams, upstreams);
    let sections = [
        ("listen", limits(before) != limits(after)),
        ("drain", before.drain != *drain),
        ("log", before.log.sample.total_cmp(&log.sample).is_ne()),
        ("identity", before.identity != *identity),
        ("cors", before.cors != *cors),
        ("resource", before.resource != *resource),
        ("redis", before.redis != *redis),
        ("tracing", before.tracing != *tracing),
    ];
    let sections = sections.iter().filter(|(_, is_changed)| *is_changed);
    changes.extend(sections.map(|(section, _)| format!("[{section}] changed")));
    let named = after.files();
    let files = files.iter().filter(|file| named.contains(&file.as_path()));
    changes.extend(files.map(|file| format!("file {} changed", file.display())));
    changes
}

/// Changed keys that are read only at start.
pub(super) fn restart_required(before: &Config, after: &Config) -> Vec<&'static str> {
    let (old, new) = (&before.listen, &after.listen);
    let keys = [
        ("listen.address", old.address != new.address),
        (
            "listen.proxy_protocol",
            old.proxy_protocol != new.proxy_protocol,
        ),
        ("listen.workers", old.workers != new.workers),
        ("listen.tls", old.tls != new.tls),
        ("listeners", before.listeners != after.listeners),
        ("admin.address", before.admin != after.admin),
        ("log.format", before.log.format != after.log.format),
        ("log.level", before.log.level != after.log.level),
    ];
    let keys = keys.into_iter().filter(|(_, is_changed)| *is_changed);
    keys.map(|(key, _)| key).collect()
}

/// `[listen]` without the keys that are read only at start.
fn limits(config: &Config) -> Listen {
    let Listen {
        address,
        proxy_protocol,
        workers,
        tls,
        ..
    } = Listen::default();
    Listen {
        address,
        proxy_protocol,
        workers,
        tls,
        ..config.listen.clone()
    }
}

/// Routes by path pattern. Routes of one path differ in their methods.
fn routes(config: &Config) -> BTreeMap<String, Vec<&Route>> {
    let mut routes: BTreeMap<String, Vec<&Route>> = BTreeMap::new();
    for route in &config.routes {
        routes.entry(route.path.clone()).or_default().push(route);
    }
    routes
}

fn by_name<T: PartialEq>(
    changes: &mut Vec<String>,
    what: &str,
    before: &BTreeMap<String, T>,
    after: &BTreeMap<String, T>,
) {
    for (name, one) in after {
        match before.get(name) {
            None => changes.push(format!("{what} {name} added")),
            Some(other) if other != one => changes.push(format!("{what} {name} changed")),
            Some(_) => {}
        }
    }
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    changes.extend(gone.map(|name| format!("{what} {name} removed")));
}
