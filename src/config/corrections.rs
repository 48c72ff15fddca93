//! Corrections of values: the same value in the expected form, or an example.

use super::examples::example;
use super::known_keys::{keys_of, section};
use super::problem::{KeyPath, Step};
use super::suggestions::suggest;
use super::tree::{ARRAY, BOOLEAN, INTEGER, NUMBER, Node, SMALL_INTEGER, STRING, TABLE, Value};

/// Longest value that a correction repeats, in bytes.
const MAX_VALUE_BYTES: usize = 80;

/// Correction of a value of another type than the expected one.
pub(super) fn correction(root: &Node, path: &KeyPath, expected: &str) -> Option<String> {
    let value = root.get(path)?.value();
    let fixed = match expected {
        TABLE => return fix_of_table(path, value),
        ARRAY => return fix_of_array(path, value),
        INTEGER | SMALL_INTEGER => integer(value),
        NUMBER => number(value),
        BOOLEAN => boolean(value).map(|truth| truth.to_string()),
        text if text.starts_with("a duration") => duration(value).map(quoted),
        text if text.starts_with("an address") => {
            let host = if text.contains("127.0.0.1") {
                "127.0.0.1"
            } else {
                "0.0.0.0"
            };
            port(value).map(|port| quoted(format!("{host}:{port}")))
        }
        text if text.starts_with("\"public\"") => access(root, path, value),
        text if text.starts_with(STRING) => return fix_of_string(path, value),
        _ => None,
    };
    if let Some(fixed) = fixed {
        return Some(format!("write `{} = {fixed}`", name_of(path)));
    }
    example(path).map(|example| format!("write for example `{} = {example}`", name_of(path)))
}

fn fix_of_table(path: &KeyPath, value: &Value) -> Option<String> {
    let name = name_of(path);
    if let (Value::List(items), [Step::Key(key), inner @ ..]) = (value, path.steps()) {
        let is_table = matches!(
            items.first(),
            Some(Some(first)) if matches!(first.value(), Value::Table(_))
        );
        let header = match inner {
            [] => Some(section(key)),
            [Step::Key(inner)] if keys_of(path).is_some() => Some(format!("[{key}.{inner}]")),
            [Step::Key(_) | Step::Index(_), ..] => None,
        };
        if let Some(header) = header.filter(|_| is_table) {
            return Some(format!("write `{header}`, with one pair of brackets"));
        }
    }
    let example = example(path)?;
    Some(match path.steps().last()? {
        Step::Key(_) => format!("write for example `{name} = {example}`"),
        Step::Index(_) => format!("write for example `{example}`"),
    })
}

fn fix_of_array(path: &KeyPath, value: &Value) -> Option<String> {
    let name = name_of(path);
    let of_tables = example(&path.index(0));
    match (value, of_tables) {
        (Value::Table(_), Some(_)) if path.steps().len() == 1 => {
            Some(format!("write `[[{name}]]`, with two pairs of brackets"))
        }
        (Value::Table(_), Some(example)) => Some(format!(
            "put the table in brackets, as in `{name} = [{example}]`"
        )),
        (_, Some(example)) => Some(format!("write for example `{name} = [{example}]`")),
        (value, None) => {
            let text = text_of(value)?;
            let is_text = matches!(value, Value::Text(_));
            let element = if is_text { quoted(text) } else { text };
            Some(format!("write `{name} = [{element}]`"))
        }
    }
}

fn fix_of_string(path: &KeyPath, value: &Value) -> Option<String> {
    let name = name_of(path);
    match (value, path.steps()) {
        (Value::List(_), [Step::Key(routes), Step::Index(_), Step::Key(key)])
            if routes == "routes" && key == "path" =>
        {
            Some("write one [[routes]] for each path".to_owned())
        }
        (Value::Text(_) | Value::List(_) | Value::Table(_), _) => {
            example(path).map(|example| format!("write for example `{name} = {example}`"))
        }
        (value, [.., Step::Index(_)]) => Some(format!("write `{}`", quoted(text_of(value)?))),
        (value, _) => Some(format!("write `{name} = {}`", quoted(text_of(value)?))),
    }
}

/// Last key of a path.
pub(super) fn name_of(path: &KeyPath) -> &str {
    let mut keys = path.steps().iter().rev();
    let key = keys.find_map(|step| match step {
        Step::Key(key) => Some(key.as_str()),
        Step::Index(_) => None,
    });
    key.unwrap_or_default()
}

/// Scalar as text, unless it is too long.
pub(super) fn text_of(value: &Value) -> Option<String> {
    let text = match value {
        Value::Text(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(truth) => truth.to_string(),
        Value::List(_) | Value::Table(_) => return None,
    };
    (text.len() <= MAX_VALUE_BYTES).then_some(text)
}

/// TOML string.
fn quoted(text: impl AsRef<str>) -> String {
    format!("{:?}", text.as_ref())
}

fn integer(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => {
            let number: u64 = text.trim().parse().ok()?;
            Some(number.to_string())
        }
        Value::Float(number) if number.fract() == 0.0 && (0.0..1e9).contains(number) => {
            Some(number.to_string())
        }
        Value::Float(_)
        | Value::Integer(_)
        | Value::Boolean(_)
        | Value::List(_)
        | Value::Table(_) => None,
    }
}

fn number(value: &Value) -> Option<String> {
    let Value::Text(text) = value else {
        return None;
    };
    let number: f64 = text.trim().parse().ok()?;
    number.is_finite().then(|| number.to_string())
}

fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(true),
            "false" | "no" | "off" | "0" => Some(false),
            _ => None,
        },
        Value::Integer(1) => Some(true),
        Value::Integer(0) => Some(false),
        Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::List(_)
        | Value::Table(_) => None,
    }
}

/// Duration of a number without a unit, which counts seconds.
fn duration(value: &Value) -> Option<String> {
    match value {
        Value::Integer(seconds) => Some(format!("{}s", u64::try_from(*seconds).ok()?)),
        Value::Float(seconds) if (0.0..1e9).contains(seconds) => {
            Some(format!("{}ms", (seconds * 1000.0).round()))
        }
        Value::Float(_) | Value::Text(_) | Value::Boolean(_) | Value::List(_) | Value::Table(_) => {
            None
        }
    }
}

fn port(value: &Value) -> Option<u16> {
    let Value::Integer(port) = value else {
        return None;
    };
    u16::try_from(*port).ok()
}

/// Access rule meant by a word. The owner is the first parameter of the path.
fn access(root: &Node, path: &KeyPath, value: &Value) -> Option<String> {
    let word = match value {
        Value::Text(word) => word,
        Value::List(items) => match items.as_slice() {
            [Some(only)] => return access(root, path, only.value()),
            _ => return None,
        },
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Table(_) => return None,
    };
    if let Some(known) = suggest(word, &["public", "authenticated"]) {
        return Some(quoted(known));
    }
    let (route, _) = path.split_last();
    let pattern = root.get(&route.key("path"));
    let pattern = pattern.and_then(|node| text_of(node.value()));
    let mut parameters = pattern
        .iter()
        .flat_map(|pattern| pattern.split('{').skip(1));
    let parameter = parameters.find_map(|part| {
        let (name, _) = part.split_once('}')?;
        (!name.starts_with('*')).then_some(name)
    });
    let names_owner = word.eq_ignore_ascii_case("owner") || Some(word.as_str()) == parameter;
    names_owner.then(|| format!("{{ owner = {} }}", quoted(parameter.unwrap_or("user_id"))))
}
