//! The claims of a token, typed.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::clock::UnixTime;

use super::certificate::Binding;
use super::claim_path::ClaimPath;
use super::refusal::Refusal;
use super::subject::Subject;

/// The claims of a token: a JSON object in which no name stands twice, at any depth.
///
/// RFC 7519 section 4 leaves duplicates to the parser; two parsers that choose differently are an attack.
#[derive(Clone, PartialEq, Default)]
pub struct Claims(Map<String, Value>);

/// What an issuer's claims must fulfil.
#[derive(Debug, Clone)]
pub struct ClaimPolicy {
    /// The accepted `aud`; any if none.
    pub audience: Option<Vec<String>>,
    /// The accepted `azp`; any, and none, if nothing is said.
    pub authorized_party: Option<Vec<String>>,
    /// Whether a token may be bound to anything (`cnf`), also to what nobody here can check.
    pub allow_bound: bool,
    /// The claims that name the subject, the first that is present counts.
    pub subject: Vec<ClaimPath>,
    /// How far clocks may differ, in seconds.
    pub leeway: i64,
    /// The longest time from `iat` to `exp`, in seconds.
    pub max_lifetime: Option<i64>,
}

/// What claims that fulfil the policy say.
#[derive(Debug)]
pub struct Checked {
    /// Who the token is about.
    pub subject: Subject,
    /// How long it is good.
    pub validity: Validity,
    /// The certificate that its caller must show, or must not show another than.
    pub binding: Option<Binding>,
}

/// From when until when a token is good, the leeway included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    from: Option<UnixTime>,
    until: UnixTime,
}

impl Validity {
    /// From when on it is not good any more.
    pub fn until(self) -> UnixTime {
        self.until
    }

    /// Whether it is good now.
    pub fn check(self, now: UnixTime) -> Result<(), Refusal> {
        if now >= self.until {
            return Err(Refusal::TokenExpired);
        }
        if self.from.is_some_and(|from| now < from) {
            return Err(Refusal::TokenNotYetValid);
        }
        Ok(())
    }
}

/// What an allocation takes beside what was asked for, in bytes.
const ALLOCATION: usize = 16;

/// The last second of the year 9999; a time after it is a mistake or an attack.
const LAST_SECOND: f64 = 253_402_300_799.0;

impl Claims {
    /// Reads a JSON object.
    pub fn parse(json: &[u8]) -> Result<Self, Refusal> {
        serde_json::from_slice(json).map_err(|_| Refusal::TokenMalformed)
    }

    /// A claim by its name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Value at a claim path.
    pub fn find(&self, path: &ClaimPath) -> Option<&Value> {
        path.find(&self.0)
    }

    /// Forgets every claim but these.
    pub(super) fn keep_only(&mut self, names: &BTreeSet<String>) {
        self.0.retain(|name, _| names.contains(name));
    }

    /// About how much memory they take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        object_bytes(&self.0)
    }

    /// A claim that must be text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_str)
    }

    /// Checks times, audience, what it is bound to and subject (RFC 7519 sections 4.1.2 to 4.1.6).
    pub fn check(&self, policy: &ClaimPolicy, now: UnixTime) -> Result<Checked, Refusal> {
        let validity = self.validity(policy)?;
        validity.check(now)?;
        self.check_lifetime(policy)?;
        self.check_audience(policy)?;
        self.check_authorized_party(policy)?;
        Ok(Checked {
            binding: self.binding(policy)?,
            subject: self.subject(policy)?,
            validity,
        })
    }

    fn validity(&self, policy: &ClaimPolicy) -> Result<Validity, Refusal> {
        let expires = self.time("exp")?.ok_or(Refusal::TokenMalformed)?;
        let starts = self.time("nbf")?.max(self.time("iat")?);
        Ok(Validity {
            until: UnixTime(expires.second.saturating_add(policy.leeway)),
            from: starts
                .map(|starts| UnixTime(starts.first_second().saturating_sub(policy.leeway))),
        })
    }

    fn check_lifetime(&self, policy: &ClaimPolicy) -> Result<(), Refusal> {
        let Some(longest) = policy.max_lifetime else {
            return Ok(());
        };
        match (self.time("iat")?, self.time("exp")?) {
            (Some(issued), Some(expires))
                if expires.second.saturating_sub(issued.second) <= longest =>
            {
                Ok(())
            }
            _ => Err(Refusal::TokenLifetime),
        }
    }

    /// A time. CVE-2026-25537 was one of the wrong type taken as absent.
    fn time(&self, name: &str) -> Result<Option<NumericDate>, Refusal> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) => match NumericDate::of(number) {
                Some(time) => Ok(Some(time)),
                None => Err(Refusal::TokenMalformed),
            },
            Some(_) => Err(Refusal::TokenMalformed),
        }
    }

    fn check_audience(&self, policy: &ClaimPolicy) -> Result<(), Refusal> {
        let Some(accepted) = &policy.audience else {
            return Ok(());
        };
        let is_accepted = |name: &str| accepted.iter().any(|accepted| accepted == name);
        let good = match self.get("aud") {
            Some(Value::String(one)) => is_accepted(one),
            // Every element must be text, or it is not an audience list at all.
            Some(Value::Array(all)) if all.iter().all(Value::is_string) => {
                all.iter().filter_map(Value::as_str).any(is_accepted)
            }
            _ => false,
        };
        if good {
            Ok(())
        } else {
            Err(Refusal::TokenAudience)
        }
    }

    /// `OpenID` Connect Core section 2: `azp` is the client that the token was made for.
    fn check_authorized_party(&self, policy: &ClaimPolicy) -> Result<(), Refusal> {
        let Some(accepted) = &policy.authorized_party else {
            return Ok(());
        };
        let party = self.text("azp");
        if party.is_some_and(|party| accepted.iter().any(|accepted| accepted == party)) {
            Ok(())
        } else {
            Err(Refusal::TokenAudience)
        }
    }

    /// RFC 7800 section 3.1: whoever shows a token with `cnf` must show what it is bound to as well, or may have stolen
    /// it. A certificate can be shown; with anything else the mere presence of the claim counts.
    fn binding(&self, policy: &ClaimPolicy) -> Result<Option<Binding>, Refusal> {
        let Some(cnf) = self.get("cnf") else {
            return Ok(None);
        };
        if policy.allow_bound {
            return Ok(Binding::if_shown(cnf));
        }
        let binding = Binding::of(cnf).ok_or(Refusal::TokenConfirmation)?;
        Ok(Some(binding))
    }

    fn subject(&self, policy: &ClaimPolicy) -> Result<Subject, Refusal> {
        let claim = policy.subject.iter().find_map(|claim| self.find(claim));
        let subject = claim.and_then(Value::as_str).and_then(Subject::new);
        subject.ok_or(Refusal::TokenSubject)
    }
}

/// A time of a token (RFC 7519 section 2), which may lie between two seconds of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct NumericDate {
    /// The second it is in: what a token is good for or may last counts in whole ones.
    second: i64,
    /// Whether it is later than the start of that second.
    has_fraction: bool,
}

impl NumericDate {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the range is checked first"
    )]
    #[expect(clippy::cast_precision_loss, reason = "only to check the range")]
    fn of(number: &Number) -> Option<Self> {
        let whole = number.as_i64();
        let approximate = whole.map_or_else(|| number.as_f64(), |whole| Some(whole as f64))?;
        if !(0.0..=LAST_SECOND).contains(&approximate) {
            return None;
        }
        Some(Self {
            second: whole.unwrap_or_else(|| approximate.floor() as i64),
            has_fraction: whole.is_none() && approximate.fract() > 0.0,
        })
    }

    /// The first whole second that is not before it.
    fn first_second(self) -> i64 {
        self.second + i64::from(self.has_fraction)
    }
}

/// What a value takes beside its own place. An attacker who chooses a claim chooses what takes most.
fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len() + ALLOCATION,
        Value::Array(items) => {
            // A list that has grown has room for up to as many again.
            let room = 2 * items.len() * size_of::<Value>() + ALLOCATION;
            room + items.iter().map(value_bytes).sum::<usize>()
        }
        Value::Object(members) => object_bytes(members),
    }
}

fn object_bytes(members: &Map<String, Value>) -> usize {
    // A node of a B-tree has places for eleven, and at least five of them are taken, but for the first node.
    let node = 11 * size_of::<(String, Value)>() + ALLOCATION;
    let nodes = members.len().div_ceil(5) * node;
    let names = members.keys().map(|name| name.len() + ALLOCATION);
    nodes + names.sum::<usize>() + members.values().map(value_bytes).sum::<usize>()
}

/// Claims are never shown: they are about a person.
impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claims(..)")
    }
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        if let Value::Object(object) = source.deserialize_any(Unique)? {
            return Ok(Self(object));
        }
        Err(de::Error::custom("not an object"))
    }
}

/// Reads any JSON value in which no name of an object stands twice.
struct Unique;

impl<'de> de::DeserializeSeed<'de> for Unique {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::from(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(Self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(Self)?;
            if object.insert(name, value).is_some() {
                return Err(de::Error::custom("a name stands twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests;
