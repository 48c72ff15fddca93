//! `[cors]`: which pages of other origins may call, and read the answers.

use std::time::Duration;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::units;

/// `[cors]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// The origins of the pages.
    pub origins: Vec<String>,
    /// Whether browsers may send cookies along.
    #[serde(default)]
    pub credentials: bool,
    /// The methods that pages may use; left out, every method of the route.
    #[serde(default)]
    pub methods: Option<Vec<String>>,
    /// The headers that pages may send.
    #[serde(default = "headers")]
    pub headers: Vec<String>,
    /// The headers of the upstream's answers that pages may read, beside those that every page may.
    #[serde(default)]
    pub expose: Vec<String>,
    /// How long a browser need not ask again.
    #[serde(default = "max_age", deserialize_with = "units::duration")]
    pub max_age: Duration,
}

fn headers() -> Vec<String> {
    ["Authorization", "Content-Type"].map(str::to_owned).into()
}

fn max_age() -> Duration {
    Duration::from_mins(10)
}

/// What a route says instead of `[cors]`.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteCors {
    /// `false`: the upstream answers browsers itself.
    Off,
    /// A table like `[cors]`, of which nothing is taken over.
    Own(Cors),
}

impl<'de> Deserialize<'de> for RouteCors {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(RouteCorsVisitor)
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
