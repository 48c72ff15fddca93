//! Short access lines for people: status, method, path, duration, subject, and the cause of a refusal.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use http::StatusCode;
use http::uri::PathAndQuery;

use crate::observe::Record;

use super::{MAX_PATH_BYTES, printable, truncate};

/// Width of the path in a line.
const PATH_WIDTH: usize = 32;

/// Writes one line, with its end of line.
pub(super) fn write(line: &mut String, record: &Record<'_>, color: bool) {
    let status = record.status;
    let path = record.target.map_or("*", PathAndQuery::path);
    let path = printable(truncate(path, MAX_PATH_BYTES));
    let millis = record.elapsed.as_secs_f64() * 1000.0;
    let (style, dim) = if color {
        (style_of(status), Style::new().dimmed())
    } else {
        (Style::new(), Style::new())
    };
    // Writing to a string cannot fail.
    let _ = write!(
        line,
        "{style}{}{style:#}  {:<7} {path:<PATH_WIDTH$} {dim}{millis:>8.1} ms{dim:#}",
        status.as_u16(),
        record.method.as_str(),
    );
    if let Some(caller) = record.caller {
        let _ = write!(line, "  {}", printable(caller.subject.as_str()));
    }
    if let Some(reason) = record.reason {
        let _ = write!(
            line,
            "  {style}{reason}{style:#}  {dim}claimgate why {}{dim:#}",
            record.request_id
        );
    }
    line.push('\n');
}

/// Style of a status, by its class.
fn style_of(status: StatusCode) -> Style {
    let color = match status.as_u16() {
        ..300 => AnsiColor::Green,
        300..400 => AnsiColor::Cyan,
        400..500 => AnsiColor::Yellow,
        500.. => AnsiColor::Red,
    };
    color.on_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn line(record: &Record<'_>, color: bool) -> String {
        let mut line = String::new();
        write(&mut line, record, color);
        line
    }

    #[test]
    fn writes_one_aligned_line_without_a_query() {
        let target = PathAndQuery::from_static("/admin?token=secret");
        let mut record = Record::of("70326a4f", &target);
        record.elapsed = Duration::from_micros(3140);
        assert_eq!(
            line(&record, false),
            "404  GET     /admin                                3.1 ms  no_route  claimgate why 70326a4f\n"
        );
        let coloured = line(&record, true);
        assert!(
            coloured.starts_with("\u{1b}[33m404\u{1b}[0m"),
            "{coloured:?}"
        );
    }

    #[test]
    fn escapes_control_characters_of_the_path() {
        let target = PathAndQuery::from_maybe_shared("/a\u{202e}b").unwrap();
        let record = Record::of("1", &target);
        assert!(
            line(&record, false).contains("/a\\u{202e}b"),
            "{}",
            line(&record, false)
        );
    }
}
