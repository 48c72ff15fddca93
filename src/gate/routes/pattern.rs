//! Path patterns: the configured paths of routes, parsed.
//!
//! A pattern is compared in its decoded form, because percent-encoding is only a spelling (RFC 3986 section 6.2.2):
//! `/Zo%C3%AB`, `/Zo%c3%ab` and their decoded text are one literal.

use std::collections::BTreeSet;

use crate::gate::path::{CanonicalPath, PathFault, PathFaultKind, decode, hex_byte, is_path_byte};

use super::foreign::ForeignSyntax;
use super::problem::RouteProblem;

/// Pattern of the paths that a route matches.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PathPattern {
    segments: Vec<Segment>,
}

/// Segment of a pattern. Texts are percent-decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Literal(String),
    /// A parameter, and the text around it.
    Parameter {
        prefix: String,
        name: String,
        suffix: String,
    },
    /// The rest of the path.
    Rest(String),
}

impl PathPattern {
    /// Parses a pattern. Rejects one that no canonical path matches: the gate matches only canonical paths.
    pub(super) fn parse(pattern: &str) -> Result<Self, RouteProblem> {
        if pattern.is_empty() {
            return Err(RouteProblem::Empty);
        }
        let invalid = |fault| RouteProblem::Path {
            pattern: pattern.to_owned(),
            fault,
        };
        let Some(segments) = pattern.strip_prefix('/') else {
            return Err(invalid(without_slash(pattern)));
        };
        if let Some(foreign) = ForeignSyntax::find(pattern) {
            return Err(RouteProblem::foreign(pattern, foreign));
        }
        let segments: Result<Vec<Segment>, _> = segments.split('/').map(Segment::parse).collect();
        let segments = segments.map_err(invalid)?;
        let last = segments.len() - 1;
        let mut names = BTreeSet::new();
        for (index, segment) in segments.iter().enumerate() {
            let name = match segment {
                Segment::Literal(_) => continue,
                Segment::Rest(_) if index < last => {
                    return Err(invalid(
                        "has a wildcard `{*…}` before its end; only the last segment can be a wildcard",
                    ));
                }
                Segment::Parameter { name, .. } | Segment::Rest(name) => name,
            };
            if !names.insert(name) {
                return Err(RouteProblem::DuplicateParameter {
                    pattern: pattern.to_owned(),
                    parameter: name.clone(),
                });
            }
        }
        if let Err(fault) = CanonicalPath::parse(&example(pattern)) {
            return Err(RouteProblem::NoRequest {
                pattern: pattern.to_owned(),
                fault,
            });
        }
        Ok(Self { segments })
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Index of the segment that is this parameter alone.
    pub(super) fn whole_segment(&self, parameter: &str) -> Option<usize> {
        self.segments.iter().position(|segment| match segment {
            Segment::Parameter {
                prefix,
                name,
                suffix,
            } => name == parameter && prefix.is_empty() && suffix.is_empty(),
            Segment::Literal(_) | Segment::Rest(_) => false,
        })
    }

    /// Pattern for matchit, in decoded form.
    pub(super) fn lookup_form(&self) -> String {
        let mut form = String::new();
        for segment in &self.segments {
            form.push('/');
            match segment {
                Segment::Literal(text) => push_escaped(&mut form, text),
                Segment::Parameter {
                    prefix,
                    name,
                    suffix,
                } => {
                    push_escaped(&mut form, prefix);
                    form.extend(["{", name, "}"]);
                    push_escaped(&mut form, suffix);
                }
                Segment::Rest(name) => form.extend(["{*", name, "}"]),
            }
        }
        form
    }

    /// Forms of the paths before the rest: `/x` and `/x/` for `/x/{*rest}`. Empty for other patterns.
    pub(super) fn bare_forms(&self) -> Vec<String> {
        let Some((Segment::Rest(_), _)) = self.segments.split_last() else {
            return Vec::new();
        };
        let form = self.lookup_form();
        let bare = form.rsplit_once("/{*").map_or("", |(bare, _)| bare);
        let forms = [bare.to_owned(), format!("{bare}/")];
        forms.into_iter().filter(|form| !form.is_empty()).collect()
    }

    /// Checks that a path which matches the decoded pattern spells the literal text without needless escapes. Some APIs
    /// match paths before decoding: to them, `/tasks%3Apurge` is not `/tasks:purge`.
    pub(super) fn check_literals(&self, path: CanonicalPath<'_>) -> Result<(), PathFault> {
        for (segment, (at, received)) in self.segments.iter().zip(path.segments()) {
            let (prefix, suffix) = match segment {
                Segment::Literal(text) => (text.len(), 0),
                Segment::Parameter { prefix, suffix, .. } => (prefix.len(), suffix.len()),
                Segment::Rest(_) => return Ok(()),
            };
            check_literal(received, at, prefix, suffix)?;
        }
        Ok(())
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, &'static str> {
        const NO_NAME: &str = "has a parameter without a name or a closing brace; write `{name}`";
        let Some((prefix, rest)) = text.split_once('{') else {
            return if text.contains('}') {
                Err(NO_NAME)
            } else {
                Ok(Self::Literal(decoded(text)))
            };
        };
        let Some((name, suffix)) = rest.split_once('}') else {
            return Err(NO_NAME);
        };
        if suffix.contains('{') {
            return Err("has two parameters in one segment; use one parameter per segment");
        }
        let bare = name.strip_prefix('*').unwrap_or(name);
        if bare.is_empty() || suffix.contains('}') || prefix.contains('}') {
            return Err(NO_NAME);
        }
        if name == bare {
            return Ok(Self::Parameter {
                prefix: decoded(prefix),
                name: name.to_owned(),
                suffix: decoded(suffix),
            });
        }
        if prefix.is_empty() && suffix.is_empty() {
            Ok(Self::Rest(bare.to_owned()))
        } else {
            Err("has text beside a wildcard `{*…}`; a wildcard needs a whole segment")
        }
    }
}

/// Fault of a pattern that does not start with `/`.
fn without_slash(pattern: &str) -> &'static str {
    let method = pattern.split_once(' ').map(|(method, _)| method);
    if method.is_some_and(|method| method.bytes().all(|byte| byte.is_ascii_uppercase())) {
        "must start with `/`; list the method in `methods`"
    } else if pattern.contains("://") {
        "must start with `/`; write the path without scheme and host"
    } else if pattern.starts_with(['^', '~', '(']) {
        "must start with `/`; it is a path pattern, not a regular expression"
    } else {
        "must start with `/`"
    }
}

/// Decoded text of a pattern. Invalid percent-encoding stays, and makes the pattern invalid as a path.
fn decoded(text: &str) -> String {
    decode(text).map_or_else(|| text.to_owned(), String::from)
}

/// Path of the same length with text instead of each parameter.
fn example(pattern: &str) -> String {
    let mut in_braces = false;
    let replaced = pattern.chars().map(|character| {
        in_braces |= character == '{';
        let was_in_braces = in_braces;
        in_braces &= character != '}';
        if was_in_braces { 'x' } else { character }
    });
    replaced.collect()
}

/// Escapes braces for matchit.
pub(super) fn push_escaped(form: &mut String, text: &str) {
    for character in text.chars() {
        if matches!(character, '{' | '}') {
            form.push(character);
        }
        form.push(character);
    }
}

/// Checks the first `prefix` and last `suffix` decoded bytes of a segment at this offset of its path.
fn check_literal(
    segment: &str,
    offset: usize,
    prefix: usize,
    suffix: usize,
) -> Result<(), PathFault> {
    let escapes = segment.bytes().filter(|byte| *byte == b'%').count();
    let length = segment.len() - 2 * escapes;
    let (mut at, mut decoded) = (0, 0);
    while decoded < length {
        let is_escape = segment.as_bytes().get(at) == Some(&b'%');
        let is_literal = decoded < prefix || decoded + suffix >= length;
        if is_escape
            && is_literal
            && let Some(byte) = hex_byte(segment, at)
            && byte != b'%'
            && byte != b'/'
            && is_path_byte(byte)
        {
            return Err(PathFaultKind::NeedlessEscape(byte).at(offset + at));
        }
        at += if is_escape { 3 } else { 1 };
        decoded += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(pattern: &str) -> String {
        PathPattern::parse(pattern).unwrap().lookup_form()
    }

    #[test]
    fn decodes_literals_and_keeps_parameters() {
        for (pattern, expected) in [
            ("/", "/"),
            ("/a/{x}/", "/a/{x}/"),
            ("/Zo%C3%AB/{x}", "/Zo\u{eb}/{x}"),
            ("/Zo%c3%ab/{x}", "/Zo\u{eb}/{x}"),
            ("/tasks%3Apurge", "/tasks:purge"),
            ("/img-{x}.png", "/img-{x}.png"),
            ("/100%25", "/100%"),
            // matchit reads doubled braces as text.
            ("/%7Bx%7D/{*rest}", "/{{x}}/{*rest}"),
        ] {
            assert_eq!(form(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn needs_literal_text_without_needless_escapes() {
        for (pattern, path, expected) in [
            ("/v1/tasks:purge", "/v1/tasks:purge", None),
            ("/v1/tasks:purge", "/v1/tasks%3Apurge", Some(10)),
            ("/v1/tasks%3Apurge", "/v1/tasks:purge", None),
            ("/users/@me/x", "/users/%40me/x", Some(8)),
            ("/Zo%C3%AB", "/Zo%c3%ab", None),
            ("/{id}/x", "/a%3Ab/x", None),
            ("/a:{id}.json", "/a:%3A.json", None),
            ("/a:{id}.json", "/a%3Ab.json", Some(3)),
            ("/{id}:run", "/%3A%3Arun", Some(5)),
            ("/a/{*rest}", "/a/b%3Ac/d%40", None),
            ("/a%20b", "/a%20b", None),
        ] {
            let parsed = PathPattern::parse(pattern).unwrap();
            let fault = parsed.check_literals(CanonicalPath::parse(path).unwrap());
            let position = fault.err().map(|fault| fault.position);
            assert_eq!(position, expected, "{pattern} {path}");
        }
    }
}
