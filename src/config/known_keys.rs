//! Known keys of every table, as the structs of the configuration accept them.

use std::fmt;

use serde::Deserialize;

use super::Config;
use super::problem::{KeyPath, Step};
use super::tree::{ErrorKind, Node, ReadError};

/// Table with its known keys.
#[derive(Debug)]
pub(super) struct Table {
    path: TablePath,
    pub(super) keys: &'static [&'static str],
}

/// Path of a table, with placeholders for names and indices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct TablePath(Vec<Part>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Key(&'static str),
    /// Name chosen by the operator, as in `[upstreams.NAME]`.
    Name,
    /// Element of an array.
    Element,
}

/// Key and name that no table has.
const PROBE: &str = "\0";

/// All tables with a fixed set of keys.
pub(super) fn tables() -> Vec<Table> {
    let mut tables = Vec::new();
    let mut open = vec![TablePath::default()];
    while let Some(path) = open.pop() {
        let Some(keys) = path.probe() else { continue };
        for key in keys.iter().rev() {
            let child = path.with(Part::Key(key));
            open.extend([Part::Element, Part::Name].map(|part| child.with(part)));
            open.push(child);
        }
        tables.push(Table { path, keys });
    }
    tables
}

/// Known keys of the table at `path`; `None` for another value.
pub(super) fn keys_of(path: &KeyPath) -> Option<&'static [&'static str]> {
    let mut keys = TablePath::default().probe()?;
    let mut found = TablePath::default();
    for step in path.steps() {
        let part = match step {
            Step::Index(_) => Part::Element,
            Step::Key(key) => keys
                .iter()
                .find(|known| *known == key)
                .map_or(Part::Name, |known| Part::Key(known)),
        };
        found = found.with(part);
        keys = found.probe().unwrap_or_default();
    }
    found.probe()
}

/// Places of a key, in words.
pub(super) fn places_of(key: &str) -> Vec<String> {
    let mut places = Vec::new();
    for table in tables().iter().filter(|table| table.keys.contains(&key)) {
        let place = table.path.place(key);
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

impl TablePath {
    fn with(&self, part: Part) -> Self {
        let mut path = self.clone();
        path.0.push(part);
        path
    }

    /// Known keys of this table, which the error about an unknown key lists.
    fn probe(&self) -> Option<&'static [&'static str]> {
        let unknown = Node::table_of(PROBE, Node::empty());
        let document = self.0.iter().rev().fold(unknown, |node, part| match part {
            Part::Key(key) => Node::table_of(key, node),
            Part::Name => Node::table_of(PROBE, node),
            Part::Element => Node::list_of(node),
        });
        match Config::deserialize(&document) {
            Err(ReadError {
                kind: ErrorKind::UnknownKey(keys),
                path,
            }) if path.steps().len() == self.0.len() + 1 => Some(keys),
            Err(_) | Ok(_) => None,
        }
    }

    /// Place of `key` in this table: `in [listen]`, or `` in `keys` of [issuers.NAME] ``.
    fn place(&self, key: &str) -> String {
        match self.0.as_slice() {
            [] => format!("at the top level, as {}", section(key)),
            [Part::Key(key)] | [Part::Key(key), Part::Name | Part::Element] => {
                format!("in {}", section(key))
            }
            [Part::Key(key), inner @ ..] => format!("in `{}` of {}", keys_in(inner), section(key)),
            [Part::Name | Part::Element, ..] => format!("in a table with `{key}`"),
        }
    }
}

impl fmt::Display for Table {
    /// Path with `*` for names and `[]` for indices, as in `upstreams.*.tls`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, part) in self.path.0.iter().enumerate() {
            match part {
                Part::Key(key) if position == 0 => f.write_str(key)?,
                Part::Key(key) => write!(f, ".{key}")?,
                Part::Name => f.write_str(".*")?,
                Part::Element => f.write_str("[]")?,
            }
        }
        Ok(())
    }
}

/// Header of a section: `[listen]`, `[[routes]]` or `[issuers.NAME]`.
pub(super) fn section(key: &str) -> String {
    let section = Node::table_of(PROBE, Node::empty());
    let has_table = |document: Node| {
        let read = Config::deserialize(&document);
        let error = read
            .err()
            .map(|error| (error.path.steps().len(), error.kind));
        matches!(error, Some((3, ErrorKind::UnknownKey(_))))
    };
    if has_table(Node::table_of(key, Node::list_of(section.clone()))) {
        format!("[[{key}]]")
    } else if has_table(Node::table_of(key, Node::table_of(PROBE, section))) {
        format!("[{key}.NAME]")
    } else {
        format!("[{key}]")
    }
}

/// Keys of a path, joined with dots.
fn keys_in(parts: &[Part]) -> String {
    let keys = parts.iter().filter_map(|part| match part {
        Part::Key(key) => Some(*key),
        Part::Name | Part::Element => None,
    });
    keys.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_keys_of_every_table() {
        let tables = tables();
        let places: Vec<String> = tables.iter().map(|table| table.path.place("x")).collect();
        for place in [
            "at the top level, as [x]",
            "in [listen]",
            "in `tls` of [listen]",
            "in [[listeners]]",
            "in `tls.more` of [[listeners]]",
            "in [upstreams.NAME]",
            "in `health_check` of [upstreams.NAME]",
            "in `keys` of [issuers.NAME]",
            "in [[routes]]",
            "in `rate_limit` of [[routes]]",
            "in `cors` of [[routes]]",
            "in `require` of [[routes]]",
            "in `access` of [[routes]]",
        ] {
            assert!(
                places.iter().any(|found| found == place),
                "{place}: {places:?}"
            );
        }
        assert!(tables.len() > 25, "{}", tables.len());
    }

    #[test]
    fn finds_the_keys_of_one_table() {
        let issuer = KeyPath::of("issuers").key("app");
        assert!(keys_of(&issuer).unwrap().contains(&"audience"));
        let keys = keys_of(&issuer.key("keys")).unwrap();
        assert!(keys.contains(&"jwks_url"));
        let more = KeyPath::of("listeners").index(2).key("tls").key("more");
        assert!(keys_of(&more.index(0)).unwrap().contains(&"certificate"));
        for path in [KeyPath::of("issuers"), more, KeyPath::of("nothing")] {
            assert_eq!(keys_of(&path), None, "{path}");
        }
    }

    #[test]
    fn names_the_places_of_a_key() {
        assert_eq!(
            places_of("address"),
            ["in [listen]", "in [[listeners]]", "in [admin]"]
        );
        assert_eq!(places_of("better_auth"), ["in [issuers.NAME]"]);
        assert_eq!(places_of("jwks_url"), ["in `keys` of [issuers.NAME]"]);
        assert_eq!(places_of("routes"), ["at the top level, as [[routes]]"]);
        assert!(places_of("nothing").is_empty());
    }
}
