//! How well one endpoint has served a worker, and whether it is left out for a while.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Ejection;

/// The longest an endpoint is left out for.
const LONGEST: Duration = Duration::from_mins(5);

/// The failures of one endpoint.
#[derive(Debug, Default)]
pub(super) struct OutlierDetector {
    failures: Cell<u32>,
    out_until: Cell<Option<Instant>>,
    times: Cell<u32>,
}

/// Whether an endpoint is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It is.
    In,
    /// It is again, from now on.
    Back,
    /// It is left out.
    Out,
}

impl OutlierDetector {
    /// It has answered.
    pub(super) fn succeeded(&self) {
        if self.out_until.get().is_none() {
            self.failures.set(0);
            self.times.set(0);
        }
    }

    /// It has failed. Says for how long it is left out, if it is from now on.
    pub(super) fn failed(&self, ejection: Ejection, now: Instant) -> Option<Duration> {
        let failures = self.failures.get().saturating_add(1);
        self.failures.set(failures);
        // What was sent before it was left out says nothing new.
        if ejection.failures == 0 || failures < ejection.failures || self.out_until.get().is_some()
        {
            return None;
        }
        let longest = LONGEST.max(ejection.time);
        let times = 1_u32 << self.times.get().min(16);
        let time = ejection.time.saturating_mul(times).min(longest);
        self.times.set(self.times.get().saturating_add(1));
        self.out_until.set(Some(now + time));
        Some(time)
    }

    /// Whether it is used. One that comes back has one try.
    pub(super) fn at(&self, now: Instant, ejection: Ejection) -> Use {
        match self.out_until.get() {
            None => Use::In,
            Some(until) if until > now => Use::Out,
            Some(_) => {
                self.out_until.set(None);
                self.failures.set(ejection.failures.saturating_sub(1));
                Use::Back
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
    fn failures_in_a_row_leave_it_out_and_an_answer_between_them_does_not() {
        let (outliers, now) = (OutlierDetector::default(), Instant::now());
        let fails = || outliers.failed(EJECTION, now);
        for _ in 0..5 {
            assert_eq!((fails(), fails()), (None, None));
            outliers.succeeded();
        }
        assert_eq!((fails(), fails()), (None, None));
        assert_eq!(outliers.at(now, EJECTION), Use::In);
        assert_eq!(fails(), Some(Duration::from_secs(10)));
        assert_eq!(outliers.at(now, EJECTION), Use::Out);
        let later = now + Duration::from_secs(11);
        assert_eq!(outliers.at(later, EJECTION), Use::Back);
        assert_eq!(outliers.at(later, EJECTION), Use::In);
    }

    #[test]
    fn one_that_comes_back_and_fails_is_left_out_for_longer_and_not_for_ever() {
        let (outliers, mut now) = (OutlierDetector::default(), Instant::now());
        let mut times = Vec::new();
        for _ in 0..60 {
            times.extend(outliers.failed(EJECTION, now).map(|time| time.as_secs()));
            if outliers.at(now, EJECTION) == Use::Out {
                now += Duration::from_secs(301);
                assert_eq!(outliers.at(now, EJECTION), Use::Back);
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
    fn none_is_left_out_if_the_configuration_says_so() {
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
