//! Metrics of the TLS files of listeners.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Unit;
use serde_json::{Value, json};

use crate::clock::UnixTime;

use super::families::{counters, gauges};

/// TLS files with the expiry of their contents.
pub type Expiries = BTreeMap<PathBuf, Option<UnixTime>>;

/// Metrics of the certificates and revocation lists of all listeners.
#[derive(Debug, Default)]
pub(super) struct TlsMetrics {
    certificates: Vec<Expiry>,
    revocation_lists: Vec<Expiry>,
    reloaded: AtomicU64,
    failed: AtomicU64,
}

/// Expiry of the contents of one file: of its first certificate, or of the first of its revocation lists to expire.
#[derive(Debug)]
struct Expiry {
    file: PathBuf,
    /// Unix seconds; 0 if unknown.
    time: AtomicI64,
}

impl TlsMetrics {
    pub(super) fn new([certificates, revocation_lists]: [Expiries; 2]) -> Self {
        let files = |expiries: Expiries| {
            let files = expiries.into_iter();
            let files = files.map(|(file, expiry)| Expiry {
                file,
                time: AtomicI64::new(seconds(expiry)),
            });
            files.collect()
        };
        Self {
            certificates: files(certificates),
            revocation_lists: files(revocation_lists),
            ..Self::default()
        }
    }

    pub(super) fn reloaded<E>(&self, file: &Path, result: &Result<Option<UnixTime>, E>) {
        let Ok(expiry) = result else {
            self.failed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.reloaded.fetch_add(1, Ordering::Relaxed);
        let mut files = self.certificates.iter().chain(&self.revocation_lists);
        if let Some(changed) = files.find(|known| known.file == file) {
            changed.time.store(seconds(*expiry), Ordering::Relaxed);
        }
    }

    /// Files with the expiry of their contents, in Unix seconds.
    pub(super) fn summary(&self) -> Value {
        let files = self.certificates.iter().chain(&self.revocation_lists);
        let files = files.map(|one| {
            json!({
                "file": one.file.to_string_lossy(),
                "expires": one.time.load(Ordering::Relaxed),
            })
        });
        files.collect()
    }

    /// Encodes nothing if no listener has TLS.
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Self {
            certificates,
            revocation_lists,
            reloaded,
            failed,
        } = self;
        if certificates.is_empty() {
            return Ok(());
        }
        let outcomes = [("success", reloaded), ("failure", failed)];
        counters(
            encoder,
            "tls_reloads",
            "Reloads of changed certificate and CRL files of listeners",
            outcomes
                .map(|(outcome, count)| ([("outcome", outcome)], count.load(Ordering::Relaxed))),
        )?;
        let families = [
            (
                "tls_certificate_expiry_timestamp",
                "Expiry of a listener certificate, in Unix time",
                "certificate",
                certificates,
            ),
            (
                "tls_crl_expiry_timestamp",
                "Earliest expiry of the revocation lists in a file, in Unix time",
                "crl",
                revocation_lists,
            ),
        ];
        for (name, help, label, files) in families {
            if files.is_empty() {
                continue;
            }
            let paths: Vec<_> = files.iter().map(|one| one.file.to_string_lossy()).collect();
            let samples = files
                .iter()
                .zip(&paths)
                .map(|(one, path)| ([(label, path.as_ref())], one.time.load(Ordering::Relaxed)));
            gauges(encoder, name, help, Some(&Unit::Seconds), samples)?;
        }
        Ok(())
    }
}

/// Value of a time metric; 0 if unknown.
fn seconds(time: Option<UnixTime>) -> i64 {
    time.map_or(0, |time| time.0)
}
