//! `rate_limit` of a route.

use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

#[cfg(test)]
use super::schema;
use super::units;

/// `rate_limit = { requests = 10, per = "1m", by = "client-address" }`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Allowed requests within `per`.
    pub requests: u64,
    /// Period, in whole seconds.
    #[serde(with = "units::duration")]
    #[cfg_attr(test, schemars(with = "schema::Duration"))]
    pub per: Duration,
    /// Key of the bucket that a request counts against.
    pub by: RateKey,
    /// Largest burst. Default: `requests`.
    #[serde(default)]
    pub burst: Option<u64>,
}

/// Key of the bucket that a request counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RateKey {
    /// Client address; for IPv6, its /64 network.
    ClientAddress,
    /// Issuer and subject of the token.
    Subject,
}

impl RateKey {
    /// Word in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientAddress => "client-address",
            Self::Subject => "subject",
        }
    }
}

/// One limit or an array of limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RateLimits {
    pub all: Vec<RateLimit>,
    /// True if the value is an array, which decides the key paths in problems.
    pub is_list: bool,
}

impl<'de> Deserialize<'de> for RateLimits {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(OneOrMany)
    }
}

impl Serialize for RateLimits {
    fn serialize<S: Serializer>(&self, sink: S) -> Result<S::Ok, S::Error> {
        match self.all.as_slice() {
            [] if !self.is_list => sink.serialize_none(),
            [limit] if !self.is_list => limit.serialize(sink),
            limits => limits.serialize(sink),
        }
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

#[cfg(test)]
mod tests {
    use serde::de::IntoDeserializer;
    use serde::de::value::Error;

    use super::*;

    #[test]
    fn reads_a_key_by_its_name() {
        for key in [RateKey::ClientAddress, RateKey::Subject] {
            let word = IntoDeserializer::<Error>::into_deserializer(key.name());
            assert_eq!(RateKey::deserialize(word), Ok(key));
        }
    }
}
