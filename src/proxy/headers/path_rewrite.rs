//! Prefix replacement: the one difference between the path of the decision and the forwarded path
//! (docs/decisions/0019).

use crate::gate::MAX_TARGET_BYTES;
use crate::gate::path::CanonicalPath;
use crate::gate::request_target::RequestTarget;

/// Prefix of every path of a route, and its replacement.
///
/// Both consist of whole segments without a trailing `/`, and the replacement is a canonical path. The rest of the path
/// is copied unchanged, so the result is canonical too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixRewrite {
    from: String,
    to: String,
}

/// Problem in a prefix replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrefixProblem {
    /// Not a prefix of every path of the route.
    #[error(
        "must be a prefix of the route's `path`: whole segments without a parameter, as in `/api`"
    )]
    From,
    /// Not canonical, or too long.
    #[error(
        "must be a canonical path that starts with `/` and does not end with `/`, as in `/v1`; `/` alone removes the \
         prefix"
    )]
    To,
    /// Equal to the prefix.
    #[error("must differ from `from`")]
    Same,
}

impl PrefixRewrite {
    /// Creates a rewrite for a route with this pattern. `/` means the empty prefix.
    pub fn new(pattern: &str, from: &str, to: &str) -> Result<Self, PrefixProblem> {
        let (from, to) = (without_root(from), without_root(to));
        let rest = pattern.strip_prefix(from);
        let is_whole = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if !is_whole || from.ends_with('/') || from.contains(['{', '}']) {
            return Err(PrefixProblem::From);
        }
        let is_canonical = to.is_empty() || CanonicalPath::parse(to).is_ok();
        if !is_canonical || to.ends_with('/') || to.len() > MAX_TARGET_BYTES {
            return Err(PrefixProblem::To);
        }
        if from == to {
            return Err(PrefixProblem::Same);
        }
        let (from, to) = (from.to_owned(), to.to_owned());
        Ok(Self { from, to })
    }

    /// Prefix that is replaced; empty if the rewrite only adds one.
    pub(super) fn from(&self) -> &str {
        &self.from
    }

    /// Same target with the other prefix. The query stays as it is.
    pub fn apply(&self, target: &RequestTarget) -> RequestTarget {
        match CanonicalPath::parse(&self.replaced(target.path())) {
            Ok(path) => target.with_path(path),
            // Infallible: the prefix and the rest are canonical.
            Err(_) => target.clone(),
        }
    }

    /// Forwarded form of a path or a pattern.
    pub fn replaced(&self, path: &str) -> String {
        // Every path that the route matches has the prefix, in this spelling or with other hexadecimal digits.
        let mut slashes = path.match_indices('/').map(|(at, _)| at);
        let end = slashes.nth(self.from.matches('/').count());
        let rest = end.and_then(|end| path.get(end..)).unwrap_or_default();
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
    use crate::gate::access::Rule;
    use crate::gate::permit::{Caller, Permit};
    use crate::gate::routes::Route;

    use super::*;

    fn sent(from: &str, to: &str, target: &str) -> String {
        let permit = Permit::forged(
            Caller::Anonymous,
            Route::new("/api/{*rest}", Rule::Public),
            target,
        );
        let rewrite = PrefixRewrite::new("/api/{*rest}", from, to).unwrap();
        rewrite.apply(permit.target()).as_str().to_owned()
    }

    #[test]
    fn replaces_the_prefix_and_copies_the_rest() {
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
        for (from, to, target, expected) in cases {
            assert_eq!(sent(from, to, target), expected, "{from} to {to}: {target}");
        }
    }

    #[test]
    fn rejects_a_prefix_that_is_not_whole_literal_segments_of_the_pattern() {
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
    fn rejects_a_replacement_that_is_not_canonical() {
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
