//! Problems of a configuration and their positions.

use std::fmt;
use std::path::PathBuf;

/// Path of a key, such as `routes[2].access.owner`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyPath(Vec<Step>);

/// One step of a [`KeyPath`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Key of a table.
    Key(String),
    /// Index of an array, counted from 0.
    Index(usize),
}

impl KeyPath {
    /// Path of a section, such as `listen`.
    pub fn of(section: &str) -> Self {
        Self::default().key(section)
    }

    /// Appends a key.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Key(key.to_owned()));
        path
    }

    /// Appends an index.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Index(index));
        path
    }

    /// Steps from the root.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Splits off the last step: the parent path, and the key if the last step is one.
    pub(crate) fn split_last(&self) -> (Self, Option<String>) {
        let mut parent = self.clone();
        match parent.0.pop() {
            Some(Step::Key(key)) => (parent, Some(key)),
            Some(Step::Index(_)) | None => (parent, None),
        }
    }

    /// Removes the last step. Returns false if the path was empty.
    pub(super) fn pop(&mut self) -> bool {
        self.0.pop().is_some()
    }

    pub(super) fn prepend(&mut self, step: Step) {
        self.0.insert(0, step);
    }

    pub(super) fn starts_with(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if position == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// One problem that prevents the use of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line, counted from 1. None if the problem is not in the text, such as an unreadable file.
    pub line: Option<usize>,
    /// Path of the key.
    pub path: KeyPath,
    /// Violated rule, value and fix.
    pub message: String,
}

/// All problems of one configuration file.
#[derive(Debug, Clone)]
pub struct Problems {
    /// The configuration file.
    pub file: PathBuf,
    /// Sorted by line.
    pub all: Vec<Problem>,
}

impl Problem {
    /// Problem of the configuration as a whole.
    pub fn of_source(message: impl Into<String>) -> Self {
        Self {
            line: None,
            path: KeyPath::default(),
            message: message.into(),
        }
    }
}

impl Problems {
    /// A single problem of the configuration as a whole.
    pub fn of_source(file: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            all: vec![Problem::of_source(message)],
        }
    }

    /// Sorts the problems by line.
    pub(super) fn sort(&mut self) {
        self.all.sort_by_key(|problem| problem.line);
    }
}

impl Problems {
    /// Formats each problem as `file:line: key: message`.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let file = self.file.display();
        self.all.iter().map(move |problem| {
            let line = problem.line.map(|line| format!(":{line}"));
            let path = &problem.path;
            let path = (!path.steps().is_empty()).then(|| format!(": {path}"));
            let (line, path) = (line.unwrap_or_default(), path.unwrap_or_default());
            format!("{file}{line}{path}: {}", problem.message)
        })
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.lines().collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Problems {}
