//! TOML document as a tree of values with line numbers.

use serde::de::{self, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{KeyPath, Step};
use super::syntax::explain;

/// Value and its line, counted from 1.
#[derive(Debug, Clone)]
pub(super) struct Node {
    line: usize,
    value: Value,
}

/// TOML value.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// Removed elements leave `None`, so that the others keep their indices.
    List(Vec<Option<Node>>),
    Table(Vec<Entry>),
}

/// Key of a table with its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    key: String,
    line: usize,
    node: Node,
}

/// Deserialization error with the path of the value.
#[derive(Debug)]
pub(super) struct ReadError {
    pub(super) path: KeyPath,
    pub(super) kind: ErrorKind,
}

/// Kind of a deserialization error.
#[derive(Debug)]
pub(super) enum ErrorKind {
    /// Unknown key, with the known keys of its table.
    UnknownKey(&'static [&'static str]),
    /// Missing required key.
    MissingKey(&'static str),
    /// Value of another type or form, in the terms of TOML.
    WrongType { expected: String, found: String },
    /// Value that is not a word of a closed list.
    UnknownWord {
        known: &'static [&'static str],
        /// `None` if the value is not a string.
        word: Option<String>,
    },
    /// Any other error, as a message.
    Invalid(String),
}

/// Text at `[section] key`, however invalid the rest of the document is.
pub(super) fn find_text(text: &str, section: &str, key: &str) -> Option<String> {
    fn find<'a>(table: &'a DeTable<'_>, name: &str) -> Option<&'a DeValue<'a>> {
        let mut entries = table.iter();
        let (_, value) = entries.find(|(key, _)| key.get_ref() == name)?;
        Some(value.get_ref())
    }
    let (table, _errors) = DeTable::parse_recoverable(text);
    let section = find(table.get_ref(), section)?.as_table()?;
    find(section, key)?.as_str().map(str::to_owned)
}

impl Node {
    /// Empty document.
    pub(super) fn empty() -> Self {
        Self::new(Value::Table(Vec::new()))
    }

    /// Parses TOML. Fails with the line and the message of every syntax error.
    pub(super) fn parse(text: &str) -> Result<Self, Vec<(usize, String)>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        let lines = Lines(text);
        if !errors.is_empty() {
            let mut problems: Vec<(usize, String)> = Vec::new();
            for error in &errors {
                let span = error.span().unwrap_or_default();
                let line = lines.of(span.start);
                // The parser recovers within the line, and its later errors there are consequences of the first.
                if problems.iter().all(|(reported, _)| *reported != line) {
                    problems.push((line, explain(text, span, error.message())));
                }
            }
            return Err(problems);
        }
        let value = lines.table(table.get_ref()).map_err(|error| vec![error])?;
        Ok(Self { line: 1, value })
    }

    /// Line of `path`, or of its nearest existing ancestor.
    pub(super) fn line_of(&self, path: &KeyPath) -> usize {
        let mut line = self.line;
        let mut node = self;
        for step in path.steps() {
            let Some((next_line, next)) = node.child(step) else {
                break;
            };
            line = next_line;
            node = next;
        }
        line
    }

    /// True if `path` exists.
    pub(super) fn has(&self, path: &KeyPath) -> bool {
        self.get(path).is_some()
    }

    /// Value at `path`.
    pub(super) fn get(&self, path: &KeyPath) -> Option<&Self> {
        let mut steps = path.steps().iter();
        steps.try_fold(self, |node, step| node.child(step).map(|(_, child)| child))
    }

    /// Value without its line.
    pub(super) fn value(&self) -> &Value {
        &self.value
    }

    /// Keys of a table, in source order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        let entries = match &self.value {
            Value::Table(entries) => entries.as_slice(),
            Value::Text(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::List(_) => &[],
        };
        entries.iter().map(|entry| entry.key.as_str())
    }

    /// Table with a single key.
    pub(super) fn table_of(key: &str, node: Self) -> Self {
        let key = key.to_owned();
        Self::new(Value::Table(vec![Entry { key, line: 1, node }]))
    }

    /// Array with a single element.
    pub(super) fn list_of(node: Self) -> Self {
        Self::new(Value::List(vec![Some(node)]))
    }

    fn new(value: Value) -> Self {
        Self { line: 1, value }
    }

    /// Removes the value at `path`. Returns false if there is none.
    pub(super) fn remove(&mut self, path: &KeyPath) -> bool {
        let Some((last, parents)) = path.steps().split_last() else {
            return false;
        };
        let mut node = self;
        for step in parents {
            let Some(child) = node.child_mut(step) else {
                return false;
            };
            node = child;
        }
        match (&mut node.value, last) {
            (Value::Table(entries), Step::Key(key)) => {
                let before = entries.len();
                entries.retain(|entry| entry.key != *key);
                entries.len() < before
            }
            (Value::List(items), Step::Index(index)) => items
                .get_mut(*index)
                .is_some_and(|item| item.take().is_some()),
            _ => false,
        }
    }

    fn child(&self, step: &Step) -> Option<(usize, &Self)> {
        match (&self.value, step) {
            (Value::Table(entries), Step::Key(key)) => {
                let entry = entries.iter().find(|entry| entry.key == *key)?;
                Some((entry.line, &entry.node))
            }
            (Value::List(items), Step::Index(index)) => {
                let item = items.get(*index)?.as_ref()?;
                Some((item.line, item))
            }
            _ => None,
        }
    }

    fn child_mut(&mut self, step: &Step) -> Option<&mut Self> {
        match (&mut self.value, step) {
            (Value::Table(entries), Step::Key(key)) => {
                let entry = entries.iter_mut().find(|entry| entry.key == *key)?;
                Some(&mut entry.node)
            }
            (Value::List(items), Step::Index(index)) => items.get_mut(*index)?.as_mut(),
            _ => None,
        }
    }
}

/// Maps byte offsets to line numbers.
struct Lines<'a>(&'a str);

impl Lines<'_> {
    fn of(&self, offset: usize) -> usize {
        let before = self.0.as_bytes().iter().take(offset);
        1 + before.filter(|byte| **byte == b'\n').count()
    }

    fn table(&self, table: &DeTable<'_>) -> Result<Value, (usize, String)> {
        let mut entries = Vec::new();
        for (key, value) in table {
            entries.push(Entry {
                key: key.get_ref().to_string(),
                line: self.of(key.span().start),
                node: self.node(value)?,
            });
        }
        // Source order, so that problems are found in line order.
        entries.sort_by_key(|entry| entry.line);
        Ok(Value::Table(entries))
    }

    fn node(&self, spanned: &Spanned<DeValue<'_>>) -> Result<Node, (usize, String)> {
        let line = self.of(spanned.span().start);
        let value = match spanned.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Boolean(truth) => Value::Boolean(*truth),
            DeValue::Integer(number) => {
                let digits = number.as_str().replace('_', "");
                let parsed = i64::from_str_radix(&digits, number.radix());
                Value::Integer(
                    parsed.map_err(|_| (line, format!("integer {digits} is out of range")))?,
                )
            }
            DeValue::Float(number) => {
                let parsed = number.as_str().replace('_', "").parse();
                Value::Float(parsed.map_err(|_| (line, "invalid number".to_owned()))?)
            }
            DeValue::Datetime(moment) => Value::Text(moment.to_string()),
            DeValue::Array(items) => {
                let items = items.iter().map(|item| self.node(item).map(Some));
                Value::List(items.collect::<Result<_, _>>()?)
            }
            DeValue::Table(table) => self.table(table)?,
        };
        Ok(Node { line, value })
    }
}

impl de::Error for ReadError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::from(ErrorKind::Invalid(message.to_string()))
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = toml_term(&expected);
        // The value may be a secret: `keys = "…"`.
        let is_hidden = expected == TABLE && matches!(found, de::Unexpected::Str(_));
        let found = if is_hidden {
            "string".to_owned()
        } else {
            toml_term(&found)
        };
        Self::from(ErrorKind::WrongType { expected, found })
    }

    fn invalid_value(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        let word = Some(variant.to_owned());
        Self::from(ErrorKind::UnknownWord { known, word })
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        // `next_key_seed` adds the field to the path.
        Self::from(ErrorKind::UnknownKey(expected))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::from(ErrorKind::MissingKey(field))
    }
}

/// Expected type of a table.
pub(super) const TABLE: &str = "a table";

/// Expected type of an array.
pub(super) const ARRAY: &str = "an array";

/// Expected type of an unsigned integer.
pub(super) const INTEGER: &str = "a non-negative integer";

/// Expected type of a port or a status.
pub(super) const SMALL_INTEGER: &str = "an integer between 0 and 65535";

/// Expected type of a number.
pub(super) const NUMBER: &str = "a number";

/// Expected type of a string.
pub(super) const STRING: &str = "a string";

/// Expected type of a boolean.
pub(super) const BOOLEAN: &str = "true or false";

/// Translates serde's names of Rust types to the terms of TOML.
fn toml_term(rust: &dyn std::fmt::Display) -> String {
    let rust = rust.to_string();
    let toml = match rust.as_str() {
        "usize" | "u64" | "u32" => INTEGER,
        "u16" => SMALL_INTEGER,
        "f64" => NUMBER,
        "a boolean" => BOOLEAN,
        "a sequence" => ARRAY,
        "sequence" => "array",
        "map" => "table",
        text if text == "a map" || text.starts_with("struct ") => TABLE,
        text => text,
    };
    toml.to_owned()
}

impl From<ErrorKind> for ReadError {
    fn from(kind: ErrorKind) -> Self {
        Self {
            path: KeyPath::default(),
            kind,
        }
    }
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {:?}", self.path, self.kind)
    }
}

impl std::error::Error for ReadError {}

impl ReadError {
    fn under(mut self, step: Step) -> Self {
        self.path.prepend(step);
        self
    }
}

impl<'de> de::Deserializer<'de> for &'de Node {
    type Error = ReadError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match &self.value {
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(truth) => visitor.visit_bool(*truth),
            Value::List(items) => visitor.visit_seq(Items(items.iter().enumerate())),
            Value::Table(entries) => visitor.visit_map(Entries {
                rest: entries.iter(),
                current: None,
            }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ReadError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let Value::Text(text) = &self.value else {
            let known = variants;
            return Err(ErrorKind::UnknownWord { known, word: None }.into());
        };
        visitor.visit_enum(text.as_str().into_deserializer())
    }

    /// Accepts a table only: serde would also fill the fields of a struct from an array, in their order.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        if let Value::List(_) = &self.value {
            return Err(de::Error::invalid_type(de::Unexpected::Seq, &TABLE));
        }
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

struct Items<'a>(std::iter::Enumerate<std::slice::Iter<'a, Option<Node>>>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ReadError> {
        let Some((index, node)) = self
            .0
            .find_map(|(index, item)| Some((index, item.as_ref()?)))
        else {
            return Ok(None);
        };
        let element = seed.deserialize(node);
        element
            .map(Some)
            .map_err(|error| error.under(Step::Index(index)))
    }
}

struct Entries<'a> {
    rest: std::slice::Iter<'a, Entry>,
    current: Option<&'a Entry>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ReadError> {
        let Some(entry) = self.rest.next() else {
            return Ok(None);
        };
        self.current = Some(entry);
        let key = seed.deserialize(entry.key.as_str().into_deserializer());
        key.map(Some)
            .map_err(|error: ReadError| error.under(Step::Key(entry.key.clone())))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let Some(entry) = self.current.take() else {
            return Err(de::Error::custom("a value without a key"));
        };
        seed.deserialize(&entry.node)
            .map_err(|error| error.under(Step::Key(entry.key.clone())))
    }
}
