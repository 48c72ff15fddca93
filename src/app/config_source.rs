//! Where the configuration comes from, and whether it is another now.

use std::path::{Path, PathBuf};

use crate::config::{ConfigDocument, KeyPath, Problem, Problems};
use crate::files::Contents;

/// At every so many looks all files are read, for changes that the system does not tell.
const FULL_READ_INTERVAL: usize = 20;

/// A configuration file and every file that it names, looked at again and again. To look, and not to be told, finds every
/// way in which a file can change: a link that is swapped, as Kubernetes does it, a file that is renamed to its place, or
/// one that is written over.
#[derive(Debug)]
pub struct ConfigSource {
    file: PathBuf,
    /// What was there when it was last tried.
    compiled: Contents,
    /// What is wrong with that.
    problems: Option<Problems>,
    /// What is there since the last look, and may be half written.
    pending: Option<Contents>,
    polls: usize,
}

/// What a look has found.
#[derive(Debug)]
pub(super) enum PollOutcome<T> {
    /// What was tried last.
    Unchanged,
    /// Something that may still be written.
    Unstable,
    /// Another configuration, or another content of a file that it names.
    Changed {
        /// What came of it.
        result: Result<T, Problems>,
        /// The files that have changed.
        files: Vec<PathBuf>,
    },
}

impl ConfigSource {
    /// Compiles a file, and notes the contents that its result depends on.
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

    /// Looks whether something has changed, and tries what is the same as at the last look, or whatever is there if
    /// somebody wishes it.
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
            // Written as they were: the next look need not read them again.
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

    /// What is wrong with what was tried last.
    pub(super) fn problems(&self) -> Option<&Problems> {
        self.problems.as_ref()
    }
}

/// Builds everything, and notes what is in the files on which it depends how that comes out. What changes while it is read
/// is found to have changed. `before` is what was noted the last time.
fn compile<T>(
    file: &Path,
    before: &Contents,
    compile: impl FnOnce(ConfigDocument) -> Result<T, Problems>,
) -> (Result<T, Problems>, Contents) {
    let text = Contents::of([file]);
    let document = match ConfigDocument::load(file) {
        Ok(document) => document,
        // What it names is not known.
        Err(problems) => return (Err(problems), before.clone().with(text)),
    };
    let policy_files = Contents::of(document.config.files()).with(text);
    let other_files = Contents::of(document.config.others_files());
    let result = compile(document);
    let contents = match result {
        Ok(_) => policy_files,
        // It may be their fault.
        Err(_) => other_files.with(policy_files),
    };
    (result, contents)
}

/// What was written into a pipe is gone.
fn pipe_problem(file: &Path, pipe: &Path) -> Problems {
    let problem = Problem {
        line: None,
        path: KeyPath::default(),
        message: format!("{} is a pipe and cannot be read again", pipe.display()),
    };
    Problems {
        file: file.to_owned(),
        all: vec![problem],
    }
}

#[cfg(test)]
mod tests;
