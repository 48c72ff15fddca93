//! Path templates of a document, as patterns of routes.

use std::collections::BTreeMap;
use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Characters of a literal that are percent-encoded: all that RFC 3986 section 3.3 does not allow in a path.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@')
    // The document encodes what it must.
    .remove(b'%');

/// Path template, such as `/users/{user_id}/files/{name}.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Segment>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// Literal text, as a route has it.
    Literal(String),
    Parameter {
        prefix: String,
        name: String,
        suffix: String,
    },
    Rest(String),
    /// Text that no route can have, such as two parameters. The route table names its fault.
    Other(String),
}

/// Names of the parameters by their places. matchit needs one name at one place: `/users/{id}` and `/users/{user_id}/x`
/// conflict.
#[derive(Debug, Default, Clone)]
pub(super) struct Names {
    by_place: BTreeMap<String, String>,
}

impl Template {
    /// Parses a path that starts with `/`.
    pub(super) fn parse(path: &str) -> Self {
        let segments = path.strip_prefix('/').unwrap_or(path).split('/');
        let mut segments: Vec<Segment> = segments.map(Segment::parse).collect();
        let last = segments.len().saturating_sub(1);
        for (index, segment) in segments.iter_mut().enumerate() {
            if let Segment::Rest(name) = segment
                && index < last
            {
                *segment = Segment::Parameter {
                    prefix: String::new(),
                    name: std::mem::take(name),
                    suffix: String::new(),
                };
            }
        }
        Self(segments)
    }

    /// Pattern of a route with these names.
    pub(super) fn pattern(&self, names: &Names) -> String {
        let mut pattern = String::new();
        let mut used = Vec::new();
        for (segment, name) in self.0.iter().zip(names.of(self)) {
            let mut name = name.to_owned();
            while used.contains(&name) {
                name.push_str("_2");
            }
            pattern.push('/');
            match segment {
                Segment::Literal(text) | Segment::Other(text) => pattern.push_str(text),
                Segment::Parameter { prefix, suffix, .. } => {
                    pattern.extend([prefix, "{", &name, "}", suffix]);
                }
                Segment::Rest(_) => pattern.extend(["{*", &name, "}"]),
            }
            if !name.is_empty() {
                used.push(name);
            }
        }
        pattern
    }

    /// Path of a request that the template matches, and the value of each segment in it. The values of parameters differ.
    pub(super) fn sample(&self) -> (String, Vec<String>) {
        let mut values = Vec::new();
        for (index, segment) in self.0.iter().enumerate() {
            let value = format!("sample-{}", index + 1);
            values.push(match segment {
                Segment::Literal(text) => plain(text),
                Segment::Parameter { prefix, suffix, .. } => {
                    format!("{}{value}{}", plain(prefix), plain(suffix))
                }
                Segment::Rest(_) => value,
                Segment::Other(text) => without_braces(text, &value),
            });
        }
        (format!("/{}", values.join("/")), values)
    }

    /// Index of a parameter after a segment `users` or `user`: it may be a user under another name.
    pub(super) fn possible_user(&self) -> Option<usize> {
        let pairs = self.0.iter().zip(self.0.iter().skip(1));
        let mut after_users = pairs.map(|(before, segment)| match (before, segment) {
            (Segment::Literal(text), Segment::Parameter { prefix, suffix, .. }) => {
                let is_whole = prefix.is_empty() && suffix.is_empty();
                is_whole && ["user", "users"].contains(&text.to_ascii_lowercase().as_str())
            }
            _ => false,
        });
        Some(after_users.position(|is_user| is_user)? + 1)
    }

    /// Places of the segments: the template up to and with each, without the names of parameters.
    fn places(&self) -> Vec<String> {
        let mut place = String::new();
        let mut places = Vec::new();
        for segment in &self.0 {
            place.push('/');
            match segment {
                Segment::Literal(text) | Segment::Other(text) => place.push_str(text),
                Segment::Parameter { .. } => place.push_str("{}"),
                Segment::Rest(_) => place.push_str("{*}"),
            }
            places.push(place.clone());
        }
        places
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pattern(&Names::default()))
    }
}

impl Segment {
    fn parse(text: &str) -> Self {
        let Some((prefix, rest)) = text.split_once('{') else {
            return if text.contains('}') {
                Self::Other(printable(text))
            } else {
                Self::Literal(literal(text))
            };
        };
        let Some((name, suffix)) = rest.split_once('}') else {
            return Self::Other(printable(text));
        };
        if prefix.contains('}') || suffix.contains(['{', '}']) || name.contains('{') {
            return Self::Other(printable(text));
        }
        let is_whole = prefix.is_empty() && suffix.is_empty();
        // `{rest:path}` (Starlette), `{+rest}` (RFC 6570), `{rest...}` (Go), `{*rest}`.
        let is_rest = is_whole
            && (name.starts_with(['*', '+'])
                || name.ends_with(['*', '+'])
                || name.ends_with("...")
                || name.ends_with(":path"));
        let name = parameter_name(name);
        if is_rest {
            return Self::Rest(name);
        }
        Self::Parameter {
            prefix: if prefix.is_empty() {
                String::new()
            } else {
                literal(prefix)
            },
            name,
            suffix: encode(suffix),
        }
    }
}

impl Names {
    /// Names for these templates, the name of a user before others.
    pub(super) fn of_all<'a>(templates: impl Iterator<Item = &'a Template>) -> Self {
        let mut names = Self::default();
        for template in templates {
            names.learn(template);
        }
        names
    }

    /// Adds the names of the patterns of routes, which take precedence: a new route must fit them.
    #[must_use]
    pub(super) fn with_patterns<'a>(mut self, patterns: impl Iterator<Item = &'a str>) -> Self {
        for pattern in patterns {
            let template = Template::parse(pattern);
            for (place, segment) in template.places().into_iter().zip(&template.0) {
                if let Some(name) = segment.name() {
                    self.by_place.insert(place, name.to_owned());
                }
            }
        }
        self
    }

    fn learn(&mut self, template: &Template) {
        for (place, segment) in template.places().into_iter().zip(&template.0) {
            let Some(name) = segment.name() else {
                continue;
            };
            let known = self.by_place.get(&place);
            if known.is_none_or(|known| !is_user(known) && is_user(name)) {
                self.by_place.insert(place, name.to_owned());
            }
        }
    }

    /// Name of each segment; empty for one without a parameter.
    fn of<'a>(&'a self, template: &'a Template) -> Vec<&'a str> {
        let segments = template.places().into_iter().zip(&template.0);
        segments
            .map(|(place, segment)| {
                let own = segment.name().unwrap_or_default();
                let common = self.by_place.get(&place).map(String::as_str);
                if own.is_empty() {
                    own
                } else {
                    common.unwrap_or(own)
                }
            })
            .collect()
    }

    /// Name of the parameter in a segment.
    pub(super) fn at<'a>(&'a self, template: &'a Template, segment: usize) -> Option<&'a str> {
        self.of(template).get(segment).copied()
    }

    /// Index of the first segment that names a user.
    pub(super) fn owner(&self, template: &Template) -> Option<usize> {
        self.of(template).into_iter().position(is_user)
    }

    /// Names of a template that differ from its own, as pairs.
    pub(super) fn renamed<'a>(&'a self, template: &'a Template) -> Vec<(&'a str, &'a str)> {
        let names = self.of(template).into_iter().zip(&template.0);
        let pairs = names.filter_map(|(name, segment)| Some((segment.name()?, name)));
        pairs.filter(|(own, name)| own != name).collect()
    }
}

impl Segment {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Parameter { name, .. } | Self::Rest(name) => Some(name),
            Self::Literal(_) | Self::Other(_) => None,
        }
    }
}

/// True for `user_id` in any spelling, and `uid`.
fn is_user(name: &str) -> bool {
    let name: String = name
        .chars()
        .filter(|character| !matches!(character, '_' | '-'))
        .map(|character| character.to_ascii_lowercase())
        .collect();
    name == "userid" || name == "uid"
}

/// Name that a route accepts: that of `{id:int}` and `{id?}` is `id`.
fn parameter_name(written: &str) -> String {
    let bare = written.trim_start_matches(['*', '+', ' ', '/', ';']);
    let bare = bare
        .split([':', '?', '*', '+', '='])
        .next()
        .unwrap_or_default();
    let bare = bare.trim_end_matches(['.', ' ']);
    let name: String = bare
        .chars()
        .map(|character| {
            let is_kept = character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
            if is_kept { character } else { '_' }
        })
        .collect();
    if name.is_empty() {
        "parameter".to_owned()
    } else {
        name
    }
}

/// Literal text at the start of a segment. Route patterns read a `:` or a `$` there, and a `*`, as other syntax.
fn literal(text: &str) -> String {
    let encoded = encode(text);
    let first = encoded.chars().next();
    match first {
        Some(':') => encoded.replacen(':', "%3A", 1),
        Some('$') => encoded.replacen('$', "%24", 1),
        _ => encoded,
    }
}

/// Literal text as a client sends it.
fn plain(text: &str) -> String {
    text.replace("%3A", ":")
        .replace("%24", "$")
        .replace("%2A", "*")
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

fn printable(text: &str) -> String {
    text.escape_debug().to_string()
}

/// Text with this value in place of each parameter.
fn without_braces(text: &str, value: &str) -> String {
    let mut parts = text.split('{');
    let mut replaced = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        replaced.push_str(value);
        replaced.push_str(part.split_once('}').map_or("", |(_, after)| after));
    }
    replaced
}
