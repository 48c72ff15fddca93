//! Operations of a document, and the access that each needs.

use http::Method;
use serde_json::Value;

use super::template::{Names, Template};

/// Last segments of paths that probes request.
const HEALTH: [&str; 9] = [
    "health",
    "healthcheck",
    "healthz",
    "live",
    "livez",
    "ping",
    "ready",
    "readyz",
    "startupz",
];

/// Segments before them. After any other, as in `/streams/live`, the same word is a resource.
const BEFORE_HEALTH: [&str; 6] = ["_", "actuator", "api", "health", "healthz", "internal"];

/// Last segments of paths at which a client guesses passwords or codes.
const SIGN_IN: [&str; 12] = [
    "login",
    "sign-in",
    "signin",
    "sign-up",
    "signup",
    "register",
    "token",
    "email",
    "forgot-password",
    "forget-password",
    "request-password-reset",
    "reset-password",
];

/// An operation: one method of one path.
#[derive(Debug)]
pub struct Operation {
    pub(super) method: Method,
    /// Path with the path of the server.
    pub(super) template: Template,
    pub(super) purpose: Purpose,
    pub(super) security: Security,
}

/// Security requirements of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Security {
    /// The document has none.
    Unstated,
    /// An empty list: every client may call the operation.
    Public,
    /// One alternative is empty: credentials are optional.
    Optional,
    /// Credentials are required.
    Required,
}

/// Purpose of a path, by its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Probes.
    Health,
    /// Paths of the issuer, which verifies credentials itself: `/api/auth/` by the convention of Better Auth.
    Issuer,
    /// Clients may guess passwords or codes.
    SignIn,
    Other,
}

/// Access that an operation needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    Public,
    /// Public, with a rate limit against guessing.
    SignIn,
    Authenticated,
    /// Index of the segment with the owner.
    Owner(usize),
}

impl Security {
    /// Requirements in `security`. A value that is no list requires credentials.
    pub(super) fn of(security: &Value) -> Self {
        let Some(alternatives) = security.as_array() else {
            return if security.is_null() {
                Self::Unstated
            } else {
                Self::Required
            };
        };
        let is_empty = |alternative: &&Value| {
            alternative
                .as_object()
                .is_some_and(serde_json::Map::is_empty)
        };
        match alternatives.iter().filter(is_empty).count() {
            count if count == alternatives.len() => Self::Public,
            0 => Self::Required,
            _ => Self::Optional,
        }
    }
}

impl Purpose {
    /// Purpose of a path of the document, which follows the path of its server.
    pub(super) fn of(path: &str, prefix: &str) -> Self {
        if path.starts_with("/api/auth/") || prefix == "/api/auth" {
            return Self::Issuer;
        }
        let path = path.trim_matches('/').to_ascii_lowercase();
        let (before, last) = path.rsplit_once('/').unwrap_or(("", &path));
        let mut before = before.split('/').filter(|segment| !segment.is_empty());
        if SIGN_IN.contains(&last) {
            Self::SignIn
        } else if HEALTH.contains(&last) && before.all(is_before_health) {
            Self::Health
        } else {
            Self::Other
        }
    }
}

fn is_before_health(segment: &str) -> bool {
    let version = segment.strip_prefix('v');
    let is_version = version.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
    is_version || BEFORE_HEALTH.contains(&segment)
}

impl Operation {
    /// Access by the path, then by the document; a valid token where neither decides.
    pub(super) fn need(&self, names: &Names) -> Need {
        if let Some(owner) = names.owner(&self.template) {
            return Need::Owner(owner);
        }
        let is_post = self.method == Method::POST;
        let is_read = self.method == Method::GET || self.method == Method::HEAD;
        match (self.purpose, self.security) {
            (Purpose::Issuer, _) | (Purpose::SignIn, Security::Public) if is_post => Need::SignIn,
            (Purpose::Issuer, _) | (_, Security::Public) => Need::Public,
            (Purpose::Health, Security::Unstated | Security::Optional) if is_read => Need::Public,
            (_, Security::Unstated | Security::Optional | Security::Required) => {
                Need::Authenticated
            }
        }
    }
}
