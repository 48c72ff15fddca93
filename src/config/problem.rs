//! What can be wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;

/// The way to a key, as in `routes[2].access.owner`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyPath(Vec<Step>);

/// One step of a [`KeyPath`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Into a table.
    Key(String),
    /// Into a list, counted from 0.
    Index(usize),
}

impl KeyPath {
    /// The path of a section, such as `listen`.
    pub fn of(section: &str) -> Self {
        Self::default().key(section)
    }

    /// This path and one key more.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Key(key.to_owned()));
        path
    }

    /// This path and one index more.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        let mut path = self.clone();
        path.0.push(Step::Index(index));
        path
    }

    /// Every step from the root.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// The path around the last step, and the key that the last step is.
    pub(crate) fn split_last(&self) -> (Self, Option<String>) {
        let mut parent = self.clone();
        match parent.0.pop() {
            Some(Step::Key(key)) => (parent, Some(key)),
            Some(Step::Index(_)) | None => (parent, None),
        }
    }

    /// Takes the last step away. False if there was none.
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

/// One thing that must be mended before the configuration can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where the text stands, counted from 1; none if the trouble is not in the text.
    pub line: Option<usize>,
    /// Which key it is about.
    pub path: KeyPath,
    /// What is wrong and what would be right.
    pub message: String,
}

/// All problems of one configuration.
#[derive(Debug, Clone)]
pub struct Problems {
    /// The file that was read.
    pub file: PathBuf,
    /// In the order of their lines.
    pub all: Vec<Problem>,
}

impl Problems {
    /// Puts the problems in the order of their lines.
    pub(super) fn sort(&mut self) {
        self.all.sort_by_key(|problem| problem.line);
    }
}

impl Problems {
    /// Each problem with its file and its line.
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
