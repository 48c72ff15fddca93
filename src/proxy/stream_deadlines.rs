//! How long an answer or a WebSocket may go on.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::gate::refusal::Refusal;

use super::deadline_timer::DeadlineTimer;

/// What ends an answer or a WebSocket that goes on for too long, whatever its two sides want.
#[derive(Default)]
pub struct StreamDeadlines {
    /// When the token that allows it expires.
    pub expiry: Option<Instant>,
    /// When the whole exchange must be over.
    pub overdue: Option<Instant>,
    /// How long it may stand still; zero is no limit.
    pub idle: Duration,
    /// Tells that it is not allowed any more, and why.
    pub revocation: Option<Pin<Box<dyn Future<Output = Refusal>>>>,
    moved: Option<Instant>,
    timer: DeadlineTimer,
}

impl StreamDeadlines {
    /// One that ends when nothing has moved for `idle`, or when the exchange is overdue.
    pub fn new(idle: Duration, overdue: Option<Instant>) -> Self {
        Self {
            overdue,
            idle,
            ..Self::default()
        }
    }

    /// Something has come. Tells whether it comes too late.
    pub fn moves(&mut self) -> Option<Refusal> {
        self.moved = None;
        // The time is asked only if somebody set one: most answers are over before.
        if self.expiry.is_none() && self.overdue.is_none() {
            return None;
        }
        self.passed(Instant::now())
    }

    /// Nothing has come. Tells when that has lasted too long, or when it must end for another reason.
    pub fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Refusal> {
        if let Some(revocation) = &mut self.revocation
            && let Poll::Ready(refusal) = revocation.as_mut().poll(context)
        {
            self.revocation = None;
            return Poll::Ready(refusal);
        }
        let moved = *self.moved.get_or_insert_with(Instant::now);
        let idle = (!self.idle.is_zero()).then(|| moved + self.idle);
        let earliest = [self.expiry, self.overdue, idle]
            .into_iter()
            .flatten()
            .min();
        match earliest {
            Some(deadline) if self.timer.elapsed(deadline, context) => {
                Poll::Ready(self.passed(deadline).unwrap_or(Refusal::UpstreamTimeout))
            }
            Some(_) | None => Poll::Pending,
        }
    }

    fn passed(&self, now: Instant) -> Option<Refusal> {
        let is_past = |deadline: Option<Instant>| deadline.is_some_and(|deadline| now >= deadline);
        if is_past(self.expiry) {
            Some(Refusal::TokenExpired)
        } else if is_past(self.overdue) {
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
            .field("overdue", &self.overdue)
            .field("idle", &self.idle)
            .finish_non_exhaustive()
    }
}
