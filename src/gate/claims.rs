//! Claims of a token, and their checks by the policy of its issuer.

mod numbers;

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::clock::UnixTime;

use super::binding::Binding;
use super::claim_path::ClaimPath;
use super::refusal::Refusal;
use super::subject::{Namespace, Subject};
use super::token_fault::{PartFault, TimeFault, TokenFault};

/// Claims of a token: a JSON object without duplicate names, at any depth.
///
/// RFC 7519 section 4 lets a parser reject duplicates or use the last one. Two parsers that choose differently read
/// different claims from one token.
#[derive(Clone, PartialEq, Default)]
pub struct Claims(Map<String, Value>);

/// Requirements for the claims of an issuer's tokens.
#[derive(Debug, Clone)]
pub struct ClaimPolicy {
    /// Accepted `aud` values; `None` accepts any, and a token without `aud`.
    pub audience: Option<Vec<String>>,
    /// Accepted `azp` values; `None` accepts any, and a token without `azp`.
    pub authorized_party: Option<Vec<String>>,
    /// True if sender-constrained tokens (`cnf`) are accepted even if the gate cannot check their key.
    pub allow_bound: bool,
    /// Claims that name the subject; the first one present decides.
    pub subject: Vec<ClaimPath>,
    /// Namespace of the subjects.
    pub namespace: Namespace,
    /// Tolerated clock difference, in seconds.
    pub leeway: i64,
    /// Longest accepted time from `iat` to `exp`, in seconds.
    pub max_lifetime: Option<i64>,
}

/// Results of the checks of a policy.
#[derive(Debug)]
pub struct CheckedClaims {
    pub subject: Subject,
    pub validity: Validity,
    /// Certificate that the token is bound to.
    pub binding: Option<Binding>,
}

/// Period in which a token is valid, leeway included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    from: Option<UnixTime>,
    /// First second after the period.
    until: UnixTime,
}

impl Validity {
    /// First second at which the token is expired.
    pub fn until(self) -> UnixTime {
        self.until
    }

    /// Returns a period that ends at this time at the latest.
    #[must_use]
    pub(super) fn limited_to(self, until: UnixTime) -> Self {
        Self {
            until: self.until.min(until),
            ..self
        }
    }

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

/// Overhead of a heap allocation, in bytes.
const ALLOCATION: usize = 16;

/// Last second of the year 9999. A later time is a mistake or an attack.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// Milliseconds of the year 5138. Up to there, a number that is too large for seconds is in milliseconds.
const LAST_MILLISECOND: f64 = 1e14;

impl Claims {
    /// Parses a JSON object. A number that cannot be kept exactly becomes `null`.
    pub fn parse(json: &[u8]) -> Result<Self, PartFault> {
        let parsed: Result<Self, _> = serde_json::from_slice(json);
        let mut claims = parsed.map_err(|error| fault(&error, json))?;
        numbers::forget_inexact(&mut claims.0, json);
        Ok(claims)
    }

    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Value at a claim path.
    pub fn find(&self, path: &ClaimPath) -> Option<&Value> {
        path.find(&self.0)
    }

    /// Removes all claims except these.
    pub(super) fn keep_only(&mut self, names: &BTreeSet<String>) {
        self.0.retain(|name, _| names.contains(name));
    }

    /// Approximate memory of the claims, in bytes.
    pub(super) fn bytes(&self) -> usize {
        object_bytes(&self.0)
    }

    /// Value of a claim that is a string.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_str)
    }

    /// Checks times, audience, authorized party, binding and subject (RFC 7519 sections 4.1.2 to 4.1.6).
    pub fn check(&self, policy: &ClaimPolicy, now: UnixTime) -> Result<CheckedClaims, Refusal> {
        let validity = self.validity(policy)?;
        validity.check(now)?;
        self.check_lifetime(policy)?;
        self.check_audience(policy)?;
        self.check_authorized_party(policy)?;
        Ok(CheckedClaims {
            binding: self.binding(policy)?,
            subject: self.subject(policy)?,
            validity,
        })
    }

    fn validity(&self, policy: &ClaimPolicy) -> Result<Validity, Refusal> {
        let expires = self.time("exp")?;
        let expires = expires.ok_or(Refusal::TokenMalformed(TokenFault::NoExpiry))?;
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

    /// Time of a claim. A value of another type is malformed, never absent (CVE-2026-25537).
    pub(super) fn numeric_date(&self, name: &str) -> Result<Option<NumericDate>, TimeFault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) => NumericDate::of(number).map(Some),
            Some(Value::String(_)) => Err(TimeFault::Text),
            Some(_) => Err(TimeFault::NotNumber),
        }
    }

    fn time(&self, name: &'static str) -> Result<Option<NumericDate>, Refusal> {
        let time = self.numeric_date(name);
        time.map_err(|fault| Refusal::TokenMalformed(TokenFault::Time(name, fault)))
    }

    fn check_audience(&self, policy: &ClaimPolicy) -> Result<(), Refusal> {
        let Some(accepted) = &policy.audience else {
            return Ok(());
        };
        let is_accepted = |name: &str| accepted.iter().any(|accepted| accepted == name);
        let is_for_us = match self.get("aud") {
            Some(Value::String(one)) => is_accepted(one),
            // RFC 7519 section 4.1.3: every element is a string, or the value is no audience list.
            Some(Value::Array(all)) if all.iter().all(Value::is_string) => {
                all.iter().filter_map(Value::as_str).any(is_accepted)
            }
            _ => false,
        };
        if is_for_us {
            Ok(())
        } else {
            Err(Refusal::TokenAudience)
        }
    }

    /// Checks `azp`, the client that the token was issued to (`OpenID` Connect Core section 2).
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

    /// Binding of a sender-constrained token. RFC 7800 section 3.1: its presenter must prove possession of the key in
    /// `cnf`. The gate can check a certificate; it rejects every other `cnf` unless the policy allows it.
    fn binding(&self, policy: &ClaimPolicy) -> Result<Option<Binding>, Refusal> {
        let Some(cnf) = self.get("cnf") else {
            return Ok(None);
        };
        if policy.allow_bound {
            return Ok(Binding::if_presented(cnf));
        }
        let binding = Binding::of(cnf).ok_or(Refusal::TokenConfirmation)?;
        Ok(Some(binding))
    }

    fn subject(&self, policy: &ClaimPolicy) -> Result<Subject, Refusal> {
        let claim = policy.subject.iter().find_map(|claim| self.find(claim));
        let subject = claim.and_then(Value::as_str);
        let subject = subject.and_then(|text| policy.namespace.subject(text));
        subject.ok_or(Refusal::TokenSubject)
    }
}

/// Time in a token (RFC 7519 section 2), possibly with a fraction of a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NumericDate {
    /// Whole seconds: expiry and lifetime ignore the fraction.
    pub(super) second: i64,
    /// True if the time is later than the start of that second.
    has_fraction: bool,
}

impl NumericDate {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the range is checked first"
    )]
    #[expect(clippy::cast_precision_loss, reason = "only to check the range")]
    fn of(number: &Number) -> Result<Self, TimeFault> {
        let whole = number.as_i64();
        let approximate = whole.map_or_else(|| number.as_f64(), |whole| Some(whole as f64));
        let approximate = approximate.ok_or(TimeFault::OutOfRange)?;
        if !(0.0..=LAST_SECOND).contains(&approximate) {
            let is_later = approximate > LAST_SECOND && approximate < LAST_MILLISECOND;
            return Err(if is_later {
                TimeFault::Milliseconds
            } else {
                TimeFault::OutOfRange
            });
        }
        Ok(Self {
            second: whole.unwrap_or_else(|| approximate.floor() as i64),
            has_fraction: whole.is_none() && approximate.fract() > 0.0,
        })
    }

    /// First whole second that is not before this time.
    pub(super) fn first_second(self) -> i64 {
        self.second + i64::from(self.has_fraction)
    }
}

/// Heap memory of a value, in bytes, as an upper estimate: an attacker would choose the most expensive shape.
fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len() + ALLOCATION,
        Value::Array(items) => {
            // The capacity of a grown vector is up to twice its length.
            let room = 2 * items.len() * size_of::<Value>() + ALLOCATION;
            room + items.iter().map(value_bytes).sum::<usize>()
        }
        Value::Object(members) => object_bytes(members),
    }
}

fn object_bytes(members: &Map<String, Value>) -> usize {
    // A B-tree node has room for eleven entries and holds at least five, except for the root.
    let node = 11 * size_of::<(String, Value)>() + ALLOCATION;
    let nodes = members.len().div_ceil(5) * node;
    let names = members.keys().map(|name| name.len() + ALLOCATION);
    nodes + names.sum::<usize>() + members.values().map(value_bytes).sum::<usize>()
}

/// Prints no claims: they are personal data.
impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claims(..)")
    }
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        if let Value::Object(object) = source.deserialize_any(UniqueNames)? {
            return Ok(Self(object));
        }
        Err(de::Error::custom("expected an object"))
    }
}

/// Fault of a text that is not an object with unique names.
fn fault(error: &serde_json::Error, json: &[u8]) -> PartFault {
    if std::str::from_utf8(json).is_err() {
        PartFault::NotUtf8
    } else if !error.is_data() {
        // serde_json has no other way to tell a number beyond `f64` from invalid syntax.
        if error.to_string().starts_with("number out of range") {
            PartFault::NumberTooLarge
        } else {
            PartFault::NotJson
        }
    } else if json.trim_ascii_start().starts_with(b"{") {
        PartFault::DuplicateName
    } else {
        PartFault::NotObject
    }
}

/// Parses any JSON value without duplicate names in an object.
struct UniqueNames;

impl<'de> de::DeserializeSeed<'de> for UniqueNames {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueNames {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
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
                return Err(de::Error::custom("duplicate name"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests;
