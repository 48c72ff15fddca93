//! Messages about TOML syntax, with the fix of common mistakes.

use std::ops::Range;

/// Message of a syntax error at `span` of `text`.
pub(super) fn explain(text: &str, span: Range<usize>, message: &str) -> String {
    let line = line_at(text, span.start);
    match fix(text, &span, line, message) {
        Some(fix) => format!("{message}; {fix}"),
        None => message.to_owned(),
    }
}

fn fix(text: &str, span: &Range<usize>, line: &str, message: &str) -> Option<String> {
    if message.starts_with("duplicate key") {
        return Some(duplicate(text, span, line));
    }
    let key = line.split_once('=').map(|(key, _)| key.trim());
    if message.starts_with("string values must be quoted") {
        let key = key?;
        return Some(format!("write the value of `{key}` in double quotes"));
    }
    if message.starts_with("invalid boolean") {
        return Some("write true or false, in lowercase and without quotes".to_owned());
    }
    if text.trim_start().starts_with('{') {
        return Some("the file looks like JSON, and a configuration is TOML".to_owned());
    }
    if key.is_none() && line.contains(':') {
        return Some("write `KEY = VALUE` instead of `KEY: VALUE`".to_owned());
    }
    if message.contains("unicode") || message.contains("escape") {
        return Some(
            "a backslash starts an escape in double quotes: write `\\\\`, or use single quotes"
                .to_owned(),
        );
    }
    let trimmed = line.trim_start();
    if trimmed.starts_with('[') && trimmed.contains(' ') && message.starts_with("unclosed table") {
        return Some("put a name with a space in quotes, as in [issuers.\"my app\"]".to_owned());
    }
    if message.starts_with("unexpected key or value") && line.matches('=').count() > 1 {
        return Some("write each `KEY = VALUE` on a line of its own".to_owned());
    }
    None
}

/// Names a duplicate key, or the header of a duplicate table, with the line of the first.
fn duplicate(text: &str, span: &Range<usize>, line: &str) -> String {
    let number = |offset: usize| {
        1 + text
            .bytes()
            .take(offset)
            .filter(|byte| *byte == b'\n')
            .count()
    };
    let here = number(span.start);
    let before = || text.lines().take(here.saturating_sub(1)).enumerate();
    let header = line.trim();
    if header.starts_with('[') {
        let names = |line: &str| {
            let line = line.split('#').next().unwrap_or_default().trim();
            line.trim_matches(['[', ']']).trim().to_owned()
        };
        let first = before().find(|(_, other)| {
            other.trim_start().starts_with('[') && names(other) == names(header)
        });
        let name = names(header);
        return match first {
            Some((index, other)) if other.trim().starts_with("[[") != header.starts_with("[[") => {
                let first = index + 1;
                format!(
                    "`{name}` is `[[{name}]]` in one of the lines {first} and {here} and `[{name}]` in the other"
                )
            }
            Some((index, _)) => {
                format!(
                    "[{name}] is in line {} already: merge the two tables",
                    index + 1
                )
            }
            None => format!("`{name}` has a value already: remove one of them"),
        };
    }
    let key = text.get(span.clone()).unwrap_or_default().trim();
    let in_table = before()
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .take_while(|(_, line)| !line.trim_start().starts_with('['));
    let mut same = in_table.filter(|(_, line)| {
        let rest = line.trim_start().strip_prefix(key);
        rest.is_some_and(|rest| rest.trim_start().starts_with(['=', '.']))
    });
    match same.next() {
        Some((index, _)) => format!(
            "`{key}` is in line {} already: remove one of them",
            index + 1
        ),
        None => format!("`{key}` has a value already: remove one of them"),
    }
}

fn line_at(text: &str, offset: usize) -> &str {
    let (before, after) = text.split_at_checked(offset).unwrap_or((text, ""));
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let end = after.find('\n').map_or(text.len(), |at| offset + at);
    text.get(start..end).unwrap_or_default()
}
