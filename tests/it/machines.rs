//! Machine tokens: never a user, accepted where the issuer says so, and identified by `X-Client-Id`.

use serde_json::{Value, json};

use crate::harness::issuer::{SECRET, claims};
use crate::harness::{Key, NOW, ROUTES, Request, Sidecar, TASKS, get, start};

/// An issuer that accepts machines, and one route of each kind of rule.
const MACHINES: &str = r#"
[issuers.test]
machines = true

[[routes]]
path = "/api/{user_id}/tasks/{*rest}"
access = { owner = "user_id" }

[[routes]]
path = "/hidden/{user_id}"
access = { owner = "user_id" }
mismatch = 404

[[routes]]
path = "/sync/{user_id}"
access = { owner = "user_id" }
exempt = { kind = "machine" }

[[routes]]
path = "/reports"
access = "authenticated"
require = [{ kind = "machine" }]

[[routes]]
path = "/me"
access = "authenticated"
require = [{ kind = "user" }]
"#;

/// Members that make a token of `alice` one of a machine.
fn machine_members() -> Vec<Vec<(&'static str, Value)>> {
    vec![
        vec![("client_id", json!("alice"))],
        vec![("azp", json!("alice"))],
        vec![("client_id", json!("alice")), ("azp", json!("web"))],
        vec![("gty", json!("client-credentials"))],
        vec![("idtyp", json!("app"))],
        vec![("idtyp", json!("app")), ("azp", json!("web"))],
    ]
}

/// Members of tokens of the user `alice`.
fn user_members() -> Vec<Vec<(&'static str, Value)>> {
    vec![
        vec![],
        vec![("client_id", json!("web")), ("azp", json!("web"))],
        vec![("client_id", json!("web")), ("azp", json!("alice"))],
        vec![("gty", json!("password"))],
        vec![("idtyp", json!("user"))],
    ]
}

fn token(members: &[(&str, Value)]) -> String {
    let mut claims = claims("alice");
    for (name, value) in members {
        claims[*name] = value.clone();
    }
    Key::secret(SECRET.as_bytes()).sign(&claims)
}

#[track_caller]
fn outcome(sidecar: &Sidecar, target: &str, token: &str) -> (u16, String) {
    let request: Request = get(target).bearer(token);
    let first = sidecar.call(&request).outcome();
    // The second time, the token is cached.
    assert_eq!(sidecar.call(&request).outcome(), first, "{target}");
    first
}

fn refused(status: u16, reason: &str) -> (u16, String) {
    (status, reason.to_owned())
}

#[test]
fn an_issuer_without_machines_accepts_users_only() {
    let (sidecar, upstream, _issuer) = start(ROUTES);
    for members in machine_members() {
        for target in [TASKS, "/me/notes"] {
            let found = outcome(&sidecar, target, &token(&members));
            assert_eq!(found, refused(401, "token_machine"), "{members:?}");
        }
    }
    upstream.assert_untouched();
    for members in user_members() {
        let found = outcome(&sidecar, TASKS, &token(&members));
        assert_eq!(found, (200, String::new()), "{members:?}");
    }
    // A public route verifies no token.
    let public = get("/open/page").bearer(&token(&machine_members()[0]));
    assert_eq!(sidecar.call(&public).status, 200);
}

#[test]
fn reports_a_machine_only_after_the_other_checks_of_its_token() {
    let (sidecar, _upstream, _issuer) = start(ROUTES);
    let mut expired = claims("alice");
    expired["client_id"] = json!("alice");
    expired["exp"] = json!(NOW - 31);
    let expired = Key::secret(SECRET.as_bytes()).sign(&expired);
    let found = outcome(&sidecar, TASKS, &expired);
    assert_eq!(found, refused(401, "token_expired"));
    let mut forged = claims("alice");
    forged["client_id"] = json!("alice");
    let forged = Key::secret(b"another secret, and long enough too").sign(&forged);
    let found = outcome(&sidecar, TASKS, &forged);
    assert_eq!(found, refused(401, "token_signature"));
}

#[test]
fn a_machine_owns_no_path_and_meets_the_rules_for_machines() {
    let (sidecar, _upstream, _issuer) = start(MACHINES);
    let ok = || (200, String::new());
    for (all, is_machine) in [(machine_members(), true), (user_members(), false)] {
        for members in all {
            let token = token(&members);
            let of_user = |refusal: (u16, String)| if is_machine { refusal } else { ok() };
            for (target, expected) in [
                (TASKS, of_user(refused(403, "subject_mismatch"))),
                ("/api/bob/tasks", refused(403, "subject_mismatch")),
                ("/hidden/alice", of_user(refused(404, "no_route"))),
                ("/sync/alice", ok()),
                (
                    "/sync/bob",
                    if is_machine {
                        ok()
                    } else {
                        refused(403, "subject_mismatch")
                    },
                ),
                (
                    "/reports",
                    if is_machine {
                        ok()
                    } else {
                        refused(403, "claim_denied")
                    },
                ),
                ("/me", of_user(refused(403, "claim_denied"))),
            ] {
                let found = outcome(&sidecar, target, &token);
                assert_eq!(found, expected, "{target} {members:?}");
            }
        }
    }
}

#[test]
fn writes_the_client_of_the_token_and_removes_that_of_the_client() {
    let (sidecar, upstream, _issuer) = start(MACHINES);
    for (members, expected) in [
        (vec![("client_id", json!("web"))], Some("web")),
        (vec![("azp", json!("app"))], Some("app")),
        (
            vec![("client_id", json!("web")), ("azp", json!("app"))],
            Some("web"),
        ),
        (vec![("client_id", json!(["web"]))], None),
        (vec![("client_id", json!("web\r\nX-User-Id: bob"))], None),
        (vec![], None),
    ] {
        for spelling in [
            "X-Client-Id",
            "x_client_id",
            "X.Client.Id",
            "HTTP_X_CLIENT_ID",
            "XClientId",
        ] {
            let spoofed = get(TASKS)
                .bearer(&token(&members))
                .line(&format!("{spelling}: spoofed"));
            assert_eq!(sidecar.call(&spoofed).status, 200, "{spelling}");
            let arrived = upstream.arrived();
            let head = &arrived.last().unwrap().head;
            assert!(
                !head.text().contains("spoofed"),
                "{spelling}\n{}",
                head.text()
            );
            assert_eq!(
                head.value("x-client-id").as_deref(),
                expected,
                "{members:?}"
            );
            assert_eq!(head.value("x-user-id").as_deref(), Some("alice"));
        }
    }
    let dropped = get(TASKS)
        .bearer(&token(&[]))
        .line("Connection: X-Client-Id");
    sidecar.call(&dropped).refused(400, "request_malformed");
}

#[test]
fn another_claim_can_be_the_client() {
    let config = format!("[identity]\nheaders = {{ \"X-Client-Id\" = \"cid\" }}\n{ROUTES}");
    let (sidecar, upstream, _issuer) = start(&config);
    for (members, expected) in [
        (
            vec![("cid", json!("web")), ("azp", json!("app"))],
            Some("web"),
        ),
        (vec![("azp", json!("app"))], None),
    ] {
        let request = get(TASKS)
            .bearer(&token(&members))
            .line("X_Client_Id: spoofed");
        assert_eq!(sidecar.call(&request).status, 200);
        let arrived = upstream.arrived();
        let head = &arrived.last().unwrap().head;
        assert_eq!(
            head.value("x-client-id").as_deref(),
            expected,
            "{members:?}"
        );
        assert!(!head.text().contains("spoofed"), "{}", head.text());
    }
}

#[test]
fn the_log_names_the_machine_as_the_cause_of_a_mismatch() {
    let (sidecar, _upstream, _issuer) = start(MACHINES);
    let request = get(TASKS)
        .bearer(&token(&machine_members()[0]))
        .line("X-Request-Id: one");
    sidecar.call(&request).refused(403, "subject_mismatch");
    let why = sidecar.admin(&get("/why/one").host(Some("127.0.0.1:9901")));
    let text = why.text();
    assert!(
        text.contains("verification        subject `alice`, issuer `test`, a machine\n"),
        "{text}"
    );
    assert!(
        text.contains("a machine owns no path, whatever its subject"),
        "{text}"
    );
}
