//! `require`, `exempt` and `issuers` of a route, compiled.

use std::sync::Arc;

use serde_json::Value;

use crate::config::{self, Access, ClaimRule, KeyPath, Scalar, Written};
use crate::gate::pointer::Pointer;
use crate::gate::rule::{self, Demands, Expected, Requirement};

pub(super) fn compile(written: &mut Written, place: &KeyPath, route: &config::Route) -> Demands {
    let given = [
        ("require", route.require.is_some()),
        ("issuers", route.issuers.is_some()),
    ];
    for (key, is_given) in given {
        if is_given && route.access == Access::Public {
            written.report(
                place.key(key),
                "means nothing on a public route, where no token is looked at",
            );
        }
    }
    if route.exempt.is_some() && !matches!(route.access, Access::Owner(_)) {
        written.report(
            place.key("exempt"),
            "means nothing on a route without an owner",
        );
    }
    let exempt = route.exempt.as_ref();
    Demands {
        issuers: issuers(written, &place.key("issuers"), route.issuers.as_deref()),
        require: require(written, &place.key("require"), route.require.as_deref()),
        exempt: exempt.and_then(|rule| requirement(written, &place.key("exempt"), rule)),
    }
}

fn require(
    written: &mut Written,
    place: &KeyPath,
    rules: Option<&[ClaimRule]>,
) -> Vec<Arc<Requirement>> {
    let rules = rules.unwrap_or_default();
    if rules.is_empty() && written.has(place) && !written.is_broken(place) {
        written.report(
            place.clone(),
            "needs at least one claim; leave it out to demand nothing",
        );
    }
    let places: Vec<KeyPath> = written.elements(place).take(rules.len()).collect();
    let compiled = rules
        .iter()
        .zip(&places)
        .map(|(rule, place)| requirement(written, place, rule));
    compiled.flatten().map(Arc::new).collect()
}

/// One claim and the one demand on it.
fn requirement(written: &mut Written, place: &KeyPath, rule: &ClaimRule) -> Option<Requirement> {
    let ClaimRule {
        claim,
        has,
        any,
        equals,
    } = rule;
    let pointer = Pointer::parse(claim);
    if let Err(problem) = &pointer {
        written.report(place.key("claim"), problem.to_string());
    }
    let given = [
        ("has", has.is_some()),
        ("any", any.is_some()),
        ("equals", equals.is_some()),
    ];
    let expected = match (has, any, equals) {
        (Some(text), None, None) => Expected::Has(text.clone()),
        (None, Some(texts), None) => Expected::Any(texts.clone()),
        (None, None, Some(value)) => Expected::Equals(json(value)),
        _ => {
            let named: Vec<&str> = given
                .iter()
                .filter(|(_, is_given)| *is_given)
                .map(|(key, _)| *key)
                .collect();
            let found = if named.is_empty() {
                "there is none".to_owned()
            } else {
                format!("there are `{}`", named.join("`, `"))
            };
            // A demand that was misspelt or cannot be read has been reported.
            if !written.is_broken(place) {
                written.report(
                    place.clone(),
                    format!("needs exactly one of `has`, `any`, `equals`; {found}"),
                );
            }
            return None;
        }
    };
    let pointer = pointer.ok()?;
    check_words(written, place, &pointer, &expected);
    Some(Requirement {
        claim: pointer,
        expected,
    })
}

fn check_words(written: &mut Written, place: &KeyPath, claim: &Pointer, expected: &Expected) {
    let (key, words) = match expected {
        Expected::Has(word) => ("has", std::slice::from_ref(word)),
        Expected::Any(words) => ("any", words.as_slice()),
        Expected::Equals(_) => return,
    };
    let place = place.key(key);
    let is_wrong_scope = |word: &&String| claim.is("scope") && !rule::is_scope(word);
    if words.is_empty() || words.iter().any(String::is_empty) {
        let message = if key == "has" {
            "needs a text that is not empty"
        } else {
            "needs at least one text, and none that is empty"
        };
        written.report(place, message);
    } else if let Some(word) = words.iter().find(is_wrong_scope) {
        written.report(
            place,
            format!("`{word}` is not one scope: RFC 6749 section 3.3 has no space, quote or backslash in it"),
        );
    }
}

fn json(scalar: &Scalar) -> Value {
    match scalar {
        Scalar::Text(text) => Value::from(text.as_str()),
        Scalar::Integer(number) => Value::from(*number),
        Scalar::Float(number) => Value::from(*number),
        Scalar::Boolean(truth) => Value::from(*truth),
    }
}

/// The places of the named issuers in the order of their names.
fn issuers(written: &mut Written, place: &KeyPath, names: Option<&[String]>) -> Option<Vec<usize>> {
    let names = names?;
    if names.is_empty() {
        written.report(
            place.clone(),
            "needs at least one issuer; leave it out to accept all",
        );
    }
    let known: Vec<String> = written.config.issuers.keys().cloned().collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let mut accepted = Vec::new();
    for (index, name) in names.iter().enumerate() {
        if let Some(issuer) = known.iter().position(|known| known == name) {
            accepted.push(issuer);
        } else if !written.has(&KeyPath::of("issuers").key(name)) {
            let hint = match config::nearest(name, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None if known.is_empty() => "there is none at all".to_owned(),
                None => format!("there are `{}`", known.join("`, `")),
            };
            written.report(
                place.index(index),
                format!("there is no issuer `{name}`; {hint}"),
            );
        }
    }
    Some(accepted)
}
