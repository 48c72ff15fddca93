//! Encoding of the metrics in the OpenMetrics text format.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::observe::library_warnings;
use crate::observe::traces::SpanOutcome;

use super::durations::{BUCKETS, Bounds, Durations, GATE_BUCKETS, Histogram};
use super::families::{counter, counters, gauge, gauges};
use super::worker::Tally;
use super::{
    ConnectionLimit, Metrics, RedisOutcome, RejectedHead, WorkerMetrics, issuers, upstreams,
};

pub(in crate::observe) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Commit of the build; empty if the build did not set `CLAIMGATE_COMMIT`.
pub(in crate::observe) const COMMIT: &str = match option_env!("CLAIMGATE_COMMIT") {
    Some(commit) => commit,
    None => "",
};

/// Collector of the metrics of all workers.
#[derive(Debug)]
pub(super) struct Scrape(pub(super) Arc<Metrics>);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let encoder = &mut encoder;
        let Metrics {
            workers,
            config,
            issuers,
            upstreams,
            tls,
            panics,
            spans,
            connections_limit,
            rate_limit_buckets,
            rate_limit_buckets_evicted,
            dropped_lines: _,
            history: _,
        } = self.0.as_ref();
        let total = self.0.total();
        requests(encoder, &total)?;
        counters(
            encoder,
            "refusals",
            "Requests that the gate rejected or aborted, by stage",
            total
                .refusals
                .iter()
                .map(|((stage, reason), count)| ([("stage", *stage), ("reason", *reason)], *count)),
        )?;
        durations(encoder, &total)?;
        counter(
            encoder,
            "request_body_bytes",
            "Bytes of request bodies forwarded",
            total.request_bytes,
        )?;
        counter(
            encoder,
            "response_body_bytes",
            "Bytes of response bodies sent",
            total.response_bytes,
        )?;
        connections(encoder, workers)?;
        gauge(
            encoder,
            "connections_limit",
            "Limit of open client connections in force",
            connections_limit.load(Ordering::Relaxed),
        )?;
        tokens(encoder, workers)?;
        counters(
            encoder,
            "request_heads_rejected",
            "Connections rejected without a complete request head",
            RejectedHead::ALL.map(|head| {
                let counts = workers.iter().map(|worker| worker.heads_rejected(head));
                ([("reason", head.reason())], add(counts))
            }),
        )?;
        counter(
            encoder,
            "panics",
            "Panics that closed a connection",
            panics.load(Ordering::Relaxed),
        )?;
        counter(
            encoder,
            "log_lines_dropped",
            "Log lines dropped because the log writer was too slow",
            self.0.dropped_lines(),
        )?;
        counters(
            encoder,
            "library_warnings",
            "Warnings of libraries, counted instead of logged",
            library_warnings::counts().map(|(library, count)| ([("library", library)], count)),
        )?;
        config.encode(encoder)?;
        gauge(
            encoder,
            "rate_limit_buckets",
            "Rate limit buckets in use",
            rate_limit_buckets.load(Ordering::Relaxed),
        )?;
        counter(
            encoder,
            "rate_limit_buckets_evicted",
            "Rate limit buckets evicted because the table was full",
            rate_limit_buckets_evicted.load(Ordering::Relaxed),
        )?;
        counters(
            encoder,
            "rate_limit_redis",
            "Requests to be counted in Redis, by outcome",
            RedisOutcome::ALL.map(|(outcome, label)| {
                let counts = workers.iter().map(|worker| worker.redis_outcomes(outcome));
                ([("outcome", label)], add(counts))
            }),
        )?;
        counters(
            encoder,
            "spans",
            "Sampled spans, by outcome of their export",
            SpanOutcome::ALL.map(|(outcome, label)| ([("outcome", label)], spans.counted(outcome))),
        )?;
        issuers::encode(encoder, issuers)?;
        tls.encode(encoder)?;
        upstreams::encode(encoder, upstreams, &total.pools)?;
        let labels = [("version", VERSION), ("commit", COMMIT)];
        gauges(
            encoder,
            "build_info",
            "Version and commit",
            None,
            [(labels, 1)],
        )
    }
}

fn requests(encoder: &mut DescriptorEncoder<'_>, total: &Tally) -> Result<(), fmt::Error> {
    let sorted: BTreeMap<_, _> = total.requests.iter().collect();
    let statuses: Vec<String> = sorted.keys().map(|one| one.status.to_string()).collect();
    let samples = sorted
        .iter()
        .zip(&statuses)
        .map(|((labels, count), status)| {
            let labels = [
                ("route", labels.route.as_ref()),
                ("method", labels.method),
                ("status", status.as_str()),
                ("reason", labels.reason),
            ];
            (labels, **count)
        });
    counters(encoder, "requests", "Finished requests", samples)
}

fn durations(encoder: &mut DescriptorEncoder<'_>, total: &Tally) -> Result<(), fmt::Error> {
    type Choose = fn(&Durations) -> &Histogram;
    let histograms: [(&str, &str, &Bounds, Choose); 3] = [
        (
            "request_duration",
            "Time from the request head to the end of the response",
            &BUCKETS,
            |durations| &durations.request,
        ),
        (
            "gate_duration",
            "Time from the request head to the forwarded request or the rejection",
            &GATE_BUCKETS,
            |durations| &durations.gate,
        ),
        (
            "upstream_duration",
            "Time from the forwarded request to the upstream's response head",
            &BUCKETS,
            |durations| &durations.upstream,
        ),
    ];
    let sorted: BTreeMap<_, _> = total.durations.iter().collect();
    for (name, help, bounds, choose) in histograms {
        let mut family =
            encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (route, durations) in &sorted {
            let histogram = choose(durations);
            if histogram.is_empty() {
                continue;
            }
            let bounds = bounds.iter().copied().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(histogram.buckets).collect();
            let count = histogram.buckets.iter().sum();
            let labels = [("route", route.as_ref())];
            let mut one = family.encode_family(&labels)?;
            one.encode_histogram::<NoLabelSet>(histogram.sum, count, &buckets, None)?;
        }
    }
    Ok(())
}

fn connections(
    encoder: &mut DescriptorEncoder<'_>,
    workers: &[Arc<WorkerMetrics>],
) -> Result<(), fmt::Error> {
    let open = workers.iter();
    let open = open.map(|worker| worker.open.load(Ordering::Relaxed));
    gauge(
        encoder,
        "connections_open",
        "Open client connections",
        open.sum(),
    )?;
    counter(
        encoder,
        "connections",
        "Client connections accepted",
        add(workers.iter().map(|worker| &worker.accepted)),
    )?;
    counter(
        encoder,
        "connections_evicted",
        "Idle client connections closed to make room for others",
        add(workers.iter().map(|worker| &worker.evicted)),
    )?;
    counters(
        encoder,
        "connections_rejected",
        "Client connections rejected above a limit",
        ConnectionLimit::ALL.map(|(limit, label)| {
            let counts = workers
                .iter()
                .map(|worker| worker.connections_rejected(limit));
            ([("limit", label)], add(counts))
        }),
    )
}

fn tokens(
    encoder: &mut DescriptorEncoder<'_>,
    workers: &[Arc<WorkerMetrics>],
) -> Result<(), fmt::Error> {
    type Choose = fn(&WorkerMetrics) -> &AtomicU64;
    let sum = |choose: Choose| add(workers.iter().map(|worker| choose(worker)));
    let lookups: [(&str, Choose); 2] = [
        ("hit", |worker| &worker.cache_hits),
        ("miss", |worker| &worker.cache_misses),
    ];
    counters(
        encoder,
        "token_cache_lookups",
        "Lookups in the cache of verified tokens",
        lookups.map(|(result, choose)| ([("result", result)], sum(choose))),
    )?;
    let verifications: [(&str, Choose); 3] = [
        ("success", |worker| &worker.tokens_valid),
        ("failure", |worker| &worker.tokens_invalid),
        ("key_missing", |worker| &worker.tokens_without_key),
    ];
    counters(
        encoder,
        "token_verifications",
        "Token verifications",
        verifications.map(|(outcome, choose)| ([("outcome", outcome)], sum(choose))),
    )
}

fn add<'a>(counts: impl Iterator<Item = &'a AtomicU64>) -> u64 {
    counts.map(|count| count.load(Ordering::Relaxed)).sum()
}
