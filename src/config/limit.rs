//! `rate_limit` of a route: how often a caller may come.

use std::time::Duration;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::units;

/// `rate_limit = { requests = 10, per = "1m", by = "client-address" }`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// How many requests a caller may make.
    pub requests: u64,
    /// In which time.
    #[serde(deserialize_with = "units::duration")]
    pub per: Duration,
    /// Who counts as one caller.
    pub by: RateKey,
    /// How many of them at once; left out, all.
    #[serde(default)]
    pub burst: Option<u64>,
}

/// Who counts as one caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RateKey {
    /// Whoever has the same address, or the same IPv6 network of 64 bits.
    ClientAddress,
    /// Whoever has a token of the same issuer and subject.
    Subject,
}

/// One limit, or a list of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// All of them.
    pub all: Vec<RateLimit>,
    /// Whether they were written as a list.
    pub is_list: bool,
}

impl<'de> Deserialize<'de> for RateLimits {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(OneOrMany)
    }
}

struct OneOrMany;

impl<'de> Visitor<'de> for OneOrMany {
    type Value = RateLimits;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "{ requests = 10, per = \"1m\", by = \"client-address\" } or an array of such tables",
        )
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RateLimits, A::Error> {
        let one = RateLimit::deserialize(MapAccessDeserializer::new(map))?;
        Ok(RateLimits {
            all: vec![one],
            is_list: false,
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<RateLimits, A::Error> {
        let mut all = Vec::new();
        while let Some(limit) = list.next_element()? {
            all.push(limit);
        }
        Ok(RateLimits { all, is_list: true })
    }
}
