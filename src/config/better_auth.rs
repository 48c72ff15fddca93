//! `better_auth` of `[issuers.NAME]`: a Better Auth server and its sessions.

use std::path::PathBuf;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

#[cfg(test)]
use super::schema;
use super::units;

/// Base path of a Better Auth server if its URL has no path.
pub const BETTER_AUTH_BASE_PATH: &str = "/api/auth";

/// Prefix of the cookie names of Better Auth, unless its `cookiePrefix` is set.
pub const COOKIE_PREFIX: &str = "better-auth";

/// `better_auth = "URL"` or `better_auth = { url = "URL", … }`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(remote = "Self", deny_unknown_fields)]
pub struct BetterAuth {
    /// URL of the server, as the gate reaches it.
    pub url: String,
    /// URL of the server as browsers reach it, if it differs: its origin is `iss` and `aud` of the tokens.
    #[serde(default)]
    pub public: Option<String>,
    /// `Host` header of the requests to the server, if it differs from the URL: a server with `allowedHosts` rejects
    /// other names.
    #[serde(default)]
    pub host: Option<String>,
    /// PEM file of CA certificates for the server, instead of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Allows plaintext HTTP to another machine.
    #[serde(default)]
    pub allow_http: bool,
    /// Accepts session cookies and session tokens, which the gate exchanges at the server.
    #[serde(default)]
    pub sessions: SessionsSwitch,
}

impl BetterAuth {
    fn of(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            public: None,
            host: None,
            ca_file: None,
            allow_http: false,
            sessions: SessionsSwitch::default(),
        }
    }
}

/// `sessions = true`, `sessions = false` or `sessions = { … }`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SessionsSwitch(pub Option<Sessions>);

/// `sessions = { … }`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Sessions {
    /// Endpoint that the gate asks about a session.
    pub via: SessionEndpoint,
    /// Longest use of one exchange: a sign-out takes effect within this time.
    #[serde(with = "units::duration")]
    #[cfg_attr(test, schemars(with = "schema::Duration"))]
    pub max_age: Duration,
    /// Lets the server extend a session once a day, and passes the renewed cookie to the browser.
    pub refresh: bool,
    /// `cookiePrefix` of the server.
    pub cookie_prefix: String,
    /// Accepts the cookie cache that the server signs with its key set (`jwt({ sessionCookieCache: true })`).
    pub cookie_cache: bool,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            via: SessionEndpoint::default(),
            max_age: Duration::from_secs(30),
            refresh: false,
            cookie_prefix: COOKIE_PREFIX.to_owned(),
            cookie_cache: false,
        }
    }
}

/// Endpoint for sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SessionEndpoint {
    /// `/token` of the JWT plugin: a JWT, which the gate verifies.
    #[default]
    Token,
    /// `/get-session`, for a server without the JWT plugin: the user and the session.
    GetSession,
}

impl<'de> Deserialize<'de> for BetterAuth {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(BetterAuthVisitor)
    }
}

impl Serialize for BetterAuth {
    fn serialize<S: Serializer>(&self, sink: S) -> Result<S::Ok, S::Error> {
        if *self == Self::of(&self.url) {
            sink.serialize_str(&self.url)
        } else {
            Self::serialize(self, sink)
        }
    }
}

struct BetterAuthVisitor;

impl<'de> Visitor<'de> for BetterAuthVisitor {
    type Value = BetterAuth;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a URL or { url = \"https://app.example\" }")
    }

    fn visit_str<E: de::Error>(self, url: &str) -> Result<BetterAuth, E> {
        Ok(BetterAuth::of(url))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BetterAuth, A::Error> {
        BetterAuth::deserialize(MapAccessDeserializer::new(map))
    }
}

impl<'de> Deserialize<'de> for SessionsSwitch {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(SessionsVisitor)
    }
}

impl Serialize for SessionsSwitch {
    fn serialize<S: Serializer>(&self, sink: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            None => sink.serialize_bool(false),
            Some(sessions) => sessions.serialize(sink),
        }
    }
}

struct SessionsVisitor;

impl<'de> Visitor<'de> for SessionsVisitor {
    type Value = SessionsSwitch;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("true, false or { max_age = \"30s\" }")
    }

    fn visit_bool<E: de::Error>(self, is_on: bool) -> Result<SessionsSwitch, E> {
        Ok(SessionsSwitch(is_on.then(Sessions::default)))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SessionsSwitch, A::Error> {
        Sessions::deserialize(MapAccessDeserializer::new(map))
            .map(|sessions| SessionsSwitch(Some(sessions)))
    }
}
