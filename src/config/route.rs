//! `[[routes]]`: which requests exist, and what each demands.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::cors::RouteCors;
use super::limit::RateLimits;
use super::rule::ClaimRule;
use super::units;

/// `[[routes]]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// What the path must look like; `{name}` is one segment, `{*rest}` the rest.
    pub path: String,
    /// The methods of the route; left out, every method.
    #[serde(default)]
    pub methods: Option<Vec<String>>,
    /// Who may.
    pub access: Access,
    /// The status for a caller who is not the owner: 403, 404 or 401.
    #[serde(default)]
    pub mismatch: Option<u16>,
    /// Where the request goes; may be left out when there is one upstream.
    #[serde(default)]
    pub upstream: Option<String>,
    /// Instead of the upstream's `response_timeout`.
    #[serde(default, deserialize_with = "units::optional_duration")]
    pub timeout: Option<Duration>,
    /// Instead of the listener's `max_body_bytes`.
    #[serde(default, deserialize_with = "units::optional_size")]
    pub max_body_bytes: Option<u64>,
    /// How long a whole exchange may take, to the end of its answer; left out, any time.
    #[serde(default, deserialize_with = "units::optional_duration")]
    pub request_timeout: Option<Duration>,
    /// How often a caller may come: one limit, or several that must all allow it.
    #[serde(default)]
    pub rate_limit: RateLimits,
    /// What becomes of a stream when its token expires.
    #[serde(default = "close")]
    pub at_expiry: StreamEnd,
    /// What becomes of a stream when a newer configuration, or newer keys, would not allow it.
    #[serde(default = "keep")]
    pub at_change: StreamEnd,
    /// The issuers that a token may come from; left out, any.
    #[serde(default)]
    pub issuers: Option<Vec<String>>,
    /// What the claims of a token must say, all of it.
    #[serde(default)]
    pub require: Option<Vec<ClaimRule>>,
    /// Who may act for every owner.
    #[serde(default)]
    pub exempt: Option<ClaimRule>,
    /// Where the token may be; left out, `Authorization: Bearer` alone.
    #[serde(default)]
    pub tokens: Option<Vec<TokenSource>>,
    /// The origins whose pages may send the token's cookie, beside the request's own.
    #[serde(default)]
    pub origins: Option<Vec<String>>,
    /// Which pages of other origins may call, instead of `[cors]`.
    #[serde(default)]
    pub cors: Option<RouteCors>,
    /// What the upstream sees instead of the start of the path.
    #[serde(default)]
    pub replace_prefix: Option<ReplacePrefix>,
    /// What the upstream sees instead of some headers.
    #[serde(default)]
    pub request_headers: Option<HeaderEdits>,
    /// What the client sees instead of some headers of the upstream.
    #[serde(default)]
    pub response_headers: Option<HeaderEdits>,
}

/// `replace_prefix = { … }`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplacePrefix {
    /// What the path begins with; `/` is the start of every path.
    pub from: String,
    /// What is sent in its place; `/` is nothing.
    pub to: String,
}

/// `request_headers = { … }` and `response_headers = { … }`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderEdits {
    /// Header = the one value that it has from now on.
    pub set: BTreeMap<String, String>,
    /// Headers that are taken away.
    pub remove: Vec<String>,
}

/// What becomes of a stream: an answer without an end in sight, or a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamEnd {
    /// It is ended.
    Close,
    /// It goes on.
    Keep,
}

fn close() -> StreamEnd {
    StreamEnd::Close
}

fn keep() -> StreamEnd {
    StreamEnd::Keep
}

/// One of `tokens = [{ … }]`: exactly one place.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenSource {
    /// A header: `Authorization`, or one that has the token alone.
    pub header: Option<String>,
    /// A cookie.
    pub cookie: Option<String>,
    /// A parameter of the query.
    pub query: Option<String>,
    /// The subprotocol of a WebSocket before the one that is the token.
    pub websocket: Option<String>,
}

/// Who may use a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Everybody, without a token.
    Public,
    /// Everybody with a good token.
    Authenticated,
    /// Only the subject that this part of the path names.
    Owner(String),
}

impl<'de> Deserialize<'de> for Access {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(AccessVisitor)
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
