//! The counters as text, in the format of OpenMetrics.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::observe::traces::{SpanOutcome, Spans};

use super::durations::{BUCKETS, Bounds, Durations, GATE_BUCKETS, Histogram};
use super::worker::Tally;
use super::{
    ExpiryMetrics, IssuerMetrics, Metrics, MetricsRegistry, RedisOutcome, RejectedHead,
    WorkerMetrics, upstreams,
};

/// The version of the program.
pub(in crate::observe) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from; empty if nobody has said so.
pub(in crate::observe) const COMMIT: &str = match option_env!("CLAIMGATE_COMMIT") {
    Some(commit) => commit,
    None => "",
};

/// Adds up what the workers have counted.
#[derive(Debug)]
pub(super) struct Scrape(pub(super) Arc<Metrics>);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Metrics {
            workers,
            config,
            issuers,
            certificates,
            revocation_lists,
            files_reloaded,
            files_kept,
            upstreams: by_upstream,
            panics,
            spans,
            rate_buckets,
            rate_buckets_forgotten,
            dropped_lines,
        } = self.0.as_ref();
        let total = self.0.total();
        let sum = |count: fn(&WorkerMetrics) -> &AtomicU64| -> u64 {
            workers
                .iter()
                .map(|worker| count(worker).load(Ordering::Relaxed))
                .sum()
        };
        requests(&mut encoder, &total)?;
        durations(&mut encoder, &total)?;
        counter(
            &mut encoder,
            "request_body_bytes",
            "Bytes of request bodies passed on",
            total.request_bytes,
        )?;
        counter(
            &mut encoder,
            "response_body_bytes",
            "Bytes of answer bodies sent",
            total.response_bytes,
        )?;
        let open: i64 = workers
            .iter()
            .map(|worker| worker.open.load(Ordering::Relaxed))
            .sum();
        gauge(
            &mut encoder,
            "connections_open",
            "Open client connections",
            open,
        )?;
        counter(
            &mut encoder,
            "connections",
            "Client connections accepted",
            sum(|worker| &worker.accepted),
        )?;
        token_cache(
            &mut encoder,
            sum(|worker| &worker.cache_hits),
            sum(|worker| &worker.cache_misses),
        )?;
        verifications(
            &mut encoder,
            [
                ("success", sum(|worker| &worker.tokens_good)),
                ("failure", sum(|worker| &worker.tokens_bad)),
                ("key_missing", sum(|worker| &worker.tokens_without_key)),
            ],
        )?;
        heads(&mut encoder, workers)?;
        counter(
            &mut encoder,
            "panics",
            "Connections ended by a fault of the gate",
            panics.load(Ordering::Relaxed),
        )?;
        let dropped = dropped_lines
            .get()
            .map_or(0, |dropped| dropped.dropped_lines() as u64);
        counter(
            &mut encoder,
            "log_lines_dropped",
            "Log lines that could not be written in time",
            dropped,
        )?;
        config.encode(&mut encoder)?;
        gauge(
            &mut encoder,
            "rate_limit_buckets",
            "Callers whose requests are counted at the moment, once for each limit",
            rate_buckets.load(Ordering::Relaxed),
        )?;
        counter(
            &mut encoder,
            "rate_limit_buckets_evicted",
            "Callers whose requests were forgotten before their time, for want of space",
            rate_buckets_forgotten.load(Ordering::Relaxed),
        )?;
        redis(&mut encoder, workers)?;
        self::spans(&mut encoder, spans)?;
        keys(&mut encoder, issuers)?;
        tls(
            &mut encoder,
            [certificates, revocation_lists],
            [files_reloaded, files_kept],
        )?;
        upstreams::encode(&mut encoder, by_upstream, &total.pools)?;
        build_info(&mut encoder)
    }
}

fn requests(encoder: &mut DescriptorEncoder<'_>, total: &Tally) -> Result<(), fmt::Error> {
    let mut family =
        encoder.encode_descriptor("requests", "Requests answered", None, MetricType::Counter)?;
    let sorted: BTreeMap<_, _> = total.requests.iter().collect();
    for (labels, count) in sorted {
        let status = labels.status.to_string();
        let labels = [
            ("route", labels.route.as_ref()),
            ("method", labels.method),
            ("status", status.as_str()),
            ("reason", labels.reason),
        ];
        ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn durations(encoder: &mut DescriptorEncoder<'_>, total: &Tally) -> Result<(), fmt::Error> {
    type Choose = fn(&Durations) -> &Histogram;
    let histograms: [(&str, &str, &Bounds, Choose); 3] = [
        (
            "request_duration",
            "From the head of a request to the end of its answer",
            &BUCKETS,
            |durations| &durations.whole,
        ),
        (
            "gate_duration",
            "From the head of a request to the request sent or refused",
            &GATE_BUCKETS,
            |durations| &durations.gate,
        ),
        (
            "upstream_duration",
            "From a request sent to the head of the upstream's answer",
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

fn token_cache(
    encoder: &mut DescriptorEncoder<'_>,
    hits: u64,
    misses: u64,
) -> Result<(), fmt::Error> {
    let help = "Tokens looked for among those already verified";
    let mut family =
        encoder.encode_descriptor("token_cache_lookups", help, None, MetricType::Counter)?;
    for (result, count) in [("hit", hits), ("miss", misses)] {
        let labels = [("result", result)];
        ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn verifications(
    encoder: &mut DescriptorEncoder<'_>,
    counts: [(&str, u64); 3],
) -> Result<(), fmt::Error> {
    let help = "Tokens verified";
    let mut family =
        encoder.encode_descriptor("token_verifications", help, None, MetricType::Counter)?;
    for (outcome, count) in counts {
        let labels = [("outcome", outcome)];
        ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn heads(
    encoder: &mut DescriptorEncoder<'_>,
    workers: &[Arc<WorkerMetrics>],
) -> Result<(), fmt::Error> {
    let help = "Heads that came to no exchange";
    let mut family =
        encoder.encode_descriptor("request_heads_rejected", help, None, MetricType::Counter)?;
    for fault in RejectedHead::ALL {
        let counts = workers.iter().map(|worker| worker.heads_refused(fault));
        let count: u64 = counts.map(|count| count.load(Ordering::Relaxed)).sum();
        let labels = [("reason", fault.reason())];
        ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn redis(
    encoder: &mut DescriptorEncoder<'_>,
    workers: &[Arc<WorkerMetrics>],
) -> Result<(), fmt::Error> {
    let help = "Requests that were to be counted in Redis";
    let mut family =
        encoder.encode_descriptor("rate_limit_redis", help, None, MetricType::Counter)?;
    for (outcome, label) in RedisOutcome::ALL {
        let counts = workers.iter().map(|worker| worker.redis_outcomes(outcome));
        let count: u64 = counts.map(|count| count.load(Ordering::Relaxed)).sum();
        let labels = [("outcome", label)];
        ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn spans(encoder: &mut DescriptorEncoder<'_>, spans: &Spans) -> Result<(), fmt::Error> {
    let help = "Spans that were to be sent to a collector";
    let mut family = encoder.encode_descriptor("spans", help, None, MetricType::Counter)?;
    for (outcome, label) in SpanOutcome::ALL {
        let labels = [("outcome", label)];
        ConstCounter::new(spans.counted(outcome)).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn keys(
    encoder: &mut DescriptorEncoder<'_>,
    issuers: &MetricsRegistry<IssuerMetrics>,
) -> Result<(), fmt::Error> {
    type Choose = fn(&IssuerMetrics) -> &AtomicI64;
    let (all, in_force) = (issuers.all(), issuers.in_force());
    let mut family = encoder.encode_descriptor("keys", "Keys held", None, MetricType::Gauge)?;
    for issuer in in_force.iter() {
        let labels = [("issuer", issuer.name.as_str())];
        let keys = i64::try_from(issuer.keys.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        ConstGauge::new(keys).encode(family.encode_family(&labels)?)?;
    }
    let is_remote = |issuer: &&Arc<IssuerMetrics>| issuer.is_remote.load(Ordering::Relaxed);
    let help = "Fetches of key sets";
    let mut family = encoder.encode_descriptor("key_fetches", help, None, MetricType::Counter)?;
    for issuer in all.iter().filter(is_remote) {
        for (outcome, count) in [("success", &issuer.fetched), ("failure", &issuer.failed)] {
            let labels = [("issuer", issuer.name.as_str()), ("outcome", outcome)];
            ConstCounter::new(count.load(Ordering::Relaxed))
                .encode(family.encode_family(&labels)?)?;
        }
    }
    let times: [(&str, &str, Choose); 2] = [
        (
            "key_last_success_timestamp",
            "When a key set was last fetched, in Unix time; 0 for never",
            |issuer| &issuer.last_success,
        ),
        (
            "keys_usable_until_timestamp",
            "Until when a key set is used if it cannot be fetched again, in Unix time; 0 for never",
            |issuer| &issuer.usable_until,
        ),
    ];
    for (name, help, choose) in times {
        let mut family =
            encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for issuer in in_force.iter().filter(is_remote) {
            let labels = [("issuer", issuer.name.as_str())];
            let time = choose(issuer).load(Ordering::Relaxed);
            ConstGauge::new(time).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn tls(
    encoder: &mut DescriptorEncoder<'_>,
    [certificates, lists]: [&[ExpiryMetrics]; 2],
    [reloaded, kept]: [&AtomicU64; 2],
) -> Result<(), fmt::Error> {
    if certificates.is_empty() {
        return Ok(());
    }
    let help = "Changed certificate files of listeners";
    let mut family = encoder.encode_descriptor("tls_reloads", help, None, MetricType::Counter)?;
    for (outcome, count) in [("success", reloaded), ("failure", kept)] {
        let labels = [("outcome", outcome)];
        ConstCounter::new(count.load(Ordering::Relaxed)).encode(family.encode_family(&labels)?)?;
    }
    let families = [
        (
            "tls_certificate_expiry_timestamp",
            "Until when a certificate of a listener is good, in Unix time",
            "certificate",
            certificates,
        ),
        (
            "tls_crl_expiry_timestamp",
            "Until when all revocation lists in a file are good, in Unix time",
            "crl",
            lists,
        ),
    ];
    for (name, help, label, files) in families {
        if files.is_empty() {
            continue;
        }
        let mut family =
            encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for ExpiryMetrics { file, expiry } in files {
            let file = file.to_string_lossy();
            let labels = [(label, file.as_ref())];
            let expiry = expiry.load(Ordering::Relaxed);
            ConstGauge::new(expiry).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

pub(super) fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> Result<(), fmt::Error> {
    ConstCounter::new(value).encode(encoder.encode_descriptor(
        name,
        help,
        None,
        MetricType::Counter,
    )?)
}

pub(super) fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: i64,
) -> Result<(), fmt::Error> {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

fn build_info(encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let mut family =
        encoder.encode_descriptor("build_info", "The program", None, MetricType::Gauge)?;
    let labels = [("version", VERSION), ("commit", COMMIT)];
    ConstGauge::new(1_i64).encode(family.encode_family(&labels)?)
}
