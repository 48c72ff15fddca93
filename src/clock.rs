//! The only module that reads the system clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970-01-01T00:00:00Z without leap seconds: the `NumericDate` of RFC 7519 section 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixTime(pub i64);

impl UnixTime {
    /// Time elapsed since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        let seconds = self.0.saturating_sub(earlier.0);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }
}

/// Microseconds of a monotonic clock, for durations only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticks(pub u64);

/// Source of the time of day.
#[derive(Debug, Clone)]
pub enum Clock {
    /// System clock.
    System,
    /// Clock set by a test, in seconds of [`UnixTime`].
    Set(Arc<AtomicI64>),
}

impl Clock {
    /// Current time, in whole seconds.
    pub fn now(&self) -> UnixTime {
        match self {
            Self::System => UnixTime(i64::try_from(system_time().as_secs()).unwrap_or(i64::MAX)),
            Self::Set(seconds) => UnixTime(seconds.load(Ordering::Relaxed)),
        }
    }

    /// Time elapsed since 1970-01-01T00:00:00Z, at the precision of the clock.
    pub fn since_epoch(&self) -> Duration {
        match self {
            Self::System => system_time(),
            Self::Set(_) => self.now().since(UnixTime(0)),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the only call that reads the system clock"
)]
fn system_time() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
