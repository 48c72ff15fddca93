//! Warnings of libraries: counted, never logged one by one. A client can provoke them at any rate, such as with HTTP/2 PING
//! acknowledgements without a PING, and the gate has no control over their text.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tracing::{Event, Subscriber, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Libraries with a label of their own; all others share the last.
const LIBRARIES: [&str; 4] = ["h2", "hyper", "rustls", "other"];

/// Least time between two lines about warnings of libraries.
const LINE_INTERVAL: Duration = Duration::from_mins(1);

/// Warnings and errors by library, in the order of [`LIBRARIES`].
static COUNTS: [AtomicU64; LIBRARIES.len()] = [const { AtomicU64::new(0) }; LIBRARIES.len()];

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Earliest time of the next line, in seconds since [`START`].
static NEXT_LINE: AtomicU64 = AtomicU64::new(0);

/// Counts the events of libraries and keeps them out of the log. One line a minute tells of them.
#[derive(Debug)]
pub(super) struct LibraryWarnings;

impl<S: Subscriber> Layer<S> for LibraryWarnings {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        let target = event.metadata().target();
        let library = target.split("::").next().unwrap_or_default();
        if library == env!("CARGO_CRATE_NAME") {
            return true;
        }
        count(library);
        false
    }
}

/// Number of warnings and errors by library.
pub(super) fn counts() -> [(&'static str, u64); LIBRARIES.len()] {
    let mut counts = LIBRARIES.map(|library| (library, 0));
    for ((_, number), count) in counts.iter_mut().zip(&COUNTS) {
        *number = count.load(Ordering::Relaxed);
    }
    counts
}

fn count(library: &str) {
    let known = LIBRARIES.iter().position(|known| *known == library);
    let index = known.unwrap_or(LIBRARIES.len() - 1);
    let (Some(name), Some(count)) = (LIBRARIES.get(index), COUNTS.get(index)) else {
        return;
    };
    let total = count.fetch_add(1, Ordering::Relaxed) + 1;
    let now = START.elapsed().as_secs();
    let next = NEXT_LINE.load(Ordering::Relaxed);
    let after = now + LINE_INTERVAL.as_secs();
    let order = Ordering::Relaxed;
    // Of several workers, one writes the line.
    if now >= next
        && NEXT_LINE
            .compare_exchange(next, after, order, order)
            .is_ok()
    {
        warn!(
            library = name,
            warnings = total,
            "a library warned; warnings of the next minute are only counted"
        );
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::registry;

    use super::*;

    #[test]
    fn counts_the_warnings_of_libraries_under_a_closed_set_of_labels() {
        let of = |name: &str| {
            let found = counts().into_iter().find(|(library, _)| *library == name);
            found.unwrap().1
        };
        let (h2, other) = (of("h2"), of("other"));
        tracing::subscriber::with_default(registry().with(LibraryWarnings), || {
            for _ in 0..3 {
                warn!(target: "h2::proto::ping_pong", "recv PING ack that we never sent");
            }
            warn!(target: "elsewhere", "noise");
            warn!(target: "claimgate::access", "a line of the gate");
        });
        assert_eq!((of("h2"), of("other")), (h2 + 3, other + 1));
        assert_eq!(counts().map(|(library, _)| library), LIBRARIES);
    }
}
