//! `require`, `exempt` and `issuers` of a route, compiled.

use std::sync::Arc;

use serde_json::Value;

use crate::config::{self, Access, CertificateField, ClaimRule, ConfigDocument, KeyPath, Scalar};
use crate::gate::certificate;
use crate::gate::claim_path::ClaimPath;
use crate::gate::requirements::{self, Attribute, Expected, Requirement, Requirements};

use super::tls;

pub(super) fn compile(
    document: &mut ConfigDocument,
    path: &KeyPath,
    route: &config::Route,
) -> Requirements {
    let given = [
        ("require", route.require.is_some()),
        ("issuers", route.issuers.is_some()),
    ];
    for (key, is_given) in given {
        if is_given && route.access == Access::Public {
            document.report(
                path.key(key),
                "means nothing on a public route, where no token is looked at",
            );
        }
    }
    if route.exempt.is_some() && !matches!(route.access, Access::Owner(_)) {
        document.report(
            path.key("exempt"),
            "means nothing on a route without an owner",
        );
    }
    let exempt = route.exempt.as_ref();
    Requirements {
        issuers: issuers(document, &path.key("issuers"), route.issuers.as_deref()),
        require: require(document, &path.key("require"), route.require.as_deref()),
        exempt: exempt.and_then(|rule| requirement(document, &path.key("exempt"), rule)),
    }
}

fn require(
    document: &mut ConfigDocument,
    path: &KeyPath,
    rules: Option<&[ClaimRule]>,
) -> Vec<Arc<Requirement>> {
    let rules = rules.unwrap_or_default();
    if rules.is_empty() && document.has(path) && !document.is_broken(path) {
        document.report(
            path.clone(),
            "needs at least one claim; leave it out to demand nothing",
        );
    }
    let paths: Vec<KeyPath> = document.elements(path).take(rules.len()).collect();
    let compiled = rules
        .iter()
        .zip(&paths)
        .map(|(rule, path)| requirement(document, path, rule));
    compiled.flatten().map(Arc::new).collect()
}

/// One fact and the one demand on it.
fn requirement(
    document: &mut ConfigDocument,
    path: &KeyPath,
    rule: &ClaimRule,
) -> Option<Requirement> {
    let ClaimRule {
        claim,
        certificate,
        has,
        any,
        equals,
    } = rule;
    let attribute = attribute(document, path, claim.as_deref(), *certificate);
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
            report_choice(document, path, "`has`, `any`, `equals`", &given);
            return None;
        }
    };
    let attribute = attribute?;
    check_words(document, path, &attribute, &expected);
    Some(Requirement {
        attribute,
        expected,
    })
}

/// What a rule is about.
fn attribute(
    document: &mut ConfigDocument,
    path: &KeyPath,
    claim: Option<&str>,
    certificate: Option<CertificateField>,
) -> Option<Attribute> {
    match (claim, certificate) {
        (Some(claim), None) => match ClaimPath::parse(claim) {
            Ok(claim_path) => Some(Attribute::Claim(claim_path)),
            Err(problem) => {
                document.report(path.key("claim"), problem.to_string());
                None
            }
        },
        (None, Some(field)) => {
            if !tls::asks_for_certificates(document) {
                document.report(path.key("certificate"), tls::NOT_ASKED);
            }
            Some(Attribute::Certificate(field))
        }
        (claim, certificate) => {
            let given = [
                ("claim", claim.is_some()),
                ("certificate", certificate.is_some()),
            ];
            report_choice(document, path, "`claim`, `certificate`", &given);
            None
        }
    }
}

/// Reports that not exactly one of several keys is there, unless one was misspelt or cannot be read: that has been
/// reported.
fn report_choice(document: &mut ConfigDocument, path: &KeyPath, of: &str, given: &[(&str, bool)]) {
    if document.is_broken(path) {
        return;
    }
    let named = given.iter().filter(|(_, is_given)| *is_given);
    let named: Vec<&str> = named.map(|(key, _)| *key).collect();
    let found = if named.is_empty() {
        "there is none".to_owned()
    } else {
        format!("there are `{}`", named.join("`, `"))
    };
    document.report(path.clone(), format!("needs exactly one of {of}; {found}"));
}

fn check_words(
    document: &mut ConfigDocument,
    path: &KeyPath,
    attribute: &Attribute,
    expected: &Expected,
) {
    let (key, words) = match expected {
        Expected::Has(word) => ("has", std::slice::from_ref(word)),
        Expected::Any(words) => ("any", words.as_slice()),
        Expected::Equals(Value::String(word)) if matches!(attribute, Attribute::Certificate(_)) => {
            ("equals", std::slice::from_ref(word))
        }
        Expected::Equals(_) => {
            if matches!(attribute, Attribute::Certificate(_)) {
                document.report(
                    path.key("equals"),
                    "must be a text: a certificate has no other",
                );
            }
            return;
        }
    };
    let path = path.key(key);
    let is_wrong_scope = |word: &&String| {
        matches!(attribute, Attribute::Claim(claim) if claim.is("scope"))
            && !requirements::is_scope(word)
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
        document.report(path, message);
    } else if let Some(word) = words.iter().find(is_wrong_scope) {
        document.report(
            path,
            format!("`{word}` is not one scope: RFC 6749 section 3.3 has no space, quote or backslash in it"),
        );
    } else if let Some(word) = words.iter().find(is_wrong_thumbprint) {
        document.report(
            path,
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
    document: &mut ConfigDocument,
    path: &KeyPath,
    names: Option<&[String]>,
) -> Option<Vec<usize>> {
    let names = names?;
    if names.is_empty() {
        document.report(
            path.clone(),
            "needs at least one issuer; leave it out to accept all",
        );
    }
    let known: Vec<String> = document.config.issuers.keys().cloned().collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let mut accepted = Vec::new();
    for (index, name) in names.iter().enumerate() {
        if let Some(issuer) = known.iter().position(|known| known == name) {
            accepted.push(issuer);
        } else if !document.has(&KeyPath::of("issuers").key(name)) {
            let hint = match config::nearest(name, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None if known.is_empty() => "there is none at all".to_owned(),
                None => format!("there are `{}`", known.join("`, `")),
            };
            document.report(
                path.index(index),
                format!("there is no issuer `{name}`; {hint}"),
            );
        }
    }
    Some(accepted)
}
