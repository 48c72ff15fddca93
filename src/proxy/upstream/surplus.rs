//! Bytes of an upstream that belong to no exchange.

use std::cell::Cell;

/// Status that many servers send on an idle connection before they close it (RFC 9110 section 15.5.9).
const REQUEST_TIMEOUT: &[u8] = b" 408";

/// Set once an endpoint has sent bytes that belong to no exchange.
#[derive(Debug, Default)]
pub(super) struct SurplusFlag(Cell<bool>);

impl SurplusFlag {
    /// Clears the flag and returns its value.
    pub(super) fn take(&self) -> bool {
        self.0.take()
    }

    /// Notes surplus bytes by their start. None are the end of the stream.
    pub(super) fn note(&self, start: &[u8]) {
        // The status follows a version of eight bytes.
        let is_timeout = start.get(8..12) == Some(REQUEST_TIMEOUT);
        if !start.is_empty() && !is_timeout {
            self.0.set(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_timeout_before_the_end_of_the_stream_is_no_surplus() {
        for (start, is_surplus) in [
            (&b"HTTP/1.1 200 OK\r\n"[..], true),
            (b"x", true),
            (b"HTTP/1.1 408 Request Timeout\r\n", false),
            (b"HTTP/1.0 408 Request Time-out\r\n", false),
            (b"", false),
        ] {
            let surplus = SurplusFlag::default();
            surplus.note(start);
            assert_eq!(surplus.take(), is_surplus, "{start:?}");
            assert!(!surplus.take());
        }
    }
}
