//! The only module of the service that reads the system clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

/// Unix time in milliseconds; serialized as RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, sqlx::Type)]
#[sqlx(transparent)]
pub(crate) struct Moment(i64);

impl Moment {
    /// Current time of the system clock.
    #[expect(
        clippy::disallowed_methods,
        reason = "the only call that reads the clock; all other code takes a moment as an argument"
    )]
    pub(crate) fn now() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Self(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    /// Whole seconds since the epoch, as in the claims of a token.
    pub(crate) fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let since_epoch = Duration::from_millis(u64::try_from(self.0).unwrap_or(0));
        serializer.collect_str(&humantime::format_rfc3339_millis(UNIX_EPOCH + since_epoch))
    }
}

#[cfg(test)]
mod tests {
    use super::Moment;

    #[test]
    fn serializes_as_rfc_3339_in_utc() {
        let json = serde_json::to_string(&Moment(1_700_000_000_123)).unwrap();
        assert_eq!(json, r#""2023-11-14T22:13:20.123Z""#);
    }
}
