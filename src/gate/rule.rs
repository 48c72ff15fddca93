//! What a route demands of its caller.

use std::fmt;
use std::sync::Arc;

use serde_json::{Number, Value};

use super::claims::Claims;
use super::path::BoundSegment;
use super::pointer::Pointer;
use super::refusal::{Mismatch, Refusal, Unmet};
use super::subject::Subject;

/// Who may use a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// Everybody; no token is looked at.
    Public,
    /// Everybody with a good token.
    Authenticated,
    /// Only the subject that the parameter names.
    Owner {
        /// The parameter of the path that names the owner.
        parameter: String,
        /// What anybody else is told.
        mismatch: Mismatch,
    },
}

/// What a route demands of a token beside that it is good. Nothing, most often.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demands {
    /// The issuers it may come from, by their places; any if none.
    pub issuers: Option<Vec<usize>>,
    /// What its claims must say, all of it.
    pub require: Vec<Arc<Requirement>>,
    /// Who may act for every owner.
    pub exempt: Option<Requirement>,
}

/// A claim and what it must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The claim.
    pub claim: Pointer,
    /// What it must say.
    pub expected: Expected,
}

/// What a claim must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// This, among other things.
    Has(String),
    /// At least one of these, among other things.
    Any(Vec<String>),
    /// This text, number or truth value and nothing else.
    Equals(Value),
}

/// Who asks, as far as rules go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) subject: &'a Subject,
    pub(super) claims: &'a Claims,
    /// The issuer, by its place.
    pub(super) issuer: usize,
}

/// Above it, not every whole number has a floating-point number of its own.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Rule {
    /// Admits a verified subject to a path whose owner, if the rule has one, is `owner`.
    fn admit(&self, subject: &Subject, owner: Option<BoundSegment<'_>>) -> Result<(), Refusal> {
        match self {
            Self::Public | Self::Authenticated => Ok(()),
            Self::Owner { mismatch, .. } => {
                let same = owner.is_some_and(|owner| owner.names(subject.as_str()));
                if same {
                    Ok(())
                } else {
                    Err(Refusal::SubjectMismatch(*mismatch))
                }
            }
        }
    }
}

impl Demands {
    /// Admits a caller whose token is good to a path whose owner, if the rule has one, is `owner`: whose token it is
    /// comes before whose path it is, and that before what the token grants.
    pub(super) fn admit(
        &self,
        rule: &Rule,
        asking: Asking<'_>,
        owner: Option<BoundSegment<'_>>,
    ) -> Result<(), Refusal> {
        let issuers = self.issuers.as_ref();
        if issuers.is_some_and(|accepted| !accepted.contains(&asking.issuer)) {
            return Err(Refusal::TokenIssuer);
        }
        if let Err(mismatch) = rule.admit(asking.subject, owner) {
            let exempt = self.exempt.as_ref();
            if !exempt.is_some_and(|exempt| exempt.holds(asking.claims)) {
                return Err(mismatch);
            }
        }
        let mut required = self.require.iter();
        match required.find(|requirement| !requirement.holds(asking.claims)) {
            None => Ok(()),
            Some(unmet) => Err(Refusal::ClaimMissing(Unmet {
                requirement: Arc::clone(unmet),
                scope: unmet.claim.is("scope").then(|| self.scope()).flatten(),
            })),
        }
    }

    /// The claims that are asked for.
    pub(super) fn claims(&self) -> impl Iterator<Item = &str> {
        let required = self.require.iter().map(AsRef::as_ref);
        required
            .chain(&self.exempt)
            .map(|requirement| requirement.claim.first())
    }

    /// RFC 6750 section 3: the scope that is enough for the path, so that a client asks for all of it at once.
    fn scope(&self) -> Option<Arc<str>> {
        let scopes = self.require.iter().filter_map(|requirement| {
            let is_scope = requirement.claim.is("scope");
            match &requirement.expected {
                Expected::Has(scope) | Expected::Equals(Value::String(scope)) if is_scope => {
                    Some(scope.as_str())
                }
                // One of them is enough, and the first is the one that was thought of first.
                Expected::Any(scopes) if is_scope => scopes.first().map(String::as_str),
                Expected::Has(_) | Expected::Any(_) | Expected::Equals(_) => None,
            }
        });
        let mut all: Vec<&str> = Vec::new();
        for scope in scopes.flat_map(|scopes| scopes.split(' ')) {
            if !all.contains(&scope) {
                all.push(scope);
            }
        }
        let can_be_sent = !all.is_empty() && all.iter().all(|scope| is_scope(scope));
        can_be_sent.then(|| all.join(" ").into())
    }
}

/// RFC 6749 section 3.3: what one scope may look like.
pub fn is_scope(text: &str) -> bool {
    let may_be_in_one = |byte| matches!(byte, b'!' | b'#'..=b'[' | b']'..=b'~');
    !text.is_empty() && text.bytes().all(may_be_in_one)
}

impl Requirement {
    /// Whether the claims say so. A claim that is missing says nothing.
    pub fn holds(&self, claims: &Claims) -> bool {
        let Some(claim) = self.claim.find(claims) else {
            return false;
        };
        match &self.expected {
            Expected::Has(wanted) => has(claim, wanted),
            Expected::Any(wanted) => wanted.iter().any(|wanted| has(claim, wanted)),
            Expected::Equals(wanted) => equals(claim, wanted),
        }
    }
}

/// Whether a text has this word, or a list this element. Spaces (RFC 6749 section 3.3) and commas are between words;
/// an element of a list is whole. A list with anything but text is none of texts.
fn has(claim: &Value, wanted: &str) -> bool {
    match claim {
        Value::String(words) => words.split([' ', ',']).any(|word| word == wanted),
        Value::Array(items) => {
            items.iter().all(Value::is_string) && items.iter().any(|item| item == wanted)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    }
}

fn equals(claim: &Value, wanted: &Value) -> bool {
    match (claim, wanted) {
        (Value::Number(claim), Value::Number(wanted)) => is_same_number(claim, wanted),
        _ => claim == wanted,
    }
}

/// JSON has one kind of number: `1.0` is `1`.
fn is_same_number(one: &Number, other: &Number) -> bool {
    let exact = |number: &Number| number.as_f64().filter(|number| number.abs() < EXACT);
    one == other || (exact(one).is_some() && exact(one) == exact(other))
}

/// In words, for the operator: what is expected and never what was found.
impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { claim, expected } = self;
        match expected {
            Expected::Has(wanted) => write!(f, "`{claim}` has `{wanted}`"),
            Expected::Any(wanted) => write!(f, "`{claim}` has any of `{}`", wanted.join("`, `")),
            Expected::Equals(Value::String(wanted)) => write!(f, "`{claim}` equals `{wanted}`"),
            Expected::Equals(wanted) => write!(f, "`{claim}` equals {wanted}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn requirement(claim: &str, expected: Expected) -> Requirement {
        Requirement {
            claim: Pointer::parse(claim).unwrap(),
            expected,
        }
    }

    fn has(claim: &str, wanted: &str) -> Requirement {
        requirement(claim, Expected::Has(wanted.into()))
    }

    fn any(claim: &str, wanted: &[&str]) -> Requirement {
        let wanted = wanted.iter().map(|wanted| (*wanted).to_owned());
        requirement(claim, Expected::Any(wanted.collect()))
    }

    fn equals(claim: &str, wanted: Value) -> Requirement {
        requirement(claim, Expected::Equals(wanted))
    }

    fn claims(json: &str) -> Claims {
        Claims::parse(json.as_bytes()).unwrap_or_else(|_| panic!("{json}"))
    }

    fn alice() -> Subject {
        Subject::new("alice").unwrap()
    }

    #[test]
    fn a_claim_has_a_word_or_an_element() {
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
                has("scope", wanted).holds(&claims),
                expected,
                "{claim} {wanted}"
            );
            let one_of = any("scope", &["none of them", wanted]);
            assert_eq!(one_of.holds(&claims), expected, "{claim} {wanted}");
        }
        assert!(!has("scope", "tasks").holds(&Claims::default()));
        assert!(!any("scope", &[]).holds(&claims(r#"{"scope":"tasks"}"#)));
    }

    #[test]
    fn a_claim_equals_a_value_of_its_own_kind() {
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
            let holds = equals("plan", wanted.clone()).holds(&claims);
            assert_eq!(holds, expected, "{claim} {wanted}");
        }
        for wanted in [json!(""), json!(0), json!(false)] {
            let missing = equals("plan", wanted).holds(&claims(r#"{"plans":""}"#));
            assert!(!missing, "a claim that is missing is nothing");
        }
    }

    #[test]
    fn every_demand_must_hold_and_only_the_owner_can_be_made_up_for() {
        let owner = Rule::Owner {
            parameter: "user_id".into(),
            mismatch: Mismatch::NotFound,
        };
        let demands = Demands {
            issuers: Some(vec![1, 3]),
            require: vec![
                has("scope", "tasks").into(),
                equals("plan", json!("pro")).into(),
            ],
            exempt: Some(any("/realm/roles", &["admin", "support"])),
        };
        let all = r#"{"scope":"tasks","plan":"pro""#;
        let admin = r#","realm":{"roles":["support"]}}"#;
        for (json, issuer, segment, expected) in [
            (format!("{all}}}"), 1, "alice", Ok(())),
            (format!("{all}}}"), 3, "alice", Ok(())),
            (format!("{all}}}"), 0, "alice", Err("token_issuer")),
            (format!("{all}}}"), 2, "bob", Err("token_issuer")),
            (format!("{all}}}"), 1, "bob", Err("subject_mismatch")),
            (format!("{all}{admin}"), 1, "bob", Ok(())),
            (format!("{all}{admin}"), 0, "bob", Err("token_issuer")),
            (
                r#"{"scope":"tasks"}"#.into(),
                1,
                "alice",
                Err("claim_missing"),
            ),
            (r#"{"plan":"pro"}"#.into(), 1, "alice", Err("claim_missing")),
            ("{}".into(), 1, "alice", Err("claim_missing")),
            ("{}".into(), 1, "bob", Err("subject_mismatch")),
            (
                format!(r#"{{"plan":"pro"{admin}"#),
                1,
                "bob",
                Err("claim_missing"),
            ),
        ] {
            let subject = alice();
            let asking = Asking {
                subject: &subject,
                claims: &claims(&json),
                issuer,
            };
            let segment = BoundSegment::new(segment).unwrap();
            let admitted = demands.admit(&owner, asking, Some(segment));
            let admitted = admitted.map_err(|refusal| refusal.reason());
            assert_eq!(admitted, expected, "{json} of issuer {issuer}");
        }
    }

    #[test]
    fn a_scope_that_is_missing_is_named_with_all_that_the_route_needs() {
        let scope_of = |require: Vec<Requirement>| {
            let subject = alice();
            let asking = Asking {
                subject: &subject,
                claims: &Claims::default(),
                issuer: 0,
            };
            let demands = Demands {
                require: require.into_iter().map(Arc::new).collect(),
                ..Demands::default()
            };
            match demands.admit(&Rule::Authenticated, asking, None) {
                Err(Refusal::ClaimMissing(unmet)) => unmet.scope.map(|scope| scope.to_string()),
                other => panic!("{other:?}"),
            }
        };
        let tasks = || has("scope", "tasks");
        for (require, expected) in [
            (vec![tasks()], Some("tasks")),
            (vec![has("/scope", "tasks")], Some("tasks")),
            (
                vec![
                    tasks(),
                    equals("plan", json!("pro")),
                    any("scope", &["mail", "all"]),
                    tasks(),
                ],
                Some("tasks mail"),
            ),
            (
                vec![equals("scope", json!("openid tasks"))],
                Some("openid tasks"),
            ),
            (vec![equals("plan", json!("pro")), tasks()], None),
            (vec![has("scopes", "tasks")], None),
            (vec![has("scope.x", "tasks")], None),
            (vec![equals("scope", json!("a\"b"))], None),
            (vec![equals("scope", json!("a\\b"))], None),
            (vec![equals("scope", json!("é"))], None),
            (vec![equals("scope", json!(""))], None),
            (vec![equals("scope", json!(7))], None),
        ] {
            let shown = format!("{require:?}");
            assert_eq!(scope_of(require).as_deref(), expected, "{shown}");
        }
    }

    #[test]
    fn a_requirement_says_in_words_what_is_expected() {
        for (requirement, expected) in [
            (has("scope", "tasks"), "`scope` has `tasks`"),
            (any("/a/b", &["c", "d"]), "`/a/b` has any of `c`, `d`"),
            (equals("plan", json!("pro")), "`plan` equals `pro`"),
            (equals("staff", json!(true)), "`staff` equals true"),
        ] {
            assert_eq!(requirement.to_string(), expected);
        }
    }
}
