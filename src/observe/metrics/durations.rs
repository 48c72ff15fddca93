//! Duration histograms.

use std::time::Duration;

/// Upper bounds of the buckets, in seconds.
pub(super) type Bounds = [f64; 14];

/// Bounds of durations that include the upstream or the client.
pub(super) const BUCKETS: Bounds = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Bounds of the duration of the gate alone.
pub(super) const GATE_BUCKETS: Bounds = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05,
    0.25, 1.0, 5.0,
];

/// Durations of the exchanges of one route.
#[derive(Debug, Default, Clone)]
pub(super) struct Durations {
    pub(super) request: Histogram,
    pub(super) gate: Histogram,
    pub(super) upstream: Histogram,
}

#[derive(Debug, Default, Clone)]
pub(super) struct Histogram {
    /// Sum of all durations, in seconds.
    pub(super) sum: f64,
    /// Not cumulative. The last bucket has no bound.
    pub(super) buckets: [u64; BUCKETS.len() + 1],
}

impl Histogram {
    pub(super) fn observe(&mut self, bounds: &Bounds, duration: Duration) {
        let seconds = duration.as_secs_f64();
        self.sum += seconds;
        let bucket = bounds
            .iter()
            .position(|bound| seconds <= *bound)
            .unwrap_or(bounds.len());
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            *bucket += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buckets.iter().all(|count| *count == 0)
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.sum += other.sum;
        for (bucket, more) in self.buckets.iter_mut().zip(other.buckets) {
            *bucket += more;
        }
    }
}
