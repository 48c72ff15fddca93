//! YAML as JSON values.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};

/// Values of a document, with those that its aliases repeat: a few lines of aliases can repeat each other billions of
/// times.
const MAX_VALUES: usize = 1_000_000;

/// Depth of a document, that of `serde_json`: a deeper value would overflow the stack where it is dropped.
const MAX_DEPTH: usize = 128;

/// Fault of a YAML document, and its line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct YamlError {
    pub(super) line: usize,
    pub(super) fault: String,
}

/// Parses the first document of a text.
pub(super) fn parse(text: &str) -> Result<Value, YamlError> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| YamlError {
            line: error.marker().line(),
            fault: error.info().to_owned(),
        })?;
        let added = builder.add(event);
        if let Some(value) = added.map_err(|fault| YamlError {
            line: span.start.line(),
            fault,
        })? {
            return Ok(value);
        }
    }
    Ok(Value::Null)
}

/// Values that an event has begun or completed.
#[derive(Debug, Default)]
struct Builder {
    open: Vec<Collection>,
    anchors: BTreeMap<usize, Node>,
    values: usize,
}

/// A value with its size.
#[derive(Debug, Clone)]
struct Node {
    value: Value,
    values: usize,
    depth: usize,
}

#[derive(Debug)]
struct Collection {
    anchor: usize,
    items: Items,
    values: usize,
    depth: usize,
}

#[derive(Debug)]
enum Items {
    Sequence(Vec<Value>),
    /// A mapping, and the key whose value follows.
    Mapping(Map<String, Value>, Option<String>),
}

impl Builder {
    /// Adds an event. Returns the value of the document when it is complete.
    fn add(&mut self, event: Event<'_>) -> Result<Option<Value>, String> {
        match event {
            Event::SequenceStart(anchor, _) => self.open(anchor, Items::Sequence(Vec::new())),
            Event::MappingStart(anchor, _) => self.open(anchor, Items::Mapping(Map::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Scalar(text, style, anchor, _) => {
                if let Some(Collection {
                    items: Items::Mapping(items, key @ None),
                    ..
                }) = self.open.last_mut()
                {
                    if text == "<<" {
                        return Err("merge keys (`<<`) are not supported".to_owned());
                    }
                    if items.contains_key(&*text) {
                        return Err(format!("the key `{text}` is there twice"));
                    }
                    *key = Some(text.into_owned());
                    return Ok(None);
                }
                let value = if style == ScalarStyle::Plain {
                    plain(&text)
                } else {
                    Value::String(text.into_owned())
                };
                self.insert(
                    Node {
                        value,
                        values: 1,
                        depth: 0,
                    },
                    anchor,
                )
            }
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor);
                let node = known.ok_or("an alias is a part of its own anchor")?.clone();
                self.values += node.values;
                self.insert(node, 0)
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(None),
        }
    }

    fn open(&mut self, anchor: usize, items: Items) -> Result<Option<Value>, String> {
        if let Some(Collection {
            items: Items::Mapping(_, None),
            ..
        }) = self.open.last()
        {
            return Err("a key must be a text".to_owned());
        }
        self.open.push(Collection {
            anchor,
            items,
            values: 1,
            depth: 1,
        });
        self.check_depth(0)
    }

    fn close(&mut self) -> Result<Option<Value>, String> {
        let Some(closed) = self.open.pop() else {
            return Ok(None);
        };
        let Collection {
            anchor,
            items,
            values,
            depth,
        } = closed;
        let value = match items {
            Items::Sequence(items) => Value::Array(items),
            Items::Mapping(items, _) => Value::Object(items),
        };
        self.insert(
            Node {
                value,
                values,
                depth,
            },
            anchor,
        )
    }

    /// Adds a complete value to the collection around it.
    fn insert(&mut self, node: Node, anchor: usize) -> Result<Option<Value>, String> {
        self.check_depth(node.depth)?;
        // The parts of a collection are counted, but a kept copy has them again.
        self.values += if anchor == 0 { 1 } else { node.values };
        if self.values > MAX_VALUES {
            return Err(format!("the document has more than {MAX_VALUES} values"));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(around) = self.open.last_mut() else {
            return Ok(Some(node.value));
        };
        around.values += node.values;
        around.depth = around.depth.max(node.depth + 1);
        match &mut around.items {
            Items::Sequence(items) => items.push(node.value),
            Items::Mapping(items, key) => match key.take() {
                Some(key) => {
                    items.insert(key, node.value);
                }
                None => return Err("a key must be a text".to_owned()),
            },
        }
        Ok(None)
    }

    fn check_depth(&self, depth: usize) -> Result<Option<Value>, String> {
        if self.open.len() + depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} levels"));
        }
        Ok(None)
    }
}

/// Value of a plain scalar (YAML 1.2 section 10.3.2, without octal and hexadecimal numbers).
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let starts_like_number = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    if starts_like_number {
        if let Ok(number) = text.parse::<i64>() {
            return Value::from(number);
        }
        let float = text.parse().ok().and_then(Number::from_f64);
        if let Some(number) = float {
            return Value::Number(number);
        }
    }
    Value::String(text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_the_values_of_yaml() {
        for (text, expected) in [
            (
                "a: 1\nb: [x, 'true', true, ~, -1.5]\n",
                json!({"a": 1, "b": ["x", "true", true, null, -1.5]}),
            ),
            ("200: ok\n", json!({"200": "ok"})),
            (
                "a: &x {b: c}\nd: *x\n",
                json!({"a": {"b": "c"}, "d": {"b": "c"}}),
            ),
            ("a: |\n  b\n  c\n", json!({"a": "b\nc\n"})),
            ("version: 3.1.0\n", json!({"version": "3.1.0"})),
            ("", Value::Null),
            ("--- a\n--- b\n", json!("a")),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn names_the_line_of_a_fault() {
        for (text, line, fault) in [
            ("a: 1\na: 2\n", 2, "the key `a` is there twice"),
            ("a: &x {b: c}\nd:\n  <<: *x\n", 3, "merge keys"),
            ("? [a]\n: b\n", 1, "a key must be a text"),
            ("a: &x\n  b: *x\n", 2, "own anchor"),
            ("a: *x\n", 1, "unknown anchor"),
            ("a: [\n", 2, ""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.fault.contains(fault), "{text}: {error:?}");
            assert_eq!(error.line, line, "{text}: {error:?}");
        }
    }

    #[test]
    fn limits_the_values_of_aliases_and_their_depth() {
        let mut wide = "a0: &a0 x\n".to_owned();
        let mut deep = "a0: &a0 [x]\n".to_owned();
        for level in 1..1000 {
            let before = level - 1;
            let aliases = vec![format!("*a{before}"); 10].join(", ");
            wide.extend([format!("a{level}: &a{level} [{aliases}]\n")]);
            deep.extend([format!("a{level}: &a{level} [*a{before}]\n")]);
        }
        assert!(parse(&wide).unwrap_err().fault.contains("values"));
        assert!(parse(&deep).unwrap_err().fault.contains("levels"));
        let part = format!("[{}]", vec!["x"; 10_000].join(", "));
        let anchors: Vec<_> = (0..120).map(|level| format!("&a{level} [")).collect();
        let nested = format!("{}{part}{}", anchors.concat(), "]".repeat(120));
        assert!(parse(&nested).unwrap_err().fault.contains("values"));
        let open = "[".repeat(100_000);
        assert!(parse(&open).is_err());
    }
}
