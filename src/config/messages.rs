//! Messages about the values of a configuration: the violated rule, and the fix.

use super::corrections::{correction, name_of, text_of};
use super::known_keys::{keys_of, places_of};
use super::problem::{KeyPath, Step};
use super::suggestions::{alias, aliases, misspelled, nearest, suggest};
use super::tree::{ErrorKind, Node};

/// Describes the error of the value at `path`.
pub(super) fn describe(root: &Node, path: &KeyPath, kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::Invalid(message) => message.clone(),
        ErrorKind::MissingKey(key) => format!("missing required key `{key}`"),
        ErrorKind::UnknownKey(known) => match path.steps().last() {
            Some(Step::Key(key)) => unknown_key(key, known),
            Some(Step::Index(_)) | None => "unknown key".to_owned(),
        },
        ErrorKind::UnknownWord { known, word } => unknown_word(root, path, known, word.as_deref()),
        ErrorKind::WrongType { expected, found } => {
            let fix = correction(root, path, expected);
            let fix = fix.map(|fix| format!("; {fix}")).unwrap_or_default();
            format!("expected {expected}, found {found}{fix}")
        }
    }
}

/// Section of a nameless table: `[issuers]` with the keys of an issuer. Returns the section and the misplaced key.
pub(super) fn nameless<'a>(
    path: &'a KeyPath,
    kind: &ErrorKind,
) -> Option<(&'a str, &'static [&'static str])> {
    let [Step::Key(section), Step::Key(name), rest @ ..] = path.steps() else {
        return None;
    };
    if !matches!(section.as_str(), "upstreams" | "issuers") {
        return None;
    }
    let named = KeyPath::of(section).key("\0");
    let keys = keys_of(&named).filter(|keys| keys.contains(&name.as_str()))?;
    let is_nameless = match (rest, kind) {
        ([], ErrorKind::WrongType { .. }) => true,
        ([Step::Key(key)], ErrorKind::UnknownKey(_)) => {
            keys_of(&named.key(name)).is_some_and(|keys| keys.contains(&key.as_str()))
        }
        _ => false,
    };
    is_nameless.then_some((section, keys))
}

/// Message about a nameless table.
pub(super) fn describe_nameless(section: &str, key: &str) -> String {
    format!(
        "is missing a name: `{key}` belongs in [{section}.NAME], with a name of your choice for NAME"
    )
}

fn unknown_key(key: &str, known: &[&str]) -> String {
    if let Some(near) = misspelled(key, known).or_else(|| alias(key, known)) {
        return format!("unknown key; did you mean `{near}`?{}", note(near, key));
    }
    let places = places_of(key);
    if !places.is_empty() {
        return format!("unknown key here; it belongs {}", places.join(" or "));
    }
    if let Some(near) = nearest(key, known) {
        return format!("unknown key; did you mean `{near}`?{}", note(near, key));
    }
    let mut elsewhere = aliases(key).map(|ours| (ours, places_of(ours)));
    if let Some((ours, places)) = elsewhere.find(|(_, places)| !places.is_empty()) {
        let places = places.join(" or ");
        let note = note(ours, key);
        return format!("unknown key; did you mean `{ours}` {places}?{note}");
    }
    format!("unknown key; expected one of `{}`", known.join("`, `"))
}

/// Message about a value outside a closed list of words. A word in quotes may be written as a number without them.
fn unknown_word(root: &Node, path: &KeyPath, known: &[&str], word: Option<&str>) -> String {
    let list = known.join("`, `");
    if let Some(word) = word {
        let near = suggest(word, known).map(|near| format!("; did you mean `{near}`?"));
        return format!(
            "must be one of `{list}`, got `{word}`{}",
            near.unwrap_or_default()
        );
    }
    let number = root.get(path).and_then(|node| text_of(node.value()));
    match known.iter().find(|known| number.as_deref() == Some(known)) {
        Some(near) => format!(
            "must be one of `{list}` in quotes; write `{} = \"{near}\"`",
            name_of(path)
        ),
        None => format!("must be one of `{list}`"),
    }
}

/// Remark about a suggested key that takes another value than the unknown one.
fn note(suggested: &str, written: &str) -> &'static str {
    match suggested {
        "secret_env" | "password_env" if misspelled(written, &[suggested]).is_none() => {
            " It names an environment variable: the file holds no secret."
        }
        "access" if matches!(written, "owner") => " Write `access = { owner = \"user_id\" }`.",
        "access" if matches!(written, "public" | "authenticated") => {
            " Write `access = \"public\"` or `access = \"authenticated\"`."
        }
        _ => "",
    }
}
