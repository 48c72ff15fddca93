//! Minimum rate of a body, counted over the time in which the gate waits for its client.

use std::time::Duration;

use tokio::time::Instant;

/// Minimum rate, in bytes per second.
pub(super) const MIN_RATE: u64 = 1024;

/// Time by which a client lags behind [`MIN_RATE`].
///
/// Waiting for the client adds to the lag, each byte reduces it, and so does time in which the gate waits for something
/// else. A client that stands still lags by the time it does so; a client at the minimum rate never lags by more than the
/// time between two of its bytes.
#[derive(Debug, Default)]
pub(super) struct RateFloor {
    lag: Duration,
    waiting_since: Option<Instant>,
    /// End of the last wait.
    resumed_at: Option<Instant>,
}

impl RateFloor {
    /// Notes that the gate waits for the client. Returns the time at which the lag reaches `limit`.
    pub(super) fn wait(&mut self, limit: Duration) -> Instant {
        let since = match self.waiting_since {
            Some(since) => since,
            None => self.begin_wait(Instant::now()),
        };
        since + limit.saturating_sub(self.lag)
    }

    fn begin_wait(&mut self, now: Instant) -> Instant {
        if let Some(resumed_at) = self.resumed_at.take() {
            self.lag = self.lag.saturating_sub(now - resumed_at);
        }
        *self.waiting_since.insert(now)
    }

    /// Notes that the client has sent or read bytes. Returns the time waited for them.
    pub(super) fn progress(&mut self, bytes: u64) -> Duration {
        // Most bodies never wait and need no clock.
        if self.waiting_since.is_none() && self.lag.is_zero() {
            return Duration::ZERO;
        }
        self.progress_at(bytes, Instant::now())
    }

    fn progress_at(&mut self, bytes: u64, now: Instant) -> Duration {
        let since = self.waiting_since.take();
        let waited = since.map_or(Duration::ZERO, |since| now - since);
        if since.is_some() {
            self.resumed_at = Some(now);
        }
        let paid = Duration::from_nanos(bytes.saturating_mul(1_000_000_000 / MIN_RATE));
        self.lag = (self.lag + waited).saturating_sub(paid);
        waited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// Time until a client that reads `bytes` after each pause is cut; none within an hour.
    fn cut_after(bytes: u64, pause: Duration) -> Option<Duration> {
        let mut floor = RateFloor::default();
        let start = Instant::now();
        let mut now = start;
        while now - start < Duration::from_hours(1) {
            floor.begin_wait(now);
            let deadline = floor.wait(LIMIT);
            now += pause;
            if now >= deadline {
                return Some(deadline - start);
            }
            floor.progress_at(bytes, now);
        }
        None
    }

    #[test]
    fn a_client_that_stands_still_is_cut_at_the_limit() {
        assert_eq!(cut_after(0, Duration::from_secs(3)), Some(LIMIT));
        assert_eq!(cut_after(1_000_000, LIMIT), Some(LIMIT));
    }

    #[test]
    fn a_client_above_the_minimum_rate_is_never_cut() {
        for (bytes, milliseconds) in [(1050, 30), (35_000, 1000), (1100, 1000), (25_000, 24_000)] {
            let pause = Duration::from_millis(milliseconds);
            assert_eq!(cut_after(bytes, pause), None, "{bytes} each {pause:?}");
        }
    }

    #[test]
    fn a_client_below_the_minimum_rate_is_cut_soon_after_the_limit() {
        for (bytes, seconds) in [(100, 40), (1, 31), (512, 61)] {
            let cut = cut_after(bytes, Duration::from_secs(1)).unwrap();
            assert!(cut <= Duration::from_secs(seconds), "{bytes}: {cut:?}");
        }
    }

    /// Server-sent events: the network of the client fails for a while again and again, and catches up.
    #[test]
    fn time_without_a_wait_makes_up_for_a_lag() {
        let mut floor = RateFloor::default();
        let mut now = Instant::now();
        for _ in 0..100 {
            floor.begin_wait(now);
            now += Duration::from_secs(20);
            assert!(now < floor.wait(LIMIT));
            floor.progress_at(100, now);
            now += Duration::from_secs(20);
        }
    }

    /// A fast start is no credit.
    #[test]
    fn bytes_before_a_wait_do_not_count() {
        let mut floor = RateFloor::default();
        let now = Instant::now();
        floor.progress_at(100_000_000, now);
        floor.begin_wait(now);
        assert_eq!(floor.wait(LIMIT), now + LIMIT);
    }
}
