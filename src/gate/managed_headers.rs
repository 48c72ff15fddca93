//! Managed headers: names that only the gate may write, in every spelling that an upstream may treat as equal.

mod names;

use http::HeaderName;

use names::{FORWARDING, USER, may_be_listed, starts_like_listed};

/// Names that frameworks read as the method of the request, in place of the one that was authorized. Folded.
const METHOD_OVERRIDES: [&str; 3] = ["xhttpmethod", "xhttpmethodoverride", "xmethodoverride"];

/// Names that a `Connection` field must not remove: without them the request has another meaning. Folded.
const PROTECTED: [&str; 8] = [
    "authorization",
    "contentlength",
    "contenttype",
    "cookie",
    "host",
    "transferencoding",
    "via",
    "xrequestid",
];

/// Longest folded name that is compared. Longer than every listed name.
const MAX_FOLDED: usize = 48;

/// Names of the managed headers.
///
/// Names are equal if they differ only in case or separators: CGI and WSGI map `X_User_Id` and `X.User.Id` to the same
/// variable as `X-User-Id` (CVE-2025-64484, CVE-2026-39858). A separator may also be missing, as in `X-UserId`.
#[derive(Debug, Clone)]
pub struct ManagedNames {
    identity: Vec<Vec<u8>>,
    /// Bits of the first letters of the identity headers, so that most names need no comparison.
    first: u64,
}

/// Name in lower case, without separators and the CGI prefix; cut to [`MAX_FOLDED`] bytes.
struct Folded {
    bytes: [u8; MAX_FOLDED],
    length: usize,
}

impl ManagedNames {
    /// Manages the identity headers of a configuration and all forwarding headers.
    pub fn new<'a>(identity: impl IntoIterator<Item = &'a HeaderName>) -> Self {
        let folded = |name: &HeaderName| folded(name.as_str().as_bytes()).collect();
        let identity: Vec<Vec<u8>> = identity.into_iter().map(folded).collect();
        let letters = identity.iter().filter_map(|name| name.first());
        let first = letters.fold(0, |bits, letter| bits | bit(*letter));
        Self { identity, first }
    }

    /// Returns whether a name, in any spelling, is an identity header.
    pub fn is_identity(&self, name: &str) -> bool {
        let name = without_cgi_prefix(name.as_bytes());
        let mut letters = name.iter().filter(|byte| byte.is_ascii_alphanumeric());
        let first = letters.next().map(u8::to_ascii_lowercase);
        if first.is_none_or(|first| self.first & bit(first) == 0) {
            return false;
        }
        self.identity.iter().any(|managed| same(name, managed))
    }

    /// Returns whether only the gate may write a header with this name.
    pub fn covers(&self, name: &str) -> bool {
        self.is_identity(name)
            || Folded::of(name).is_some_and(|name| {
                FORWARDING.contain(name.as_bytes()) || USER.contain(name.as_bytes())
            })
    }

    /// Returns whether a `Connection` field that names this header is an attack (CVE-2024-45410, CVE-2025-48865).
    pub fn must_not_be_dropped(&self, name: &str) -> bool {
        self.covers(name) || is_protected(name)
    }
}

/// Bit of a letter or a digit. A few share one.
fn bit(letter: u8) -> u64 {
    1 << (letter & 63)
}

/// Returns whether a request has another meaning without this header.
pub fn is_protected(name: &str) -> bool {
    is_one_of(name.as_bytes(), &PROTECTED)
}

/// Returns whether a header with this name can carry neither a claim nor a token: it has another meaning for the gate.
pub fn is_reserved(name: &str) -> bool {
    is_protected(name) || Folded::of(name).is_some_and(|name| FORWARDING.contain(name.as_bytes()))
}

/// Returns whether an upstream may take the method of the request from a header with this name.
pub fn is_method_override(name: &str) -> bool {
    let name = without_cgi_prefix(name.as_bytes());
    // Fast path: most names start with another letter.
    folded(name).next() == Some(b'x') && is_one_of(name, &METHOD_OVERRIDES)
}

/// Returns whether an upstream may treat the first name as the second.
pub fn alike(name: &str, other: &str) -> bool {
    let name = without_cgi_prefix(name.as_bytes());
    folded(name).eq(folded(other.as_bytes()))
}

impl Folded {
    /// Folds a name; `None` if its first letters show that it is not listed.
    fn of(name: &str) -> Option<Self> {
        let name = without_cgi_prefix(name.as_bytes());
        let mut letters = folded(name);
        let (first, second) = (letters.next()?, letters.next()?);
        if !may_be_listed(first, second) {
            return None;
        }
        let mut bytes = [0; MAX_FOLDED];
        let mut length = 0;
        for (to, from) in bytes
            .iter_mut()
            .zip([first, second].into_iter().chain(letters))
        {
            *to = from;
            length += 1;
        }
        let name = Self { bytes, length };
        starts_like_listed(name.as_bytes()).then_some(name)
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

fn is_one_of(name: &[u8], folded: &[&str]) -> bool {
    folded.iter().any(|one| same(name, one.as_bytes()))
}

/// Compares a name with a folded name.
fn same(name: &[u8], other: &[u8]) -> bool {
    let mut other = other.iter();
    for byte in name.iter().filter(|byte| byte.is_ascii_alphanumeric()) {
        if other.next() != Some(&byte.to_ascii_lowercase()) {
            return false;
        }
    }
    other.next().is_none()
}

/// Letters and digits of a name, in lower case.
fn folded(name: &[u8]) -> impl Iterator<Item = u8> {
    let letters = name.iter().filter(|byte| byte.is_ascii_alphanumeric());
    letters.map(u8::to_ascii_lowercase)
}

/// Removes the prefix of CGI variables: `HTTP_X_USER_ID` is `X-User-Id` (RFC 3875 section 4.1.18).
fn without_cgi_prefix(name: &[u8]) -> &[u8] {
    match name {
        [
            b'h' | b'H',
            b't' | b'T',
            b't' | b'T',
            b'p' | b'P',
            separator,
            rest @ ..,
        ] if !separator.is_ascii_alphanumeric() => rest,
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
            // Without a separator.
            "XUserId",
            "X-UserId",
            "SubjectName",
            "_x_user_id",
            // Client address: documentation of Cloudflare, Akamai, Fastly, Fly.io, Azure, App Engine, Envoy, WebLogic.
            "CF-Connecting-IP",
            "CF-Connecting-IPv6",
            "CF_CONNECTING_IP",
            "True-Client-IP",
            "Client-IP",
            "X-Client-IP",
            "X-Cluster-Client-IP",
            "X-ProxyUser-Ip",
            "Fastly-Client-IP",
            "Fly-Client-IP",
            "X-Azure-ClientIP",
            "X-AppEngine-User-IP",
            "X-AppEngine-Remote-Addr",
            "X-Envoy-External-Address",
            "X-Envoy-Original-Path",
            "WL-Proxy-Client-IP",
            "Proxy-Client-IP",
            "REMOTE_ADDR",
            // Target and scheme.
            "X-Host",
            "X-Original-Anything",
            "X-Rewrite-Anything",
            "X-Url-Scheme",
            "Front-End-Https",
            "SCRIPT_NAME",
            "script-name",
            "PATH_INFO",
            // Client certificate: RFC 9440, ingress-nginx, Envoy, Azure, AWS, Traefik.
            "Client-Cert",
            "Client-Cert-Chain",
            "SSL-Client-Verify",
            "X-SSL-Client-S-DN",
            "X-Client-Cert",
            "X-Forwarded-Client-Cert",
            "X-Forwarded-Tls-Client-Cert",
            "X-ARR-ClientCert",
            "X-Amzn-Mtls-Clientcert-Subject",
            // User: Kong, APISIX, Google, Azure, AWS, Pomerium, Authelia, authentik, Grafana, Tailscale, Cloudflare,
            // Kubernetes, Keycloak, mod_auth_openidc.
            "X-Authenticated-Userid",
            "X-Consumer-Username",
            "X-Credential-Identifier",
            "X-Anonymous-Consumer",
            "X-Userinfo",
            "X-User",
            "X-User-Name",
            "X-User-Email",
            "X-User-Roles",
            "X-Goog-Authenticated-User-Email",
            "X-Goog-IAP-JWT-Assertion",
            "X-MS-CLIENT-PRINCIPAL",
            "X-MS-CLIENT-PRINCIPAL-ID",
            "X-MS-TOKEN-AAD-ID-TOKEN",
            "X-Amzn-Oidc-Data",
            "X-Amzn-Oidc-Identity",
            "X-Pomerium-Jwt-Assertion",
            "X-Pomerium-Claim-Email",
            "Remote-Groups",
            "Remote-Email",
            "Remote-Name",
            "X-authentik-username",
            "X-WEBAUTH-USER",
            "Tailscale-User-Login",
            "Cf-Access-Jwt-Assertion",
            "Cf-Access-Authenticated-User-Email",
            "X-Remote-User",
            "X-Remote-Extra-Scopes",
            "X-Auth-Username",
            "X-Token-Subject",
            "OIDC_CLAIM_sub",
            "http_oidc_claim_email",
            "X-Forwarded",
        ] {
            assert!(names.covers(name), "{name}");
        }
        for name in [
            "host",
            "accept",
            "user-id",
            "x-user-ids",
            "x-user-agent",
            "x-userid2",
            "content-type",
            "cf-ray",
            "cdn-loop",
            "client",
            "remote",
            "x-requested-with",
            "x-csrf-token",
            "x-xsrf-token",
            "x-api-key",
            "x-amzn-trace-id",
            "x-amz-content-sha256",
            "x-b3-traceid",
            "x-cloud-trace-context",
            "x-grpc-web",
            "x-client-version",
            // Common token headers: a route may read its token there.
            "x-auth-token",
            "x-access-token",
            "x-id-token",
            "x-token",
            "sec-websocket-protocol",
            "sec-fetch-site",
            "traceparent",
            "te",
            "origin",
            "priority",
            "if-none-match",
            "authorization",
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
    fn reserves_names_with_another_meaning_but_not_those_of_a_user() {
        for name in [
            "Host",
            "cookie",
            "Forwarded",
            "X-Forwarded-User",
            "CF-Connecting-IP",
            "X-Original-URL",
        ] {
            assert!(is_reserved(name), "{name}");
        }
        for name in [
            "X-User-Email",
            "Remote-User",
            "X-WEBAUTH-USER",
            "Cf-Access-Jwt-Assertion",
            "X-Custom",
        ] {
            assert!(!is_reserved(name), "{name}");
        }
    }

    #[test]
    fn treats_names_as_alike_if_only_case_or_separators_differ() {
        for name in [
            "x_auth_token",
            "X.Auth.Token",
            "HTTP_X_AUTH_TOKEN",
            "X-AuthToken",
            "http-x-auth-token",
        ] {
            assert!(alike(name, "x-auth-token"), "{name}");
        }
        for name in ["x-auth-tokens", "auth-token", "x-auth", "httpx-auth-token"] {
            assert!(!alike(name, "x-auth-token"), "{name}");
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
