use serde_json::json;

use super::examples::{any, equals, has};
use super::*;

fn claims(json: &str) -> Claims {
    Claims::parse(json.as_bytes()).unwrap_or_else(|_| panic!("{json}"))
}

impl Requirement {
    /// Returns whether claims satisfy the requirement without a certificate.
    fn holds_for(&self, claims: &Claims) -> bool {
        self.holds(claims, None, CallerKind::User)
    }
}

#[test]
fn matches_a_word_of_a_text_or_an_element_of_a_list() {
    for (claim, wanted, expected) in [
        (r#""tasks""#, "tasks", true),
        (r#""openid tasks mail""#, "tasks", true),
        (r#""user,admin""#, "admin", true),
        (r#""user, admin""#, "admin", true),
        (r#""  tasks  ""#, "tasks", true),
        (r#"["openid","tasks"]"#, "tasks", true),
        (r#"["Site Admin"]"#, "Site Admin", true),
        (r#""Site Admin""#, "Site Admin", false),
        (r#"["Site Admin"]"#, "Admin", false),
        (r#"["user,admin"]"#, "admin", false),
        (r#""tasks:read""#, "tasks", false),
        (r#""task""#, "tasks", false),
        (r#""Tasks""#, "tasks", false),
        (r#""tasks\n""#, "tasks", false),
        (r#""a\ttasks""#, "tasks", false),
        (r#""a;tasks""#, "tasks", false),
        ("\"a\u{a0}tasks\"", "tasks", false),
        (r#""""#, "tasks", false),
        ("[]", "tasks", false),
        (r#"["tasks",1]"#, "tasks", false),
        (r#"["tasks",null]"#, "tasks", false),
        (r#"[["tasks"]]"#, "tasks", false),
        (r#"{"tasks":true}"#, "tasks", false),
        ("true", "true", false),
        ("7", "7", false),
        ("null", "null", false),
    ] {
        let claims = claims(&format!(r#"{{"scope":{claim},"other":"tasks admin"}}"#));
        assert_eq!(
            has("scope", wanted).holds_for(&claims),
            expected,
            "{claim} {wanted}"
        );
        let one_of = any("scope", &["none of them", wanted]);
        assert_eq!(one_of.holds_for(&claims), expected, "{claim} {wanted}");
    }
    assert!(!has("scope", "tasks").holds_for(&Claims::default()));
    assert!(!any("scope", &[]).holds_for(&claims(r#"{"scope":"tasks"}"#)));
}

#[test]
fn equals_compares_values_of_the_same_json_type() {
    for (claim, wanted, expected) in [
        (r#""pro""#, json!("pro"), true),
        (r#""pro plus""#, json!("pro plus"), true),
        (r#""""#, json!(""), true),
        (r#""pro plus""#, json!("pro"), false),
        (r#""Pro""#, json!("pro"), false),
        (r#"["pro"]"#, json!("pro"), false),
        (r#""true""#, json!(true), false),
        (r#""7""#, json!(7), false),
        ("true", json!(true), true),
        ("false", json!(false), true),
        ("false", json!(true), false),
        ("1", json!(true), false),
        ("null", json!(false), false),
        ("7", json!(7), true),
        ("7.0", json!(7), true),
        ("7e0", json!(7), true),
        ("7", json!(7.0), true),
        ("-7", json!(-7), true),
        ("7.5", json!(7.5), true),
        ("7.5", json!(7), false),
        // Different numbers with the same double.
        ("7.00000000000000000001", json!(7), false),
        ("7.50000000000000000001", json!(7.5), false),
        ("1e-400", json!(0), false),
        (
            "18446744073709551617",
            json!(18_446_744_073_709_551_616.0),
            false,
        ),
        ("18446744073709551617", json!(u64::MAX), false),
        ("0", json!(-0.0), true),
        ("9007199254740993", json!(9_007_199_254_740_993_i64), true),
        (
            "9007199254740992.0",
            json!(9_007_199_254_740_993_i64),
            false,
        ),
        ("9007199254740992", json!(9_007_199_254_740_993_i64), false),
        ("18446744073709551615", json!(-1), false),
    ] {
        let claims = claims(&format!(r#"{{"plan":{claim}}}"#));
        let holds = equals("plan", wanted.clone()).holds_for(&claims);
        assert_eq!(holds, expected, "{claim} {wanted}");
    }
    for wanted in [json!(""), json!(0), json!(false)] {
        let missing = equals("plan", wanted).holds_for(&claims(r#"{"plans":""}"#));
        assert!(!missing, "a missing claim equals nothing");
    }
}

#[test]
fn displays_the_attribute_and_the_expected_value() {
    for (requirement, expected) in [
        (has("scope", "tasks"), "`scope` has `tasks`"),
        (any("/a/b", &["c", "d"]), "`/a/b` has any of `c`, `d`"),
        (equals("plan", json!("pro")), "`plan` equals `pro`"),
        (equals("staff", json!(true)), "`staff` equals true"),
    ] {
        assert_eq!(requirement.to_string(), expected);
    }
}

#[test]
fn matches_certificate_values_only_as_a_whole() {
    use CertificateField::{Dns, Subject as Name, Thumbprint, Uri};
    let certificate = ClientCertificate {
        subject: "CN=alice\\,O=admins,O=users".into(),
        dns_names: vec!["web.example".into(), "www.example".into()],
        uris: vec!["spiffe://cluster.local/ns/app/sa/web".into()],
        thumbprint: "t".into(),
    };
    let text = |text: &str| text.to_owned();
    let claims = claims(r#"{"dns":"web.example","subject":"t"}"#);
    for (field, expected, holds) in [
        (Dns, Expected::Has(text("web.example")), true),
        (Dns, Expected::Has(text("example")), false),
        (
            Dns,
            Expected::Any(vec![text("x"), text("www.example")]),
            true,
        ),
        (Dns, Expected::Equals(json!("web.example")), false),
        (
            Uri,
            Expected::Equals(json!("spiffe://cluster.local/ns/app/sa/web")),
            true,
        ),
        (
            Uri,
            Expected::Has(text("spiffe://cluster.local/ns/app/sa/we")),
            false,
        ),
        (
            Name,
            Expected::Equals(json!("CN=alice\\,O=admins,O=users")),
            true,
        ),
        (Name, Expected::Has(text("O=admins")), false),
        (Name, Expected::Has(text("O=users")), false),
        (Thumbprint, Expected::Has(text("t")), true),
        (Thumbprint, Expected::Any(vec![text("T")]), false),
    ] {
        let attribute = Attribute::Certificate(field);
        let requirement = Requirement {
            attribute,
            expected,
        };
        assert_eq!(
            requirement.holds(&claims, Some(&certificate), CallerKind::User),
            holds,
            "{requirement}"
        );
        assert!(!requirement.holds_for(&claims), "{requirement}");
    }
}

#[test]
fn compares_the_kind_of_the_caller() {
    let claims = claims(r#"{"kind":"machine"}"#);
    for wanted in [CallerKind::User, CallerKind::Machine] {
        let requirement = Requirement {
            attribute: Attribute::Kind,
            expected: Expected::Equals(wanted.name().into()),
        };
        for kind in [CallerKind::User, CallerKind::Machine] {
            let holds = requirement.holds(&claims, None, kind);
            assert_eq!(holds, kind == wanted, "{requirement}");
        }
        let expected = format!("the caller's `kind` equals `{}`", wanted.name());
        assert_eq!(requirement.to_string(), expected);
    }
}
