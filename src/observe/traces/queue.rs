//! Export queue of sampled exchanges.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::observe::Record;

use super::SampledExchange;

/// Capacity of the queue, in exchanges. Exchanges beyond it are counted and dropped, so that an unreachable collector
/// delays no request.
const CAPACITY: usize = 4096;

/// Exchanges in one batch, at most.
const BATCH: usize = 512;

/// Delay before a batch that is not full is sent.
const BATCH_DELAY: Duration = Duration::from_secs(1);

/// Queue of sampled exchanges, and the outcomes of their spans. Every worker pushes; the control thread exports.
#[derive(Debug, Default)]
pub struct Spans {
    queue: Mutex<Queue>,
    /// Notified by the first exchange, by a full batch, and at the end.
    ready: Notify,
    /// Notified when the last batch is exported or dropped.
    drained: Condvar,
    exported: AtomicU64,
    queue_full: AtomicU64,
    rejected: AtomicU64,
    unreachable: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<SampledExchange>,
    /// Exchanges of the current batch.
    in_flight: usize,
    is_closing: bool,
}

/// Outcome of a span's export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanOutcome {
    Exported,
    /// Dropped: the queue was full.
    QueueFull,
    /// Rejected by the collector.
    Rejected,
    /// Dropped after the last try.
    Unreachable,
}

impl SpanOutcome {
    /// Outcomes with their labels.
    pub const ALL: [(Self, &str); 4] = [
        (Self::Exported, "exported"),
        (Self::QueueFull, "queue_full"),
        (Self::Rejected, "rejected"),
        (Self::Unreachable, "unreachable"),
    ];
}

impl Spans {
    /// Adds a finished exchange, if it is sampled.
    pub fn push(&self, record: &Record<'_>) {
        let Some(exchange) = SampledExchange::new(record) else {
            return;
        };
        let mut queue = self.lock();
        if queue.waiting.len() >= CAPACITY {
            drop(queue);
            self.count(SpanOutcome::QueueFull, exchange.span_count());
            return;
        }
        queue.waiting.push_back(exchange);
        if matches!(queue.waiting.len(), 1 | BATCH) {
            self.ready.notify_one();
        }
    }

    /// Spans with this outcome.
    pub fn counted(&self, outcome: SpanOutcome) -> u64 {
        self.counter(outcome).load(Ordering::Relaxed)
    }

    /// Waits for a full batch, or for the delay after the first exchange.
    pub(super) async fn batch_ready(&self) {
        self.ready.notified().await;
        if !self.is_closing() {
            let _full = timeout(BATCH_DELAY, self.ready.notified()).await;
        }
    }

    /// Sleeps for `pause`, or until the last batch is due.
    pub(super) async fn sleep(&self, pause: Duration) {
        let closing = async {
            while !self.is_closing() {
                self.ready.notified().await;
            }
        };
        let _closing = timeout(pause, closing).await;
    }

    /// Takes the next batch out of the queue.
    pub(super) fn take(&self) -> Vec<SampledExchange> {
        let mut queue = self.lock();
        let count = queue.waiting.len().min(BATCH);
        queue.in_flight = count;
        if count == 0 {
            self.drained.notify_all();
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

    /// Exports the remaining exchanges, and waits for that until the timeout.
    pub fn finish(&self, timeout: Duration) {
        let mut queue = self.lock();
        queue.is_closing = true;
        self.ready.notify_one();
        let is_busy = |queue: &mut Queue| queue.in_flight > 0 || !queue.waiting.is_empty();
        let _finished = self.drained.wait_timeout_while(queue, timeout, is_busy);
    }

    fn counter(&self, outcome: SpanOutcome) -> &AtomicU64 {
        match outcome {
            SpanOutcome::Exported => &self.exported,
            SpanOutcome::QueueFull => &self.queue_full,
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
    use http::uri::PathAndQuery;

    use super::*;
    use crate::observe::traces::Trace;

    fn push(spans: &Spans, trace: Option<&Trace>) {
        let target = PathAndQuery::from_static("/");
        spans.push(&Record {
            trace,
            ..Record::of("one", &target)
        });
    }

    #[test]
    fn drops_and_counts_exchanges_beyond_its_capacity() {
        let spans = Spans::default();
        let trace = Trace::sampled();
        for _ in 0..CAPACITY + 3 {
            push(&spans, Some(&trace));
        }
        assert_eq!(spans.counted(SpanOutcome::QueueFull), 3);
        let mut batches = 0;
        while !spans.take().is_empty() {
            batches += 1;
        }
        assert_eq!(batches, CAPACITY / BATCH);
        push(&spans, Some(&trace));
        assert_eq!(spans.take().len(), 1, "there is room again");
    }

    #[test]
    fn ignores_an_exchange_that_is_not_sampled() {
        let spans = Spans::default();
        push(&spans, None);
        assert!(spans.take().is_empty());
    }

    #[test]
    fn finish_waits_for_the_last_batch_or_the_timeout() {
        let spans = Spans::default();
        spans.finish(Duration::from_mins(1));
        push(&spans, Some(&Trace::sampled()));
        spans.finish(Duration::from_millis(1));
        assert_eq!(spans.take().len(), 1);
        std::thread::scope(|scope| {
            scope.spawn(|| spans.finish(Duration::from_mins(1)));
            assert!(spans.take().is_empty());
        });
    }
}
