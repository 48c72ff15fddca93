//! Status page: its content, its visibility, and its content security policy.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::harness::{
    Issuer, ROUTES, Response, Sidecar, TASKS, Upstream, eventually, get, post, request, start,
};

/// Sends a request like a browser on the same machine.
fn fetch(sidecar: &Sidecar, path: &str) -> Response {
    sidecar.admin(&get(path).host(Some("127.0.0.1:9901")))
}

fn status(sidecar: &Sidecar) -> Value {
    fetch(sidecar, "/status.json").json()
}

/// Directives of the content security policy.
fn policy(response: &Response) -> BTreeMap<String, String> {
    let policy = response.header("content-security-policy").unwrap();
    let directives = policy.split("; ");
    let directives = directives.map(|directive| directive.split_once(' ').unwrap());
    directives
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn the_status_contains_routes_requests_keys_and_upstreams() {
    let (sidecar, _upstream, issuer) = start(ROUTES);
    let token = issuer.token("alice");
    assert_eq!(sidecar.call(&get(TASKS).bearer(&token)).status, 200);
    sidecar.call(&get(TASKS));
    let status = status(&sidecar);
    assert_eq!(status["not_ready"], serde_json::json!([]));
    let routes = status["routes"].as_array().unwrap();
    assert_eq!(routes.len(), 3, "{routes:?}");
    assert!(routes.iter().any(|line| {
        line["route"] == "/api/{user_id}/tasks/{*rest}"
            && line["rule"] == "`/api/{user_id}/tasks/{*rest}`, for the owner `{user_id}`"
    }));
    let counted = &status["metrics"];
    let requests = counted["requests"].as_array().unwrap();
    let mut reasons: Vec<_> = requests.iter().map(|one| &one["reason"]).collect();
    reasons.sort_by_key(ToString::to_string);
    assert_eq!(reasons, ["", "token_missing"]);
    assert_eq!(counted["configuration"]["generation"], 1);
    assert_eq!(counted["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(counted["issuers"][0]["name"], "test");
    assert_eq!(counted["issuers"][0]["keys"], 1);
    assert_eq!(counted["upstreams"][0]["name"], "tasks");
    assert_eq!(counted["upstreams"][0]["connected"], 1);
    for part in ["request", "gate", "upstream"] {
        let buckets = counted["durations"][0][part].as_array().unwrap();
        let bounds = counted["bounds"][part].as_array().unwrap();
        assert_eq!(buckets.len(), bounds.len() + 1, "{part}");
    }
    let text = status.to_string();
    assert!(!text.contains(&token), "{text}");
}

#[test]
fn shows_the_error_of_an_unreachable_issuer() {
    let config =
        format!("[issuers.test]\nkeys = {{ jwks_url = \"http://127.0.0.1:1/\" }}\n{ROUTES}");
    let sidecar = Sidecar::start(&config, &Upstream::start(), &Issuer::start());
    eventually("a fetch has failed", || {
        let issuer = &status(&sidecar)["metrics"]["issuers"][0];
        issuer["last_error"]
            .as_str()
            .is_some_and(|error| error.contains("refused"))
    });
    let status = status(&sidecar);
    assert_eq!(
        status["not_ready"][0],
        "waiting for the keys of the issuer `test`"
    );
    assert_eq!(status["metrics"]["issuers"][0]["usable_until"], 0);
}

#[test]
fn shows_refusals_to_loopback_only_and_never_a_token() {
    let (sidecar, _upstream, issuer) = start(ROUTES);
    let token = issuer.token("<b>bob\u{202e}");
    sidecar.call(&get("/api/alice/tasks?t=secret").bearer(&token));
    let status = status(&sidecar);
    let last = &status["refusals"][0];
    assert_eq!(last["reason"], "subject_mismatch");
    assert_eq!(last["path"], TASKS);
    // Escaped in JSON, and the page inserts it as text.
    assert_eq!(last["subject"], "<b>bob\\u{202e}");
    let stages = last["stages"].as_str().unwrap();
    assert!(
        stages.contains("FAIL  authorization       subject_mismatch"),
        "{stages}"
    );
    let text = status.to_string();
    let signature = token.rsplit('.').next().unwrap();
    assert!(
        !text.contains(signature) && !text.contains("secret"),
        "{text}"
    );

    let foreign = get("/status.json").host(Some("evil.test"));
    assert_eq!(sidecar.admin(&foreign).json()["refusals"], Value::Null);
    let page = get("/status.json")
        .host(Some("127.0.0.1"))
        .line("Origin: https://evil.test");
    let response = sidecar.admin(&page);
    assert_eq!(response.json()["refusals"], Value::Null);
    assert_eq!(response.header("access-control-allow-origin"), None);
}

#[test]
fn the_policy_allows_only_the_script_and_style_of_the_page() {
    let (sidecar, _upstream, _issuer) = start(ROUTES);
    let response = fetch(&sidecar, "/");
    assert_eq!(response.status, 200);
    let text = response.text();
    let hash = |element: &str| {
        let (_, rest) = text.split_once(&format!("<{element}>")).unwrap();
        let (inside, rest) = rest.split_once(&format!("</{element}>")).unwrap();
        assert!(!inside.is_empty() && !rest.contains(&format!("<{element}")));
        format!(
            "'sha256-{}'",
            STANDARD.encode(digest(&SHA256, inside.as_bytes()))
        )
    };
    let policy = policy(&response);
    let allowed = |name: &str| policy[name].as_str();
    assert_eq!(allowed("default-src"), "'none'");
    assert_eq!(allowed("script-src"), hash("script"));
    assert_eq!(allowed("style-src"), hash("style"));
    assert_eq!(allowed("connect-src"), "'self'");
    for name in ["base-uri", "form-action", "frame-ancestors"] {
        assert_eq!(allowed(name), "'none'", "{name}");
    }
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(response.header(name).as_deref(), Some(value), "{name}");
    }
    for word in [
        "innerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        " style=",
        " onclick=",
        "http://",
        "https://",
    ] {
        let text = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains(word), "{word}");
    }
}

#[test]
fn the_page_is_read_only_and_does_not_forward() {
    let (sidecar, upstream, _issuer) = start(ROUTES);
    for path in ["/", "/status.json"] {
        assert_eq!(sidecar.admin(&post(path, b"")).status, 405, "{path}");
        assert_eq!(
            sidecar.admin(&request("DELETE", path)).status,
            405,
            "{path}"
        );
        sidecar.call(&get(path)).refused(404, "no_route");
    }
    upstream.assert_untouched();
}

/// Routes with a rate limit by client and by subject, and an upstream that does not listen.
const LIMITED: &str = r#"
[upstreams]
gone = { url = "http://127.0.0.1:1" }

[[routes]]
path = "/gone"
access = "public"
upstream = "gone"

[[routes]]
path = "/by-client"
access = "public"
upstream = "tasks"
rate_limit = { requests = 1, per = "1m", by = "client-address" }

[[routes]]
path = "/by-subject"
access = "authenticated"
upstream = "tasks"
rate_limit = { requests = 1, per = "1m", by = "subject" }

[[routes]]
path = "/api/{user_id}/tasks"
access = { owner = "user_id" }
upstream = "tasks"
methods = ["GET"]
"#;

#[test]
fn a_refusal_has_the_same_stage_in_metrics_status_and_why() {
    let (sidecar, _upstream, issuer) = start(LIMITED);
    let token = issuer.token("alice");
    let signature = token.rsplit('.').next().unwrap();
    let forged = token.replace(signature, &"A".repeat(signature.len()));
    for path in ["/by-client", "/by-subject"] {
        assert_eq!(sidecar.call(&get(path).bearer(&token)).status, 200);
    }
    let cases = [
        (get(TASKS).host(None), "request_malformed", "request head"),
        (get("/a/../b"), "path_not_canonical", "canonical path"),
        (get("/nothing"), "no_route", "route"),
        (post(TASKS, b""), "method_not_allowed", "route"),
        (get("/by-client"), "rate_limited", "client rate limit"),
        (get(TASKS), "token_missing", "token"),
        (get(TASKS).bearer("a.b"), "token_malformed", "verification"),
        (
            get(TASKS).bearer(&forged),
            "token_signature",
            "verification",
        ),
        (
            get("/by-subject").bearer(&token),
            "rate_limited",
            "subject rate limit",
        ),
        (
            get("/api/bob/tasks").bearer(&token),
            "subject_mismatch",
            "authorization",
        ),
        (get("/gone"), "upstream_unreachable", "upstream"),
    ];
    for (request, reason, stage) in cases {
        let response = sidecar.call(&request);
        let id = response.header("x-request-id").unwrap();
        let metric = format!("claimgate_refusals_total{{stage=\"{stage}\",reason=\"{reason}\"}}");
        eventually(&metric, || sidecar.metric(&metric) >= Some(1.0));
        let status = status(&sidecar);
        let last = &status["refusals"][0];
        assert_eq!(last["request_id"], id.as_str(), "{reason}");
        assert_eq!(
            (&last["reason"], &last["stage"]),
            (&reason.into(), &stage.into())
        );
        let failed = format!("  FAIL  {stage:<19} {reason}\n");
        let why = fetch(&sidecar, &format!("/why/{id}")).text();
        for text in [last["stages"].as_str().unwrap(), why.as_str()] {
            assert!(text.contains(&failed), "{failed}: {text}");
            assert_eq!(text.matches("FAIL").count(), 1, "{text}");
        }
    }
}
