//! Deadlines of a response body or a WebSocket.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::gate::refusal::Refusal;

use super::deadline_timer::DeadlineTimer;

/// Limits on the life of a response body or a WebSocket. The gate ends the stream at the first of them.
#[derive(Default)]
pub struct StreamDeadlines {
    /// Expiry of the token that permits the stream.
    pub expiry: Option<Instant>,
    /// Deadline of the whole exchange.
    pub deadline: Option<Instant>,
    /// Longest time without progress; zero is unlimited.
    pub idle_timeout: Duration,
    /// Resolves with the reason when the permission ends for another cause.
    pub revocation: Option<Pin<Box<dyn Future<Output = Refusal>>>>,
    /// First poll without progress since the last progress.
    idle_since: Option<Instant>,
    timer: DeadlineTimer,
}

impl StreamDeadlines {
    /// Deadlines without expiry or revocation.
    pub fn new(idle_timeout: Duration, deadline: Option<Instant>) -> Self {
        Self {
            deadline,
            idle_timeout,
            ..Self::default()
        }
    }

    /// Notes progress. Returns the reason if a deadline has passed.
    pub fn note_progress(&mut self) -> Option<Refusal> {
        self.idle_since = None;
        // Most responses have no such deadline and need no clock.
        if self.expiry.is_none() && self.deadline.is_none() {
            return None;
        }
        self.passed(Instant::now())
    }

    /// Notes a poll without progress. Ready with the reason when the stream must end.
    pub fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Refusal> {
        if let Some(revocation) = &mut self.revocation
            && let Poll::Ready(refusal) = revocation.as_mut().poll(context)
        {
            self.revocation = None;
            return Poll::Ready(refusal);
        }
        let idle_since = *self.idle_since.get_or_insert_with(Instant::now);
        let idle = (!self.idle_timeout.is_zero()).then(|| idle_since + self.idle_timeout);
        let earliest = [self.expiry, self.deadline, idle]
            .into_iter()
            .flatten()
            .min();
        match earliest {
            Some(earliest) if self.timer.elapsed(earliest, context) => {
                Poll::Ready(self.passed(earliest).unwrap_or(Refusal::UpstreamTimeout))
            }
            Some(_) | None => Poll::Pending,
        }
    }

    fn passed(&self, now: Instant) -> Option<Refusal> {
        let is_past = |deadline: Option<Instant>| deadline.is_some_and(|deadline| now >= deadline);
        if is_past(self.expiry) {
            Some(Refusal::TokenExpired)
        } else if is_past(self.deadline) {
            Some(Refusal::UpstreamTimeout)
        } else {
            None
        }
    }
}

impl fmt::Debug for StreamDeadlines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamDeadlines")
            .field("expiry", &self.expiry)
            .field("deadline", &self.deadline)
            .field("idle_timeout", &self.idle_timeout)
            .finish_non_exhaustive()
    }
}
