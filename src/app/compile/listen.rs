//! Compiles `[listen]` and `[[listeners]]`.

use http::HeaderValue;

use crate::config::{Address, ConfigDocument, KeyPath, Tls};
use crate::proxy::inbound::listener::ListenerConfig;

use super::checks::{check_time, socket_path_problem};
use super::tls;

/// Accepted range of `max_header_bytes`. A connection may hold twice as much.
const MAX_HEADER_BYTES: std::ops::RangeInclusive<u64> = 1024..=256 * 1024;

const MAX_WORKERS: usize = 1024;

/// Compiles the listeners, `[listen]` first.
pub(super) fn compile(
    document: &mut ConfigDocument,
    warnings: &mut Vec<String>,
) -> Vec<ListenerConfig> {
    check_limits(document);
    let listen = document.config.listen.clone();
    let mut encryption = |document: &mut ConfigDocument, path: &KeyPath, tls: Option<Tls>| {
        tls.and_then(|tls| tls::compile(document, &path.key("tls"), &tls, warnings))
    };
    let admin = Address::Tcp(document.config.admin.address);
    if is_same_address(&listen.address, &admin) {
        let path = KeyPath::of("admin").key("address");
        document.report(path, "must differ from the address of [listen]");
    }
    let first = ListenerConfig {
        address: listen.address,
        proxy_protocol: listen.proxy_protocol,
        redirect_to_https: None,
        hsts: hsts(listen.tls.as_ref()),
        tls: encryption(document, &KeyPath::of("listen"), listen.tls),
    };
    check_listener(document, &KeyPath::of("listen"), &first);
    let mut entries = vec![first];

    let listeners = document.config.listeners.clone();
    let section = KeyPath::of("listeners");
    let paths: Vec<KeyPath> = document.elements(&section).take(listeners.len()).collect();
    for (path, listener) in paths.iter().zip(listeners) {
        let entry = ListenerConfig {
            address: listener.address,
            proxy_protocol: listener.proxy_protocol,
            redirect_to_https: listener.redirect_to_https,
            hsts: hsts(listener.tls.as_ref()),
            tls: encryption(document, path, listener.tls),
        };
        check_listener(document, path, &entry);
        if entry.redirect_to_https == Some(0) {
            document.report(
                path.key("redirect_to_https"),
                "must be a port between 1 and 65535, got 0",
            );
        }
        if entry.redirect_to_https.is_some() && document.has(&path.key("tls")) {
            document.report(
                path.key("redirect_to_https"),
                "cannot be combined with `tls`",
            );
        }
        let is_taken = |other: &ListenerConfig| is_same_address(&entry.address, &other.address);
        if entries.iter().any(is_taken) {
            document.report(
                path.key("address"),
                "must differ from the addresses of other listeners",
            );
        } else if is_same_address(&entry.address, &admin) {
            document.report(
                path.key("address"),
                "must differ from the address of [admin]",
            );
        }
        entries.push(entry);
    }
    entries
}

/// Two addresses with port 0 differ: the system assigns a free port to each.
fn is_same_address(one: &Address, other: &Address) -> bool {
    let is_any = matches!(one, Address::Tcp(address) if address.port() == 0);
    !is_any && one == other
}

/// `Strict-Transport-Security` without `includeSubDomains`: the gate does not know the subdomains.
fn hsts(tls: Option<&Tls>) -> Option<HeaderValue> {
    let seconds = tls?.hsts?.as_secs();
    HeaderValue::try_from(format!("max-age={seconds}")).ok()
}

fn check_listener(document: &mut ConfigDocument, path: &KeyPath, entry: &ListenerConfig) {
    let trusts_no_proxy = document.config.listen.trusted_proxies.is_empty()
        && !document.is_invalid(&KeyPath::of("listen").key("trusted_proxies"));
    if entry.proxy_protocol && trusts_no_proxy && matches!(entry.address, Address::Tcp(_)) {
        document.report(
            path.key("proxy_protocol"),
            "requires `trusted_proxies` in [listen]: the PROXY protocol is accepted only from trusted proxies",
        );
    }
    if let Address::Unix(socket) = &entry.address
        && let Some(problem) = socket_path_problem(socket)
    {
        document.report(path.key("address"), problem);
    }
}

fn check_limits(document: &mut ConfigDocument) {
    let path = KeyPath::of("listen");
    let listen = document.config.listen.clone();
    if !MAX_HEADER_BYTES.contains(&listen.max_header_bytes) {
        document.report(
            path.key("max_header_bytes"),
            format!(
                "must be between 1KiB and 256KiB, got {}",
                listen.max_header_bytes
            ),
        );
    }
    if listen.workers > MAX_WORKERS {
        document.report(
            path.key("workers"),
            format!(
                "must be at most {MAX_WORKERS}, got {}; 0 starts one per CPU",
                listen.workers
            ),
        );
    }
    if listen.max_connections == 0 {
        document.report(path.key("max_connections"), "must be greater than zero");
    }
    let timeouts = [
        ("header_timeout", listen.header_timeout),
        ("body_timeout", listen.body_timeout),
        ("idle_timeout", listen.idle_timeout),
    ];
    for (key, timeout) in timeouts {
        check_time(document, &path.key(key), Some(timeout));
    }
}
