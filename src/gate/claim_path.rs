//! The way to a claim: its name, names with dots between them, or a JSON pointer.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

/// Names a claim, or a part of one: `role`, `realm_access.roles`, or `/resource_access/my-app/roles` (RFC 6901).
#[derive(Clone, PartialEq, Eq)]
pub struct ClaimPath {
    written: Box<str>,
    first: String,
    rest: Vec<String>,
}

/// Why a text names no claim.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ClaimPathError {
    /// There is nothing.
    #[error("needs the name of a claim")]
    Nothing,
    /// RFC 6901 section 3 knows only two escapes.
    #[error("has a `~` that is not `~0` (for `~`) or `~1` (for `/`)")]
    Escape,
    /// Most often a name that is a URL, whose dots are no steps.
    #[error(
        "has a `/` and does not begin with one; for a claim of that very name, write `{pointer}`"
    )]
    Slash {
        /// The JSON pointer that names it.
        pointer: String,
    },
    /// Two dots, or one at an end.
    #[error(
        "has nothing before, after or between its dots; for a claim of that very name, write `{pointer}`"
    )]
    Dot {
        /// The JSON pointer that names it.
        pointer: String,
    },
}

impl ClaimPath {
    /// Reads a pointer as the configuration has it.
    pub fn parse(written: &str) -> Result<Self, ClaimPathError> {
        if written.is_empty() {
            return Err(ClaimPathError::Nothing);
        }
        let steps: Vec<String> = match written.strip_prefix('/') {
            Some(steps) => steps.split('/').map(unescape).collect::<Option<_>>(),
            None => Some(written.split('.').map(str::to_owned).collect()),
        }
        .ok_or(ClaimPathError::Escape)?;
        if !written.starts_with('/') {
            let pointer = format!("/{}", written.replace('~', "~0").replace('/', "~1"));
            if written.contains('/') {
                return Err(ClaimPathError::Slash { pointer });
            }
            if steps.iter().any(String::is_empty) {
                return Err(ClaimPathError::Dot { pointer });
            }
        }
        let mut steps = steps.into_iter();
        Ok(Self {
            written: written.into(),
            first: steps.next().ok_or(ClaimPathError::Nothing)?,
            rest: steps.collect(),
        })
    }

    /// The claim that it begins with.
    pub fn first(&self) -> &str {
        &self.first
    }

    /// Whether it names this claim, and no part of it.
    pub fn is(&self, claim: &str) -> bool {
        self.first == claim && self.rest.is_empty()
    }

    /// What it names, if it is there.
    pub fn find<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        let claim = claims.get(&self.first)?;
        let mut rest = self.rest.iter();
        rest.try_fold(claim, |value, step| match value {
            Value::Object(members) => members.get(step),
            Value::Array(items) => items.get(index(step)?),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        })
    }
}

/// RFC 6901 section 4: `~1` is `/` and `~0` is `~`, in this order, so that `~01` is `~1`.
fn unescape(step: &str) -> Option<String> {
    let mut pieces = step.split('~');
    let mut text = pieces.next()?.to_owned();
    for piece in pieces {
        let (escaped, rest) = piece.split_at_checked(1)?;
        text.push_str(match escaped {
            "0" => "~",
            "1" => "/",
            _ => return None,
        });
        text.push_str(rest);
    }
    Some(text)
}

/// RFC 6901 section 4: the digits of a place in a list, without a zero in front.
fn index(step: &str) -> Option<usize> {
    let is_plain = step.bytes().all(|byte| byte.is_ascii_digit());
    let has_zero_in_front = step.len() > 1 && step.starts_with('0');
    (is_plain && !has_zero_in_front).then(|| step.parse().ok())?
}

impl FromStr for ClaimPath {
    type Err = ClaimPathError;

    fn from_str(written: &str) -> Result<Self, ClaimPathError> {
        Self::parse(written)
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl fmt::Debug for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.written.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIMS: &str = r#"{
        "role": "admin",
        "realm_access": {"roles": ["a", "b"]},
        "resource_access": {"my-app": {"roles": ["c"]}, "my.app": {"roles": ["d"]}},
        "realm_access.roles": "not this one",
        "https://app.example/roles": ["e"],
        "a/b": 1, "m~n": 2, "~1": 3, " ": 4, "": 5, "list": [[1, 2], {"0": 3}], "null": null
    }"#;

    fn found(pointer: &str) -> Option<String> {
        let claims = serde_json::from_str(CLAIMS).unwrap();
        let pointer =
            ClaimPath::parse(pointer).unwrap_or_else(|error| panic!("{pointer}: {error}"));
        pointer.find(&claims).map(Value::to_string)
    }

    #[test]
    fn a_pointer_leads_to_one_place_or_nowhere() {
        for (pointer, expected) in [
            ("role", Some(r#""admin""#)),
            ("/role", Some(r#""admin""#)),
            ("realm_access.roles", Some(r#"["a","b"]"#)),
            ("/realm_access/roles", Some(r#"["a","b"]"#)),
            ("/realm_access.roles", Some(r#""not this one""#)),
            ("/resource_access/my-app/roles", Some(r#"["c"]"#)),
            ("resource_access.my-app.roles", Some(r#"["c"]"#)),
            ("resource_access.my.app.roles", None),
            ("/resource_access/my.app/roles", Some(r#"["d"]"#)),
            ("/https:~1~1app.example~1roles", Some(r#"["e"]"#)),
            ("/a~1b", Some("1")),
            ("/m~0n", Some("2")),
            ("m~n", Some("2")),
            ("/~01", Some("3")),
            (" ", Some("4")),
            ("/", Some("5")),
            ("realm_access.roles.1", Some(r#""b""#)),
            ("/list/0/1", Some("2")),
            ("/list/1/0", Some("3")),
            ("/list/00", None),
            ("/list/+0", None),
            ("/list/-", None),
            ("/list/2", None),
            ("/list/", None),
            ("/list/99999999999999999999999999", None),
            ("null", Some("null")),
            ("null.x", None),
            ("role.0", None),
            ("Role", None),
            ("/role/", None),
            ("missing", None),
            ("missing.x", None),
        ] {
            assert_eq!(found(pointer).as_deref(), expected, "{pointer}");
        }
    }

    #[test]
    fn a_text_that_names_no_claim_is_told_what_would() {
        for (text, expected) in [
            ("", "needs the name of a claim"),
            ("/a~", "has a `~` that is not"),
            ("/a~2b", "has a `~` that is not"),
            ("/~é", "has a `~` that is not"),
            (
                "https://app.example/roles",
                "has a `/` and does not begin with one; for a claim of that very name, write \
                 `/https:~1~1app.example~1roles`",
            ),
            ("a/b", "has a `/`"),
            (".", "has nothing before, after or between its dots"),
            ("a..b", "has nothing before, after or between its dots"),
            (".a", "has nothing before, after or between its dots"),
            (
                "a.",
                "has nothing before, after or between its dots; for a claim of that very name, write `/a.`",
            ),
        ] {
            let problem = ClaimPath::parse(text).unwrap_err().to_string();
            assert!(problem.starts_with(expected), "{text}: {problem}");
        }
    }

    #[test]
    fn a_whole_claim_is_told_from_a_part_of_one() {
        assert!(ClaimPath::parse("scope").unwrap().is("scope"));
        assert!(ClaimPath::parse("/scope").unwrap().is("scope"));
        for other in ["scope.x", "x.scope", "Scope"] {
            assert!(!ClaimPath::parse(other).unwrap().is("scope"), "{other}");
        }
    }
}
