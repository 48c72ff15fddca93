//! Outlier detection: ejects an endpoint after consecutive failures.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Ejection;

/// Upper limit of the ejection time, unless `ejection.time` is longer.
const MAX_EJECTION_TIME: Duration = Duration::from_mins(5);

/// Failures and ejections of one endpoint, as seen by one worker.
#[derive(Debug, Default)]
pub(super) struct OutlierDetector {
    consecutive_failures: Cell<u32>,
    ejected_until: Cell<Option<Instant>>,
    /// Number of ejections since the last success.
    ejections: Cell<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutlierState {
    Active,
    /// Active again after an ejection that has just ended.
    Restored,
    Ejected,
}

impl OutlierDetector {
    pub(super) fn succeeded(&self) {
        if self.ejected_until.get().is_none() {
            self.consecutive_failures.set(0);
            self.ejections.set(0);
        }
    }

    /// Notes a failure. Returns the ejection time if it ejects the endpoint.
    pub(super) fn failed(&self, ejection: Ejection, now: Instant) -> Option<Duration> {
        let failures = self.consecutive_failures.get().saturating_add(1);
        self.consecutive_failures.set(failures);
        // A request sent before the ejection does not extend it.
        if ejection.failures == 0
            || failures < ejection.failures
            || self.ejected_until.get().is_some()
        {
            return None;
        }
        let limit = MAX_EJECTION_TIME.max(ejection.time);
        let factor = 1_u32 << self.ejections.get().min(16);
        let time = ejection.time.saturating_mul(factor).min(limit);
        self.ejections.set(self.ejections.get().saturating_add(1));
        self.ejected_until.set(Some(now + time));
        Some(time)
    }

    /// Current state. After an ejection, a single failure ejects the endpoint again.
    pub(super) fn state(&self, now: Instant, ejection: Ejection) -> OutlierState {
        match self.ejected_until.get() {
            None => OutlierState::Active,
            Some(until) if until > now => OutlierState::Ejected,
            Some(_) => {
                self.ejected_until.set(None);
                self.consecutive_failures
                    .set(ejection.failures.saturating_sub(1));
                OutlierState::Restored
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EJECTION: Ejection = Ejection {
        failures: 3,
        time: Duration::from_secs(10),
    };

    #[test]
    fn ejects_after_consecutive_failures_only() {
        let (outliers, now) = (OutlierDetector::default(), Instant::now());
        let fails = || outliers.failed(EJECTION, now);
        for _ in 0..5 {
            assert_eq!((fails(), fails()), (None, None));
            outliers.succeeded();
        }
        assert_eq!((fails(), fails()), (None, None));
        assert_eq!(outliers.state(now, EJECTION), OutlierState::Active);
        assert_eq!(fails(), Some(Duration::from_secs(10)));
        assert_eq!(outliers.state(now, EJECTION), OutlierState::Ejected);
        let later = now + Duration::from_secs(11);
        assert_eq!(outliers.state(later, EJECTION), OutlierState::Restored);
        assert_eq!(outliers.state(later, EJECTION), OutlierState::Active);
    }

    #[test]
    fn repeated_ejections_grow_up_to_a_limit() {
        let (outliers, mut now) = (OutlierDetector::default(), Instant::now());
        let mut times = Vec::new();
        for _ in 0..60 {
            times.extend(outliers.failed(EJECTION, now).map(|time| time.as_secs()));
            if outliers.state(now, EJECTION) == OutlierState::Ejected {
                now += Duration::from_secs(301);
                assert_eq!(outliers.state(now, EJECTION), OutlierState::Restored);
            }
        }
        let first = [10, 20, 40, 80, 160, 300, 300];
        assert_eq!(times.get(..7), Some(first.as_slice()));
        outliers.succeeded();
        let fails = || outliers.failed(EJECTION, now);
        assert_eq!((fails(), fails()), (None, None));
        assert_eq!(fails(), Some(Duration::from_secs(10)));
    }

    #[test]
    fn zero_failures_disables_ejection() {
        let never = Ejection {
            failures: 0,
            ..EJECTION
        };
        let outliers = OutlierDetector::default();
        for _ in 0..1000 {
            assert_eq!(outliers.failed(never, Instant::now()), None);
        }
    }
}
