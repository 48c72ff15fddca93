//! Configuration file on disk, and detection of its changes.

use std::path::{Path, PathBuf};

use crate::config::{ConfigDocument, Problems};
use crate::files::Contents;

/// Number of polls between full reads, which detect changes that leave the metadata of a file unchanged.
const FULL_READ_INTERVAL: usize = 20;

/// Polled configuration file, with all files that it refers to. Polling, unlike file notifications, detects every
/// kind of change: a swapped symbolic link, as in Kubernetes, a renamed file, or one overwritten in place.
#[derive(Debug)]
pub struct ConfigSource {
    file: PathBuf,
    /// Contents at the last compilation.
    compiled: Contents,
    /// Problems of the last compilation.
    problems: Option<Problems>,
    /// Changed contents of the last poll, which may be incomplete.
    pending: Option<Contents>,
    polls: usize,
}

/// Result of one poll.
#[derive(Debug)]
pub(super) enum PollOutcome<T> {
    /// Same contents as at the last compilation.
    Unchanged,
    /// Changed contents that may still be incomplete.
    Unstable,
    /// Changed contents, compiled.
    Changed {
        /// Result of the compilation.
        result: Result<T, Problems>,
        /// Changed files.
        files: Vec<PathBuf>,
    },
}

impl ConfigSource {
    /// Compiles a file and records the contents that the result depends on.
    pub(super) fn open<T>(
        file: &Path,
        compile: impl FnOnce(ConfigDocument) -> Result<T, Problems>,
    ) -> (Result<T, Problems>, Self) {
        let (result, compiled) = self::compile(file, &Contents::default(), compile);
        let source = Self {
            file: file.to_owned(),
            compiled,
            problems: result.as_ref().err().cloned(),
            pending: None,
            polls: 0,
        };
        (result, source)
    }

    /// Reads the files. Compiles changed contents once two polls in a row agree on them, or at once if `requested`.
    pub(super) fn poll<T>(
        &mut self,
        requested: bool,
        compile: impl FnOnce(ConfigDocument) -> Result<T, Problems>,
    ) -> PollOutcome<T> {
        self.polls += 1;
        let current = self
            .compiled
            .again(requested || self.polls.is_multiple_of(FULL_READ_INTERVAL));
        let is_stable = self
            .pending
            .as_ref()
            .is_some_and(|pending| pending.is_like(&current));
        self.pending = None;
        if current.is_like(&self.compiled) {
            // Keeps the new metadata, so that the next poll need not read the files.
            self.compiled = current;
            return PollOutcome::Unchanged;
        }
        if !is_stable && !requested {
            self.pending = Some(current);
            return PollOutcome::Unstable;
        }
        let (result, compiled) = match current.pipe() {
            Some(pipe) => (Err(pipe_problem(&self.file, pipe)), current.clone()),
            None => self::compile(&self.file, &current, compile),
        };
        if !compiled.again(true).is_like(&compiled) {
            return PollOutcome::Unstable;
        }
        let files = self
            .compiled
            .differences(&current)
            .map(Path::to_owned)
            .collect();
        self.compiled = compiled;
        self.problems = result.as_ref().err().cloned();
        PollOutcome::Changed { result, files }
    }

    /// Problems of the last compilation.
    pub(super) fn problems(&self) -> Option<&Problems> {
        self.problems.as_ref()
    }
}

/// Compiles the file and returns the contents that the result depends on. The contents are read first, so that a
/// concurrent change is detected by comparing them again. `before` are the contents of the last compilation.
fn compile<T>(
    file: &Path,
    before: &Contents,
    compile: impl FnOnce(ConfigDocument) -> Result<T, Problems>,
) -> (Result<T, Problems>, Contents) {
    let text = Contents::of([file]);
    let document = match ConfigDocument::load(file) {
        Ok(document) => document,
        // The files that it refers to are unknown: keep those of the last compilation.
        Err(problems) => return (Err(problems), before.clone().with(text)),
    };
    let policy_files = Contents::of(document.config.files()).with(text);
    let other_files = Contents::of(document.config.independent_files());
    let result = compile(document);
    let contents = match result {
        Ok(_) => policy_files,
        // The problem may be in the certificates of listeners.
        Err(_) => other_files.with(policy_files),
    };
    (result, contents)
}

/// Problem of a named pipe, which can be read only once.
fn pipe_problem(file: &Path, pipe: &Path) -> Problems {
    let message = format!("{} is a pipe and cannot be read again", pipe.display());
    Problems::of_source(file, message)
}

#[cfg(test)]
mod tests;
