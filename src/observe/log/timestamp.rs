//! Timestamps of log lines.

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

/// Length of an RFC 3339 time up to the second, without the zone.
const SECOND_BYTES: usize = "2026-11-20T08:12:59".len();

/// Text of the last second. Most lines differ from the one before in the microseconds alone.
#[derive(Debug, Default)]
pub(super) struct Timestamp {
    second: Option<u64>,
    text: Vec<u8>,
}

impl Timestamp {
    /// Appends the time as in RFC 3339, in UTC with microseconds: `2026-11-20T08:12:59.527565Z`.
    pub(super) fn append(&mut self, line: &mut Vec<u8>, since_epoch: Duration) {
        let second = since_epoch.as_secs();
        if self.second != Some(second) {
            self.second = Some(second);
            self.text.clear();
            let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(second));
            let _infallible = write!(self.text, "{time}");
            self.text.truncate(SECOND_BYTES);
        }
        line.extend_from_slice(&self.text);
        let mut fraction = *b".000000Z";
        let mut micros = since_epoch.subsec_micros();
        for digit in fraction.iter_mut().skip(1).take(6).rev() {
            *digit += (micros % 10) as u8;
            micros /= 10;
        }
        line.extend_from_slice(&fraction);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appends_the_same_text_as_a_fresh_conversion() {
        let mut timestamp = Timestamp::default();
        let mut micros: u64 = 0;
        for step in 0..20_000 {
            // Several times in one second, in the next, days and years later.
            micros += [1, 999, 1_000_000, 86_400_000_000, 3_155_692_597_000][step % 5];
            let since_epoch = Duration::from_micros(micros);
            let mut text = Vec::new();
            timestamp.append(&mut text, since_epoch);
            let expected = humantime::format_rfc3339_micros(UNIX_EPOCH + since_epoch).to_string();
            assert_eq!(String::from_utf8(text).unwrap(), expected);
        }
    }
}
