use serde_json::json;

use crate::gate::requirement::examples::{any, equals, has};

use super::*;

fn claims(json: &str) -> Claims {
    Claims::parse(json.as_bytes()).unwrap_or_else(|_| panic!("{json}"))
}

fn alice() -> Subject {
    Subject::new("alice").unwrap()
}

#[test]
fn exempts_a_caller_from_the_owner_check_only() {
    let owner = Rule::Owner {
        parameter: "user_id".into(),
        mismatch: Mismatch::NotFound,
    };
    let requirements = Requirements {
        issuers: Some(vec![IssuerId(1), IssuerId(3)]),
        require: vec![
            has("scope", "tasks").into(),
            equals("plan", json!("pro")).into(),
        ],
        exempt: Some(any("/realm/roles", &["admin", "support"])),
    };
    let access = Access {
        requirements,
        ..Access::new(owner)
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
            Err("claim_denied"),
        ),
        (r#"{"plan":"pro"}"#.into(), 1, "alice", Err("claim_denied")),
        ("{}".into(), 1, "alice", Err("claim_denied")),
        ("{}".into(), 1, "bob", Err("subject_mismatch")),
        (
            format!(r#"{{"plan":"pro"{admin}"#),
            1,
            "bob",
            Err("claim_denied"),
        ),
    ] {
        let subject = alice();
        let context = RequestContext {
            subject: &subject,
            claims: &claims(&json),
            certificate: None,
            issuer: IssuerId(issuer),
            kind: CallerKind::User,
        };
        let segment = BoundSegment::new(segment, 1).unwrap();
        let admitted = access.admit(context, Some(&segment));
        let admitted = admitted.map_err(|refusal| refusal.reason());
        assert_eq!(admitted, expected, "{json} of issuer {issuer}");
    }
}

#[test]
fn names_every_scope_of_the_route_when_one_is_missing() {
    let scope_of = |require: Vec<Requirement>| {
        let subject = alice();
        let context = RequestContext {
            subject: &subject,
            claims: &Claims::default(),
            certificate: None,
            issuer: IssuerId(0),
            kind: CallerKind::User,
        };
        let requirements = Requirements {
            require: require.into_iter().map(Arc::new).collect(),
            ..Requirements::default()
        };
        let access = Access {
            requirements,
            ..Access::new(Rule::Authenticated)
        };
        match access.admit(context, None) {
            Err(Refusal::ClaimDenied { scope, .. }) => scope.map(|scope| scope.to_string()),
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
        let label = format!("{require:?}");
        assert_eq!(scope_of(require).as_deref(), expected, "{label}");
    }
}

#[test]
fn a_machine_owns_no_path_and_may_be_exempt() {
    let owner = Rule::Owner {
        parameter: "user_id".into(),
        mismatch: Mismatch::Forbidden,
    };
    let machine = Requirement {
        attribute: Attribute::Kind,
        expected: Expected::Equals(CallerKind::Machine.name().into()),
    };
    let with = |exempt: Option<Requirement>| Access {
        requirements: Requirements {
            exempt,
            ..Requirements::default()
        },
        ..Access::new(owner.clone())
    };
    let mismatch = Err(Refusal::SubjectMismatch(Mismatch::Forbidden));
    for (access, kind, segment, expected) in [
        (with(None), CallerKind::User, "alice", Ok(())),
        (with(None), CallerKind::Machine, "alice", mismatch.clone()),
        (with(None), CallerKind::Machine, "bob", mismatch.clone()),
        (
            with(Some(machine.clone())),
            CallerKind::Machine,
            "bob",
            Ok(()),
        ),
        (with(Some(machine)), CallerKind::User, "bob", mismatch),
    ] {
        let (subject, claims) = (alice(), Claims::default());
        let context = RequestContext {
            subject: &subject,
            claims: &claims,
            certificate: None,
            issuer: IssuerId(0),
            kind,
        };
        let segment = BoundSegment::new(segment, 1).unwrap();
        let admitted = access.admit(context, Some(&segment));
        assert_eq!(admitted, expected, "{kind:?} {segment:?}");
    }
}
