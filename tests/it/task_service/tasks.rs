//! Task operations, and the statuses and limits of all operations.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::assert_moment;
use super::service::Service;

const BODY_BYTES: usize = 64 * 1024;

/// Task operations of alice, with valid bodies.
fn task_calls(id: &str) -> [(&'static str, String, Option<Value>); 6] {
    let tasks = "/api/alice/tasks".to_owned();
    let task = format!("{tasks}/{id}");
    [
        ("GET", tasks.clone(), None),
        ("POST", tasks, Some(json!({ "title": "a" }))),
        ("GET", task.clone(), None),
        ("PUT", task.clone(), Some(json!({ "title": "a" }))),
        (
            "PATCH",
            format!("{task}/complete"),
            Some(json!({ "completed": true })),
        ),
        ("DELETE", task, None),
    ]
}

pub(super) fn creates_reads_changes_and_deletes_a_task(service: &Service) {
    let made = service
        .call("POST", "/api/alice/tasks")
        .user("alice")
        .json(&json!({ "title": "  Buy milk ", "description": "two bottles" }))
        .returned(201);
    let id = made["id"].as_i64().unwrap();
    let created_at = made["created_at"].as_str().unwrap();
    assert!(id > 0);
    assert_moment(created_at);
    let expected = json!({
        "id": id, "user_id": "alice", "title": "Buy milk", "description": "two bottles",
        "completed": false, "created_at": created_at, "updated_at": created_at,
    });
    assert_eq!(made, expected);

    let path = format!("/api/alice/tasks/{id}");
    assert_eq!(service.call("GET", &path).user("alice").returned(200), made);

    let done = service
        .call("PATCH", &format!("{path}/complete"))
        .user("alice")
        .json(&json!({ "completed": true }))
        .returned(200);
    assert_eq!(done["completed"], true);
    assert_eq!(done["title"], "Buy milk");
    assert_eq!(done["created_at"], created_at);
    assert_moment(done["updated_at"].as_str().unwrap());
    assert!(done["updated_at"].as_str().unwrap() >= created_at);

    // Replacing without a description removes it; `completed` is unchanged if absent.
    let title = json!({ "title": "Buy oat milk" });
    let replaced = service
        .call("PUT", &path)
        .user("alice")
        .json(&title)
        .returned(200);
    assert_eq!(replaced["title"], "Buy oat milk");
    assert_eq!(replaced["description"], Value::Null);
    assert_eq!(replaced["completed"], true);

    // A task can be written back as read; the service ignores the fields that it sets itself.
    let mut back = done.clone();
    back["completed"] = json!(false);
    back["id"] = json!(id + 1000);
    back["user_id"] = json!("bob");
    let replaced = service
        .call("PUT", &path)
        .user("alice")
        .json(&back)
        .returned(200);
    assert_eq!(replaced["completed"], false);
    assert_eq!(replaced["description"], "two bottles");
    assert_eq!(
        (&replaced["id"], &replaced["user_id"]),
        (&json!(id), &json!("alice"))
    );

    let deleted = service.call("DELETE", &path).user("alice").send();
    assert_eq!(
        (deleted.status, deleted.body.as_slice()),
        (204, b"".as_slice())
    );
    service.call("DELETE", &path).user("alice").rejected(404);
    assert_eq!(
        service
            .call("GET", "/api/alice/tasks")
            .user("alice")
            .returned(200),
        json!([])
    );
}

pub(super) fn lists_tasks_newest_first(service: &Service) {
    for title in ["first", "second", "third"] {
        service.make_task("lister", title);
    }
    let list = service
        .call("GET", "/api/lister/tasks")
        .user("lister")
        .returned(200);
    let titles: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|task| &task["title"])
        .collect();
    assert_eq!(titles, ["third", "second", "first"]);
}

pub(super) fn rejects_a_request_without_exactly_one_valid_user(service: &Service) {
    let long = "a".repeat(256);
    for (method, path, body) in task_calls("1") {
        let call = || {
            let call = service.call(method, &path);
            match &body {
                Some(body) => call.json(body),
                None => call,
            }
        };
        call().rejected(401);
        call().header("X-User-Id", b"").rejected(401);
        call().header("X-User-Id", b"\xff\xfe").rejected(401);
        call().user(&long).rejected(401);
        call().user("alice").user("alice").rejected(401);
        call().user("alice").user("bob").rejected(401);
        // A token does not replace the header: the gate has already verified it.
        call().header("Authorization", b"Bearer x").rejected(401);
    }
}

pub(super) fn rejects_a_request_for_another_user(service: &Service) {
    let other = ["bob", "Alice", "alice2", "alic", "%61lice"];
    for (method, path, body) in task_calls("1") {
        for user in other {
            let call = service.call(method, &path).user(user);
            match &body {
                Some(body) => call.json(body).rejected(403),
                None => call.rejected(403),
            };
        }
    }
}

pub(super) fn isolates_the_tasks_of_two_users(service: &Service) {
    let of_alice = service.make_task("alice", "of alice");
    let of_bob = service.make_task("bob", "of bob");
    for (user, own, other) in [("alice", &of_alice, &of_bob), ("bob", &of_bob, &of_alice)] {
        let tasks = format!("/api/{user}/tasks");
        let task = format!("{tasks}/{}", other["id"]);
        let title = json!({ "title": "mine now" });
        let done = json!({ "completed": true });

        service.call("GET", &task).user(user).rejected(404);
        service
            .call("PUT", &task)
            .user(user)
            .json(&title)
            .rejected(404);
        service
            .call("PATCH", &format!("{task}/complete"))
            .user(user)
            .json(&done)
            .rejected(404);
        service.call("DELETE", &task).user(user).rejected(404);
        assert_eq!(
            service.call("GET", &tasks).user(user).returned(200),
            json!([own])
        );
    }
    for (user, own) in [("alice", &of_alice), ("bob", &of_bob)] {
        let task = format!("/api/{user}/tasks/{}", own["id"]);
        assert_eq!(
            &service.call("GET", &task).user(user).returned(200),
            own,
            "unchanged"
        );
        assert_eq!(service.call("DELETE", &task).user(user).send().status, 204);
    }
}

pub(super) fn accepts_any_text_as_user_id(service: &Service) {
    let longest = "a".repeat(255);
    let cases = [
        ("jörg", "j%C3%B6rg"),
        ("用户", "%E7%94%A8%E6%88%B7"),
        // User ID equal to a segment of another path.
        ("auth", "auth"),
        ("a/b", "a%2Fb"),
        ("100%", "100%25"),
        ("a b", "a%20b"),
        ("a+b", "a+b"),
        (
            "o'; DROP TABLE tasks; --",
            "o'%3B%20DROP%20TABLE%20tasks%3B%20--",
        ),
        (&longest, &longest),
    ];
    for (user, encoded) in cases {
        let path = format!("/api/{encoded}/tasks");
        let title = json!({ "title": "mine" });
        let made = service
            .call("POST", &path)
            .user(user)
            .json(&title)
            .returned(201);
        assert_eq!(made["user_id"], user);
        assert_eq!(
            service.call("GET", &path).user(user).returned(200),
            json!([made]),
            "{user}"
        );
    }
    // No user ID is empty.
    service
        .call("GET", "/api//tasks")
        .user("alice")
        .rejected(403);
    service
        .call("GET", "/api/%FF/tasks")
        .user("alice")
        .rejected(400);
    service
        .call("GET", "/api/alice%00/tasks")
        .user("alice")
        .rejected(403);
}

pub(super) fn rejects_an_invalid_task_id(service: &Service) {
    let invalid = [
        "0",
        "-1",
        "+1",
        "1.0",
        "one",
        "1e3",
        "%20",
        "9223372036854775808",
        "1%00",
    ];
    for id in invalid {
        for (method, path, body) in &task_calls(id)[2..] {
            let call = service.call(method, path).user("alice");
            match body {
                Some(body) => call.json(body).rejected(400),
                None => call.rejected(400),
            };
        }
    }
}

pub(super) fn returns_404_for_an_unknown_task(service: &Service) {
    for id in ["999999999", "9223372036854775807"] {
        for (method, path, body) in &task_calls(id)[2..] {
            let call = service.call(method, path).user("alice");
            match body {
                Some(body) => call.json(body).rejected(404),
                None => call.rejected(404),
            };
        }
    }
}

pub(super) fn rejects_an_invalid_body(service: &Service) {
    let task = service.make_task("alice", "steady");
    let one = format!("/api/alice/tasks/{}", task["id"]);
    let invalid = [
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        "\"title\"".to_owned(),
        "{}".to_owned(),
        r#"{"title": 1}"#.to_owned(),
        r#"{"title": null}"#.to_owned(),
        r#"{"title": ""}"#.to_owned(),
        r#"{"title": "  "}"#.to_owned(),
        r#"{"title": "a\u0000b"}"#.to_owned(),
        r#"{"title": "a", "title": "b"}"#.to_owned(),
        r#"{"title": "a"} {"title": "b"}"#.to_owned(),
        r#"{"title": "a", "description": 1}"#.to_owned(),
        r#"{"title": "a", "description": "\u0000"}"#.to_owned(),
        json!({ "title": "ä".repeat(201) }).to_string(),
        json!({ "title": "a", "description": "ä".repeat(1001) }).to_string(),
    ];
    for body in &invalid {
        service
            .call("POST", "/api/alice/tasks")
            .user("alice")
            .body(body)
            .rejected(400);
        service
            .call("PUT", &one)
            .user("alice")
            .body(body)
            .rejected(400);
    }
    service
        .call("POST", "/api/alice/tasks")
        .user("alice")
        .body("{\"title\": \"\u{0}\"}")
        .rejected(400);
    service
        .call("POST", "/api/alice/tasks")
        .user("alice")
        .body(b"{\"title\": \"\xff\"}")
        .rejected(400);
    service
        .call("PUT", &one)
        .user("alice")
        .body(r#"{"title":"a","completed":1}"#)
        .rejected(400);
    for body in [
        "",
        "{",
        "{}",
        "true",
        r#"{"completed": "yes"}"#,
        r#"{"completed": null}"#,
    ] {
        let call = service.call("PATCH", &format!("{one}/complete"));
        call.user("alice").body(body).rejected(400);
    }
    assert_eq!(
        service.call("GET", &one).user("alice").returned(200),
        task,
        "unchanged"
    );

    let longest = json!({ "title": "ä".repeat(200), "description": "ä".repeat(1000) });
    service
        .call("PUT", &one)
        .user("alice")
        .json(&longest)
        .returned(200);
}

pub(super) fn rejects_a_body_over_the_limit(service: &Service) {
    // JSON allows surrounding whitespace, so only the size is invalid.
    let mut body = br#"{"title": "large"}"#.to_vec();
    body.resize(BODY_BYTES, b' ');
    service
        .call("POST", "/api/large/tasks")
        .user("large")
        .body(&body)
        .returned(201);
    body.push(b' ');
    service
        .call("POST", "/api/large/tasks")
        .user("large")
        .body(&body)
        .rejected(413);
    service
        .call("POST", "/api/auth/signin")
        .body(&body)
        .rejected(413);
}

pub(super) fn returns_404_for_unknown_paths_and_405_for_wrong_methods(service: &Service) {
    for path in [
        "/",
        "/api",
        "/api/alice",
        "/api/alice/tasks/",
        "/api/alice/tasks/1/x",
        "/api/auth",
    ] {
        service.call("GET", path).user("alice").rejected(404);
    }
    let wrong = [
        ("PUT", "/api/alice/tasks", "GET,HEAD,POST"),
        ("POST", "/api/alice/tasks/1", "GET,HEAD,PUT,DELETE"),
        ("GET", "/api/alice/tasks/1/complete", "PATCH"),
        ("GET", "/api/auth/signup", "POST"),
        ("GET", "/api/auth/signin", "POST"),
        ("GET", "/api/auth/signout", "POST"),
        ("POST", "/api/auth/verify", "GET,HEAD"),
        ("POST", "/health", "GET,HEAD"),
        ("POST", "/openapi.json", "GET,HEAD"),
    ];
    for (method, path, allowed) in wrong {
        let response = service.call(method, path).user("alice").send();
        let found: BTreeSet<_> = response.header("allow").unwrap().split(',').collect();
        assert_eq!(found, allowed.split(',').collect(), "{method} {path}");
        response.rejected(405);
    }
}
