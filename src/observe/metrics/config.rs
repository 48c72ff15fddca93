//! Metrics of the configuration.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use prometheus_client::encoding::DescriptorEncoder;
use serde_json::{Value, json};

use crate::clock::UnixTime;
use crate::observe::log::printable;

use super::families::{counters, gauge, timestamp};

/// Generation in force and outcomes of configuration reloads.
#[derive(Debug, Default)]
pub struct ConfigMetrics {
    reloaded: AtomicU64,
    failed: AtomicU64,
    /// True if the last reload failed.
    is_stale: AtomicBool,
    generation: AtomicU64,
    /// Unix seconds.
    in_force_since: AtomicI64,
    /// First problem of the last reload, if it failed.
    last_problem: ArcSwapOption<String>,
}

impl ConfigMetrics {
    /// Starts with generation 1.
    pub fn started(&self, now: UnixTime) {
        self.generation.store(1, Ordering::Relaxed);
        self.in_force_since.store(now.0, Ordering::Relaxed);
    }

    /// Counts a successful reload. Returns the new generation.
    pub fn reloaded(&self, now: UnixTime) -> u64 {
        self.reloaded.fetch_add(1, Ordering::Relaxed);
        self.is_stale.store(false, Ordering::Relaxed);
        self.last_problem.store(None);
        self.in_force_since.store(now.0, Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts a failed reload. Returns the generation that stays in force.
    pub fn reload_failed(&self, problem: Option<String>) -> u64 {
        self.last_problem.store(problem.map(Arc::new));
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.is_stale.store(true, Ordering::Relaxed);
        self.generation()
    }

    /// Generation in force, counted from 1.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    pub(super) fn summary(&self) -> Value {
        json!({
            "generation": self.generation(),
            "in_force_since": self.in_force_since.load(Ordering::Relaxed),
            "is_stale": self.is_stale.load(Ordering::Relaxed),
            "problem": self.last_problem.load().as_ref().map(|problem| printable(problem)),
        })
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let outcomes = [("success", &self.reloaded), ("failure", &self.failed)];
        counters(
            encoder,
            "config_reloads",
            "Reloads of a changed configuration",
            outcomes
                .map(|(outcome, count)| ([("outcome", outcome)], count.load(Ordering::Relaxed))),
        )?;
        gauge(
            encoder,
            "config_last_reload_success",
            "1 if the last configuration reload succeeded, otherwise 0",
            i64::from(!self.is_stale.load(Ordering::Relaxed)),
        )?;
        gauge(
            encoder,
            "config_generation",
            "Generation of the configuration in force, from 1",
            i64::try_from(self.generation()).unwrap_or(i64::MAX),
        )?;
        let since = self.in_force_since.load(Ordering::Relaxed);
        timestamp(
            encoder,
            "config_last_reload_timestamp",
            "Start or last successful configuration reload, in Unix time",
            since,
        )
    }
}
