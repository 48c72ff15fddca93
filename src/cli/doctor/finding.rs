//! One result of `claimgate doctor`.

use serde_json::{Value, json};

use super::super::say;
use super::super::terminal::{BOLD, FAIL, OK, WARNING};

/// Result of one test.
#[derive(Debug)]
pub(super) struct Finding {
    /// The tested thing.
    subject: String,
    outcome: Outcome,
    text: String,
    /// Further facts, one line each.
    pub(super) more: Vec<String>,
    fix: Option<String>,
    /// Fixes that were tried, one line each.
    pub(super) suggestions: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    /// Does not change the exit code.
    Warning,
    Failed,
}

impl Finding {
    pub(super) fn passed(subject: &str, text: impl Into<String>) -> Self {
        Self {
            subject: subject.to_owned(),
            outcome: Outcome::Passed,
            text: text.into(),
            more: Vec::new(),
            fix: None,
            suggestions: Vec::new(),
        }
    }

    pub(super) fn warning(subject: &str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::Warning,
            fix: Some(fix.into()),
            ..Self::passed(subject, text)
        }
    }

    pub(super) fn failed(subject: &str, text: impl Into<String>, fix: Option<String>) -> Self {
        Self {
            outcome: Outcome::Failed,
            fix,
            ..Self::passed(subject, text)
        }
    }

    pub(super) fn is_failure(&self) -> bool {
        self.outcome == Outcome::Failed
    }

    pub(super) fn print(&self) {
        let Self {
            subject,
            outcome,
            text,
            more,
            fix,
            suggestions,
        } = self;
        let (style, mark) = match outcome {
            Outcome::Passed => (OK, "ok"),
            Outcome::Warning => (WARNING, "warn"),
            Outcome::Failed => (FAIL, "FAIL"),
        };
        say(format_args!("{style}{mark:<5}{style:#} {subject}: {text}"));
        for line in more {
            say(format_args!("        {line}"));
        }
        if let Some(fix) = fix {
            say(format_args!("        {BOLD}fix:{BOLD:#} {fix}"));
        }
        for suggestion in suggestions {
            say(format_args!("        {BOLD}{suggestion}{BOLD:#}"));
        }
    }

    pub(super) fn to_json(&self) -> Value {
        let Self {
            subject,
            outcome,
            text,
            more,
            fix,
            suggestions,
        } = self;
        let result = match outcome {
            Outcome::Passed => "passed",
            Outcome::Warning => "warning",
            Outcome::Failed => "failed",
        };
        json!({
            "subject": subject,
            "result": result,
            "text": text,
            "more": more,
            "fix": fix,
            "suggestions": suggestions,
        })
    }
}
