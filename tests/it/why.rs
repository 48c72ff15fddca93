//! Why a request was not served, asked of the gate that has not served it.

use crate::harness::{Answer, ROUTES, Request, Sidecar, Upstream, get, request, start, start_with};

const TASKS: &str = "/api/alice/tasks?secret=1";

/// As `claimgate why` asks.
fn why(request_id: &str) -> Request {
    get(&format!("/why/{request_id}")).host(Some("127.0.0.1:9901"))
}

fn named(request: Request, name: &str) -> Request {
    request.line(&format!("X-Request-Id: {name}"))
}

/// The explanation without its first line, which has the time.
#[track_caller]
fn explained(sidecar: &Sidecar, request_id: &str) -> String {
    let answer = sidecar.admin(&why(request_id));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    let (first, rest) = text.split_once("\n\n").unwrap();
    assert!(
        first.starts_with("2027-01-15T08:00:00Z ") || first.starts_with("2027-01-15T07:59:"),
        "{first}"
    );
    assert!(first.ends_with(" from 127.0.0.1"), "{first}");
    rest.to_owned()
}

#[test]
fn explains_a_refusal_stage_by_stage() {
    let (sidecar, upstream, issuer) = start(ROUTES);
    let bob = issuer.token("bob");
    sidecar.call(&named(get(TASKS).bearer(&bob), "one"));
    assert_eq!(
        explained(&sidecar, "one"),
        "  ok    request head\n  \
           ok    canonical path\n  \
           ok    route               `/api/{user_id}/tasks/{*rest}`, for the owner `{user_id}`\n  \
           -     client rate limit   no limit\n  \
           ok    token\n  \
           ok    verification        subject `bob`, issuer `test`\n  \
           -     subject rate limit  no limit\n  \
           FAIL  authorization       subject_mismatch\n\
         \nresponse 403: This path belongs to another user.\n"
    );
    let forged = format!("{}x", &bob[..bob.len() - 8]);
    sidecar.call(&named(get(TASKS).bearer(&forged), "two"));
    let two = explained(&sidecar, "two");
    assert!(
        two.contains(
            "FAIL  verification        token_signature\n  -     subject rate limit  not reached\n  -     authorization       not reached\n"
        ),
        "{two}"
    );
    sidecar.call(&named(get("/nowhere"), "three"));
    let three = explained(&sidecar, "three");
    assert!(
        three.contains("FAIL  route               no_route\n"),
        "{three}"
    );
    // A name that the gate has given is as good.
    let answer = sidecar.call(&get(TASKS));
    let four = explained(&sidecar, &answer.header("x-request-id").unwrap());
    assert!(
        four.contains("FAIL  token               token_missing\n"),
        "{four}"
    );
    // Whoever gives two requests one name gets both.
    sidecar.call(&named(get(TASKS), "three"));
    let both = sidecar.admin(&why("three")).text();
    assert!(
        both.contains("no_route") && both.contains("token_missing"),
        "{both}"
    );
    assert!(!both.contains("secret"), "{both}");
    upstream.untouched();
}

#[test]
fn what_fails_after_the_gate_has_its_cause() {
    let (sidecar, _upstream, _issuer) = start_with(ROUTES, Upstream::nowhere());
    sidecar
        .call(&named(get("/open/page"), "one"))
        .refused(502, "upstream_unreachable");
    let one = explained(&sidecar, "one");
    assert!(
        one.contains("  -     token               the route is public\n"),
        "{one}"
    );
    assert!(
        one.contains("  FAIL  upstream            upstream_unreachable\n                            failed to connect to "),
        "{one}"
    );
}

#[test]
fn what_was_served_is_not_remembered() {
    let (sidecar, _upstream, issuer) = start(ROUTES);
    let token = issuer.token("alice");
    let answer = sidecar.call(&named(get(TASKS).bearer(&token), "one"));
    assert_eq!(answer.status, 200);
    for request_id in ["one", "two", "", "%6Fne", "one?x"] {
        let answer = sidecar.admin(&why(request_id));
        assert_eq!(answer.status, 404, "{request_id}: {}", answer.text());
    }
}

#[test]
fn nobody_but_this_machine_is_told_of_a_request() {
    let (sidecar, _upstream, _issuer) = start(ROUTES);
    sidecar.call(&named(get(TASKS), "one"));
    let asked = |host: &str, line: Option<&str>| -> Answer {
        let request = get("/why/one").host(Some(host));
        sidecar.admin(&line.into_iter().fold(request, Request::line))
    };
    for host in [
        "127.0.0.1",
        "127.0.0.1:9901",
        "localhost:9901",
        "[::1]:9901",
    ] {
        assert_eq!(asked(host, None).status, 200, "{host}");
    }
    // A page that calls itself by a name which stands for this machine.
    for host in [
        "evil.test",
        "evil.test:9901",
        "localhost.evil.test",
        "127.0.0.1.evil.test",
        "",
    ] {
        assert_eq!(asked(host, None).status, 403, "{host}");
    }
    for origin in ["https://evil.test", "http://localhost:3000", "null"] {
        let line = format!("Origin: {origin}");
        assert_eq!(asked("127.0.0.1", Some(&line)).status, 403, "{origin}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = sidecar.admin(&request(method, "/why/one").host(Some("127.0.0.1")));
        assert_eq!(answer.status, 405, "{method}");
    }
}
