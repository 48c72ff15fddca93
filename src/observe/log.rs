//! Log on standard error, with an access line for each exchange.

use std::fmt::Write;

use http::Method;
use tracing::{info, warn};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;

use crate::config::{Log, LogFormat, LogLevel};
use crate::gate::refusal::Stage;

use super::Record;
use super::library_warnings::LibraryWarnings;

/// Reason of an exchange that ended before its response because the client closed the connection.
pub const CLIENT_CLOSED_REQUEST: &str = "client_closed_request";

/// Longest logged path, in bytes.
pub(super) const MAX_PATH_BYTES: usize = 1024;

/// Lines that wait to be written before further lines are dropped.
const BUFFERED_LINES: usize = 8192;

/// Writes the access line of one exchange. Authentication and authorization failures and 5xx responses are warnings.
/// Contains no token, query or body. `sample` is the logged share of successful exchanges, 0 to 1.
pub fn write(record: &Record, sample: f64) {
    let Record {
        method,
        target,
        route,
        status,
        reason,
        stage,
        cause,
        is_auth_failure,
        caller,
        client,
        request_id,
        elapsed,
        gate: _,
        upstream,
        request_bytes,
        response_bytes,
        complete,
        trace,
    } = record;
    let is_success = reason.is_none() && *complete && status.as_u16() < 400;
    if is_success && sample < 1.0 && fastrand::f64() >= sample {
        return;
    }
    let path = target.as_ref().map_or("*", |target| target.path());
    let path = printable(truncate(path, MAX_PATH_BYTES));
    let route = route.as_ref().map(|route| route.pattern.as_ref());
    let subject = caller
        .as_ref()
        .map(|caller| printable(caller.subject.as_str()));
    let issuer = caller.as_ref().map(|caller| &*caller.issuer);
    let client = client.map(tracing::field::display);
    let upstream_ms = upstream.map(millis);
    let request_id = request_id.to_str().unwrap_or_default();
    let trace_id = trace.as_ref().map(|trace| trace.id());
    macro_rules! line {
        ($write:ident, $text:literal) => {
            $write!(
                target: "claimgate::access",
                method = method.as_str(),
                route,
                path = path.as_ref(),
                status = status.as_u16(),
                reason,
                stage = stage.map(Stage::name),
                cause = cause.as_deref(),
                subject = subject.as_deref(),
                issuer,
                client,
                duration_ms = millis(*elapsed),
                upstream_ms,
                request_bytes,
                response_bytes,
                complete,
                request_id,
                trace_id,
                $text
            )
        };
    }
    let is_warning = *is_auth_failure || status.is_server_error();
    match (is_warning, reason) {
        (true, Some(_)) => line!(warn, "request rejected"),
        (true, None) => line!(warn, "request completed"),
        (false, Some(CLIENT_CLOSED_REQUEST)) => line!(info, "client closed request"),
        (false, Some(_)) => line!(info, "request rejected"),
        (false, None) => line!(info, "request completed"),
    }
}

/// Milliseconds with three decimals.
fn millis(duration: std::time::Duration) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "an exchange does not last for centuries"
    )]
    let micros = duration.as_micros() as f64;
    micros / 1000.0
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

/// Starts the log on standard error. A separate thread writes the lines; lines that it cannot write in time are dropped,
/// so that a slow disk never delays a request. The guard must live as long as the process.
pub fn start(settings: &Log) -> (WorkerGuard, ErrorCounter) {
    let (writer, guard): (NonBlocking, WorkerGuard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(BUFFERED_LINES)
        .finish(std::io::stderr());
    let dropped = writer.error_counter();
    let level = level_filter(settings.level);
    let lines = tracing_subscriber::fmt()
        .with_writer(writer)
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
    };
    if started.is_err() {
        warn!("failed to start the log: it is already started");
    }
    (guard, dropped)
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
    use tracing::{Level, Subscriber};

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
