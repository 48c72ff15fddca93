//! Where requests come in: the limits, and one entry for each address.

use crate::config::{Address, KeyPath, Written};
use crate::proxy::listen::Entry;

use super::check_time;

/// The sizes of a head that a listener may be given, in bytes.
const HEADER_BYTES: std::ops::RangeInclusive<u64> = 1024..=1024 * 1024;

/// The most worker threads.
const MAX_WORKERS: usize = 1024;

/// Builds the entries; that of `[listen]` is the first.
pub(super) fn compile(written: &mut Written) -> Vec<Entry> {
    check_limits(written);
    let first = Entry {
        address: written.config.listen.address.clone(),
    };
    let mut entries = vec![first];
    let admin = Address::Tcp(written.config.admin.address);
    if is_taken(&admin, &entries) {
        let path = KeyPath::of("admin").key("address");
        written.report(path, "is the address of [listen] too");
    }
    let paths: Vec<KeyPath> = written
        .elements(&KeyPath::of("listeners"))
        .take(written.config.listeners.len())
        .collect();
    for (path, listener) in paths.into_iter().zip(written.config.listeners.clone()) {
        let address = path.key("address");
        if is_taken(&listener.address, &entries) {
            written.report(address, "is the address of another listener");
        } else if is_taken(
            &listener.address,
            &[Entry {
                address: admin.clone(),
            }],
        ) {
            written.report(address, "is the address of [admin] too");
        }
        entries.push(Entry {
            address: listener.address,
        });
    }
    entries
}

/// Whether somebody listens there already. Port 0 is one that is free.
fn is_taken(address: &Address, entries: &[Entry]) -> bool {
    let is_any = matches!(address, Address::Tcp(address) if address.port() == 0);
    !is_any && entries.iter().any(|entry| entry.address == *address)
}

fn check_limits(written: &mut Written) {
    let path = KeyPath::of("listen");
    let listen = written.config.listen.clone();
    if !HEADER_BYTES.contains(&listen.max_header_bytes) {
        written.report(path.key("max_header_bytes"), "must be from 1KiB to 1MiB");
    }
    if listen.workers > MAX_WORKERS {
        written.report(
            path.key("workers"),
            format!("must be at most {MAX_WORKERS}; 0 is one for each CPU"),
        );
    }
    if listen.max_connections == 0 {
        written.report(path.key("max_connections"), "must be at least 1");
    }
    let timeouts = [
        ("header_timeout", listen.header_timeout),
        ("body_timeout", listen.body_timeout),
        ("idle_timeout", listen.idle_timeout),
    ];
    for (key, timeout) in timeouts {
        check_time(written, &path.key(key), Some(timeout));
    }
}
