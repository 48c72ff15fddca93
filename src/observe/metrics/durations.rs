//! Histograms of how long something took.

use std::time::Duration;

/// The upper bounds of the buckets of a duration, in seconds.
pub(super) type Bounds = [f64; 14];

/// Those of what an upstream or a client has a part in.
pub(super) const BUCKETS: Bounds = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Those of what the gate does alone.
pub(super) const GATE_BUCKETS: Bounds = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05,
    0.25, 1.0, 5.0,
];

/// How long the exchanges of one route took.
#[derive(Debug, Default, Clone)]
pub(super) struct Durations {
    pub(super) whole: Histogram,
    pub(super) gate: Histogram,
    pub(super) upstream: Histogram,
}

/// How many were within each bound, and all their seconds.
#[derive(Debug, Default, Clone)]
pub(super) struct Histogram {
    pub(super) sum: f64,
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
