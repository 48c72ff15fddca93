//! The exchanges whose spans wait to be sent.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::observe::Record;

use super::Finished;

/// How many may wait. What comes when there are so many is counted and forgotten, so that a collector that is away holds
/// up nothing.
const MAX_WAITING: usize = 4096;

/// How many are sent at once, at the most.
const BATCH: usize = 512;

/// How long the first of them may wait for others.
const GATHER: Duration = Duration::from_secs(1);

/// What waits, and what became of the rest. Written by every worker, emptied by the control thread.
#[derive(Debug, Default)]
pub struct Spans {
    queue: Mutex<Queue>,
    /// The first waits, or enough do, or no more will come.
    wanted: Notify,
    /// The last has been sent or given up.
    is_empty: Condvar,
    exported: AtomicU64,
    overflowed: AtomicU64,
    rejected: AtomicU64,
    unreachable: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Finished>,
    /// How many are on their way.
    taken: usize,
    is_closing: bool,
}

/// What became of spans that were to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanOutcome {
    /// The collector has it.
    Exported,
    /// Too many waited.
    Overflowed,
    /// The collector does not want it.
    Rejected,
    /// The collector could not be had, time and again.
    Unreachable,
}

impl SpanOutcome {
    /// All of them, each with its label.
    pub const ALL: [(Self, &str); 4] = [
        (Self::Exported, "exported"),
        (Self::Overflowed, "queue_full"),
        (Self::Rejected, "rejected"),
        (Self::Unreachable, "unreachable"),
    ];
}

impl Spans {
    /// Takes an exchange that is over, if its spans are to be sent.
    pub fn keep(&self, record: Record) {
        let Some(finished) = Finished::new(record) else {
            return;
        };
        let mut queue = self.lock();
        if queue.waiting.len() >= MAX_WAITING {
            drop(queue);
            self.count(SpanOutcome::Overflowed, finished.spans());
            return;
        }
        queue.waiting.push_back(finished);
        if matches!(queue.waiting.len(), 1 | BATCH) {
            self.wanted.notify_one();
        }
    }

    /// How many spans have come to this.
    pub fn counted(&self, outcome: SpanOutcome) -> u64 {
        self.counter(outcome).load(Ordering::Relaxed)
    }

    /// Waits until some are worth sending.
    pub(super) async fn due(&self) {
        self.wanted.notified().await;
        if !self.is_closing() {
            let _enough = timeout(GATHER, self.wanted.notified()).await;
        }
    }

    /// Waits so long, or until no more will come.
    pub(super) async fn rest(&self, pause: Duration) {
        let closing = async {
            while !self.is_closing() {
                self.wanted.notified().await;
            }
        };
        let _closing = timeout(pause, closing).await;
    }

    /// Those that are sent next.
    pub(super) fn take(&self) -> Vec<Finished> {
        let mut queue = self.lock();
        let count = queue.waiting.len().min(BATCH);
        queue.taken = count;
        if count == 0 {
            self.is_empty.notify_all();
        }
        queue.waiting.drain(..count).collect()
    }

    pub(super) fn count(&self, outcome: SpanOutcome, spans: usize) {
        self.counter(outcome)
            .fetch_add(spans as u64, Ordering::Relaxed);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.lock().is_closing
    }

    /// Has the last sent, and waits for that as long as it may.
    pub fn finish(&self, patience: Duration) {
        let mut queue = self.lock();
        queue.is_closing = true;
        self.wanted.notify_one();
        let waits = |queue: &mut Queue| queue.taken > 0 || !queue.waiting.is_empty();
        let _finished = self.is_empty.wait_timeout_while(queue, patience, waits);
    }

    fn counter(&self, outcome: SpanOutcome) -> &AtomicU64 {
        match outcome {
            SpanOutcome::Exported => &self.exported,
            SpanOutcome::Overflowed => &self.overflowed,
            SpanOutcome::Rejected => &self.rejected,
            SpanOutcome::Unreachable => &self.unreachable,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::gate::inbound::Scheme;
    use crate::observe::traces::{Trace, Tracing};

    fn sampled() -> Record {
        let tracing = Tracing {
            url: "http://127.0.0.1/v1/traces".parse().unwrap(),
            tls: crate::tls::client::client_config(None).unwrap(),
            service_name: String::new(),
            sample: 1.0,
            restart: false,
        };
        let trace = Trace::begin(&tracing, &HeaderMap::new(), Scheme::Http, false);
        Record {
            trace: Some(Box::new(trace)),
            ..Record::of("one", "/")
        }
    }

    #[test]
    fn so_many_wait_and_the_rest_is_counted() {
        let spans = Spans::default();
        let record = sampled();
        for _ in 0..MAX_WAITING + 3 {
            spans.keep(record.clone());
        }
        assert_eq!(spans.counted(SpanOutcome::Overflowed), 3);
        let mut batches = 0;
        while !spans.take().is_empty() {
            batches += 1;
        }
        assert_eq!(batches, MAX_WAITING / BATCH);
        spans.keep(record);
        assert_eq!(spans.take().len(), 1, "there is room again");
    }

    #[test]
    fn what_is_not_sampled_does_not_wait() {
        let spans = Spans::default();
        spans.keep(Record::of("one", "/"));
        assert!(spans.take().is_empty());
    }

    #[test]
    fn the_end_is_awaited_until_the_last_is_sent_and_no_longer_than_said() {
        let spans = Spans::default();
        spans.finish(Duration::from_mins(1));
        spans.keep(sampled());
        spans.finish(Duration::from_millis(1));
        assert_eq!(spans.take().len(), 1);
        std::thread::scope(|scope| {
            scope.spawn(|| spans.finish(Duration::from_mins(1)));
            assert!(spans.take().is_empty());
        });
    }
}
