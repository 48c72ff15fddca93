//! Colours of the output.
//!
//! A style is written around its text, as in `{OK}ok{OK:#}`. [`say`](super::say) and [`warn`](super::warn) remove it where
//! the output is no terminal, `NO_COLOR` is set, or `--color never` says so.

use anstyle::{AnsiColor, Style};

/// Success.
pub(super) const OK: Style = AnsiColor::Green.on_default();

/// Failure.
pub(super) const FAIL: Style = AnsiColor::Red.on_default().bold();

/// Warning, or a problem that is not certain.
pub(super) const WARNING: Style = AnsiColor::Yellow.on_default().bold();

/// Text of lesser importance.
pub(super) const DIM: Style = Style::new().dimmed();

/// Heading, or the name of a thing.
pub(super) const BOLD: Style = Style::new().bold();

/// Command or address that the reader can copy.
pub(super) const COPY: Style = AnsiColor::Cyan.on_default();

/// Applies `--color` to all later output of this process.
pub(super) fn set_color(choice: clap::ColorChoice) {
    let choice = match choice {
        clap::ColorChoice::Auto => anstream::ColorChoice::Auto,
        clap::ColorChoice::Always => anstream::ColorChoice::Always,
        clap::ColorChoice::Never => anstream::ColorChoice::Never,
    };
    choice.write_global();
}

/// Colours a line of an explanation by its mark or its label.
pub(super) fn colored(line: &str) -> String {
    for (prefix, style) in [
        ("  ok ", OK),
        ("  FAIL ", FAIL),
        ("  - ", DIM),
        ("fix:", BOLD),
        ("see:", DIM),
        ("response ", BOLD),
    ] {
        if let Some(rest) = line.strip_prefix(prefix) {
            return format!("{style}{prefix}{style:#}{rest}");
        }
    }
    line.to_owned()
}
