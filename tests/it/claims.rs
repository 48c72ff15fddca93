//! Authorization by claims: `require`, `exempt`, `issuers`, and the token rules of each issuer.

use serde_json::{Value, json};

use crate::harness::issuer::{SECRET, claims};
use crate::harness::{Key, NOW, Sidecar, TASKS, get, start};

/// One route of each kind of rule.
const RULES: &str = r#"
[[routes]]
path = "/api/{user_id}/tasks/{*rest}"
access = { owner = "user_id" }
require = [{ claim = "scope", has = "tasks" }, { claim = "/plan/name", equals = "pro" }]
exempt = { claim = "role", any = ["admin", "support"] }

[[routes]]
path = "/hidden/{user_id}"
access = { owner = "user_id" }
mismatch = 404
exempt = { claim = "staff", equals = true }

[[routes]]
path = "/reports/{*rest}"
access = "authenticated"
require = [{ claim = "realm_access.roles", any = ["editor", "admin"] }]

[[routes]]
path = "/me"
access = "authenticated"
"#;

fn with(subject: &str, members: &[(&str, Value)]) -> String {
    let mut claims = claims(subject);
    for (name, value) in members {
        claims[*name] = value.clone();
    }
    Key::secret(SECRET.as_bytes()).sign(&claims)
}

/// Sends a request. Returns status and reason.
#[track_caller]
fn outcome(sidecar: &Sidecar, target: &str, token: &str) -> (u16, String) {
    sidecar.call(&get(target).bearer(token)).outcome()
}

fn forwarded() -> (u16, String) {
    (200, String::new())
}

fn denied() -> (u16, String) {
    (403, "claim_denied".to_owned())
}

#[test]
fn a_route_requires_every_claim() {
    let (sidecar, upstream, _issuer) = start(RULES);
    let pro = || ("plan", json!({ "name": "pro" }));
    let mut forwarded_count = 0;
    for (members, expected) in [
        (vec![("scope", json!("tasks")), pro()], forwarded()),
        (vec![("scope", json!("openid tasks")), pro()], forwarded()),
        (vec![("scope", json!(["tasks"])), pro()], forwarded()),
        (vec![("scope", json!("tasks"))], denied()),
        (vec![pro()], denied()),
        (vec![], denied()),
        (vec![("scope", json!("tasks:read")), pro()], denied()),
        (vec![("scope", json!("TASKS")), pro()], denied()),
        (vec![("scope", json!(["tasks", 7])), pro()], denied()),
        (vec![("scope", json!({ "tasks": true })), pro()], denied()),
        (vec![("scope", Value::Null), pro()], denied()),
        (
            vec![
                ("scope", json!("tasks")),
                ("plan", json!({ "name": ["pro"] })),
            ],
            denied(),
        ),
        (
            vec![("scope", json!("tasks")), ("plan", json!("pro"))],
            denied(),
        ),
        // A claim whose name is the JSON Pointer itself.
        (
            vec![("scope", json!("tasks")), ("/plan/name", json!("pro"))],
            denied(),
        ),
    ] {
        let token = with("alice", &members);
        let found = outcome(&sidecar, TASKS, &token);
        assert_eq!(found, expected, "{members:?}");
        // The second time, the token is cached.
        assert_eq!(outcome(&sidecar, TASKS, &token), expected, "{members:?}");
        forwarded_count += 2 * usize::from(expected.0 == 200);
        assert_eq!(upstream.arrived().len(), forwarded_count, "{members:?}");
        // The same token is valid on another route.
        assert_eq!(outcome(&sidecar, "/me", &token), forwarded(), "{members:?}");
        forwarded_count += 1;
    }
}

#[test]
fn matches_a_role_in_a_comma_separated_string_or_an_array() {
    let (sidecar, _upstream, _issuer) = start(RULES);
    for (roles, expected) in [
        (json!("editor"), forwarded()),
        (json!("user,editor"), forwarded()),
        (json!("user, editor"), forwarded()),
        (json!(["user", "admin"]), forwarded()),
        (json!("user,editors"), denied()),
        (json!("user;editor"), denied()),
        (json!(["user,editor"]), denied()),
        (json!([]), denied()),
        (json!(""), denied()),
    ] {
        let token = with("alice", &[("realm_access", json!({ "roles": roles }))]);
        assert_eq!(outcome(&sidecar, "/reports/1", &token), expected, "{roles}");
        let elsewhere = with(
            "alice",
            &[("realm_access.roles", roles.clone()), ("roles", roles)],
        );
        assert_eq!(outcome(&sidecar, "/reports/1", &elsewhere), denied());
    }
}

#[test]
fn an_exempt_subject_accesses_every_owner_under_its_own_user_id() {
    let (sidecar, upstream, _issuer) = start(RULES);
    let granted = |subject: &str, role: Value| {
        let pro = json!({ "name": "pro" });
        with(
            subject,
            &[("scope", json!("tasks")), ("plan", pro), ("role", role)],
        )
    };
    let mismatch = (403, "subject_mismatch".to_owned());
    for (role, expected) in [
        (json!("admin"), forwarded()),
        (json!("user,support"), forwarded()),
        (json!(["admin"]), forwarded()),
        (json!("user"), mismatch.clone()),
        (json!("administrator"), mismatch.clone()),
        (json!(true), mismatch.clone()),
        (Value::Null, mismatch.clone()),
    ] {
        let token = granted("carol", role.clone());
        let before = upstream.arrived().len();
        assert_eq!(outcome(&sidecar, TASKS, &token), expected, "{role}");
        let arrived = upstream.arrived();
        assert_eq!(
            arrived.len() - before,
            usize::from(expected.0 == 200),
            "{role}"
        );
        if let Some(last) = arrived.last() {
            assert_eq!(last.head.value("x-user-id").as_deref(), Some("carol"));
            assert_eq!(last.head.line(), format!("GET {TASKS} HTTP/1.1"));
        }
    }
    // `exempt` does not replace `require`.
    let token = with("carol", &[("role", json!("admin"))]);
    assert_eq!(outcome(&sidecar, TASKS, &token), denied());
    // `exempt` of one route does not apply to another, nor to a path that is not canonical.
    let admin = granted("carol", json!("admin"));
    assert_eq!(
        outcome(&sidecar, "/hidden/alice", &admin),
        (404, "no_route".to_owned())
    );
    assert_eq!(
        outcome(&sidecar, "/api/alice;x/tasks", &admin),
        (400, "path_not_canonical".to_owned())
    );
    let staff = with("carol", &[("staff", json!(true))]);
    assert_eq!(outcome(&sidecar, "/hidden/alice", &staff), forwarded());
    for staff in [json!("true"), json!(1), json!([true]), json!(false)] {
        let token = with("carol", &[("staff", staff)]);
        assert_eq!(outcome(&sidecar, "/hidden/alice", &token).0, 404);
    }
}

#[test]
fn the_challenge_names_the_scope_and_no_other_claim() {
    let (sidecar, upstream, _issuer) = start(RULES);
    let challenge = |target: &str, members: &[(&str, Value)]| {
        let response = sidecar.call(&get(target).bearer(&with("alice", members)));
        response.refused(403, "claim_denied");
        let text = format!("{}{}", response.head.text(), response.text());
        for secret in [
            "secret-plan",
            "plan/name",
            "realm_access",
            "editor",
            "alice",
        ] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        response.header("www-authenticate").unwrap()
    };
    let error = "Bearer realm=\"claimgate\", error=\"insufficient_scope\", \
                 error_description=\"The token does not grant access to this path.\"";
    let plan = ("plan", json!({ "name": "secret-plan" }));
    assert_eq!(
        challenge(TASKS, std::slice::from_ref(&plan)),
        format!("{error}, scope=\"tasks\"")
    );
    assert_eq!(challenge(TASKS, &[("scope", json!("tasks")), plan]), error);
    assert_eq!(challenge("/reports/1", &[]), error);
    upstream.assert_untouched();
}

#[test]
fn evaluates_the_rules_for_each_token_and_each_request() {
    let (sidecar, _upstream, _issuer) = start(RULES);
    let reader = with("alice", &[("realm_access", json!({ "roles": "user" }))]);
    let editor = with("alice", &[("realm_access", json!({ "roles": "editor" }))]);
    for _ in 0..3 {
        assert_eq!(outcome(&sidecar, "/reports/1", &editor), forwarded());
        assert_eq!(outcome(&sidecar, "/reports/1", &reader), denied());
        assert_eq!(outcome(&sidecar, "/me", &reader), forwarded());
    }
    sidecar.set_time(NOW + 3600 + 30);
    let expired = (401, "token_expired".to_owned());
    assert_eq!(outcome(&sidecar, "/reports/1", &editor), expired);
    assert_eq!(outcome(&sidecar, "/reports/1", &reader), expired);
}

/// Issuers with the same secret and different `iss`.
const ISSUERS: &str = r#"
[issuers.ours]
keys = { secret_env = "TEST_SECRET" }
issuer = "https://ours.test"
types = ["JWT", "at+jwt"]
authorized_party = ["web"]

[issuers.partner]
keys = { secret_env = "TEST_SECRET" }
issuer = "https://partner.test"
allow_bound = true

[issuers.test]
keys = { secret_env = "TEST_SECRET" }
issuer = "https://test.test"

[[routes]]
path = "/ours"
access = "authenticated"
issuers = ["ours"]

[[routes]]
path = "/both/{user_id}"
access = { owner = "user_id" }
issuers = ["partner", "ours"]

[[routes]]
path = "/all"
access = "authenticated"
"#;

fn headed(typ: Option<&str>, iss: &str, members: &[(&str, Value)]) -> String {
    let mut header = json!({ "alg": "HS256" });
    if let Some(typ) = typ {
        header["typ"] = json!(typ);
    }
    let mut claims = claims("alice");
    claims["iss"] = json!(iss);
    for (name, value) in members {
        claims[*name] = value.clone();
    }
    Key::secret(SECRET.as_bytes()).sign_text(&header.to_string(), &claims.to_string())
}

#[test]
fn a_route_accepts_tokens_of_its_issuers_only() {
    let (sidecar, upstream, _issuer) = start(ISSUERS);
    let web = ("azp", json!("web"));
    let ours = headed(None, "https://ours.test", &[web]);
    let partner = headed(None, "https://partner.test", &[]);
    let test = headed(None, "https://test.test", &[]);
    let mut forwarded_count = 0;
    for (target, token, is_forwarded) in [
        ("/ours", &ours, true),
        ("/ours", &partner, false),
        ("/ours", &test, false),
        ("/both/alice", &ours, true),
        ("/both/alice", &partner, true),
        ("/both/alice", &test, false),
        // The issuer is checked before the owner.
        ("/both/bob", &test, false),
        ("/all", &ours, true),
        ("/all", &partner, true),
        ("/all", &test, true),
    ] {
        let expected = if is_forwarded {
            forwarded()
        } else {
            (401, "token_issuer".to_owned())
        };
        for _ in 0..2 {
            assert_eq!(outcome(&sidecar, target, token), expected, "{target}");
            forwarded_count += usize::from(is_forwarded);
        }
        assert_eq!(upstream.arrived().len(), forwarded_count, "{target}");
    }
}

#[test]
fn an_issuer_sets_the_rules_for_its_tokens() {
    let (sidecar, _upstream, _issuer) = start(ISSUERS);
    let web = || ("azp", json!("web"));
    let bound = || {
        (
            "cnf",
            json!({ "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" }),
        )
    };
    let (ours, partner) = ("https://ours.test", "https://partner.test");
    let refused = |reason: &str| (401, reason.to_owned());
    for (typ, iss, members, expected) in [
        (None, ours, vec![web()], forwarded()),
        (Some("application/jwt"), ours, vec![web()], forwarded()),
        (Some("at+jwt"), ours, vec![web()], forwarded()),
        (Some("application/AT+JWT"), ours, vec![web()], forwarded()),
        (Some("logout+jwt"), ours, vec![web()], refused("token_type")),
        (Some("JWT"), partner, vec![], forwarded()),
        (Some("at+jwt"), partner, vec![], refused("token_type")),
        (None, ours, vec![], refused("token_audience")),
        (
            None,
            ours,
            vec![("azp", json!("app"))],
            refused("token_audience"),
        ),
        (
            None,
            ours,
            vec![web(), bound()],
            refused("token_confirmation"),
        ),
        (None, partner, vec![bound()], forwarded()),
    ] {
        let token = headed(typ, iss, &members);
        let found = outcome(&sidecar, "/all", &token);
        assert_eq!(found, expected, "{typ:?} {iss} {members:?}");
    }
}
