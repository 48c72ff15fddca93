//! Compiles `replace_prefix`, `request_headers` and `response_headers` of a route.

use http::{HeaderName, HeaderValue};

use crate::config::{self, ConfigDocument, KeyPath};
use crate::gate::access::Rule;
use crate::gate::managed_headers::{alike, is_protected};
use crate::gate::routes::Route;
use crate::gate::token::TokenSources;
use crate::proxy::forwarding::Forwarding;
use crate::proxy::headers::edits::HeaderEdits;
use crate::proxy::headers::hop_by_hop::is_hop_by_hop;
use crate::proxy::headers::path_rewrite::{PrefixProblem, PrefixRewrite};

use super::super::headers::managed_names;

pub(super) fn prefix(
    document: &mut ConfigDocument,
    path: &KeyPath,
    route: &config::Route,
) -> Option<PrefixRewrite> {
    let named = route.replace_prefix.as_ref()?;
    let path = path.key("replace_prefix");
    match PrefixRewrite::new(&route.path, &named.from, &named.to) {
        Ok(rewrite) => Some(rewrite),
        Err(problem) => {
            let key = match problem {
                PrefixProblem::From => "from",
                PrefixProblem::To | PrefixProblem::Same => "to",
            };
            document.report(path.key(key), problem.to_string());
            None
        }
    }
}

/// Compiles header edits: of a request, with its token sources, or of a response.
pub(super) fn edits(
    document: &mut ConfigDocument,
    path: &KeyPath,
    named: Option<&config::HeaderEdits>,
    tokens: Option<&TokenSources>,
) -> HeaderEdits {
    let mut edits = HeaderEdits::default();
    let Some(config::HeaderEdits { set, remove }) = named else {
        return edits;
    };
    if set.is_empty() && remove.is_empty() && !document.is_invalid(path) {
        document.report(path.clone(), "must `set` or `remove` at least one header");
    }
    for (name, value) in set {
        let path = path.key("set").key(name);
        match header(document, name, tokens) {
            Ok(name) if is_set(&edits, &name) => {
                document.report(path, "is set twice, possibly in another spelling");
            }
            Ok(name) => match self::value(value) {
                Some(value) => edits.set.push((name, value)),
                None => document.report(
                    path,
                    "must not contain control characters or surrounding whitespace",
                ),
            },
            Err(problem) => document.report(path, problem),
        }
    }
    let path = path.key("remove");
    let elements: Vec<KeyPath> = document.elements(&path).take(remove.len()).collect();
    for (name, element) in remove.iter().zip(elements) {
        match header(document, name, tokens) {
            Ok(name) if is_set(&edits, &name) => {
                document.report(element, "is also in `set`, which replaces every value");
            }
            Ok(name) => edits.remove.push(name),
            Err(problem) => document.report(element, problem),
        }
    }
    edits
}

/// Reports edits of CORS headers, which the gate sets itself.
pub(super) fn report_cors(
    document: &mut ConfigDocument,
    path: &KeyPath,
    named: Option<&config::HeaderEdits>,
) {
    let Some(config::HeaderEdits { set, remove }) = named else {
        return;
    };
    let path = path.key("response_headers");
    let list = path.key("remove");
    let set = set.keys().map(|name| (name, path.key("set").key(name)));
    let remove = remove.iter().zip(document.elements(&list));
    let wrong = set
        .chain(remove)
        .filter(|(name, _)| name.to_ascii_lowercase().starts_with("access-control-"));
    let wrong: Vec<KeyPath> = wrong.map(|(_, path)| path).collect();
    for path in wrong {
        document.report(path, "is managed by the gate, as configured in [cors]");
    }
}

/// Parses the name of an editable header.
fn header(
    document: &ConfigDocument,
    name: &str,
    tokens: Option<&TokenSources>,
) -> Result<HeaderName, &'static str> {
    let Ok(name) = name.parse::<HeaderName>() else {
        return Err("is not a valid header name");
    };
    let text = name.as_str();
    let managed = managed_names(document);
    // Only identity headers are removed from a response.
    if managed.is_identity(text) || (tokens.is_some() && managed.covers(text)) {
        return Err("is managed by the gate, in every spelling");
    }
    if tokens.is_some_and(|tokens| tokens.are_in(&name)) {
        return Err(
            "may carry the token of this route; use `credential` of [identity] to strip or forward it",
        );
    }
    if is_protected(text)
        || is_hop_by_hop(&name)
        || name == http::header::EXPECT
        || text.starts_with("sec-websocket-")
    {
        return Err("is a reserved header and can be neither set nor removed");
    }
    Ok(name)
}

fn is_set(edits: &HeaderEdits, name: &HeaderName) -> bool {
    let mut set = edits.set.iter();
    set.any(|(other, _)| alike(name.as_str(), other.as_str()))
}

/// Parses a field value (RFC 9110 section 5.5: surrounding whitespace is not part of it).
fn value(text: &str) -> Option<HeaderValue> {
    let value = HeaderValue::from_str(text).ok()?;
    (text.trim() == text).then_some(value)
}

/// Warns about path rewrites that map two routes to the same upstream path: the less strict route decides.
pub(super) fn warn_about_merged(
    document: &ConfigDocument,
    warnings: &mut Vec<String>,
    routes: &[Route],
    forwarding: &[Forwarding],
    paths: &[KeyPath],
) {
    let all = || routes.iter().zip(forwarding);
    for ((route, sent_to), path) in all().zip(paths) {
        let sent_as = sent(route, sent_to);
        let is_opened = |(stricter, other): &(&Route, &Forwarding)| {
            other.upstream == sent_to.upstream
                && strictness(stricter) > strictness(route)
                && stricter
                    .methods
                    .iter()
                    .any(|method| route.methods.contains(method))
                && !overlap(&stricter.pattern, &route.pattern)
                && overlap(&sent(stricter, other), &sent_as)
        };
        if let Some((stricter, other)) = all().find(is_opened) {
            warnings.push(format!(
                "{}: is forwarded as `{}`, which lets more callers reach the resources of `{}`, forwarded as `{}`",
                document.location(&path.key("path")),
                sent_as,
                stricter.pattern,
                sent(stricter, other)
            ));
        }
    }
}

fn strictness(route: &Route) -> u8 {
    match route.access.rule {
        Rule::Public => 0,
        Rule::Authenticated => 1,
        Rule::Owner { .. } => 2,
    }
}

/// Path pattern as forwarded.
fn sent(route: &Route, forwarding: &Forwarding) -> String {
    match &forwarding.path_rewrite {
        Some(prefix) => prefix.replaced(&route.pattern),
        None => route.pattern.as_ref().to_owned(),
    }
}

/// True if a path matches both patterns.
fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('/'), other.split('/'));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(rest), _) | (_, Some(rest)) if rest.starts_with("{*") => return true,
            (Some(a), Some(b)) if a == b || a.contains('{') || b.contains('{') => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::overlap;

    #[test]
    fn two_patterns_overlap_if_one_path_is_in_both() {
        for (one, other, expected) in [
            ("/a", "/a", true),
            ("/a", "/b", false),
            ("/a", "/a/b", false),
            ("/a/{*rest}", "/a/b/c", true),
            ("/a/{*rest}", "/a", true),
            ("/a", "/a/{*rest}", true),
            ("/{*rest}", "/a/{id}", true),
            ("/a/{id}", "/a/b", true),
            ("/a/{id}", "/b/{id}", false),
            ("/a/{id}/c", "/a/{id}", false),
        ] {
            assert_eq!(overlap(one, other), expected, "{one} and {other}");
        }
    }
}
