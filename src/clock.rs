//! The only place that asks the time of day.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970-01-01T00:00:00Z without leap seconds: the `NumericDate` of RFC 7519 section 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixTime(pub i64);

impl UnixTime {
    /// How long it is from `earlier` to this time; nothing if this is not later.
    pub fn since(self, earlier: Self) -> Duration {
        let seconds = self.0.saturating_sub(earlier.0);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }
}

/// Microseconds of a clock that nobody sets: for how long ago something was, not for when.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticks(pub u64);

/// Where the time of day comes from.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The clock of the system.
    System,
    /// A clock that a test sets.
    Set(Arc<AtomicI64>),
}

impl Clock {
    /// The time of day.
    pub fn now(&self) -> UnixTime {
        match self {
            Self::System => UnixTime(i64::try_from(system_time().as_secs()).unwrap_or(i64::MAX)),
            Self::Set(seconds) => UnixTime(seconds.load(Ordering::Relaxed)),
        }
    }

    /// How long ago 1970-01-01T00:00:00Z was, as precisely as it is known.
    pub fn since_epoch(&self) -> Duration {
        match self {
            Self::System => system_time(),
            Self::Set(_) => self.now().since(UnixTime(0)),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one door to the clock of the system"
)]
fn system_time() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
