//! `[cors]`: cross-origin requests from browsers.

use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

#[cfg(test)]
use super::schema;
use super::units;

#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Allowed origins: exact, `https://*.app.example`, or `*`.
    pub origins: Vec<String>,
    /// `Access-Control-Allow-Credentials`: lets browsers send cookies.
    #[serde(default)]
    pub credentials: bool,
    /// Allowed methods. Default: the methods of the route.
    #[serde(default)]
    pub methods: Option<Vec<String>>,
    /// Allowed request headers.
    #[serde(default = "headers")]
    pub headers: Vec<String>,
    /// Response headers exposed in addition to the CORS-safelisted ones.
    #[serde(default)]
    pub expose: Vec<String>,
    /// `Access-Control-Max-Age` of preflight responses.
    #[serde(default = "max_age", with = "units::duration")]
    #[cfg_attr(test, schemars(with = "schema::Duration"))]
    pub max_age: Duration,
}

fn headers() -> Vec<String> {
    ["Authorization", "Content-Type"].map(str::to_owned).into()
}

fn max_age() -> Duration {
    Duration::from_mins(10)
}

/// `cors` of a route, which replaces `[cors]`.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteCors {
    /// `false`: the upstream implements CORS itself.
    Off,
    /// A table with the keys of `[cors]`. Nothing is inherited.
    Own(Cors),
}

impl<'de> Deserialize<'de> for RouteCors {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(RouteCorsVisitor)
    }
}

impl Serialize for RouteCors {
    fn serialize<S: Serializer>(&self, sink: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => sink.serialize_bool(false),
            Self::Own(cors) => cors.serialize(sink),
        }
    }
}

struct RouteCorsVisitor;

impl<'de> Visitor<'de> for RouteCorsVisitor {
    type Value = RouteCors;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("false, or a table with the keys of [cors]")
    }

    fn visit_bool<E: de::Error>(self, is_on: bool) -> Result<RouteCors, E> {
        if is_on {
            return Err(de::Error::invalid_value(de::Unexpected::Bool(true), &self));
        }
        Ok(RouteCors::Off)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RouteCors, A::Error> {
        Cors::deserialize(MapAccessDeserializer::new(map)).map(RouteCors::Own)
    }
}
