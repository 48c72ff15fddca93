//! `[resource]`: the OAuth protected resource (RFC 9728).

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// Resource identifier: the URL of the API for its clients, and the `aud` of their tokens.
    pub url: String,
    /// Issuer identifiers of the authorization servers, at least one. Each is the `iss` of an issuer.
    pub authorization_servers: Vec<String>,
    /// Scopes that clients may request. Default: not published.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// URL of the documentation for developers.
    #[serde(default)]
    pub documentation: Option<String>,
    /// Name of the API for users.
    #[serde(default)]
    pub name: Option<String>,
}
