//! Lines on their way to standard error. Each thread appends to its own buffer, and one thread writes all of them.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Bytes that wait to be written, in all buffers together, before further lines are dropped.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Least share of one buffer in [`MAX_BYTES`].
const MIN_SHARE: usize = 64 * 1024;

/// Capacity that an empty buffer keeps, at most.
const MAX_EMPTY_CAPACITY: usize = 256 * 1024;

/// Least time between two rounds of the writer. A first line after a pause is written at once.
const INTERVAL: Duration = Duration::from_millis(5);

/// Longest write of several lines. A write up to `PIPE_BUF` is atomic: no other process with the same pipe as its standard
/// error can write into a line.
const MAX_WRITE: usize = 4096;

/// Buffers of all threads, and their writer.
#[derive(Debug, Default)]
pub(super) struct Queue {
    buffers: Mutex<Vec<Arc<Buffer>>>,
    /// Size at which a buffer is full.
    share: AtomicUsize,
    /// True while the writer waits for a line.
    is_waiting: AtomicBool,
    writer: OnceLock<Thread>,
    dropped: Arc<AtomicU64>,
    flushes: Mutex<Flushes>,
    /// Notified after each round that was requested.
    flushed: Condvar,
}

/// Number of requested flushes, and of those that are done.
#[derive(Debug, Default)]
struct Flushes {
    requested: u64,
    done: u64,
}

/// Lines of one thread. Only this thread appends, so only the writer contends for the lock, to swap the bytes.
#[derive(Debug, Default)]
pub(super) struct Buffer(Mutex<Vec<u8>>);

/// Lines dropped because a buffer was full.
#[derive(Debug, Clone)]
pub struct DroppedLines(Arc<AtomicU64>);

impl DroppedLines {
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Queue {
    /// Starts a thread that writes to `sink`.
    pub(super) fn start(sink: impl Write + Send + 'static) -> io::Result<Arc<Self>> {
        let queue = Arc::<Self>::default();
        let writer = Arc::clone(&queue);
        let thread = thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || writer.write_to(sink))?;
        let _first = queue.writer.set(thread.thread().clone());
        Ok(queue)
    }

    pub(super) fn dropped(&self) -> DroppedLines {
        DroppedLines(Arc::clone(&self.dropped))
    }

    /// Adds a buffer for the current thread. The buffer leaves the queue when its thread ends and its lines are written.
    pub(super) fn register(&self) -> Arc<Buffer> {
        let buffer = Arc::<Buffer>::default();
        let mut buffers = lock(&self.buffers);
        buffers.push(Arc::clone(&buffer));
        self.set_share(buffers.len());
        buffer
    }

    /// Appends one line, with its end of line. A full buffer drops it: no thread waits for the writer.
    pub(super) fn append(&self, buffer: &Buffer, line: &[u8]) {
        let mut lines = lock(&buffer.0);
        if lines.len() >= self.share.load(Ordering::Relaxed) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        lines.extend_from_slice(line);
        drop(lines);
        // The lock orders the append and the writer's look at this buffer: either that look finds the line, or this load
        // finds the writer waiting.
        if self.is_waiting.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Waits until all lines appended so far are written, at most for `timeout`.
    pub(super) fn flush(&self, timeout: Duration) {
        let mut flushes = lock(&self.flushes);
        flushes.requested += 1;
        let requested = flushes.requested;
        self.is_waiting.store(false, Ordering::Relaxed);
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
        let is_pending = |flushes: &mut Flushes| flushes.done < requested;
        let _timed_out = self
            .flushed
            .wait_timeout_while(flushes, timeout, is_pending);
    }

    fn wake(&self) {
        // Of several threads, one wakes the writer.
        if self.is_waiting.swap(false, Ordering::Relaxed)
            && let Some(writer) = self.writer.get()
        {
            writer.unpark();
        }
    }

    /// Writes lines as long as the process lives.
    fn write_to(&self, mut sink: impl Write) {
        let _first = self.writer.set(thread::current());
        let mut buffers = Vec::new();
        let mut lines = Vec::new();
        let mut last = None;
        loop {
            self.wait();
            if let Some(rest) = last.and_then(|last: Instant| INTERVAL.checked_sub(last.elapsed()))
                && self.requested_flush().is_none()
            {
                thread::park_timeout(rest);
            }
            last = Some(Instant::now());
            let flush = self.requested_flush();
            // A thread that registers must not wait for a write.
            buffers.clone_from(&lock(&self.buffers));
            for buffer in buffers.drain(..) {
                std::mem::swap(&mut *lock(&buffer.0), &mut lines);
                write_lines(&mut sink, &lines);
                lines.clear();
                lines.shrink_to(MAX_EMPTY_CAPACITY);
            }
            if let Some(requested) = flush {
                lock(&self.flushes).done = requested;
                self.flushed.notify_all();
            }
        }
    }

    /// Waits for a line or a requested flush.
    fn wait(&self) {
        self.is_waiting.store(true, Ordering::Relaxed);
        if self.has_lines() || self.requested_flush().is_some() {
            self.is_waiting.store(false, Ordering::Relaxed);
        }
        while self.is_waiting.load(Ordering::Relaxed) {
            thread::park();
        }
    }

    /// Returns whether a buffer has lines. Forgets the empty buffers of threads that have ended.
    fn has_lines(&self) -> bool {
        let mut buffers = lock(&self.buffers);
        let mut has_lines = false;
        buffers.retain(|buffer| {
            let is_empty = lock(&buffer.0).is_empty();
            has_lines |= !is_empty;
            !is_empty || Arc::strong_count(buffer) > 1
        });
        self.set_share(buffers.len());
        has_lines
    }

    fn set_share(&self, buffers: usize) {
        let share = MAX_BYTES / buffers.max(1);
        self.share.store(share.max(MIN_SHARE), Ordering::Relaxed);
    }

    /// Number of the last requested flush that is not done.
    fn requested_flush(&self) -> Option<u64> {
        let flushes = lock(&self.flushes);
        (flushes.done < flushes.requested).then_some(flushes.requested)
    }
}

/// Writes whole lines, several at once up to [`MAX_WRITE`]. Lines that standard error does not take are lost.
fn write_lines(sink: &mut impl Write, mut lines: &[u8]) {
    while !lines.is_empty() {
        let is_end = |byte: &u8| *byte == b'\n';
        let last_end = match lines.get(..MAX_WRITE) {
            Some(start) => start.iter().rposition(is_end),
            None => lines.len().checked_sub(1),
        };
        let end = last_end.or_else(|| lines.iter().position(is_end));
        let length = end.map_or(lines.len(), |end| end + 1);
        let (now, later) = lines.split_at_checked(length).unwrap_or((lines, &[]));
        let _lost = sink.write_all(now);
        lines = later;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    /// Longest wait for the writer.
    const TIMEOUT: Duration = Duration::from_secs(20);

    /// Sink that sends each write, and waits until it is received.
    struct Writes(SyncSender<String>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            self.0.send(text).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start() -> (Arc<Queue>, Receiver<String>) {
        let (sender, receiver) = sync_channel(0);
        (Queue::start(Writes(sender)).unwrap(), receiver)
    }

    fn append(queue: &Queue, buffer: &Buffer, line: &str) {
        queue.append(buffer, line.as_bytes());
    }

    #[test]
    fn writes_a_line_without_a_later_one() {
        let (queue, writes) = start();
        let buffer = queue.register();
        for number in 0..200 {
            let line = format!("{number}\n");
            append(&queue, &buffer, &line);
            assert_eq!(writes.recv_timeout(TIMEOUT), Ok(line));
        }
    }

    #[test]
    fn keeps_the_lines_of_each_thread_whole_and_in_order() {
        const LINES: usize = 20_000;
        let (queue, writes) = start();
        let mut next = [0; 3];
        thread::scope(|scope| {
            for name in 0..next.len() {
                let queue = &queue;
                scope.spawn(move || {
                    let buffer = queue.register();
                    for number in 0..LINES {
                        append(queue, &buffer, &format!("{name} {number}\n"));
                    }
                });
            }
            while next != [LINES; 3] {
                let written = writes.recv_timeout(TIMEOUT).unwrap();
                assert!(written.ends_with('\n') && written.len() <= MAX_WRITE);
                for line in written.lines() {
                    let (name, number) = line.split_once(' ').unwrap();
                    let next = &mut next[name.parse::<usize>().unwrap()];
                    assert_eq!(number, next.to_string());
                    *next += 1;
                }
            }
        });
        assert_eq!(queue.dropped().count(), 0);
        // The threads have ended, and the writer keeps no buffer after its round.
        queue.flush(TIMEOUT);
        assert!(!queue.has_lines() && lock(&queue.buffers).is_empty());
    }

    #[test]
    fn drops_and_counts_lines_of_a_full_buffer() {
        let (queue, writes) = start();
        let (full, other) = (queue.register(), queue.register());
        append(&queue, &full, "first\n");
        // The writer waits for the receiver: no further line leaves a buffer.
        while !lock(&full.0).is_empty() {
            thread::yield_now();
        }
        let line = "x".repeat(1023) + "\n";
        let fitting = MAX_BYTES / 2 / line.len();
        for _ in 0..fitting + 3 {
            append(&queue, &full, &line);
        }
        append(&queue, &other, "other\n");
        assert_eq!(queue.dropped().count(), 3);
        let mut written = 0;
        while written < "first\nother\n".len() + fitting * line.len() {
            written += writes.recv_timeout(TIMEOUT).unwrap().len();
        }
        append(&queue, &full, "there is room again\n");
        assert_eq!(queue.dropped().count(), 3);
    }

    #[test]
    fn a_flush_waits_for_the_lines_or_the_timeout() {
        let (queue, writes) = start();
        let buffer = queue.register();
        queue.flush(TIMEOUT);
        for number in 0..100 {
            append(&queue, &buffer, "one\n");
            append(&queue, &buffer, "two\n");
            let written = thread::scope(|scope| {
                let flush = scope.spawn(|| queue.flush(TIMEOUT));
                let mut written = String::new();
                while written.len() < "one\ntwo\n".len() {
                    written += &writes.recv_timeout(TIMEOUT).unwrap();
                }
                flush.join().unwrap();
                written
            });
            assert_eq!(written, "one\ntwo\n", "{number}");
        }
        // Nothing receives this line.
        append(&queue, &buffer, "three\n");
        queue.flush(Duration::from_millis(20));
    }

    #[test]
    fn splits_writes_between_lines_only() {
        struct Sizes<'a>(&'a mut Vec<usize>);
        impl Write for Sizes<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.push(bytes.len());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writes = Vec::new();
        let line = |bytes: usize| "x".repeat(bytes - 1) + "\n";
        let lines = [
            line(3000),
            line(1096),
            line(1),
            line(5000),
            line(10),
            line(4096),
        ]
        .concat();
        write_lines(&mut Sizes(&mut writes), lines.as_bytes());
        assert_eq!(writes, [4096, 1, 5000, 10, 4096]);
    }
}
