//! Operations of a document, and the access that each needs.

use http::Method;
use serde_json::Value;

use super::template::{Names, Template};

/// Last segments of paths that probes request.
const HEALTH: [&str; 9] = [
    "health",
    "healthz",
    "healthcheck",
    "livez",
    "live",
    "readyz",
    "ready",
    "ping",
    "startupz",
];

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
    /// Whether the path is one of the issuer: `/api/auth/` by the convention of Better Auth.
    pub(super) is_sign_in: bool,
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

impl Operation {
    /// Access by the path, then by the document; a valid token where neither decides.
    pub(super) fn need(&self, names: &Names) -> Need {
        let last = self.template.last_literal().unwrap_or_default();
        let is_read = self.method == Method::GET || self.method == Method::HEAD;
        let has_parameter = self.template.has_parameter();
        let is_health = is_read
            && !has_parameter
            && self.security != Security::Required
            && HEALTH.contains(&last.to_ascii_lowercase().as_str());
        let is_sign_in = self.method == Method::POST
            && (self.is_sign_in || SIGN_IN.contains(&last.to_ascii_lowercase().as_str()));
        if let Some(owner) = names.owner(&self.template) {
            return Need::Owner(owner);
        }
        match self.security {
            _ if self.is_sign_in && is_sign_in => Need::SignIn,
            _ if self.is_sign_in => Need::Public,
            Security::Public if is_sign_in => Need::SignIn,
            Security::Public => Need::Public,
            _ if is_health => Need::Public,
            Security::Unstated | Security::Optional | Security::Required => Need::Authenticated,
        }
    }
}
