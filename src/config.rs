//! The configuration as written: plain structs, one file a section, every problem with its place.
//!
//! Nothing here is compiled: [`crate::app`] turns a [`Config`] into the parts that serve.

mod cors;
mod files;
mod identity;
mod issuer;
mod limit;
mod listen;
mod problem;
mod redis;
mod route;
mod rule;
mod tls;
mod tracing;
mod tree;
mod units;
mod upstream;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use cors::{Cors, RouteCors};
pub use identity::{Credential, Identity};
pub use issuer::{Encoding, Issuer, Keys};
pub use limit::{RateKey, RateLimit, RateLimits};
pub use listen::{Admin, Drain, Listen, Listener, Log, LogFormat, LogLevel};
pub use problem::{KeyPath, Problem, Problems, Step};
pub use redis::{Redis, WhenUnavailable};
pub use route::{Access, HeaderEdits, ReplacePrefix, Route, StreamEnd, TokenSource};
pub use rule::{CertificateField, ClaimRule, Scalar};
pub use tls::{CertificateFiles, ClientAuth, Tls, TlsVersion};
pub use tracing::Tracing;
use tree::{Fault, Node, ReadError};
pub use units::{Address, Network, OneOrMany};
pub use upstream::{Balance, Ejection, HealthCheck, Retries, Upstream, UpstreamTls};

/// A whole configuration file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where requests come in.
    pub listen: Listen,
    /// Where else they come in.
    pub listeners: Vec<Listener>,
    /// Probes and metrics.
    pub admin: Admin,
    /// How the gate stops.
    pub drain: Drain,
    /// What is logged.
    pub log: Log,
    /// What the upstream learns about the caller.
    pub identity: Identity,
    /// Which pages of other origins may call.
    pub cors: Option<Cors>,
    /// Where requests go, by name.
    pub upstreams: BTreeMap<String, Upstream>,
    /// Whose tokens are good, by name.
    pub issuers: BTreeMap<String, Issuer>,
    /// Where several gates count together how often callers come; left out, each counts for itself.
    pub redis: Option<Redis>,
    /// Where the spans of requests go; left out, there are none.
    pub tracing: Option<Tracing>,
    /// Which requests exist.
    pub routes: Vec<Route>,
}

/// A configuration with its text, so that a problem found later still has its line.
#[derive(Debug)]
pub struct ConfigDocument {
    /// What could be read.
    pub config: Config,
    file: PathBuf,
    root: Node,
    removed: Vec<KeyPath>,
    problems: Vec<Problem>,
    variables: BTreeMap<String, String>,
}

impl ConfigDocument {
    /// Reads a file. Fails only if nothing of it can be read; what is wrong with parts of it is kept
    /// for [`ConfigDocument::finish`], so that everything can be reported at once.
    pub fn load(file: &Path) -> Result<Self, Problems> {
        let text = std::fs::read_to_string(file).map_err(|error| Problems {
            file: file.to_owned(),
            all: vec![Problem {
                line: None,
                path: KeyPath::default(),
                message: format!("cannot be read: {error}"),
            }],
        })?;
        Self::parse(file, &text)
    }

    /// As [`ConfigDocument::load`], from text.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Problems> {
        let root = Node::parse(text).map_err(|errors| {
            let mut problems = Problems {
                file: file.to_owned(),
                all: errors.into_iter().map(syntax_problem).collect(),
            };
            problems.sort();
            problems
        })?;
        let mut document = Self {
            config: Config::default(),
            file: file.to_owned(),
            root,
            removed: Vec::new(),
            problems: Vec::new(),
            variables: BTreeMap::new(),
        };
        document.read();
        Ok(document)
    }

    /// Reads the document, and where a value is wrong notes that, takes the value away and reads on.
    fn read(&mut self) {
        let mut rest = self.root.clone();
        loop {
            let ReadError { path, fault } = match Config::deserialize(&rest) {
                Ok(config) => {
                    self.config = config;
                    return;
                }
                Err(error) => error,
            };
            // A key that is missing because its value was wrong has been reported already.
            let reported = match fault {
                Fault::MissingKey(key) => self.has(&path.key(key)) || self.was_misspelt(&path, key),
                Fault::UnknownKey(_) | Fault::Invalid(_) => false,
            };
            if !reported {
                self.report(path.clone(), explain(&path, &fault));
            }
            self.take_away(&mut rest, path);
        }
    }

    /// Whether a key of the table at `path` was reported that is nearly this one.
    fn was_misspelt(&self, path: &KeyPath, key: &str) -> bool {
        self.removed.iter().any(|removed| {
            let (parent, last) = removed.split_last();
            parent == *path && last.is_some_and(|last| nearest(&last, &[key]).is_some())
        })
    }

    /// Takes away what could not be read: the value itself, or else the nearest table around it.
    fn take_away(&mut self, rest: &mut Node, mut path: KeyPath) {
        while !rest.remove(&path) {
            if !path.pop() {
                *rest = Node::empty();
                return;
            }
        }
        self.removed.push(path);
    }

    /// The paths of the elements of a list that could be read, in their order.
    pub fn elements(&self, list: &KeyPath) -> impl Iterator<Item = KeyPath> {
        let all = (0..).map(|index| list.index(index));
        all.filter(|path| !self.removed.contains(path))
    }

    /// Notes that the value at `path` cannot be used.
    pub fn report(&mut self, path: KeyPath, message: impl Into<String>) {
        self.problems.push(Problem {
            line: Some(self.root.line_of(&path)),
            path,
            message: message.into(),
        });
    }

    /// The place of a key, for a warning.
    pub fn location(&self, path: &KeyPath) -> String {
        let line = self.root.line_of(path);
        format!("{}:{line}: {path}", self.file.display())
    }

    /// Whether the text has something at `path`, even if it could not be read.
    pub fn has(&self, path: &KeyPath) -> bool {
        self.root.has(path)
    }

    /// Whether a part of `path` could not be read and was reported.
    pub fn is_broken(&self, path: &KeyPath) -> bool {
        self.removed
            .iter()
            .any(|removed| removed.starts_with(path) || path.starts_with(removed))
    }

    /// The value of an environment variable that the configuration names, if it is set and is text.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.variables
            .get(name)
            .cloned()
            .or_else(|| environment(name))
    }

    /// Takes this value for an environment variable, whatever the environment has.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    /// Everything that was reported, or nothing.
    pub fn finish(self) -> Result<(), Problems> {
        if self.problems.is_empty() {
            return Ok(());
        }
        let mut problems = Problems {
            file: self.file,
            all: self.problems,
        };
        problems.sort();
        Err(problems)
    }
}

fn syntax_problem((line, message): (usize, String)) -> Problem {
    Problem {
        line: Some(line),
        path: KeyPath::default(),
        message: format!("invalid TOML: {message}"),
    }
}

fn explain(path: &KeyPath, fault: &Fault) -> String {
    match fault {
        Fault::Invalid(message) => message.clone(),
        Fault::MissingKey(key) => format!("missing required key `{key}`"),
        Fault::UnknownKey(known) => {
            let Some(Step::Key(key)) = path.steps().last() else {
                return "unknown key".to_owned();
            };
            match nearest(key, known) {
                Some(near) => format!("unknown key; did you mean `{near}`?"),
                None => format!("unknown key; expected one of `{}`", known.join("`, `")),
            }
        }
    }
}

/// The known name that a person most likely meant, if one is near enough.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let scored = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(word, name), *name));
    let (distance, name) = scored.min()?;
    (distance <= 1 + name.len() / 4).then_some(name)
}

#[expect(clippy::disallowed_methods, reason = "the one door to the environment")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests;
