//! `claimgate why`: looks up a request in a running gate by its ID.

use super::upstream::{Request, Upstream};
use super::{Directory, eight_lines};

#[test]
fn why_explains_a_rejected_request() {
    let upstream = Upstream::start();
    let directory = Directory::with(&eight_lines(upstream.address));
    let gate = directory.serve(&["run"]);
    let token = directory.token("bob", &[]);
    let name = "a+name/of=mine";
    let request = Request::new("GET", "/api/alice/tasks")
        .bearer(&token)
        .header("X-Request-Id", name);
    let response = request.response(gate.address);
    assert_eq!(response.status, 403, "{response:?}");
    let admin = gate.admin.to_string();

    let ended = directory.call(&["why", "--admin", &admin, name]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for part in [
        " GET /api/alice/tasks from 127.0.0.1\n",
        "subject `bob`, issuer `better-auth`\n",
        "FAIL  authorization       subject_mismatch\n",
        "response 403 Forbidden: ",
    ] {
        assert!(ended.stdout.contains(part), "{part}: {ended:?}");
    }

    for (name, message) in [
        ("nobody", "no refusal with this request ID: "),
        ("no body", "failed to look up the request: "),
        ("a\r\nX: y", "failed to look up the request: "),
    ] {
        let ended = directory.call(&["why", "--admin", &admin, name]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.starts_with(message), "{ended:?}");
    }
    gate.stop();
}
