//! Log on standard error, with an access line for each exchange.

mod access_line;
mod compact_line;
mod queue;
mod timestamp;

use std::cell::{OnceCell, RefCell};
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::Method;
use tracing::{Level, warn};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;

use crate::clock::Clock;
use crate::config::{Log as LogSettings, LogFormat, LogLevel};

use super::Record;
use super::library_warnings::LibraryWarnings;

use access_line::AccessLine;
pub use queue::DroppedLines;
use queue::{Buffer, Queue};

/// Reason of an exchange that ended before its response because the client closed the connection.
pub const CLIENT_CLOSED_REQUEST: &str = "client_closed_request";

/// Longest logged path, in bytes.
pub(super) const MAX_PATH_BYTES: usize = 1024;

/// Longest wait for standard error at the end of the process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Log of the process.
#[derive(Debug)]
struct Log {
    queue: Arc<Queue>,
    format: LogFormat,
    level: LevelFilter,
    /// True if compact lines have colours.
    has_color: bool,
}

static LOG: OnceLock<Log> = OnceLock::new();

thread_local! {
    static LINES: OnceCell<ThreadLines> = const { OnceCell::new() };
}

/// Lines of one thread.
#[derive(Debug)]
struct ThreadLines {
    buffer: Arc<Buffer>,
    access_line: RefCell<AccessLine>,
    compact_line: RefCell<String>,
}

impl ThreadLines {
    /// Calls `append` with the lines of the current thread, unless the thread ends.
    fn with(queue: &Queue, append: impl FnOnce(&Self)) {
        let _ending = LINES.try_with(|lines| {
            append(lines.get_or_init(|| Self {
                buffer: queue.register(),
                access_line: RefCell::default(),
                compact_line: RefCell::default(),
            }));
        });
    }
}

/// Writes the access line of one exchange. Authentication and authorization failures and 5xx responses are warnings.
/// Contains no token, query or body. `sample` is the logged share of successful exchanges, 0 to 1.
pub fn write(record: &Record<'_>, sample: f64) {
    let Some(Log {
        queue,
        format,
        level,
        has_color,
    }) = LOG.get()
    else {
        return;
    };
    let line_level = level_of(record);
    if line_level > *level {
        return;
    }
    let is_success = record.reason.is_none() && record.complete && record.status.as_u16() < 400;
    if is_success && sample < 1.0 && fastrand::f64() >= sample {
        return;
    }
    ThreadLines::with(queue, |lines| {
        if *format == LogFormat::Compact {
            if let Ok(mut line) = lines.compact_line.try_borrow_mut() {
                line.clear();
                compact_line::write(&mut line, record, *has_color);
                queue.append(&lines.buffer, line.as_bytes());
            }
            return;
        }
        // Already borrowed: the panic hook logs a panic of the encoder.
        if let Ok(mut line) = lines.access_line.try_borrow_mut() {
            let time = Clock::System.since_epoch();
            queue.append(
                &lines.buffer,
                line.encode(*format, time, line_level, record),
            );
        }
    });
}

fn level_of(record: &Record<'_>) -> Level {
    if record.is_auth_failure || record.status.is_server_error() {
        Level::WARN
    } else {
        Level::INFO
    }
}

/// Truncates a text to at most `bytes` bytes, at a character boundary.
pub(super) fn truncate(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

/// Escapes control and bidirectional formatting characters, which could forge log lines (CVE-2024-45808).
pub(crate) fn printable(text: &str) -> std::borrow::Cow<'_, str> {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        let is_bidi_control = matches!(character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || is_bidi_control {
            let _infallible = write!(escaped, "{}", character.escape_unicode());
        } else {
            escaped.push(character);
        }
    }
    escaped.into()
}

/// Label value of a method, `other` if it is not a route method: a client must not be able to create labels.
pub(super) fn method_label(method: &Method) -> &'static str {
    crate::gate::routes::METHODS
        .iter()
        .position(|known| known == method)
        .and_then(|at| {
            ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
                .get(at)
                .copied()
        })
        .unwrap_or("other")
}

/// Writer of one line that is already encoded.
#[derive(Debug)]
struct LineWriter(Arc<Queue>);

impl io::Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        ThreadLines::with(&self.0, |lines| self.0.append(&lines.buffer, line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the last lines when it is dropped.
#[derive(Debug)]
pub struct LogGuard(Arc<Queue>);

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.0.flush(FLUSH_TIMEOUT);
    }
}

/// Starts the log on standard error. A separate thread writes the lines; lines that it cannot write in time are dropped,
/// so that a slow disk never delays a request. The guard must live as long as the process.
pub fn start(settings: &LogSettings) -> io::Result<(LogGuard, DroppedLines)> {
    let queue = Queue::start(io::stderr())?;
    let dropped = queue.dropped();
    let guard = LogGuard(Arc::clone(&queue));
    let level = level_filter(settings.level);
    let writer = Arc::clone(&queue);
    let has_color = anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never;
    let lines = tracing_subscriber::fmt()
        .with_writer(move || LineWriter(Arc::clone(&writer)))
        .with_max_level(level);
    let started = match settings.format {
        LogFormat::Json => {
            let lines = lines
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false);
            let lines = lines.finish().with(targets(level));
            tracing::subscriber::set_global_default(lines.with(LibraryWarnings))
        }
        LogFormat::Text => {
            let lines = lines.with_ansi(false).compact();
            let lines = lines.finish().with(targets(level));
            tracing::subscriber::set_global_default(lines.with(LibraryWarnings))
        }
        LogFormat::Compact => {
            let lines = lines.with_ansi(false).without_time().with_target(false);
            let lines = lines.compact().finish().with(targets(level));
            tracing::subscriber::set_global_default(lines.with(LibraryWarnings))
        }
    };
    let log = Log {
        queue,
        format: settings.format,
        level,
        has_color,
    };
    if started.is_err() || LOG.set(log).is_err() {
        warn!("failed to start the log: it is already started");
    }
    Ok((guard, dropped))
}

/// Writes the last lines before an exit of the process that drops no guard.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.queue.flush(FLUSH_TIMEOUT);
    }
}

fn level_filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    }
}

/// Filter by target: lines of the gate at `level`, and warnings of libraries, which [`LibraryWarnings`] counts. At debug, h2
/// writes lines for every frame.
fn targets(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target(env!("CARGO_CRATE_NAME"), level)
}

#[cfg(test)]
mod tests {
    use tracing::Subscriber;

    use super::*;

    #[test]
    fn limits_the_lines_of_libraries_to_warnings() {
        let debug = targets(level_filter(LogLevel::Debug));
        for target in ["claimgate", "claimgate::access", "claimgate::proxy"] {
            assert!(debug.would_enable(target, &Level::DEBUG), "{target}");
            assert!(!debug.would_enable(target, &Level::TRACE), "{target}");
        }
        assert!(debug.would_enable("h2::codec", &Level::WARN));
        assert!(!debug.would_enable("h2::codec", &Level::INFO));

        let error = targets(level_filter(LogLevel::Error));
        for target in ["claimgate::access", "h2::codec"] {
            assert!(error.would_enable(target, &Level::ERROR), "{target}");
            assert!(!error.would_enable(target, &Level::WARN), "{target}");
        }
    }

    #[test]
    fn the_filter_keeps_the_maximum_level_as_a_static_hint() {
        for (level, hint) in [
            (LogLevel::Error, LevelFilter::ERROR),
            (LogLevel::Warn, LevelFilter::WARN),
            (LogLevel::Info, LevelFilter::INFO),
            (LogLevel::Debug, LevelFilter::DEBUG),
        ] {
            let level = level_filter(level);
            let lines = tracing_subscriber::fmt().with_max_level(level).finish();
            assert_eq!(lines.with(targets(level)).max_level_hint(), Some(hint));
        }
    }

    #[test]
    fn escapes_characters_that_could_forge_a_line() {
        assert_eq!(printable("alice@example.com"), "alice@example.com");
        assert_eq!(printable("Zoë"), "Zoë");
        assert_eq!(printable("a\r\nb\u{1b}[2J"), "a\\u{d}\\u{a}b\\u{1b}[2J");
        assert_eq!(printable("a\u{202e}b"), "a\\u{202e}b");
    }

    #[test]
    fn labels_an_unknown_method_as_other() {
        assert_eq!(method_label(&Method::PATCH), "PATCH");
        assert_eq!(method_label(&Method::from_bytes(b"BREW").unwrap()), "other");
    }
}
