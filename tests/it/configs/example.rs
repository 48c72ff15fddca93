//! `config.toml.example` has every key with its default value, and no unknown key.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use claimgate::app::App;
use claimgate::config::{Config, ConfigDocument};
use toml::de::{DeTable, DeValue};

/// A key unlike any other, so that the error lists all known keys.
const NO_KEY: &str = "zzzzzzzzzzzzzzzzzzzzzzzz";

#[test]
fn the_example_compiles_as_is() {
    let app = compiled(&example()).unwrap();
    let expected = ["has no `audience`", "equal subjects of these issuers"];
    assert_eq!(app.warnings.len(), expected.len(), "{:?}", app.warnings);
    for (warning, expected) in app.warnings.iter().zip(expected) {
        assert!(warning.contains(expected), "{warning}");
    }
}

#[test]
fn every_commented_out_line_of_the_example_compiles() {
    let variants = variants(&example());
    assert!(variants.len() > 10, "only {} were found", variants.len());
    for (line, text) in variants {
        let document = ConfigDocument::parse(Path::new("config.toml.example"), &text).unwrap();
        if let Err(problems) = document.finish() {
            panic!("{line}: {problems}");
        }
        // Accepted problems: the named files do not exist, and rules about client certificates, machines and session cookies
        // need a `client_ca`, `machines` or `sessions` in another section.
        if let Err(problems) = compiled(&text) {
            for problem in &problems.all {
                let is_missing_file = problem.message.contains("No such file or directory");
                let has_no_client_ca = problem
                    .message
                    .contains("no listener requests client certificates");
                let has_no_sessions = problem
                    .message
                    .contains("no issuer of this route has sessions");
                let has_no_machines = problem
                    .message
                    .contains("no issuer accepts the tokens of machines");
                assert!(
                    is_missing_file || has_no_client_ca || has_no_sessions || has_no_machines,
                    "{line}: {problems}"
                );
            }
        }
    }
}

#[test]
fn the_example_contains_every_key() {
    let text = example();
    let mut found = BTreeSet::new();
    let known = keys_of(&Context::default());
    for text in variants(&text).into_values().chain([text]) {
        let table = DeTable::parse(&text).unwrap();
        collect(table.get_ref(), &known, "", &mut found);
    }
    let mut all = BTreeSet::new();
    list(&known, "", &mut all);
    assert!(all.len() > 40, "only {} keys are known", all.len());
    let missing: Vec<_> = all.difference(&found).collect();
    assert!(missing.is_empty(), "the example lacks {missing:?}");
}

#[test]
fn the_example_states_the_defaults() {
    let example = read(&example());
    let defaults = read(concat!(
        "[cors]\norigins = [\"https://app.example\"]\n",
        "[upstreams.tasks]\nurl = \"http://127.0.0.1:8000\"\n",
        "[issuers.better-auth]\nkeys = { secret_env = \"BETTER_AUTH_SECRET\" }\n",
        "[issuers.app]\nbetter_auth = \"https://login.example\"\n",
    ));
    let sections = |config: &Config| {
        [
            format!("{:?}", config.listen),
            format!("{:?}", config.admin),
            format!("{:?}", config.drain),
            format!("{:?}", config.log),
            format!("{:?}", config.identity),
            format!("{:?}", config.cors),
            format!("{:?}", config.upstreams),
            format!("{:?}", config.issuers),
        ]
    };
    assert_eq!(sections(&example), sections(&defaults));
}

#[test]
fn the_deployment_configurations_compile_without_warnings() {
    let file = |variant: &str| {
        let path = format!("deploy/kubernetes/{variant}/claimgate.toml");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        fs::read_to_string(file).unwrap()
    };
    let (port, socket) = (file("example"), file("unix-socket"));
    let url = "url = \"http://127.0.0.1:3000\"";
    assert!(port.contains(url), "{port}");
    assert_eq!(
        port.replace(url, "url = \"unix:/run/api/api.sock\""),
        socket
    );
    // These files exist only in the pod.
    let access = tempfile::tempdir().unwrap();
    for name in ["ca.crt", "token"] {
        let ca = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/config/tls/gate.crt"
        );
        fs::copy(ca, access.path().join(name)).unwrap();
    }
    let variable = "secret_env = \"BETTER_AUTH_SECRET\"";
    let secret = "secret_file = \"/etc/claimgate-secret/better-auth-secret\"";
    for text in [port, socket, file("cluster-issuer")] {
        assert!(text.contains(secret), "{text}");
        let text = text
            .replace(secret, variable)
            .replace("/run/key-set-access", access.path().to_str().unwrap());
        let app = compiled(&text).unwrap();
        assert!(app.warnings.is_empty(), "{:?}", app.warnings);
    }
}

fn example() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml.example");
    fs::read_to_string(file).unwrap()
}

fn compiled(text: &str) -> Result<App, claimgate::config::Problems> {
    let mut document = ConfigDocument::parse(Path::new("config.toml.example"), text)?;
    document.set_variable(
        "BETTER_AUTH_SECRET",
        "a secret of the tests, 32 bytes at least",
    );
    App::compile(document)
}

fn read(text: &str) -> Config {
    let document = ConfigDocument::parse(Path::new("gate.toml"), text).unwrap();
    let config = document.config.clone();
    document.finish().unwrap();
    config
}

/// One variant of the example for each commented-out line, in which that line replaces the line with the same key.
/// Consecutive commented-out lines with different keys form one variant.
fn variants(text: &str) -> BTreeMap<String, String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut variants = BTreeMap::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(alternative) = alternative(line) else {
            continue;
        };
        let belongs = |line: usize| {
            let other = lines.get(line).and_then(|line| self::alternative(line));
            other.filter(|other| key(other) != key(alternative))
        };
        if belongs(at - 1).is_some() {
            continue;
        }
        let start = lines[..at].iter().rposition(|line| line.starts_with('['));
        let start = start.expect("a section before its keys");
        let end = lines[at..].iter().position(|line| line.starts_with('['));
        let end = end.map_or(lines.len(), |end| at + end);
        let mut variant = lines.clone();
        for other in &mut variant[start..end] {
            if key(other) == key(alternative) {
                *other = "";
            }
        }
        variant[at] = alternative;
        if let Some(other) = belongs(at + 1) {
            variant[at + 1] = other;
        }
        let location = format!("config.toml.example:{}: {alternative}", at + 1);
        variants.insert(location, variant.join("\n"));
    }
    variants
}

/// The setting in a commented-out line.
fn alternative(line: &str) -> Option<&str> {
    let text = line.strip_prefix("# ")?;
    key(text).is_some().then_some(text)
}

/// The key of a `key = value` line.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.split_once(" = ")?;
    let is_bare = |c: char| c.is_ascii_lowercase() || c == '_';
    key.chars().all(is_bare).then_some(key)
}

/// Keys of a table, with the nested keys of each value that is a table.
type KeySet = BTreeMap<String, Option<(Form, Box<Nested>)>>;

struct Nested(KeySet);

/// Position of a nested table in the value of its key.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// `key = { … }`
    Table,
    /// `key = { any-name = { … } }`
    Named,
    /// `key = [{ … }]`
    List,
}

/// TOML text around the inside of a table.
#[derive(Default)]
struct Context {
    before: String,
    after: String,
}

impl Context {
    fn under(&self, key: &str, form: Form) -> Self {
        let (open, close) = match form {
            Form::Table => ("{ ", " }"),
            Form::Named => ("{ x = { ", " } }"),
            Form::List => ("[{ ", " }]"),
        };
        Self {
            before: format!("{}{key} = {open}", self.before),
            after: format!("{close}{}", self.after),
        }
    }

    /// The known keys, read from the error for an unknown one.
    fn known(&self) -> Option<Vec<String>> {
        let text = format!("{}{NO_KEY} = 0{}", self.before, self.after);
        let problems = ConfigDocument::parse(Path::new("gate.toml"), &text)
            .unwrap()
            .finish()
            .unwrap_err();
        let unknown = "unknown key; expected one of `";
        let mut names = problems
            .all
            .iter()
            .filter_map(|problem| problem.message.strip_prefix(unknown));
        let names = names.next()?.strip_suffix('`').unwrap();
        Some(names.split("`, `").map(str::to_owned).collect())
    }
}

/// Finds the keys of a table and of all nested tables through the errors of the parser.
fn keys_of(context: &Context) -> KeySet {
    let names = context.known().expect("a table");
    let nested = |name: &String| {
        [Form::Table, Form::Named, Form::List]
            .into_iter()
            .find_map(|form| {
                let inner = context.under(name, form);
                inner.known()?;
                Some((form, Box::new(Nested(keys_of(&inner)))))
            })
    };
    names
        .into_iter()
        .map(|name| {
            let inner = nested(&name);
            (name, inner)
        })
        .collect()
}

fn list(keys: &KeySet, path: &str, all: &mut BTreeSet<String>) {
    for (key, inner) in keys {
        let path = format!("{path}.{key}");
        if let Some((_, Nested(inner))) = inner.as_ref().map(|(form, inner)| (form, &**inner)) {
            list(inner, &path, all);
        }
        all.insert(path);
    }
}

/// Collects the paths of all keys in a table.
fn collect(table: &DeTable<'_>, keys: &KeySet, path: &str, found: &mut BTreeSet<String>) {
    for (key, value) in table {
        let Some(inner) = keys.get(key.get_ref().as_ref()) else {
            panic!("{path} has no key `{}`", key.get_ref());
        };
        let path = format!("{path}.{}", key.get_ref());
        if let Some((form, inner)) = inner {
            for table in tables(value.get_ref(), *form) {
                collect(table, &inner.0, &path, found);
            }
        }
        found.insert(path);
    }
}

fn tables<'a, 'de>(value: &'a DeValue<'de>, form: Form) -> Vec<&'a DeTable<'de>> {
    match (form, value) {
        (Form::Table, DeValue::Table(table)) => vec![table],
        (Form::Named, DeValue::Table(table)) => table
            .iter()
            .filter_map(|(_, value)| value.get_ref().as_table())
            .collect(),
        (Form::List, DeValue::Array(items)) => items
            .iter()
            .filter_map(|value| value.get_ref().as_table())
            .collect(),
        _ => Vec::new(),
    }
}
