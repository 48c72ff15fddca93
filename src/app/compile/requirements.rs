//! Compiles `require`, `exempt` and `issuers` of a route.

use std::sync::Arc;

use serde_json::Value;

use crate::config::{
    self, Access, CallerKind, CertificateField, ClaimRule, ConfigDocument, KeyPath, Scalar,
};
use crate::gate::access::Requirements;
use crate::gate::certificate;
use crate::gate::claim_path::ClaimPath;
use crate::gate::issuer_id::IssuerId;
use crate::gate::requirement::{Attribute, EXACT, Expected, Requirement, is_scope};

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
                "has no effect on a public route, which verifies no token",
            );
        }
    }
    if route.exempt.is_some() && !matches!(route.access, Access::Owner(_)) {
        document.report(
            path.key("exempt"),
            "has no effect on a route without an owner",
        );
    }
    let exempt = route.exempt.as_ref();
    if exempt.is_some_and(|rule| rule.kind == Some(CallerKind::User)) {
        document.report(
            path.key("exempt"),
            "exempts every user from the owner check; to serve every user, write `access = \"authenticated\"`",
        );
    }
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
    if rules.is_empty() && document.has(path) && !document.is_invalid(path) {
        document.report(
            path.clone(),
            "must list at least one requirement; omit the key to require nothing",
        );
    }
    let paths: Vec<KeyPath> = document.elements(path).take(rules.len()).collect();
    let compiled = rules
        .iter()
        .zip(&paths)
        .map(|(rule, path)| requirement(document, path, rule));
    compiled.flatten().map(Arc::new).collect()
}

/// Compiles one attribute with its condition.
fn requirement(
    document: &mut ConfigDocument,
    path: &KeyPath,
    rule: &ClaimRule,
) -> Option<Requirement> {
    let ClaimRule {
        claim,
        certificate,
        kind,
        has,
        any,
        equals,
    } = rule;
    if let Some(kind) = kind {
        return self::kind(document, path, *kind, rule);
    }
    let attribute = attribute(document, path, claim.as_deref(), *certificate);
    let given = [
        ("has", has.is_some()),
        ("any", any.is_some()),
        ("equals", equals.is_some()),
    ];
    let expected = match (has, any, equals) {
        (Some(text), None, None) => Expected::Has(text.clone()),
        (None, Some(texts), None) => Expected::Any(texts.clone()),
        (None, None, Some(value)) => {
            check_number(document, &path.key("equals"), value);
            Expected::Equals(json(value))
        }
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

/// Compiles `{ kind = "machine" }`, which stands alone.
fn kind(
    document: &mut ConfigDocument,
    path: &KeyPath,
    kind: CallerKind,
    rule: &ClaimRule,
) -> Option<Requirement> {
    let others = [
        ("claim", rule.claim.is_some()),
        ("certificate", rule.certificate.is_some()),
        ("has", rule.has.is_some()),
        ("any", rule.any.is_some()),
        ("equals", rule.equals.is_some()),
    ];
    if let Some((other, _)) = others.iter().find(|(_, is_given)| *is_given) {
        document.report(
            path.key(other),
            "has no effect beside `kind`; write a second requirement in `require`",
        );
        return None;
    }
    let mut issuers = document.config.issuers.values();
    let accepts_machines = issuers.any(|issuer| issuer.machines);
    if kind == CallerKind::Machine && !accepts_machines && !document.config.issuers.is_empty() {
        document.report(
            path.key("kind"),
            "no issuer accepts the tokens of machines, so no caller is one; set `machines = true` on an issuer",
        );
    }
    Some(Requirement {
        attribute: Attribute::Kind,
        expected: Expected::Equals(kind.name().into()),
    })
}

/// Attribute of a requirement.
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
            if !tls::requests_certificates(document) {
                document.report(path.key("certificate"), tls::NOT_ASKED);
            }
            Some(Attribute::Certificate(field))
        }
        (claim, certificate) => {
            let given = [
                ("claim", claim.is_some()),
                ("certificate", certificate.is_some()),
            ];
            report_choice(document, path, "`claim`, `certificate`, `kind`", &given);
            None
        }
    }
}

/// Reports a choice with none or several of its keys, unless an invalid key was reported already.
fn report_choice(document: &mut ConfigDocument, path: &KeyPath, of: &str, given: &[(&str, bool)]) {
    if document.is_invalid(path) {
        return;
    }
    let named = given.iter().filter(|(_, is_given)| *is_given);
    let named: Vec<&str> = named.map(|(key, _)| *key).collect();
    let found = if named.is_empty() {
        "got none".to_owned()
    } else {
        format!("got `{}`", named.join("`, `"))
    };
    document.report(
        path.clone(),
        format!("must have exactly one of {of}, {found}"),
    );
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
                    "must be a string: all certificate fields are strings",
                );
            }
            return;
        }
    };
    let path = path.key(key);
    let is_wrong_scope = |word: &&String| {
        matches!(attribute, Attribute::Claim(claim) if claim.is("scope")) && !is_scope(word)
    };
    let is_wrong_thumbprint = |word: &&String| {
        *attribute == Attribute::Certificate(CertificateField::Thumbprint)
            && !certificate::is_thumbprint(word)
    };
    if words.is_empty() || words.iter().any(String::is_empty) {
        let message = if key == "any" {
            "must list at least one string, none of them empty"
        } else {
            "must not be empty"
        };
        document.report(path, message);
    } else if let Some(word) = words.iter().find(is_wrong_scope) {
        document.report(
            path,
            format!("`{word}` is not a single scope: RFC 6749 section 3.3 allows no space, quote or backslash in it"),
        );
    } else if let Some(word) = words.iter().find(is_wrong_thumbprint) {
        document.report(
            path,
            format!("`{word}` is not a certificate thumbprint: expected SHA-256 in base64url without padding, as in \
                     `x5t#S256`"),
        );
    }
}

/// Reports a number with a fraction or an exponent that a double does not hold exactly.
fn check_number(document: &mut ConfigDocument, path: &KeyPath, value: &Scalar) {
    if matches!(value, Scalar::Float(number) if number.abs() >= EXACT) {
        document.report(
            path.clone(),
            "is too large to be compared exactly; write an integer, or have the issuer send text",
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

/// Indices of the named issuers.
fn issuers(
    document: &mut ConfigDocument,
    path: &KeyPath,
    names: Option<&[String]>,
) -> Option<Vec<IssuerId>> {
    let names = names?;
    if names.is_empty() {
        document.report(
            path.clone(),
            "must list at least one issuer; omit the key to accept all issuers",
        );
    }
    let known: Vec<String> = document.config.issuers.keys().cloned().collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let mut accepted = Vec::new();
    for (index, name) in names.iter().enumerate() {
        if let Some(issuer) = known.iter().position(|known| known == name) {
            accepted.push(IssuerId(issuer));
        } else if !document.has(&KeyPath::of("issuers").key(name)) {
            let hint = match config::suggest(name, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None if known.is_empty() => "no issuer is configured".to_owned(),
                None => format!("expected one of `{}`", known.join("`, `")),
            };
            document.report(
                path.index(index),
                format!("unknown issuer `{name}`; {hint}"),
            );
        }
    }
    Some(accepted)
}
