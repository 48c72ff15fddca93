//! Claim paths: the name of a claim, a dotted path or a JSON Pointer.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

/// Path to a claim or a member of one: `role`, `realm_access.roles` or `/resource_access/my-app/roles` (RFC 6901).
#[derive(Clone, PartialEq, Eq)]
pub struct ClaimPath {
    written: Box<str>,
    first: String,
    rest: Vec<String>,
}

/// Reason why a text is not a claim path.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ClaimPathError {
    #[error("must name a claim, such as `sub`, got an empty string")]
    Empty,
    /// RFC 6901 section 3 defines two escapes.
    #[error("`{path}` has an invalid escape; write `~0` for `~` and `~1` for `/`")]
    InvalidEscape { path: String },
    /// Usually a claim name that is a URL: its dots do not separate members.
    #[error(
        "`{path}` contains `/` but does not start with it; for a claim with exactly this name, write `{pointer}`"
    )]
    InnerSlash {
        path: String,
        /// JSON Pointer to the claim with this name.
        pointer: String,
    },
    #[error(
        "`{path}` has an empty name before or after a dot; for a claim with exactly this name, write `{pointer}`"
    )]
    EmptyName {
        path: String,
        /// JSON Pointer to the claim with this name.
        pointer: String,
    },
}

impl ClaimPath {
    /// Parses a claim path as written in the configuration.
    pub fn parse(written: &str) -> Result<Self, ClaimPathError> {
        if written.is_empty() {
            return Err(ClaimPathError::Empty);
        }
        let path = || written.to_owned();
        let names: Vec<String> = match written.strip_prefix('/') {
            Some(tokens) => tokens.split('/').map(unescape).collect::<Option<_>>(),
            None => Some(written.split('.').map(str::to_owned).collect()),
        }
        .ok_or_else(|| ClaimPathError::InvalidEscape { path: path() })?;
        if !written.starts_with('/') {
            let pointer = format!("/{}", written.replace('~', "~0").replace('/', "~1"));
            if written.contains('/') {
                let path = path();
                return Err(ClaimPathError::InnerSlash { path, pointer });
            }
            if names.iter().any(String::is_empty) {
                let path = path();
                return Err(ClaimPathError::EmptyName { path, pointer });
            }
        }
        let mut names = names.into_iter();
        Ok(Self {
            written: written.into(),
            first: names.next().ok_or(ClaimPathError::Empty)?,
            rest: names.collect(),
        })
    }

    /// Name of the claim at the top level.
    pub fn first(&self) -> &str {
        &self.first
    }

    /// Returns whether the path is this claim as a whole.
    pub fn is(&self, claim: &str) -> bool {
        self.first == claim && self.rest.is_empty()
    }

    /// Value at the path, if present.
    pub fn find<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        let claim = claims.get(&self.first)?;
        let mut rest = self.rest.iter();
        rest.try_fold(claim, |value, name| match value {
            Value::Object(members) => members.get(name),
            Value::Array(items) => items.get(index(name)?),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        })
    }
}

/// Decodes a reference token (RFC 6901 section 4): `~1` is `/`, `~0` is `~`, and `~01` is `~1`.
fn unescape(token: &str) -> Option<String> {
    let mut pieces = token.split('~');
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

/// Parses an array index (RFC 6901 section 4): digits without a leading zero.
fn index(token: &str) -> Option<usize> {
    let is_number = token.bytes().all(|byte| byte.is_ascii_digit());
    let has_leading_zero = token.len() > 1 && token.starts_with('0');
    (is_number && !has_leading_zero).then(|| token.parse().ok())?
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
        "realm_access.roles": "another claim",
        "https://app.example/roles": ["e"],
        "a/b": 1, "m~n": 2, "~1": 3, " ": 4, "": 5, "list": [[1, 2], {"0": 3}], "null": null
    }"#;

    fn found(path: &str) -> Option<String> {
        let claims = serde_json::from_str(CLAIMS).unwrap();
        let path = ClaimPath::parse(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        path.find(&claims).map(Value::to_string)
    }

    #[test]
    fn finds_the_value_at_a_path() {
        for (path, expected) in [
            ("role", Some(r#""admin""#)),
            ("/role", Some(r#""admin""#)),
            ("realm_access.roles", Some(r#"["a","b"]"#)),
            ("/realm_access/roles", Some(r#"["a","b"]"#)),
            ("/realm_access.roles", Some(r#""another claim""#)),
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
            assert_eq!(found(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn suggests_a_fix_for_an_invalid_path() {
        for (text, expected) in [
            ("", "must name a claim, such as `sub`, got an empty string"),
            ("/a~", "`/a~` has an invalid escape"),
            ("/a~2b", "`/a~2b` has an invalid escape"),
            ("/~é", "`/~é` has an invalid escape"),
            (
                "https://app.example/roles",
                "`https://app.example/roles` contains `/` but does not start with it; for a claim with exactly this \
                 name, write `/https:~1~1app.example~1roles`",
            ),
            ("a/b", "`a/b` contains `/`"),
            (".", "`.` has an empty name"),
            ("a..b", "`a..b` has an empty name"),
            (".a", "`.a` has an empty name"),
            (
                "a.",
                "`a.` has an empty name before or after a dot; for a claim with exactly this name, write `/a.`",
            ),
        ] {
            let problem = ClaimPath::parse(text).unwrap_err().to_string();
            assert!(problem.starts_with(expected), "{text}: {problem}");
        }
    }

    #[test]
    fn distinguishes_a_whole_claim_from_a_member() {
        assert!(ClaimPath::parse("scope").unwrap().is("scope"));
        assert!(ClaimPath::parse("/scope").unwrap().is("scope"));
        for other in ["scope.x", "x.scope", "Scope"] {
            assert!(!ClaimPath::parse(other).unwrap().is("scope"), "{other}");
        }
    }
}
