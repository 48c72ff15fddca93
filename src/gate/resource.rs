//! OAuth protected resource (RFC 9728): its metadata, and the challenges that lead a client there.

use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::cors::{PreflightRequest, any_page, preflight_of_any_page};
use super::path::CanonicalPath;
use super::refusal::Refusal;

/// Path of the metadata of a resource without a path (RFC 9728 section 3).
pub const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// Time that a client may cache the metadata.
const CACHED: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// Methods of the metadata.
const ALLOW: HeaderValue = HeaderValue::from_static("GET, HEAD");

/// Metadata of the protected resource, which the gate serves without a token.
#[derive(Debug)]
pub struct ResourceMetadata {
    /// The well-known path with the path of the resource after it (RFC 9728 section 3.1).
    path: String,
    document: Bytes,
}

/// Response with the metadata, or to a CORS preflight for it.
#[derive(Debug)]
pub struct MetadataResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// CORS headers, which replace those of every policy.
    pub cors: HeaderMap,
    pub body: Bytes,
}

/// Parameters of the challenges of a route of the resource.
#[derive(Debug, PartialEq, Eq)]
pub struct ResourceChallenge {
    /// URL of the metadata.
    metadata: String,
    /// Scope that the route requires.
    scope: Option<Arc<str>>,
}

impl ResourceMetadata {
    /// Metadata of the resource at this path of its URL.
    pub fn new(resource_path: &str, document: &serde_json::Value) -> Self {
        Self {
            path: metadata_path(resource_path),
            document: Bytes::from(format!("{document}\n")),
        }
    }

    /// Returns whether the metadata is at this path: the one of the resource, or the one without a path, which clients
    /// try too.
    pub fn is_at(&self, path: &str) -> bool {
        path == WELL_KNOWN || path == self.path
    }

    /// Responds to a request for the metadata; `None` for another path.
    pub(super) fn respond(
        &self,
        head: &Parts,
        path: CanonicalPath<'_>,
    ) -> Option<Result<MetadataResponse, Refusal>> {
        if !self.is_at(path.as_str()) {
            return None;
        }
        if PreflightRequest::of(head).is_some() {
            return Some(Ok(MetadataResponse {
                status: StatusCode::NO_CONTENT,
                headers: HeaderMap::new(),
                cors: preflight_of_any_page(&ALLOW),
                body: Bytes::new(),
            }));
        }
        let body = match head.method {
            Method::GET => self.document.clone(),
            Method::HEAD => Bytes::new(),
            _ => return Some(Err(Refusal::MethodNotAllowed(ALLOW))),
        };
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, self.document.len().into());
        headers.insert(CACHE_CONTROL, CACHED);
        Some(Ok(MetadataResponse {
            status: StatusCode::OK,
            headers,
            cors: any_page(),
            body,
        }))
    }
}

impl ResourceChallenge {
    /// Challenge for the resource at this path of an origin, on a route that requires this scope.
    pub fn new(origin: &str, resource_path: &str, scope: Option<Arc<str>>) -> Self {
        Self {
            metadata: format!("{origin}{}", metadata_path(resource_path)),
            scope,
        }
    }

    /// Adds the URL of the metadata to the challenge of a 401 or 403 (RFC 9728 section 5.1), and to a 401 the scope that a
    /// client should request. A 403 has its scope already.
    pub fn write(&self, refusal: &Refusal, headers: &mut HeaderMap) {
        let status = refusal.status();
        if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return;
        }
        let Some(Ok(challenge)) = headers.get(WWW_AUTHENTICATE).map(HeaderValue::to_str) else {
            return;
        };
        let mut text = format!("{challenge}, resource_metadata=\"{}\"", self.metadata);
        if let Some(scope) = &self.scope
            && status == StatusCode::UNAUTHORIZED
        {
            let _infallible = write!(text, ", scope=\"{scope}\"");
        }
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(WWW_AUTHENTICATE, value);
        }
    }
}

/// Path of the metadata: a `/` that ends the host is removed (RFC 9728 section 3.1).
fn metadata_path(resource_path: &str) -> String {
    match resource_path {
        "/" => WELL_KNOWN.to_owned(),
        path => format!("{WELL_KNOWN}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn respond(
        metadata: &ResourceMetadata,
        method: &str,
        path: &str,
    ) -> Option<Result<MetadataResponse, Refusal>> {
        let request = http::Request::builder().method(method).uri(path);
        let (head, ()) = request.body(()).unwrap().into_parts();
        let path = CanonicalPath::parse(head.uri.path()).unwrap();
        metadata.respond(&head, path)
    }

    #[test]
    fn serves_the_metadata_at_both_paths() {
        let metadata = ResourceMetadata::new("/tasks", &json!({ "resource": "r" }));
        for path in [WELL_KNOWN, "/.well-known/oauth-protected-resource/tasks"] {
            let response = respond(&metadata, "GET", path).unwrap().unwrap();
            assert_eq!(response.status, 200, "{path}");
            assert_eq!(response.body, "{\"resource\":\"r\"}\n", "{path}");
            let to_head = respond(&metadata, "HEAD", path).unwrap().unwrap();
            assert_eq!(to_head.headers, response.headers, "{path}");
            assert!(to_head.body.is_empty(), "{path}");
            for method in ["POST", "DELETE", "OPTIONS"] {
                let refusal = respond(&metadata, method, path).unwrap().unwrap_err();
                assert_eq!(refusal, Refusal::MethodNotAllowed(ALLOW), "{method}");
            }
        }
        for path in [
            "/",
            "/tasks",
            "/.well-known/oauth-protected-resource/",
            "/.well-known/oauth-protected-resource/task",
            "/.well-known/oauth-protected-resource/tasks/1",
            "/.well-known/oauth-authorization-server",
        ] {
            assert!(respond(&metadata, "GET", path).is_none(), "{path}");
        }
    }

    #[test]
    fn removes_the_slash_that_ends_the_host() {
        for (path, expected) in [
            ("/", "/.well-known/oauth-protected-resource"),
            ("/tasks", "/.well-known/oauth-protected-resource/tasks"),
            ("/tasks/", "/.well-known/oauth-protected-resource/tasks/"),
        ] {
            assert_eq!(metadata_path(path), expected);
        }
    }

    #[test]
    fn extends_the_challenges_of_401_and_403_only() {
        let challenge =
            ResourceChallenge::new("https://api.example", "/tasks", Some("tasks:read".into()));
        let metadata =
            "resource_metadata=\"https://api.example/.well-known/oauth-protected-resource/tasks\"";
        let mut counted = 0;
        for refusal in Refusal::examples() {
            let (status, mut headers, _) = refusal.response("claimgate");
            let before = headers.get(WWW_AUTHENTICATE).cloned();
            challenge.write(&refusal, &mut headers);
            let after = headers.get(WWW_AUTHENTICATE).cloned();
            let added = match status.as_u16() {
                401 => format!(", {metadata}, scope=\"tasks:read\""),
                403 => format!(", {metadata}"),
                _ => String::new(),
            };
            let expected = before.map(|before| format!("{}{added}", before.to_str().unwrap()));
            counted += usize::from(expected.is_some() && !added.is_empty());
            let after = after.map(|after| after.to_str().unwrap().to_owned());
            assert_eq!(after, expected, "{refusal:?}");
        }
        assert!(counted > 10, "{counted}");
    }
}
