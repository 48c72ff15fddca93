//! `require`, `exempt` and `issuers` of a route, compiled.

use std::sync::Arc;

use serde_json::Value;

use crate::config::{self, Access, CertificateField, ClaimRule, KeyPath, Scalar, Written};
use crate::gate::access::Requirements;
use crate::gate::certificate;
use crate::gate::claim_path::ClaimPath;
use crate::gate::requirement::{Attribute, Expected, Requirement, is_scope};
use crate::gate::verify::IssuerId;

use super::tls;

pub(super) fn compile(
    written: &mut Written,
    place: &KeyPath,
    route: &config::Route,
) -> Requirements {
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
    Requirements {
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

/// One fact and the one demand on it.
fn requirement(written: &mut Written, place: &KeyPath, rule: &ClaimRule) -> Option<Requirement> {
    let ClaimRule {
        claim,
        certificate,
        has,
        any,
        equals,
    } = rule;
    let attribute = attribute(written, place, claim.as_deref(), *certificate);
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
            report_choice(written, place, "`has`, `any`, `equals`", &given);
            return None;
        }
    };
    let attribute = attribute?;
    check_words(written, place, &attribute, &expected);
    Some(Requirement {
        attribute,
        expected,
    })
}

/// What a rule is about.
fn attribute(
    written: &mut Written,
    place: &KeyPath,
    claim: Option<&str>,
    certificate: Option<CertificateField>,
) -> Option<Attribute> {
    match (claim, certificate) {
        (Some(claim), None) => match ClaimPath::parse(claim) {
            Ok(pointer) => Some(Attribute::Claim(pointer)),
            Err(problem) => {
                written.report(place.key("claim"), problem.to_string());
                None
            }
        },
        (None, Some(field)) => {
            if !tls::asks_for_certificates(written) {
                written.report(place.key("certificate"), tls::NOT_ASKED);
            }
            Some(Attribute::Certificate(field))
        }
        (claim, certificate) => {
            let given = [
                ("claim", claim.is_some()),
                ("certificate", certificate.is_some()),
            ];
            report_choice(written, place, "`claim`, `certificate`", &given);
            None
        }
    }
}

/// Reports that not exactly one of several keys is there, unless one was misspelt or cannot be read: that has been
/// reported.
fn report_choice(written: &mut Written, place: &KeyPath, of: &str, given: &[(&str, bool)]) {
    if written.is_broken(place) {
        return;
    }
    let named = given.iter().filter(|(_, is_given)| *is_given);
    let named: Vec<&str> = named.map(|(key, _)| *key).collect();
    let found = if named.is_empty() {
        "there is none".to_owned()
    } else {
        format!("there are `{}`", named.join("`, `"))
    };
    written.report(place.clone(), format!("needs exactly one of {of}; {found}"));
}

fn check_words(written: &mut Written, place: &KeyPath, attribute: &Attribute, expected: &Expected) {
    let (key, words) = match expected {
        Expected::Has(word) => ("has", std::slice::from_ref(word)),
        Expected::Any(words) => ("any", words.as_slice()),
        Expected::Equals(Value::String(word)) if matches!(attribute, Attribute::Certificate(_)) => {
            ("equals", std::slice::from_ref(word))
        }
        Expected::Equals(_) => {
            if matches!(attribute, Attribute::Certificate(_)) {
                written.report(
                    place.key("equals"),
                    "must be a text: a certificate has no other",
                );
            }
            return;
        }
    };
    let place = place.key(key);
    let is_wrong_scope = |word: &&String| {
        matches!(attribute, Attribute::Claim(claim) if claim.is("scope")) && !is_scope(word)
    };
    let is_wrong_thumbprint = |word: &&String| {
        *attribute == Attribute::Certificate(CertificateField::Thumbprint)
            && !certificate::is_thumbprint(word)
    };
    if words.is_empty() || words.iter().any(String::is_empty) {
        let message = if key == "any" {
            "needs at least one text, and none that is empty"
        } else {
            "needs a text that is not empty"
        };
        written.report(place, message);
    } else if let Some(word) = words.iter().find(is_wrong_scope) {
        written.report(
            place,
            format!("`{word}` is not one scope: RFC 6749 section 3.3 has no space, quote or backslash in it"),
        );
    } else if let Some(word) = words.iter().find(is_wrong_thumbprint) {
        written.report(
            place,
            format!("`{word}` is not the SHA-256 of a certificate in base64url without `=`, as in `x5t#S256`"),
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
fn issuers(
    written: &mut Written,
    place: &KeyPath,
    names: Option<&[String]>,
) -> Option<Vec<IssuerId>> {
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
            accepted.push(IssuerId(issuer));
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
