//! OAuth protected resource (RFC 9728): its metadata, its routes and their challenges.

use serde_json::{Value, json};

use crate::harness::issuer::{SECRET, claims};
use crate::harness::{Key, Response, Sidecar, Upstream, get, post, preflight, request, start};

/// A resource at `/tasks` beside routes of session JWTs.
/// Algorithms that a `DPoP` proof can have.
const PROOF_ALGORITHMS: [&str; 10] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
];

const RESOURCE: &str = r#"
resource.url = "https://api.test/tasks"
resource.authorization_servers = ["https://login.test/auth"]
resource.scopes = ["tasks:read", "tasks:write"]
resource.name = "Tasks"
resource.documentation = "https://api.test/docs"

[issuers.oauth]
keys = { secret_env = "TEST_SECRET" }
issuer = "https://login.test/auth"

[issuers.test]
keys = { secret_env = "TEST_SECRET" }
allow_any_audience = true

[[routes]]
path = "/tasks/{*rest}"
access = "authenticated"
require = [{ claim = "scope", has = "tasks:read" }, { claim = "plan", equals = "pro" }]

[[routes]]
path = "/tasks/open/{*rest}"
access = "public"

[[routes]]
path = "/tasks/internal"
access = "authenticated"
resource = false

[[routes]]
path = "/elsewhere/{user_id}"
access = { owner = "user_id" }
mismatch = 401
resource = true

[[routes]]
path = "/api/{user_id}"
access = { owner = "user_id" }
"#;

const ROOT: &str = "/.well-known/oauth-protected-resource";
const BELOW: &str = "/.well-known/oauth-protected-resource/tasks";

const METADATA: &str =
    "resource_metadata=\"https://api.test/.well-known/oauth-protected-resource/tasks\"";

/// Access token of the authorization server, with these members.
fn access_token(typ: &str, members: &[(&str, Value)]) -> String {
    let mut claims = claims("alice");
    claims["iss"] = json!("https://login.test/auth");
    claims["aud"] = json!("https://api.test/tasks");
    for (name, value) in members {
        claims[*name] = value.clone();
    }
    let header = json!({ "alg": "HS256", "typ": typ }).to_string();
    Key::secret(SECRET.as_bytes()).sign_text(&header, &claims.to_string())
}

fn sufficient() -> Vec<(&'static str, Value)> {
    vec![
        ("scope", json!("openid tasks:read")),
        ("plan", json!("pro")),
    ]
}

fn challenge(response: &Response) -> String {
    response.header("www-authenticate").unwrap()
}

fn assert_readable_by_every_page(response: &Response) {
    let mut cors = response.head.fields();
    cors.retain(|(name, _)| {
        name.to_ascii_lowercase()
            .starts_with("access-control-allow-origin")
    });
    let expected = ("access-control-allow-origin".to_owned(), "*".to_owned());
    assert_eq!(cors, [expected]);
    let credentials = response.header("access-control-allow-credentials");
    assert_eq!(credentials, None);
}

#[track_caller]
fn assert_metadata(sidecar: &Sidecar, upstream: &Upstream) {
    for target in [
        ROOT,
        BELOW,
        "/.well-known/oauth-protected-resource/tasks?x=1",
    ] {
        let response = sidecar.call(&get(target).line("Origin: https://page.test"));
        assert_eq!(response.status, 200, "{target}");
        assert_eq!(
            response.json(),
            json!({
                "resource": "https://api.test/tasks",
                "authorization_servers": ["https://login.test/auth"],
                "bearer_methods_supported": ["header"],
            "dpop_signing_alg_values_supported": PROOF_ALGORITHMS,
            "dpop_bound_access_tokens_required": false,
                "dpop_signing_alg_values_supported": PROOF_ALGORITHMS,
                "dpop_bound_access_tokens_required": false,
                "scopes_supported": ["tasks:read", "tasks:write"],
                "resource_name": "Tasks",
                "resource_documentation": "https://api.test/docs",
            })
        );
        let header = |name: &str| response.header(name).unwrap();
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(header("cache-control"), "public, max-age=300");
        assert!(!header("x-request-id").is_empty());
        assert_readable_by_every_page(&response);

        let mut client = sidecar.connect();
        let to_head = client.call(&request("HEAD", target));
        assert_eq!(to_head.status, 200, "{target}");
        assert_eq!(
            to_head.header("content-length"),
            response.header("content-length")
        );
        // The connection is in step: the response to HEAD has no body.
        assert_eq!(client.call(&get(target)).status, 200, "{target}");

        let allowed = sidecar.call(
            &preflight("https://page.test", "GET", target)
                .line("Access-Control-Request-Headers: mcp-protocol-version"),
        );
        assert_eq!(allowed.status, 204, "{target}");
        assert_readable_by_every_page(&allowed);
        let header = |name: &str| allowed.header(name).unwrap();
        assert_eq!(header("access-control-allow-methods"), "GET, HEAD");
        assert_eq!(header("access-control-allow-headers"), "*");

        let denied = sidecar.call(&post(target, b""));
        denied.refused(405, "method_not_allowed");
        assert_eq!(denied.header("allow").as_deref(), Some("GET, HEAD"));
    }
    upstream.assert_untouched();
}

#[test]
fn serves_the_metadata_without_a_token() {
    let (sidecar, upstream, _issuer) = start(RESOURCE);
    assert_metadata(&sidecar, &upstream);
    for target in [
        "/.well-known/oauth-protected-resource/",
        "/.well-known/oauth-protected-resource/tasks/",
    ] {
        sidecar.call(&get(target)).refused(404, "no_route");
    }
    let series = |method: &str, status: &str| {
        let rest = format!("method=\"{method}\",status=\"{status}\",reason=\"\"");
        format!("claimgate_requests_total{{route=\"\",{rest}}}")
    };
    assert_eq!(sidecar.metric(&series("GET", "200")), Some(6.0));
    assert_eq!(sidecar.metric(&series("HEAD", "200")), Some(3.0));
    assert_eq!(sidecar.metric(&series("OPTIONS", "204")), Some(3.0));
}

#[test]
fn the_metadata_takes_precedence_over_routes_and_over_the_cors_policy() {
    let config = format!(
        "{RESOURCE}\n[cors]\norigins = [\"https://app.test\"]\ncredentials = true\n\
         [[routes]]\npath = \"/.well-known/{{*rest}}\"\naccess = \"public\"\n"
    );
    let (sidecar, upstream, _issuer) = start(&config);
    assert_metadata(&sidecar, &upstream);
}

#[test]
fn without_a_resource_the_path_is_an_ordinary_one() {
    let (sidecar, upstream, _issuer) =
        start("[[routes]]\npath = \"/.well-known/{*rest}\"\naccess = \"public\"\n");
    assert_eq!(sidecar.call(&get(ROOT)).status, 200);
    assert_eq!(upstream.only().head.line(), format!("GET {ROOT} HTTP/1.1"));
}

#[test]
fn a_resource_without_a_path_has_all_routes_with_a_token() {
    let config = r#"
resource.url = "https://api.test"
resource.authorization_servers = ["https://login.test/auth"]

[issuers.test]
issuer = "https://login.test/auth"

[[routes]]
path = "/me"
access = "authenticated"
"#;
    let (sidecar, _upstream, _issuer) = start(config);
    let metadata = sidecar.call(&get(ROOT)).json();
    assert_eq!(
        metadata,
        json!({
            "resource": "https://api.test",
            "authorization_servers": ["https://login.test/auth"],
            "bearer_methods_supported": ["header"],
            "dpop_signing_alg_values_supported": PROOF_ALGORITHMS,
            "dpop_bound_access_tokens_required": false,
        })
    );
    let response = sidecar.call(&get("/me"));
    response.refused(401, "token_missing");
    assert_eq!(
        challenge(&response),
        "Bearer realm=\"claimgate\", resource_metadata=\"https://api.test/.well-known/oauth-protected-resource\""
    );
    let token = access_token("at+jwt", &[("aud", json!("https://api.test"))]);
    assert_eq!(sidecar.call(&get("/me").bearer(&token)).status, 200);
}

#[test]
fn challenges_name_the_metadata_and_the_scope_of_the_route() {
    let (sidecar, _upstream, issuer) = start(RESOURCE);
    let missing = sidecar.call(&get("/tasks/1"));
    missing.refused(401, "token_missing");
    assert_eq!(
        challenge(&missing),
        format!("Bearer realm=\"claimgate\", {METADATA}, scope=\"tasks:read\"")
    );
    let other_type = sidecar.call(&get("/tasks/1").bearer(&access_token("JWT", &sufficient())));
    other_type.refused(401, "token_type");
    assert_eq!(
        challenge(&other_type),
        format!(
            "Bearer realm=\"claimgate\", error=\"invalid_token\", error_description=\"The token is of a type that is not \
             accepted.\", {METADATA}, scope=\"tasks:read\""
        )
    );
    let (scope, plan) = (("scope", json!("tasks:write")), ("plan", json!("pro")));
    let denied = "Bearer realm=\"claimgate\", error=\"insufficient_scope\", error_description=\"The token does not grant \
                  access to this path.\"";
    for (members, expected) in [
        (
            vec![scope, plan],
            format!("{denied}, scope=\"tasks:read\", {METADATA}"),
        ),
        // Another scope would not help.
        (
            vec![("scope", json!("tasks:read"))],
            format!("{denied}, {METADATA}"),
        ),
    ] {
        let response = sidecar.call(&get("/tasks/1").bearer(&access_token("at+jwt", &members)));
        response.refused(403, "claim_denied");
        assert_eq!(challenge(&response), expected, "{members:?}");
    }
    let token = access_token("at+jwt", &[]);
    let mismatch = sidecar.call(&get("/elsewhere/bob").bearer(&token));
    mismatch.refused(401, "subject_mismatch");
    assert!(challenge(&mismatch).ends_with(METADATA), "{mismatch:?}");
    for (target, token) in [
        ("/tasks/internal", None),
        ("/api/alice", None),
        ("/api/alice", Some("a.b")),
    ] {
        let mut request = get(target);
        if let Some(token) = token {
            request = request.bearer(token);
        }
        let response = sidecar.call(&request);
        assert_eq!(response.status, 401, "{target}");
        assert!(
            !challenge(&response).contains("resource_metadata"),
            "{target}"
        );
    }
    let repeated = sidecar.call(
        &get("/tasks/1")
            .bearer(&token)
            .bearer(&issuer.token("alice")),
    );
    repeated.refused(400, "token_repeated");
    assert!(!challenge(&repeated).contains("resource_metadata"));
}

#[test]
fn routes_of_the_resource_accept_access_tokens_of_its_authorization_servers_only() {
    let (sidecar, upstream, issuer) = start(RESOURCE);
    let with = |name: &'static str, value: Value| {
        let mut members = sufficient();
        members.push((name, value));
        access_token("at+jwt", &members)
    };
    let session = issuer.token("alice");
    let both = json!(["https://api.test/tasks", "https://login.test/auth/userinfo"]);
    for (target, token, status, reason) in [
        ("/tasks/1", access_token("at+jwt", &sufficient()), 200, ""),
        ("/tasks/1", with("aud", both), 200, ""),
        (
            "/tasks/1",
            with("aud", json!("https://api.test")),
            401,
            "token_audience",
        ),
        (
            "/tasks/1",
            with("aud", json!("https://api.test/tasks/")),
            401,
            "token_audience",
        ),
        (
            "/tasks/1",
            access_token("JWT", &sufficient()),
            401,
            "token_type",
        ),
        ("/tasks/1", session.clone(), 401, "token_issuer"),
        ("/tasks/internal", session.clone(), 200, ""),
        ("/api/alice", session, 200, ""),
        ("/elsewhere/alice", access_token("at+jwt", &[]), 200, ""),
    ] {
        let response = sidecar.call(&get(target).bearer(&token));
        assert_eq!(response.outcome(), (status, reason.to_owned()), "{target}");
    }
    assert_eq!(sidecar.call(&get("/tasks/open/1")).status, 200);
    assert_eq!(upstream.arrived().len(), 6);
}

#[test]
fn settings_of_an_issuer_take_precedence_over_the_defaults_of_the_resource() {
    let issuer = "issuer = \"https://login.test/auth\"\n";
    let own = format!("{issuer}audience = \"tasks\"\ntypes = [\"JWT\"]\n");
    let (sidecar, _upstream, _issuer) = start(&RESOURCE.replace(issuer, &own));
    let mut members = sufficient();
    members.push(("aud", json!("tasks")));
    let token = access_token("JWT", &members);
    assert_eq!(sidecar.call(&get("/tasks/1").bearer(&token)).status, 200);
    let other = access_token("at+jwt", &members);
    sidecar
        .call(&get("/tasks/1").bearer(&other))
        .refused(401, "token_type");
}

#[test]
fn a_page_of_another_origin_can_read_the_challenge() {
    let config = format!("{RESOURCE}\n[cors]\norigins = [\"https://app.test\"]\n");
    let (sidecar, _upstream, _issuer) = start(&config);
    let response = sidecar.call(&get("/tasks/1").line("Origin: https://app.test"));
    response.refused(401, "token_missing");
    let exposed = response.header("access-control-expose-headers").unwrap();
    assert!(exposed.contains("www-authenticate"), "{exposed}");
    assert!(challenge(&response).contains(METADATA));
}

#[test]
fn a_grpc_call_has_the_challenge_too() {
    let (sidecar, _upstream, _issuer) = start(RESOURCE);
    let response = sidecar.call(&post("/tasks/1", b"").line("Content-Type: application/grpc"));
    assert_eq!(response.status, 200);
    assert_eq!(response.header("grpc-status").as_deref(), Some("16"));
    assert!(challenge(&response).contains(METADATA));
}
