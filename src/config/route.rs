//! `[[routes]]`: routes with their access rules.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use super::cors::RouteCors;
use super::dpop::DpopMode;
use super::limit::RateLimits;
use super::rule::ClaimRule;
#[cfg(test)]
use super::schema;
use super::units;

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Path pattern: `{name}` matches one segment, `{*rest}` the rest of the path.
    pub path: String,
    /// Methods of the route. Default: all supported methods.
    #[serde(default)]
    pub methods: Option<Vec<String>>,
    /// Access rule.
    pub access: Access,
    /// Response status on an owner mismatch: 403, 404 or 401.
    #[serde(default = "forbidden")]
    pub mismatch: u16,
    /// Name of the upstream. Required if several are configured.
    #[serde(default)]
    pub upstream: Option<String>,
    /// Overrides `response_timeout` of the upstream.
    #[serde(default, with = "units::optional_duration")]
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub timeout: Option<Duration>,
    /// Overrides `max_body_bytes` of `[listen]`.
    #[serde(default, with = "units::optional_size")]
    #[cfg_attr(test, schemars(with = "Option<schema::Size>"))]
    pub max_body_bytes: Option<u64>,
    /// Longest duration of an exchange, up to the end of the response. Default: no limit.
    #[serde(default, with = "units::optional_duration")]
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub request_timeout: Option<Duration>,
    /// Rate limits. A request must satisfy all of them.
    #[serde(default)]
    pub rate_limit: RateLimits,
    /// Treatment of open streams when their token expires.
    #[serde(default = "close")]
    pub at_expiry: StreamEnd,
    /// Treatment of open streams that a reloaded configuration, or refreshed keys, no longer allow.
    #[serde(default = "keep")]
    pub at_change: StreamEnd,
    /// Overrides `dpop` of the issuers: tokens that are bound to a key (RFC 9449).
    #[serde(default)]
    pub dpop: Option<DpopMode>,
    /// Accepted issuers by name. Default: all.
    #[serde(default)]
    pub issuers: Option<Vec<String>>,
    /// Includes the route in `[resource]`, or excludes it. Default: included if its path is at or below that of the resource.
    #[serde(default)]
    pub resource: Option<bool>,
    /// Requirements on claims and client certificates, all of which must hold.
    #[serde(default)]
    pub require: Option<Vec<ClaimRule>>,
    /// Requirement that exempts a caller from owner binding.
    #[serde(default)]
    pub exempt: Option<ClaimRule>,
    /// Token sources. Default: `Authorization: Bearer`, and the session cookie of an issuer with `sessions`.
    #[serde(default)]
    pub tokens: Option<Vec<TokenSource>>,
    /// Origins that may send a token cookie, in addition to the request's own.
    #[serde(default)]
    pub origins: Option<Vec<String>>,
    /// CORS policy, instead of `[cors]`.
    #[serde(default)]
    pub cors: Option<RouteCors>,
    /// Path prefix replacement.
    #[serde(default)]
    pub replace_prefix: Option<ReplacePrefix>,
    /// Forwards headers that override the method, such as `X-HTTP-Method-Override`.
    #[serde(default)]
    pub forward_method_override: bool,
    /// Serves gRPC: the messages of a call over HTTP/2 may pause for longer than `body_timeout`.
    #[serde(default)]
    pub grpc: bool,
    /// Edits of forwarded request headers.
    #[serde(default)]
    pub request_headers: Option<HeaderEdits>,
    /// Edits of response headers.
    #[serde(default)]
    pub response_headers: Option<HeaderEdits>,
}

/// `replace_prefix = { … }`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ReplacePrefix {
    /// Prefix to replace; `/` matches every path.
    pub from: String,
    /// Replacement; `/` removes the prefix.
    pub to: String,
}

/// `request_headers = { … }` and `response_headers = { … }`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct HeaderEdits {
    /// Header name to its only value.
    pub set: BTreeMap<String, String>,
    /// Headers to remove.
    pub remove: Vec<String>,
}

/// Treatment of an open stream: a streaming response or a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum StreamEnd {
    /// Ends the stream.
    Close,
    /// Keeps the stream open.
    Keep,
}

fn forbidden() -> u16 {
    403
}

fn close() -> StreamEnd {
    StreamEnd::Close
}

fn keep() -> StreamEnd {
    StreamEnd::Keep
}

/// Element of `tokens = [{ … }]`. Exactly one key must be set.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct TokenSource {
    /// Header: `Authorization`, or one with the bare token as its value.
    pub header: Option<String>,
    /// Cookie name.
    pub cookie: Option<String>,
    /// Query parameter.
    pub query: Option<String>,
    /// WebSocket subprotocol that precedes the token in `Sec-WebSocket-Protocol`.
    pub websocket: Option<String>,
    /// Session cookie of the issuer with `sessions`.
    pub session: Option<bool>,
}

/// Access rule of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Every request, without a token.
    Public,
    /// Every request with a valid token.
    Authenticated,
    /// Owner binding: only the subject in the named path parameter.
    Owner(String),
}

impl<'de> Deserialize<'de> for Access {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(AccessVisitor)
    }
}

impl Serialize for Access {
    fn serialize<S: Serializer>(&self, sink: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Public => sink.serialize_str("public"),
            Self::Authenticated => sink.serialize_str("authenticated"),
            Self::Owner(parameter) => {
                let mut table = sink.serialize_map(Some(1))?;
                table.serialize_entry("owner", parameter)?;
                table.end()
            }
        }
    }
}

struct AccessVisitor;

impl<'de> Visitor<'de> for AccessVisitor {
    type Value = Access;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("\"public\", \"authenticated\" or { owner = \"user_id\" }")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Access, E> {
        match word {
            "public" => Ok(Access::Public),
            "authenticated" => Ok(Access::Authenticated),
            _ => Err(de::Error::invalid_value(de::Unexpected::Str(word), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Access, A::Error> {
        let mut owner = None;
        while let Some(Key::Owner) = map.next_key()? {
            owner = Some(map.next_value::<String>()?);
        }
        owner
            .map(Access::Owner)
            .ok_or_else(|| de::Error::missing_field("owner"))
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Key {
    Owner,
}
