//! Configuration file: one plain struct per section, in a file of its own. Problems carry line and key.
//!
//! Nothing here is compiled: [`crate::app`] turns a [`Config`] into the running parts.

mod admin_address;
mod better_auth;
mod corrections;
mod cors;
mod dpop;
mod effective;
mod environment;
mod examples;
mod files;
mod identity;
mod introspection;
mod issuer;
mod known_keys;
mod limit;
mod listen;
mod messages;
mod problem;
mod redis;
mod resource;
mod route;
mod rule;
mod schema;
mod suggestions;
mod syntax;
mod tls;
mod tracing;
mod tree;
mod units;
mod upstream;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use admin_address::admin_address;
pub use better_auth::{
    BETTER_AUTH_BASE_PATH, BetterAuth, COOKIE_PREFIX, SessionEndpoint, Sessions, SessionsSwitch,
};
pub use cors::{Cors, RouteCors};
pub use dpop::DpopMode;
pub use effective::Effective;
pub use environment::{DEFAULT_ROUTES, SOURCE as ENVIRONMENT};
pub use identity::{Credential, Identity};
pub use introspection::Introspection;
pub use issuer::{Accept, DEFAULT_MAX_STALE, DEFAULT_REFRESH, Encoding, Issuer, Keys};
pub use limit::{RateKey, RateLimit, RateLimits};
pub use listen::{Admin, Drain, Listen, Listener, Log, LogFormat, LogLevel};
pub use problem::{KeyPath, Problem, Problems, Step};
pub use redis::{DEFAULT_REDIS_PORT, Redis, WhenUnavailable};
pub use resource::Resource;
pub use route::{Access, HeaderEdits, ReplacePrefix, Route, StreamEnd, TokenSource};
pub use rule::{CallerKind, CertificateField, ClaimRule, Scalar};
pub use schema::CONFIG_SCHEMA;
pub(crate) use suggestions::suggest;
use suggestions::{alias, nearest};
pub use tls::{CertificateFiles, ClientAuth, Tls, TlsVersion};
pub use tracing::Tracing;
use tree::{ErrorKind, Node, ReadError};
pub use units::{Address, Network, OneOrMany};
pub use upstream::{Balance, Ejection, HealthCheck, Retries, Reuse, Upstream, UpstreamTls};

/// Contents of a configuration file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Main listener and connection limits.
    pub listen: Listen,
    /// Additional listeners.
    pub listeners: Vec<Listener>,
    /// Admin listener: probes, metrics and status.
    pub admin: Admin,
    /// Graceful shutdown.
    pub drain: Drain,
    /// Log format, level and sampling.
    pub log: Log,
    /// Identity headers and the verified token, as forwarded.
    pub identity: Identity,
    /// CORS policy of all routes without their own.
    pub cors: Option<Cors>,
    /// Upstreams by name.
    pub upstreams: BTreeMap<String, Upstream>,
    /// Trusted token issuers by name.
    pub issuers: BTreeMap<String, Issuer>,
    /// OAuth protected resource. Without it, the gate serves no metadata.
    pub resource: Option<Resource>,
    /// Shared rate limits. Without it, each gate counts on its own.
    pub redis: Option<Redis>,
    /// Trace export. Without it, no spans are created.
    pub tracing: Option<Tracing>,
    /// Routes. A request without a matching route is rejected.
    pub routes: Vec<Route>,
}

/// Parsed configuration file with the positions of its keys, so that problems found during compilation have a line.
#[derive(Debug)]
pub struct ConfigDocument {
    /// The values that are valid on their own.
    pub config: Config,
    file: PathBuf,
    root: Node,
    removed: Vec<KeyPath>,
    problems: Vec<Problem>,
    variables: BTreeMap<String, String>,
    /// Variables that the document was made from, if it was not read from a file.
    environment: Option<environment::Variables>,
}

impl ConfigDocument {
    /// Reads and parses a file. Fails if the file is unreadable or not TOML; problems of single values are collected
    /// until [`ConfigDocument::finish`], to report all of them at once.
    pub fn load(file: &Path) -> Result<Self, Problems> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Problems::of_source(file, format!("cannot be read: {error}")))?;
        Self::parse(file, &text)
    }

    /// Parses `text`; `file` is its name in messages.
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
            environment: None,
        };
        document.read();
        Ok(document)
    }

    /// Deserializes the document. Reports each invalid value, removes it and tries again.
    fn read(&mut self) {
        let mut rest = self.root.clone();
        loop {
            let ReadError { path, kind } = match Config::deserialize(&rest) {
                Ok(config) => {
                    self.config = config;
                    return;
                }
                Err(error) => error,
            };
            if let Some((section, keys)) = messages::nameless(&path, &kind) {
                self.reject_nameless(&mut rest, &path, section, keys);
                continue;
            }
            // A key removed for an invalid value has been reported.
            let reported = match kind {
                ErrorKind::MissingKey(key) => {
                    self.has(&path.key(key)) || self.is_misspelled(&path, key)
                }
                ErrorKind::UnknownKey(_)
                | ErrorKind::WrongType { .. }
                | ErrorKind::UnknownWord { .. }
                | ErrorKind::Invalid(_) => false,
            };
            if !reported {
                let message = messages::describe(&self.root, &path, &kind);
                self.report(path.clone(), message);
            }
            self.remove_invalid(&mut rest, path);
        }
    }

    /// True if a similar key of the table at `path` was reported as unknown.
    pub fn is_misspelled(&self, path: &KeyPath, key: &str) -> bool {
        self.removed.iter().any(|removed| {
            let (parent, last) = removed.split_last();
            let is_similar =
                |last: &str| nearest(last, &[key]).is_some() || alias(last, &[key]).is_some();
            parent == *path && last.is_some_and(|last| is_similar(&last))
        })
    }

    /// Reports a section with the keys of one of its named tables, and removes these keys.
    fn reject_nameless(&mut self, rest: &mut Node, path: &KeyPath, section: &str, keys: &[&str]) {
        let section_path = KeyPath::of(section);
        let found = rest.get(&section_path).map(|table| {
            let keys = table.keys().filter(|key| keys.contains(key));
            keys.map(str::to_owned).collect::<Vec<_>>()
        });
        let found = found.unwrap_or_default();
        if let Some(Step::Key(key)) = path.steps().get(1) {
            self.report(
                section_path.clone(),
                messages::describe_nameless(section, key),
            );
        }
        for key in found {
            self.remove_invalid(rest, section_path.key(&key));
        }
    }

    /// Removes an invalid value, or the nearest enclosing table if the value itself cannot be removed.
    fn remove_invalid(&mut self, rest: &mut Node, mut path: KeyPath) {
        while !rest.remove(&path) {
            if !path.pop() {
                *rest = Node::empty();
                return;
            }
        }
        self.removed.push(path);
    }

    /// Paths of the valid elements of an array, in order.
    pub fn elements(&self, list: &KeyPath) -> impl Iterator<Item = KeyPath> {
        let all = (0..).map(|index| list.index(index));
        all.filter(|path| !self.removed.contains(path))
    }

    /// Adds a problem of the value at `path`.
    pub fn report(&mut self, path: KeyPath, message: impl Into<String>) {
        let message = message.into();
        self.problems.push(match &self.environment {
            Some(variables) => Problem {
                line: None,
                path: variables.place(&path),
                message: environment::translate(&message),
            },
            None => Problem {
                line: Some(self.root.line_of(&path)),
                path,
                message,
            },
        });
    }

    /// Location of a key in the form `file:line: key`, or the variable that it comes from.
    pub fn location(&self, path: &KeyPath) -> String {
        if let Some(variables) = &self.environment {
            return format!("{}: {}", self.file.display(), variables.place(path));
        }
        let line = self.root.line_of(path);
        format!("{}:{line}: {path}", self.file.display())
    }

    /// Warning about the environment that the document was made from.
    pub fn environment_warning(&self) -> Option<String> {
        self.environment.as_ref()?.warning()
    }

    /// True if the file contains `path`, even with an invalid value.
    pub fn has(&self, path: &KeyPath) -> bool {
        self.root.has(path)
    }

    /// True if the file contains neither `key` at the top level nor a misspelling of it.
    pub fn lacks(&self, key: &str) -> bool {
        let root = KeyPath::default();
        !self.has(&root.key(key)) && !self.is_misspelled(&root, key)
    }

    /// True if the value at `path`, or a part of it, was reported as invalid.
    pub fn is_invalid(&self, path: &KeyPath) -> bool {
        self.removed
            .iter()
            .any(|removed| removed.starts_with(path) || path.starts_with(removed))
    }

    /// Value of an environment variable, if it is set and UTF-8.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.variables
            .get(name)
            .cloned()
            .or_else(|| environment(name))
    }

    /// Overrides an environment variable for this document.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    /// Fails with all reported problems, if any.
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

#[expect(clippy::disallowed_methods, reason = "the one door to the environment")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests;
