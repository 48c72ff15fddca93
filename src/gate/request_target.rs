//! Request targets: the judged target is the one that is sent.

use http::Uri;
use http::uri::PathAndQuery;

use super::path::CanonicalPath;
use super::refusal::Refusal;

/// Request target in origin form (RFC 9112 section 3.2.1), read once from a judged head.
///
/// Its path is a [`CanonicalPath`], so it is never empty. A [`Permit`](super::permit::Permit) carries it, and forwarding
/// takes the target of the request line from nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestTarget(PathAndQuery);

impl RequestTarget {
    /// Takes the path and query of a request. `path` is its checked path.
    ///
    /// Rejects a target with a query or a fragment but no path. `http` reads the path of such a target as `/` in one
    /// place and as empty in another. It drops every other fragment before the gate can see it.
    pub(super) fn read(uri: &Uri, path: CanonicalPath<'_>) -> Result<Self, Refusal> {
        let written = uri.path_and_query().ok_or(Refusal::RequestMalformed)?;
        if written.as_str().starts_with('?') {
            return Err(Refusal::RequestMalformed);
        }
        // `as_str` shows the rest of `#fragment` as `/`; only the comparison of the two values sees the empty text.
        let root = PathAndQuery::from_static("/");
        if written.as_str() == "/" && *written != root {
            return Err(Refusal::RequestMalformed);
        }
        debug_assert_eq!(written.path(), path.as_str(), "one target, two paths");
        Ok(Self(written.clone()))
    }

    pub fn path(&self) -> &str {
        self.0.path()
    }

    pub fn query(&self) -> Option<&str> {
        self.0.query()
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Same target with another canonical path.
    #[must_use]
    pub fn with_path(&self, path: CanonicalPath<'_>) -> Self {
        self.replaced(path.as_str(), self.query())
    }

    /// Same target without the query parameters that `is_removed` selects. The others are unchanged.
    #[must_use]
    pub fn without_parameters(&self, is_removed: impl Fn(&str) -> bool) -> Self {
        let Some(query) = self.query() else {
            return self.clone();
        };
        let parameters = query.split('&');
        let kept: Vec<&str> = parameters.filter(|it| !is_removed(it)).collect();
        if kept.len() == query.split('&').count() {
            return self.clone();
        }
        let query = (!kept.is_empty()).then(|| kept.join("&"));
        self.replaced(self.path(), query.as_deref())
    }

    fn replaced(&self, path: &str, query: Option<&str>) -> Self {
        let text = match query {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        // Infallible: both parts are valid in a target, and `http` allows their total length.
        Self(PathAndQuery::try_from(text).unwrap_or_else(|_| self.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(target: &str) -> Result<String, Refusal> {
        let uri: Uri = target.parse().unwrap();
        let path = CanonicalPath::parse(uri.path()).map_err(Refusal::PathNotCanonical)?;
        let target = RequestTarget::read(&uri, path)?;
        let sent = target.as_str();
        let line: Uri = sent.parse().unwrap();
        assert_eq!(line.to_string(), sent);
        assert_eq!(line.path(), target.path());
        Ok(sent.to_owned())
    }

    #[test]
    fn sends_the_path_and_query_of_the_judged_target() {
        for (target, sent) in [
            ("/", "/"),
            ("/?", "/?"),
            ("/a?b=c", "/a?b=c"),
            ("/a?b?c", "/a?b?c"),
            ("http://api.example/a?b", "/a?b"),
            // RFC 9110 section 4.2.3: an empty path equals `/`.
            ("http://api.example", "/"),
            ("http://api.example/", "/"),
        ] {
            assert_eq!(read(target).as_deref(), Ok(sent), "{target}");
        }
    }

    #[test]
    fn rejects_a_target_without_a_path() {
        // RFC 9112 section 3.2 allows no fragment, and section 3.2.1 no empty path before a query.
        for target in [
            "http://api.example#",
            "http://api.example#fragment",
            "http://api.example#/a",
            "http://api.example?",
            "http://api.example?a",
            "http://api.example?a#b",
        ] {
            assert_eq!(read(target), Err(Refusal::RequestMalformed), "{target}");
        }
        let only: PathAndQuery = "#fragment".parse().unwrap();
        let path = CanonicalPath::parse("/").unwrap();
        let rejected = Err(Refusal::RequestMalformed);
        // `:path` of HTTP/2 without an authority.
        assert_eq!(RequestTarget::read(&Uri::from(only), path), rejected);
    }

    #[test]
    fn removes_parameters_and_replaces_the_path() {
        let uri: Uri = "/a?b=1&c=2&b=3".parse().unwrap();
        let target = RequestTarget::read(&uri, CanonicalPath::parse("/a").unwrap()).unwrap();
        let without = |name: &str| target.without_parameters(|it| it.starts_with(name));
        assert_eq!(without("b").as_str(), "/a?c=2");
        assert_eq!(without("d").as_str(), "/a?b=1&c=2&b=3");
        assert_eq!(target.without_parameters(|_| true).as_str(), "/a");
        let root = CanonicalPath::parse("/").unwrap();
        assert_eq!(target.with_path(root).as_str(), "/?b=1&c=2&b=3");
    }
}
