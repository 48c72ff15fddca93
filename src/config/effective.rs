//! The effective configuration, written as TOML: the configured keys, or all keys with their defaults.

use std::fmt::Write as _;

use toml::{Table, Value};

use super::ConfigDocument;
use super::problem::KeyPath;

/// Sections of named tables, as in `[upstreams.NAME]`.
const NAMED: [&str; 2] = ["upstreams", "issuers"];

/// Words in the name of a header with a secret value.
const SECRET_WORDS: [&str; 7] = [
    "auth",
    "cookie",
    "credential",
    "key",
    "password",
    "secret",
    "token",
];

/// Value in place of a secret.
const REDACTED: &str = "(redacted)";

/// Effective configuration.
#[derive(Debug)]
pub struct Effective {
    /// Sections by name.
    pub sections: Table,
    /// True if a value was redacted.
    pub is_redacted: bool,
}

impl ConfigDocument {
    /// The effective configuration, with the default of every key if `defaults`. Values of headers that look like secrets
    /// are redacted.
    pub fn effective(&self, defaults: bool) -> Result<Effective, String> {
        let mut sections = Table::try_from(&self.config).map_err(|error| error.to_string())?;
        if !defaults {
            self.keep_written(&mut sections, &KeyPath::default());
        }
        let mut effective = Effective {
            sections,
            is_redacted: false,
        };
        effective.redact();
        Ok(effective)
    }

    /// Removes the keys of a table that the document does not have.
    fn keep_written(&self, table: &mut Table, path: &KeyPath) {
        table.retain(|key, value| {
            let path = path.key(key);
            let is_written = self.has(&path);
            if is_written {
                match value {
                    Value::Table(table) => self.keep_written(table, &path),
                    Value::Array(elements) => {
                        let elements = elements.iter_mut().zip(self.elements(&path));
                        for (element, path) in elements {
                            if let Value::Table(table) = element {
                                self.keep_written(table, &path);
                            }
                        }
                    }
                    Value::String(_)
                    | Value::Integer(_)
                    | Value::Float(_)
                    | Value::Boolean(_)
                    | Value::Datetime(_) => {}
                }
            }
            is_written
        });
    }
}

impl Effective {
    fn redact(&mut self) {
        let Some(Value::Array(routes)) = self.sections.get_mut("routes") else {
            return;
        };
        for route in routes.iter_mut().filter_map(Value::as_table_mut) {
            for edits in ["request_headers", "response_headers"] {
                let set = route.get_mut(edits).and_then(|edits| edits.get_mut("set"));
                let set = set.and_then(Value::as_table_mut);
                for (name, value) in set.into_iter().flatten() {
                    let name = name.to_ascii_lowercase();
                    if SECRET_WORDS.iter().any(|word| name.contains(word)) {
                        *value = Value::from(REDACTED);
                        self.is_redacted = true;
                    }
                }
            }
        }
    }

    /// The configuration as a file: a section for each table, nested tables in one line.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for (name, section) in &self.sections {
            if let Value::Array(tables) = section {
                for table in tables {
                    write_table(&mut text, &format!("[[{name}]]"), table);
                }
            } else if NAMED.contains(&name.as_str()) {
                for (key, table) in section.as_table().into_iter().flatten() {
                    let header = format!("[{name}.{}]", bare_or_quoted(key));
                    write_table(&mut text, &header, table);
                }
            } else {
                write_table(&mut text, &format!("[{name}]"), section);
            }
        }
        text
    }
}

fn write_table(text: &mut String, header: &str, table: &Value) {
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(header);
    text.push('\n');
    for (key, value) in table.as_table().into_iter().flatten() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} = {value}", bare_or_quoted(key));
    }
}

/// Key as TOML writes it: bare if it can be.
fn bare_or_quoted(key: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !key.is_empty() && key.bytes().all(is_bare) {
        key.to_owned()
    } else {
        Value::from(key).to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn parse(text: &str) -> ConfigDocument {
        ConfigDocument::parse(Path::new("test.toml"), text).unwrap()
    }

    fn reparsed(document: &ConfigDocument, defaults: bool) -> Config {
        let text = document.effective(defaults).unwrap().to_toml();
        let again = parse(&text);
        assert!(again.problems.is_empty(), "{:?}\n{text}", again.problems);
        again.config
    }

    #[test]
    fn the_written_configuration_equals_the_read_one() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let valid = root.join("tests/fixtures/config/valid");
        let mut files = vec![root.join("config.toml.example")];
        let entries = fs::read_dir(valid).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        files.extend(paths.filter(|path| path.extension().is_some_and(|end| end == "toml")));
        assert!(files.len() > 15, "{files:?}");
        for file in files {
            let document = parse(&fs::read_to_string(&file).unwrap());
            let name = file.display();
            assert_eq!(reparsed(&document, false), document.config, "{name}");
            assert_eq!(reparsed(&document, true), document.config, "{name}");
        }
    }

    #[test]
    fn writes_only_configured_keys_without_the_defaults() {
        let text = "[upstreams.api]\nurl = \"http://127.0.0.1:8000\"\nretries = { attempts = 2 }\n\n\
                    [issuers.app]\nbetter_auth = \"https://app.example\"\n\n\
                    [[routes]]\npath = \"/me\"\naccess = \"authenticated\"\n";
        let document = parse(text);
        assert_eq!(document.effective(false).unwrap().to_toml(), text);
        let all = document.effective(true).unwrap().to_toml();
        assert!(all.contains("\nmax_connections = 10000\n"), "{all}");
        assert!(all.contains("\nheader_timeout = \"10s\"\n"), "{all}");
        assert!(all.contains("\nmax_header_bytes = \"32KiB\"\n"), "{all}");
    }

    #[test]
    fn redacts_header_values_that_look_like_secrets() {
        let text = "[[routes]]\npath = \"/me\"\naccess = \"public\"\n\
                    request_headers = { set = { X-Api-Key = \"hunter2\", X-Tenant = \"acme\" } }\n";
        let effective = parse(text).effective(false).unwrap();
        let written = effective.to_toml();
        assert!(effective.is_redacted);
        assert!(!written.contains("hunter2"), "{written}");
        assert!(written.contains("acme"), "{written}");
    }
}
