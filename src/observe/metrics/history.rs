//! Request rates and durations of the last 15 minutes, for the status page.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::Metrics;
use super::durations::{BUCKETS, Histogram};
use super::worker::Tally;

/// Interval of the points.
pub(in crate::observe) const INTERVAL: Duration = Duration::from_secs(5);

/// Points of 15 minutes.
const MAX_POINTS: usize = 180;

/// Points, the oldest first.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<Points>);

#[derive(Debug, Default)]
struct Points {
    /// Totals at the last point.
    last: Totals,
    points: VecDeque<Point>,
}

/// Totals since the start.
#[derive(Debug, Default, Clone)]
struct Totals {
    requests: u64,
    /// Refusals of the gate, by class of status: 401, 403, 429, other.
    refusals: [u64; 4],
    /// Responses with a status of 500 or more, from the upstream or the gate.
    errors: u64,
    durations: Histogram,
}

/// Counts within one interval, and quantiles of the durations in seconds.
#[derive(Debug)]
struct Point {
    requests: u64,
    refusals: [u64; 4],
    errors: u64,
    p50: Option<f64>,
    p99: Option<f64>,
}

impl Metrics {
    /// Adds a point. Called once per [`INTERVAL`].
    pub(in crate::observe) fn add_history_point(&self) {
        let totals = Totals::of(&self.total());
        let mut history = self
            .history
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let point = totals.since(&history.last);
        history.last = totals;
        history.points.push_back(point);
        if history.points.len() > MAX_POINTS {
            history.points.pop_front();
        }
    }
}

impl History {
    pub(super) fn summary(&self) -> Value {
        let history = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let points = history.points.iter().map(|point| {
            json!({
                "requests": point.requests,
                "refusals": point.refusals,
                "errors": point.errors,
                "p50": point.p50,
                "p99": point.p99,
            })
        });
        json!({ "seconds": INTERVAL.as_secs(), "points": points.collect::<Vec<_>>() })
    }
}

impl Totals {
    fn of(total: &Tally) -> Self {
        let mut totals = Self::default();
        for (labels, count) in &total.requests {
            totals.requests += count;
            let [unauthorized, forbidden, limited, other] = &mut totals.refusals;
            match (labels.status, labels.reason) {
                (500.., _) => totals.errors += count,
                (_, "") => {}
                (401, _) => *unauthorized += count,
                (403, _) => *forbidden += count,
                (429, _) => *limited += count,
                _ => *other += count,
            }
        }
        for durations in total.durations.values() {
            totals.durations.add(&durations.request);
        }
        totals
    }

    fn since(&self, last: &Self) -> Point {
        let mut refusals = self.refusals;
        for (now, before) in refusals.iter_mut().zip(last.refusals) {
            *now = now.saturating_sub(before);
        }
        let mut durations = self.durations.clone();
        for (now, before) in durations.buckets.iter_mut().zip(last.durations.buckets) {
            *now = now.saturating_sub(before);
        }
        Point {
            requests: self.requests.saturating_sub(last.requests),
            refusals,
            errors: self.errors.saturating_sub(last.errors),
            p50: quantile(&durations, 0.5),
            p99: quantile(&durations, 0.99),
        }
    }
}

/// Quantile, interpolated within its bucket as Prometheus does it. Above the last bound, the last bound.
#[expect(
    clippy::cast_precision_loss,
    reason = "the count of an interval is far below 2^53"
)]
fn quantile(histogram: &Histogram, share: f64) -> Option<f64> {
    let total: u64 = histogram.buckets.iter().sum();
    if total == 0 {
        return None;
    }
    let rank = share * total as f64;
    let (mut seen, mut lower) = (0.0, 0.0);
    for (count, upper) in histogram.buckets.iter().zip(BUCKETS) {
        let count = *count as f64;
        if seen + count >= rank && count > 0.0 {
            return Some(lower + (upper - lower) * (rank - seen) / count);
        }
        seen += count;
        lower = upper;
    }
    Some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpolates_quantiles_within_a_bucket() {
        let mut histogram = Histogram::default();
        assert_eq!(quantile(&histogram, 0.5), None);
        // Two durations between 2.5 ms and 5 ms, and one beyond the last bound.
        histogram.buckets[3] = 2;
        assert_eq!(quantile(&histogram, 0.5), Some(0.00375));
        histogram.buckets[14] = 2;
        assert_eq!(quantile(&histogram, 0.99), Some(10.0));
    }

    #[test]
    fn keeps_fifteen_minutes() {
        let metrics = Metrics::default();
        for _ in 0..MAX_POINTS + 7 {
            metrics.add_history_point();
        }
        let points = &metrics.history.summary()["points"];
        assert_eq!(points.as_array().unwrap().len(), MAX_POINTS);
    }
}
