//! The start of a path that the upstream knows under another name: the one way in which the path that is sent is not
//! the path that was judged (docs/decisions/0019).

use http::Uri;
use http::uri::PathAndQuery;

use crate::gate::MAX_TARGET_BYTES;
use crate::gate::path::CanonicalPath;

/// What every path of a route begins with, and what is sent in its place.
///
/// Both are whole segments without a `/` at the end, and what is sent has one reading. What follows is copied as it was
/// judged, so the path that comes out has one reading too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixRewrite {
    from: String,
    to: String,
}

/// Why a start of a path cannot be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrefixProblem {
    /// Not every path of the route begins with it.
    #[error(
        "must be what the route's `path` begins with, in whole segments and without a parameter, as in `/api`"
    )]
    From,
    /// What would be sent has more than one reading, or is too long.
    #[error(
        "must be a path with one reading that starts with `/` and does not end in one, as in `/v1`; `/` takes the \
         start away"
    )]
    To,
    /// The same twice.
    #[error("is what the path begins with already")]
    Same,
}

impl PrefixRewrite {
    /// Takes a rewrite for a route of this pattern. `/` is no start at all, as the empty text is.
    pub fn new(pattern: &str, from: &str, to: &str) -> Result<Self, PrefixProblem> {
        let (from, to) = (without_root(from), without_root(to));
        let rest = pattern.strip_prefix(from);
        let is_whole = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if !is_whole || from.ends_with('/') || from.contains(['{', '}']) {
            return Err(PrefixProblem::From);
        }
        let has_one_reading = to.is_empty() || CanonicalPath::parse(to).is_ok();
        if !has_one_reading || to.ends_with('/') || to.len() > MAX_TARGET_BYTES {
            return Err(PrefixProblem::To);
        }
        if from == to {
            return Err(PrefixProblem::Same);
        }
        let (from, to) = (from.to_owned(), to.to_owned());
        Ok(Self { from, to })
    }

    /// Rewrites a target in origin form. The query stays as it is.
    pub fn apply(&self, uri: &mut Uri) {
        let target = self.replaced(uri.path());
        let target = match uri.query() {
            Some(query) => format!("{target}?{query}"),
            None => target,
        };
        // Two parts of targets, and no longer than the longest: this cannot fail.
        if let Ok(target) = PathAndQuery::try_from(target) {
            *uri = Uri::from(target);
        }
    }

    /// The path, or the pattern, that the upstream sees instead of this one.
    pub fn replaced(&self, path: &str) -> String {
        // Whatever the route matches begins with it.
        let rest = path.strip_prefix(&self.from).unwrap_or(path);
        let start = if rest.is_empty() && self.to.is_empty() {
            "/"
        } else {
            &self.to
        };
        format!("{start}{rest}")
    }
}

fn without_root(prefix: &str) -> &str {
    if prefix == "/" { "" } else { prefix }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(from: &str, to: &str, target: &str) -> String {
        let mut uri: Uri = target.parse().unwrap();
        let rewrite = PrefixRewrite::new("/api/{*rest}", from, to).unwrap();
        rewrite.apply(&mut uri);
        uri.to_string()
    }

    #[test]
    fn the_start_is_replaced_and_the_rest_is_copied() {
        let cases = [
            ("/api", "/v1", "/api/alice/tasks", "/v1/alice/tasks"),
            (
                "/api",
                "/v1/x",
                "/api/a%40b/?q=/api/%2e",
                "/v1/x/a%40b/?q=/api/%2e",
            ),
            ("/api", "/", "/api/alice", "/alice"),
            ("/api", "", "/api/api/1", "/api/1"),
            ("/api", "/", "/api", "/"),
            ("/api", "/", "/api?a=1", "/?a=1"),
            ("/api", "/", "/api/", "/"),
            ("/api", "/v1", "/api", "/v1"),
            ("/api", "/v1", "/api/", "/v1/"),
            ("/", "/v1", "/api/alice", "/v1/api/alice"),
            ("", "/v1", "/api", "/v1/api"),
        ];
        for (from, to, target, wanted) in cases {
            assert_eq!(sent(from, to, target), wanted, "{from} to {to}: {target}");
        }
    }

    #[test]
    fn a_start_is_whole_segments_of_the_pattern_without_a_parameter() {
        for pattern_and_from in [
            ("/api/{*rest}", "/ap"),
            ("/api/{*rest}", "/api/"),
            ("/api/", "/api/"),
            ("/api/{*rest}", "api"),
            ("/api/{*rest}", "/v1"),
            ("/api/{*rest}", "/api/{*rest}"),
            ("/api/{user_id}/tasks", "/api/{user_id}"),
            ("/v{version}/tasks", "/v"),
        ] {
            let (pattern, from) = pattern_and_from;
            let problem = PrefixRewrite::new(pattern, from, "/v2").unwrap_err();
            assert_eq!(problem, PrefixProblem::From, "{pattern_and_from:?}");
        }
        assert!(PrefixRewrite::new("/health", "/health", "/healthz").is_ok());
    }

    #[test]
    fn what_is_sent_instead_has_one_reading() {
        for to in [
            "v1", "/v1/", "//v1", "/../v1", "/%61", "/v1?x", "/v1#", "/v 1", "*",
        ] {
            let problem = PrefixRewrite::new("/api/{*rest}", "/api", to).unwrap_err();
            assert_eq!(problem, PrefixProblem::To, "{to}");
        }
        for same in [("/api", "/api"), ("", "/"), ("/", "")] {
            let problem = PrefixRewrite::new("/api/{*rest}", same.0, same.1).unwrap_err();
            assert_eq!(problem, PrefixProblem::Same, "{same:?}");
        }
    }
}
