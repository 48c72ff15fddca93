//! Managed headers: names that only the gate may write, in every spelling that an upstream may treat as equal.

use http::HeaderName;

/// Names that proxies use for the client, the user or the original target of a request.
const FORWARDING: [&str; 11] = [
    "forwarded",
    "remote-user",
    "true-client-ip",
    "x-client-ip",
    "x-original-host",
    "x-original-method",
    "x-original-uri",
    "x-original-url",
    "x-real-ip",
    "x-remote-user",
    "x-rewrite-url",
];

/// Prefixes of further names like those in [`FORWARDING`].
const FORWARDING_FAMILIES: [&str; 2] = ["x-auth-request-", "x-forwarded-"];

/// Names that frameworks read as the method of the request, in place of the one that was authorized.
const METHOD_OVERRIDES: [&str; 3] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
];

/// Names that a `Connection` field must not remove: without them the request has another meaning.
const PROTECTED: [&str; 8] = [
    "authorization",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "transfer-encoding",
    "via",
    "x-request-id",
];

/// Names of the managed headers.
///
/// Names are equal if they differ only in case or separators: CGI and WSGI map `X_User_Id` and `X.User.Id` to the same
/// variable as `X-User-Id` (CVE-2025-64484, CVE-2026-39858).
#[derive(Debug, Clone)]
pub struct ManagedNames {
    identity: Vec<Vec<u8>>,
}

impl ManagedNames {
    /// Manages the identity headers of a configuration and all forwarding headers.
    pub fn new<'a>(identity: impl IntoIterator<Item = &'a HeaderName>) -> Self {
        let folded = |name: &HeaderName| name.as_str().bytes().map(fold).collect();
        Self {
            identity: identity.into_iter().map(folded).collect(),
        }
    }

    /// Returns whether a name, in any spelling, is an identity header.
    pub fn is_identity(&self, name: &str) -> bool {
        let name = without_cgi_prefix(name.as_bytes());
        self.identity.iter().any(|managed| same(name, managed))
    }

    /// Returns whether only the gate may write a header with this name.
    pub fn covers(&self, name: &str) -> bool {
        if self.is_identity(name) {
            return true;
        }
        let name = without_cgi_prefix(name.as_bytes());
        // Fast path: most headers of most requests start with another letter.
        if !matches!(
            name.first().map(u8::to_ascii_lowercase),
            Some(b'f' | b'r' | b't' | b'x')
        ) {
            return false;
        }
        FORWARDING
            .iter()
            .any(|managed| same(name, managed.as_bytes()))
            || FORWARDING_FAMILIES.iter().any(|family| {
                let start = name.get(..family.len());
                start.is_some_and(|start| same(start, family.as_bytes()))
            })
    }

    /// Returns whether a `Connection` field that names this header is an attack (CVE-2024-45410, CVE-2025-48865).
    pub fn must_not_be_dropped(&self, name: &str) -> bool {
        self.covers(name)
            || PROTECTED
                .iter()
                .any(|protected| same(name.as_bytes(), protected.as_bytes()))
    }
}

/// Returns whether an upstream may take the method of the request from a header with this name.
pub fn is_method_override(name: &str) -> bool {
    let name = without_cgi_prefix(name.as_bytes());
    METHOD_OVERRIDES
        .iter()
        .any(|method_override| same(name, method_override.as_bytes()))
}

/// Returns whether an upstream may treat the first name as the second.
pub fn alike(name: &str, other: &str) -> bool {
    let (name, other) = (without_cgi_prefix(name.as_bytes()), other.as_bytes());
    name.len() == other.len()
        && name
            .iter()
            .zip(other)
            .all(|(one, other)| fold(*one) == fold(*other))
}

/// Compares a name with a folded name.
fn same(name: &[u8], folded: &[u8]) -> bool {
    name.len() == folded.len()
        && name
            .iter()
            .zip(folded)
            .all(|(byte, folded)| fold(*byte) == *folded)
}

fn fold(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() {
        byte.to_ascii_lowercase()
    } else {
        b'-'
    }
}

/// Removes the prefix of CGI variables: `HTTP_X_USER_ID` is `X-User-Id` (RFC 3875 section 4.1.18).
fn without_cgi_prefix(name: &[u8]) -> &[u8] {
    match name.split_at_checked(5) {
        Some((prefix, rest)) if same(prefix, b"http-") => rest,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covers_every_spelling_of_a_managed_name() {
        let identity = [
            HeaderName::from_static("x-user-id"),
            HeaderName::from_static("subject_name"),
        ];
        let names = ManagedNames::new(&identity);
        for name in [
            "x-user-id",
            "X-USER-ID",
            "x_user_id",
            "X.User.Id",
            "x-user_id",
            "x~user!id",
            "HTTP_X_USER_ID",
            "http-x-user-id",
            "Subject-Name",
            "subject.name",
            "X-Forwarded-For",
            "x_forwarded_for",
            "X-Forwarded-Anything",
            "X.Forwarded.Proto",
            "Forwarded",
            "X-Real-IP",
            "X-Original-URL",
            "X-Rewrite-URL",
            "Remote-User",
            "remote_user",
            "X-Auth-Request-Email",
        ] {
            assert!(names.covers(name), "{name}");
        }
        for name in [
            "host",
            "accept",
            "user-id",
            "x-user-ids",
            "x-user",
            "xuserid",
            "x-forwarded",
            "content-type",
            "",
            "x",
            "http",
            "http-",
            "referer",
            "x-request-id",
        ] {
            assert!(!names.covers(name), "{name}");
        }
    }

    #[test]
    fn protects_headers_from_removal_by_a_connection_field() {
        let names = ManagedNames::new(&[HeaderName::from_static("x-user-id")]);
        for name in [
            "X-User-Id",
            "x_user_id",
            "Host",
            "Authorization",
            "content-length",
            "X-Forwarded-For",
        ] {
            assert!(names.must_not_be_dropped(name), "{name}");
        }
        for name in ["close", "keep-alive", "upgrade", "te", "x-custom"] {
            assert!(!names.must_not_be_dropped(name), "{name}");
        }
    }

    #[test]
    fn recognizes_method_overrides_in_every_spelling() {
        for name in [
            "x-http-method-override",
            "X-HTTP-Method",
            "X-Method-Override",
            "x_http_method_override",
            "X.Method.Override",
            "http_x_http_method",
        ] {
            assert!(is_method_override(name), "{name}");
        }
        for name in ["x-http-methods", "method", "x-method", "x-http-version"] {
            assert!(!is_method_override(name), "{name}");
        }
    }
}
