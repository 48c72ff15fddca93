//! `claimgate explain` matches the running gate: the same requests to both, with the same outcomes.

use std::collections::BTreeSet;

use claimgate::tls;
use serde_json::json;

use crate::harness::issuer::JwksResponse;
use crate::harness::{Issuer, Key};

use super::program::Ended;
use super::upstream::{Request, Upstream, fields};
use super::{Directory, Gate, OTHER_SECRET, eight_lines};

/// Routes in addition to the eight lines, so that every stage of the gate can fail.
const MORE: &str = r#"
[[routes]]
path = "/health"
access = "public"

[[routes]]
path = "/me"
methods = ["GET"]
access = "authenticated"

[[routes]]
path = "/hidden/{user_id}"
access = { owner = "user_id" }
mismatch = 404

[[routes]]
path = "/old/{user_id}"
access = { owner = "user_id" }
mismatch = 401

[[routes]]
path = "/admin/{user_id}"
access = { owner = "user_id" }
issuers = ["better-auth"]
require = [{ claim = "plan", equals = "pro" }, { claim = "scope", has = "tasks" }]
exempt = { claim = "role", any = ["admin", "support"] }

[[routes]]
path = "/partners"
access = "authenticated"
issuers = ["partner"]

[issuers.partner]
keys = { secret_env = "BETTER_AUTH_SECRET" }
issuer = "https://partner.example"

[[routes]]
path = "/any/{user_id}"
access = { owner = "user_id" }
tokens = [
    { header = "Authorization" },
    { header = "X-Token" },
    { cookie = "session" },
    { query = "access_token" },
    { websocket = "bearer" },
]

[[routes]]
path = "/outer/{user_id}/{*rest}"
access = { owner = "user_id" }
replace_prefix = { from = "/outer", to = "/inner" }
request_headers = { set = { "X-Tenant" = "acme" }, remove = ["X-Debug"] }

[identity]
headers = { "X-User-Email" = "email" }
"#;

/// Outcome of a request.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Request line and header fields sent to the upstream.
    Forwarded(String, Vec<String>),
    /// Status and members of the problem body.
    Rejected {
        status: u16,
        reason: String,
        detail: String,
    },
}

#[test]
fn explain_matches_the_running_gate() {
    let upstream = Upstream::start();
    let directory = Directory::with(&(eight_lines(upstream.address) + MORE));
    let gate = directory.serve(&["run"]);
    let requests = requests(&directory);
    let (mut forwarded, mut rejected) = (0, BTreeSet::new());
    for (request, expected) in requests {
        let explained = explained(&directory, &request);
        let served = served(&gate, &upstream, &request);
        assert_eq!(explained, served, "{request:?}");
        match (served, expected) {
            (Outcome::Forwarded(_, fields), 200) => {
                let public = request.target == "/health";
                let expected: &[&str] = if public { &[] } else { &["x-user-id: alice"] };
                assert_eq!(users(&fields), expected, "{request:?}");
                forwarded += 1;
            }
            (Outcome::Rejected { status, reason, .. }, expected) if status == expected => {
                rejected.insert(reason);
            }
            (outcome, _) => panic!("{request:?}: expected {expected}: {outcome:?}"),
        }
    }
    assert!(forwarded >= 8, "only {forwarded} requests were forwarded");
    assert!(rejected.len() >= 10, "only {rejected:?}");
    let ended = gate.stop();
    assert_eq!(ended.code, Some(0));
    // The log has the reason, but no claim of these tokens.
    for reason in ["claim_denied", "token_issuer", "subject_mismatch"] {
        let logged = format!("\"reason\":\"{reason}\"");
        assert!(ended.stderr.contains(&logged), "{reason}: {}", ended.stderr);
    }
    for claim in ["alice@example.com", "openid", "support"] {
        assert!(!ended.stderr.contains(claim), "{claim}: {}", ended.stderr);
    }
}

#[test]
fn explain_takes_a_client_certificate() {
    let root = env!("CARGO_MANIFEST_DIR");
    let config = format!(
        r#"
[listen.tls]
certificate = "{root}/tests/fixtures/config/tls/gate.crt"
key = "{root}/tests/fixtures/keys/p256.private.pem"
client_ca = "{root}/tests/fixtures/config/tls/gate.crt"

[identity]
headers = {{ X-Client = "certificate:subject" }}

[upstreams.tasks]
url = "http://127.0.0.1:3000"

[issuers.better-auth]
keys = {{ secret_env = "BETTER_AUTH_SECRET" }}

[[routes]]
path = "/me"
access = "authenticated"
require = [{{ certificate = "dns", has = "gate.test" }}]

[[routes]]
path = "/plain"
access = "authenticated"
"#
    );
    let directory = Directory::with(&config);
    let [gate, expired] = ["gate", "expired"]
        .map(|name| format!("--certificate={root}/tests/fixtures/config/tls/{name}.crt"));
    let thumbprint = tls::client_certificate(gate[14..].as_ref())
        .unwrap()
        .thumbprint;
    let token = directory.token("alice", &[]);
    let claim = format!("--claim=cnf={{\"x5t#S256\":\"{thumbprint}\"}}");
    let bound = directory.token("alice", &[&claim]);
    for (token, target, certificate, expected) in [
        (&token, "/me", Some(&gate), "  x-client: CN=gate.test\n"),
        (&token, "/me", Some(&gate), "  x-forwarded-proto: https\n"),
        (
            &token,
            "/me",
            Some(&expired),
            "not met: the certificate's `dns` has `gate.test`\n",
        ),
        (
            &token,
            "/me",
            None,
            "  FAIL  authorization       certificate_denied\n",
        ),
        (&token, "/plain", None, "  x-forwarded-proto: http\n"),
        (&bound, "/plain", Some(&gate), "  x-client: CN=gate.test\n"),
        (
            &bound,
            "/plain",
            Some(&expired),
            "  FAIL  verification        token_confirmation\n",
        ),
        (
            &bound,
            "/plain",
            None,
            "  FAIL  verification        token_confirmation\n",
        ),
    ] {
        let mut arguments = vec!["explain", "--token", token];
        arguments.extend(certificate.map(String::as_str));
        arguments.extend(["GET", target]);
        let ended = directory.call(&arguments);
        assert!(
            ended.stdout.contains(expected),
            "{target} {certificate:?} {expected}: {ended:?}"
        );
    }
    let ended = directory.call(&["token", "inspect", &bound]);
    let expected =
        format!("but bound to the client certificate with the thumbprint {thumbprint}\n");
    assert!(ended.stdout.ends_with(&expected), "{ended:?}");
    let key_bound = directory.token("alice", &["--claim=cnf={\"jkt\":\"x\"}"]);
    let ended = directory.call(&["token", "inspect", &key_bound]);
    assert!(
        ended
            .stdout
            .contains("`cnf` binds it to a proof other than one certificate or one key"),
        "{ended:?}"
    );
    let ended = directory.call(&["explain", "--certificate=config.toml", "GET", "/me"]);
    assert_eq!(
        ended.stderr,
        "failed to read the certificate: config.toml is not a valid certificate file: no PEM certificate found\n"
    );
}

#[test]
fn explain_prints_each_stage_and_the_failed_one() {
    let upstream = Upstream::start();
    let directory = Directory::with(&(eight_lines(upstream.address) + MORE));
    let token = directory.token("alice", &[]);
    let ended = directory.call(&["explain", "--token", &token, "GET", "/api/bob/tasks"]);
    assert_eq!(
        ended.stdout,
        "GET /api/bob/tasks\n  \
           ok    request head\n  \
           ok    canonical path\n  \
           ok    route               `/api/{user_id}/tasks/{*rest}`, for the owner `{user_id}`\n  \
           -     client rate limit   no limit\n  \
           ok    token\n  \
           ok    verification        subject `alice`, issuer `better-auth`\n  \
           -     subject rate limit  no limit\n  \
           FAIL  authorization       subject_mismatch\n\
         \n\
         response 403 Forbidden: This path belongs to another user.\n\
         fix: The token is valid, but its subject is not the user in the path.\n\
         see: docs/reference/responses.md, `subject_mismatch`\n"
    );
    let ended = directory.call(&["explain", "GET", "/api/../bob/tasks"]);
    assert_eq!(
        ended.stdout,
        "GET /api/../bob/tasks\n  \
           ok    request head\n  \
           FAIL  canonical path      path_not_canonical\n  \
           -     route               not reached\n  \
           -     client rate limit   not reached\n  \
           -     token               not reached\n  \
           -     verification        not reached\n  \
           -     subject rate limit  not reached\n  \
           -     authorization       not reached\n\
         \n\
         response 400 Bad Request: The path has a dot segment at character 6: resolve `.` and `..` before sending it.\n\
         fix: Resolve dot segments before sending, percent-encode each segment once, and spell the path as the route \
         does.\n\
         see: docs/reference/responses.md, `path_not_canonical`\n"
    );
    assert!(upstream.has_received_nothing());
}

#[test]
fn explain_names_the_routes_near_a_path_without_one() {
    let upstream = Upstream::start();
    let directory = Directory::with(&eight_lines(upstream.address));
    for (target, expected) in [
        (
            "/api/alice/taks",
            "near routes: `/api/{user_id}/tasks/{*rest}`\n",
        ),
        (
            "/alice/tasks/1",
            "near routes: `/api/{user_id}/tasks/{*rest}`\n",
        ),
        ("/favicon.ico", "case and a trailing"),
    ] {
        let ended = directory.call(&["explain", "GET", target]);
        let is_near = ended.stdout.contains("near routes");
        assert_eq!(is_near, expected.starts_with("near"), "{}", ended.stdout);
        assert!(
            !is_near || ended.stdout.contains(expected),
            "{}",
            ended.stdout
        );
    }
}

#[test]
fn explain_names_the_route_of_another_spelling() {
    let upstream = Upstream::start();
    let literal = "[[routes]]\npath = \"/api/auth/{*rest}\"\naccess = \"public\"\n";
    let directory = Directory::with(&format!("{}{literal}", eight_lines(upstream.address)));
    let ended = directory.call(&["explain", "GET", "/api/Auth/tasks"]);
    let expected = "FAIL  canonical path      path_not_canonical\n                            \
                    another spelling of a path of route `/api/auth/{*rest}`\n";
    assert!(ended.stdout.contains(expected), "{}", ended.stdout);
    let expected = "response 400 Bad Request: From character 6 on, the path can be read as another one: check case, \
                    leading zeros, `;` and the last `/`.";
    assert!(ended.stdout.contains(expected), "{}", ended.stdout);
}

#[test]
fn explain_prints_the_cause_of_a_rejected_token() {
    let upstream = Upstream::start();
    let directory = Directory::with(&eight_lines(upstream.address));
    let expired = directory.token("alice", &["--claim", "exp=1000000000"]);
    for (token, expected) in [
        (
            "a.b",
            "rejected (token_malformed): A signed JWT has three parts separated by dots",
        ),
        (
            &*expired,
            "rejected by issuer `better-auth` (token_expired): ",
        ),
    ] {
        let ended = directory.call(&["explain", "--token", token, "GET", "/api/alice/tasks"]);
        let (_, response) = ended.stdout.split_once("\nresponse 401 ").unwrap();
        assert!(response.contains(&format!("\n{expected}")), "{response}");
    }
    // The token is not the cause of another refusal.
    let ended = directory.call(&["explain", "--token", &expired, "GET", "/nothing"]);
    assert!(!ended.stdout.contains("rejected by"), "{ended:?}");
}

#[test]
fn explain_prints_the_rate_limits_with_their_keys() {
    let upstream = Upstream::start();
    let more = r#"
[[routes]]
path = "/counted/{*rest}"
access = "authenticated"
rate_limit = [
    { requests = 60, per = "1m", by = "client-address", burst = 5 },
    { requests = 10, per = "1h", by = "subject" },
]
"#;
    let trusting = "workers = 2\ntrusted_proxies = [\"127.0.0.1\"]";
    let config = eight_lines(upstream.address).replace("workers = 2", trusting);
    let directory = Directory::with(&(config + more));
    let token = directory.token("alice", &[]);
    let of_client = "rate limits applied:\n  60 in 60s, 5 at once, for the address 127.0.0.1\n";
    let of_subject = "  10 in 3600s, for the subject `alice` of `better-auth`\n";
    let with_token = directory.call(&["explain", "--token", &token, "GET", "/counted/x"]);
    let expected = format!("\n\n{of_client}{of_subject}");
    assert!(with_token.stdout.ends_with(&expected), "{with_token:?}");
    for stage in ["client rate limit", "subject rate limit"] {
        let passed = format!("  ok    {stage}\n");
        assert!(with_token.stdout.contains(&passed), "{with_token:?}");
    }
    // Without a valid token only the client rate limit applies.
    let without = directory.call(&["explain", "GET", "/counted/x"]);
    assert!(
        without.stdout.ends_with(&format!("\n\n{of_client}")),
        "{without:?}"
    );
    for (client, counted) in [
        ("192.0.2.7", "the address 192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "the network 2001:db8:1:2::/64"),
    ] {
        let header = format!("X-Forwarded-For: {client}");
        let ended = directory.call(&["explain", "-H", &header, "GET", "/counted/x"]);
        let expected = format!("for {counted}\n");
        assert!(ended.stdout.ends_with(&expected), "{ended:?}");
    }
    let elsewhere = directory.call(&["explain", "--token", &token, "GET", "/api/alice/tasks"]);
    assert!(!elsewhere.stdout.contains("rate limits"), "{elsewhere:?}");
}

#[test]
fn explain_prints_the_grpc_status() {
    let upstream = Upstream::start();
    let directory = Directory::with(&eight_lines(upstream.address));
    let token = directory.token("alice", &[]);
    let ask = |more: &[&str], target: &str| {
        let kind = "Content-Type: application/grpc+proto";
        let mut arguments = vec!["explain", "-H", kind, "POST", target];
        arguments.extend(more);
        directory.call(&arguments).stdout
    };
    for (output, status) in [
        (ask(&[], "/api/alice/tasks"), 16),
        (ask(&["--token", &token], "/api/bob/tasks"), 7),
        (ask(&[], "/nothing"), 12),
    ] {
        let response = format!("\n\nresponse `grpc-status` {status}: ");
        assert!(output.contains(&response), "{output}");
    }
}

#[test]
fn explain_prints_cors_headers() {
    let upstream = Upstream::start();
    let cors = "\n[cors]\norigins = [\"https://app.example\"]\n";
    let directory = Directory::with(&(eight_lines(upstream.address) + cors));
    let explain = |origin: &str, method: &str, more: &[&str]| {
        let origin = format!("Origin: {origin}");
        let mut arguments = vec!["explain", method, "/api/bob/tasks", "-H", &origin];
        arguments.extend(more);
        directory.call(&arguments)
    };
    let preflight = ["-H", "Access-Control-Request-Method: PUT"];
    let ended = explain("https://app.example", "OPTIONS", &preflight);
    assert_eq!(ended.code, Some(0));
    assert_eq!(
        ended.stdout,
        "OPTIONS /api/bob/tasks\n  \
           ok    request head\n  \
           ok    canonical path\n  \
           ok    route               `/api/{user_id}/tasks/{*rest}`, for the owner `{user_id}`\n  \
           -     client rate limit   not part of a preflight\n  \
           -     token               not part of a preflight\n  \
           -     verification        not part of a preflight\n  \
           -     subject rate limit  not part of a preflight\n  \
           -     authorization       not part of a preflight\n\
         \n\
         response 204 (preflight allowed):\n  \
           access-control-allow-origin: https://app.example\n  \
           access-control-allow-methods: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\n  \
           access-control-allow-headers: authorization, content-type\n  \
           access-control-max-age: 600\n  \
           vary: origin, access-control-request-method, access-control-request-headers\n"
    );
    let ended = explain("https://evil.example", "OPTIONS", &preflight);
    assert_eq!(ended.code, Some(1));
    let output = ended.stdout.as_str();
    assert!(
        output.contains("FAIL  route               preflight_origin\n"),
        "{output}"
    );
    assert!(!output.contains("access-control-allow"), "{output}");

    let ended = explain("https://app.example", "GET", &[]);
    let output = ended.stdout.as_str();
    assert!(
        output.contains("FAIL  token               token_missing\n"),
        "{output}"
    );
    assert!(
        output.contains("  access-control-allow-origin: https://app.example\n"),
        "{output}"
    );
    let ended = explain("https://evil.example", "GET", &[]);
    assert!(
        ended
            .stdout
            .ends_with("CORS headers of the response:\n  vary: origin\n"),
        "{ended:?}"
    );
    assert!(upstream.has_received_nothing());
}

#[test]
fn explain_names_the_unmet_requirement() {
    let upstream = Upstream::start();
    let directory = Directory::with(&(eight_lines(upstream.address) + MORE));
    let mint = |claims: &[&str]| {
        let claims: Vec<&str> = claims.iter().flat_map(|claim| ["--claim", claim]).collect();
        directory.token("alice", &claims)
    };
    let route = "`/admin/{user_id}`, for the owner `{user_id}`, exempt if `role` has any of `admin`, `support`, requires \
                 `plan` equals `pro`, requires `scope` has `tasks`, from `better-auth`";
    for (claims, target, expected) in [
        (
            &["plan=secret-plan", "scope=tasks"][..],
            "/admin/alice",
            "  FAIL  authorization       claim_denied\n                            not met: `plan` equals `pro`\n",
        ),
        (
            &["plan=pro", "scope=secret-plan"],
            "/admin/alice",
            "  FAIL  authorization       claim_denied\n                            not met: `scope` has `tasks`\n",
        ),
        (
            &["role=secret-plan"],
            "/admin/bob",
            "  FAIL  authorization       subject_mismatch\n\n",
        ),
        (
            &["plan=secret-plan"],
            "/partners",
            "  FAIL  authorization       token_issuer\n                            the route does not accept the issuer \
             `better-auth`\n",
        ),
    ] {
        let token = mint(claims);
        let ended = directory.call(&["explain", "--token", &token, "GET", target]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stdout.contains(expected), "{}", ended.stdout);
        assert!(!ended.stdout.contains("secret-plan"), "{}", ended.stdout);
        if target.starts_with("/admin/") {
            assert!(ended.stdout.contains(route), "{}", ended.stdout);
        }
    }
    let token = mint(&["plan=pro", "scope=tasks", "role=support"]);
    let ended = directory.call(&["explain", "--token", &token, "GET", "/admin/bob"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("  ok    authorization\n"),
        "{}",
        ended.stdout
    );
    assert!(upstream.has_received_nothing());
}

#[test]
fn explain_names_the_token_source_and_hides_the_token() {
    let upstream = Upstream::start();
    let config = eight_lines(upstream.address) + MORE;
    let directory = Directory::with(&config);
    let token = directory.token("alice", &[]);
    let in_the_query = format!("/any/alice?a=1&access_token={token}");
    let in_a_cookie = format!("Cookie: a=1; session={token}");
    let forwarding = config.replace("[identity]", "[identity]\ncredential = \"forward\"");
    let forwarding = Directory::with(&forwarding);
    for directory in [directory, forwarding] {
        let ended = directory.call(&["explain", "GET", &in_the_query]);
        let ok = "ok    token               in the query parameter `access_token`";
        for text in [
            "GET /any/alice?a=1\n",
            ok,
            "\n  GET /any/alice?a=1 HTTP/1.1\n",
        ] {
            assert!(ended.stdout.contains(text), "`{text}`: {ended:?}");
        }
        let ended = directory.call(&["explain", "GET", "/any/alice", "-H", &in_a_cookie]);
        let ok = "ok    token               in the cookie `session`";
        assert!(ended.stdout.contains(ok), "{ended:?}");
    }
    assert!(upstream.has_received_nothing());
}

/// Eight lines of configuration with the keys of this issuer.
fn with_remote_keys(url: &str) -> String {
    eight_lines("127.0.0.1:9".parse().unwrap()).replace(
        "secret_env = \"BETTER_AUTH_SECRET\"",
        &format!("jwks_url = \"{url}\""),
    )
}

/// Token without a time in the past, for the clock of the system.
fn token_of_alice(key: &Key) -> String {
    key.sign(&json!({ "sub": "alice", "exp": 4_000_000_000_i64 }))
}

#[test]
fn explain_fetches_the_keys_of_the_issuer() {
    let issuer = Issuer::publishing(JwksResponse::Keys(vec![Key::ed25519("one")]));
    let directory = Directory::with(&with_remote_keys(&issuer.url()));
    let explain = |kid: &str, path: &str| {
        let token = token_of_alice(&Key::ed25519(kid));
        directory.call(&["explain", "--token", &token, "GET", path])
    };
    let ended = explain("one", "/api/alice/tasks");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let verified = "ok    verification        subject `alice`, issuer `better-auth`\n";
    assert!(ended.stdout.contains(verified), "{ended:?}");
    let ended = explain("two", "/api/alice/tasks");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let unknown = "no key \"two\" in the key set; available: one for EdDSA";
    assert!(ended.stdout.contains(unknown), "{ended:?}");
    assert_eq!(issuer.fetches(), 2);
    // A request that needs no keys causes no fetch.
    explain("one", "/elsewhere");
    assert_eq!(issuer.fetches(), 2);
}

#[test]
fn explain_names_the_cause_of_missing_keys() {
    let issuer = Issuer::publishing(JwksResponse::with_status("404 Not Found", ""));
    let token = token_of_alice(&Key::ed25519("one"));
    for (url, flag, cause) in [
        (
            "http://127.0.0.1:9/jwks",
            None,
            "\nissuer `better-auth`: failed to fetch keys from http://127.0.0.1:9/jwks: connect: Connection refused",
        ),
        (&*issuer.url(), None, ": status: 404 Not Found\n"),
        (
            "http://127.0.0.1:9/jwks",
            Some("--offline"),
            "\nissuer `better-auth`: no keys from http://127.0.0.1:9/jwks, because of `--offline`\n",
        ),
    ] {
        let directory = Directory::with(&with_remote_keys(url));
        let mut arguments = vec!["explain", "--token", &token, "GET", "/api/alice/tasks"];
        arguments.extend(flag);
        let ended = directory.call(&arguments);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        for text in [
            "FAIL  verification        keys_unavailable",
            "response 503 Service Unavailable: ",
            cause,
        ] {
            assert!(ended.stdout.contains(text), "`{text}`: {ended:?}");
        }
    }
    assert_eq!(issuer.fetches(), 1);
}

#[test]
fn explain_names_the_location_of_a_redirect_and_the_url_of_a_key_set() {
    let redirect = "HTTP/1.1 301 Moved Permanently\r\nLocation: https://a.example/jwks\r\nContent-Length: 0\r\n\r\n";
    let keys = Issuer::publishing(JwksResponse::Raw(redirect.as_bytes().to_vec()));
    // Provider metadata that names this key set.
    let provider = Issuer::start();
    let host = provider.url().replace("/jwks.json", "");
    let document = json!({ "issuer": host, "jwks_uri": keys.url() });
    provider.publish(JwksResponse::with_status("200 OK", &document.to_string()));
    let discovery = with_remote_keys(&format!("{host}/.well-known/openid-configuration"))
        .replace("jwks_url", "discovery");
    let claims = json!({ "sub": "alice", "iss": host, "exp": 4_000_000_000_i64 });
    let token = Key::ed25519("one").sign(&claims);
    let cause = "status: 301 Moved Permanently: redirects are not followed; configure the URL `https://a.example/jwks`\n";
    for (config, cause) in [
        (with_remote_keys(&keys.url()), format!(": {cause}")),
        (discovery, format!(": key set {}: {cause}", keys.url())),
    ] {
        let directory = Directory::with(&config);
        let ended = directory.call(&["explain", "--token", &token, "GET", "/api/alice/tasks"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stdout.contains(&cause), "`{cause}`: {ended:?}");
    }
}

#[test]
fn token_inspect_names_the_key_of_the_issuer() {
    let keys = vec![Key::rsa("one"), Key::ed25519("two").without_kid()];
    let issuer = Issuer::publishing(JwksResponse::Keys(keys));
    let directory = Directory::with(&with_remote_keys(&issuer.url()));
    let from = format!("from {}\n", issuer.url());
    for (key, code, text) in [
        (
            Key::rsa("one"),
            0,
            format!("\nkey: `one` (RS256, RSA) {from}"),
        ),
        // The `kid` of this token is of no key.
        (
            Key::ed25519("invented"),
            0,
            format!("\nkey: (EdDSA, OKP Ed25519) {from}"),
        ),
        (
            Key::ed25519_of("ed25519-second", "invented"),
            1,
            "(token_signature): the signature does not match the key: ".to_owned(),
        ),
    ] {
        let ended = directory.call(&["token", "inspect", &token_of_alice(&key)]);
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(ended.stdout.contains(&text), "`{text}`: {ended:?}");
    }
    let before = issuer.fetches();
    let token = token_of_alice(&Key::rsa("one"));
    let ended = directory.call(&["token", "inspect", "--offline", &token]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let cause = format!(
        "  issuer `better-auth`: no keys from {}, because of `--offline`\n",
        issuer.url()
    );
    assert!(ended.stdout.contains(&cause), "{ended:?}");
    assert_eq!(issuer.fetches(), before);
    issuer.publish(JwksResponse::with_status("200 OK", "<html>"));
    let ended = directory.call(&["token", "inspect", &token]);
    let cause = ": body: not a JSON Web Key Set: ";
    assert!(ended.stdout.contains(cause), "{ended:?}");
    let secret = Directory::with(&eight_lines("127.0.0.1:9".parse().unwrap()));
    let token = secret.token("alice", &[]);
    let ended = secret.call(&["token", "inspect", &token]);
    let key = "\nkey: (HS256, oct) from the environment variable `BETTER_AUTH_SECRET`\n";
    assert!(ended.stdout.contains(key), "{ended:?}");
}

#[test]
fn explain_rejects_an_invalid_request() {
    let upstream = Upstream::start();
    let directory = Directory::with(&eight_lines(upstream.address));
    for (arguments, text) in [
        (
            &["GET", "not a target"][..],
            "failed to parse the target `not a target`: ",
        ),
        (
            &["GET", "/", "-H", "no colon"],
            "failed to parse the header `no colon`: write `Name: value`",
        ),
        (
            &["GET", "/", "--token", "a\nb"],
            "failed to send the token: it has characters that are invalid in a header",
        ),
    ] {
        let ended = directory.call(&[&["explain"], arguments].concat());
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.starts_with(text), "{ended:?}");
    }
}

/// Requests with their expected status; 200 is the response of the upstream.
fn requests(directory: &Directory) -> Vec<(Request, u16)> {
    let token = directory.token("alice", &["--claim", "email=alice@example.com"]);
    let expired = directory.token("alice", &["--lifetime=-1h"]);
    let pro = ["--claim", "plan=pro", "--claim", "scope=openid tasks"];
    let pro_token = directory.token("alice", &pro);
    let support = directory.token("alice", &[&pro[..], &["--claim", "role=support"]].concat());
    let stranger = directory
        .claimgate_with(
            &["token", "mint", "--subject", "alice"],
            &[("BETTER_AUTH_SECRET", OTHER_SECRET)],
        )
        .wait();
    let stranger = super::program::keep_secret(stranger.stdout.trim());
    let (unsigned, _) = token.rsplit_once('.').unwrap();
    let get = |target: &str| Request::new("GET", target);
    let mine = || get("/api/alice/tasks").bearer(&token);
    vec![
        (mine(), 200),
        (get("/api/alice/tasks/").bearer(&token), 200),
        (
            get("/api/alice/tasks/7?done=%20&x=/api/bob").bearer(&token),
            200,
        ),
        (Request::new("HEAD", "/api/alice/tasks").bearer(&token), 200),
        (
            get("/outer/alice/7?x=/outer")
                .bearer(&token)
                .header("X-Tenant", "evil")
                .header("X-Debug", "1"),
            200,
        ),
        (
            Request::new("POST", "/api/alice/tasks")
                .bearer(&token)
                .header("Content-Length", "0"),
            200,
        ),
        (
            get("/api/alice/tasks").header("Authorization", format!("bearer {token}")),
            200,
        ),
        (
            mine()
                .header("X-User-Id", "bob")
                .header("X_User_Id", "bob")
                .header("x.user.id", "bob")
                .header("X-User-Email", "bob@example.com")
                .header("X-Forwarded-For", "10.0.0.1")
                .header("Forwarded", "for=10.0.0.1")
                .header("Cookie", "session=1; theme=dark"),
            200,
        ),
        (
            mine()
                .header("Connection", "close, X-Extra")
                .header("X-Extra", "1"),
            200,
        ),
        (get("http://localhost/api/alice/tasks").bearer(&token), 200),
        (get("/health"), 200),
        (get("/health").bearer(&expired), 200),
        (get("/me").bearer(&token), 200),
        (get("/hidden/alice").bearer(&token), 200),
        (get("/admin/alice").bearer(&pro_token), 200),
        (get("/admin/bob").bearer(&support), 200),
        (get("/admin/bob").bearer(&pro_token), 403),
        (get("/admin/alice").bearer(&token), 403),
        (get("/partners").bearer(&token), 401),
        (get("/any/alice").bearer(&token), 200),
        (get("/any/alice").header("X-Token", token.as_str()), 200),
        (
            get("/any/alice").header("Cookie", format!("a=1; session={token}; b=2")),
            200,
        ),
        (
            get(&format!("/any/alice?a=%20&access_token={token}&b")),
            200,
        ),
        (
            get(&format!("http://localhost/any/alice?access_token={token}")),
            200,
        ),
        (
            Request::new("DELETE", "/any/alice").header("Cookie", format!("session={token}")),
            403,
        ),
        (
            get(&format!("/any/alice?access_token={token}&access_token=")),
            400,
        ),
        (get(&format!("/any/bob?access_token={token}")), 403),
        (get("/api/bob/tasks").bearer(&token), 403),
        (get("/api/ALICE/tasks").bearer(&token), 403),
        (get("/hidden/bob").bearer(&token), 404),
        (get("/old/bob").bearer(&token), 401),
        (get("/api/alice/tasks"), 401),
        (get("/api/alice/tasks").bearer(&expired), 401),
        (get("/api/alice/tasks").bearer(&stranger), 401),
        (get("/api/alice/tasks").bearer(unsigned), 401),
        (get("/api/alice/tasks").bearer("a.b"), 401),
        (
            get("/api/alice/tasks").header("Authorization", "Basic YTpi"),
            401,
        ),
        (mine().bearer(&token), 400),
        (get("/nothing").bearer(&token), 404),
        (get("/"), 404),
        (Request::new("DELETE", "/me").bearer(&token), 405),
        (Request::new("BREW", "/me").bearer(&token), 405),
        (Request::new("TRACE", "/me").bearer(&token), 405),
        (get("/api/alice/../bob/tasks").bearer(&token), 400),
        (get("/api/%61lice/tasks").bearer(&token), 400),
        (get("/api/%2561lice/tasks").bearer(&token), 400),
        (get("/api/alice%2Ftasks").bearer(&token), 400),
        (get("//api/alice/tasks").bearer(&token), 400),
        (get("/api/alice;x=1/tasks").bearer(&token), 400),
        (get("http://elsewhere/api/alice/tasks").bearer(&token), 400),
        (Request::new("OPTIONS", "*").bearer(&token), 405),
        (mine().header("Connection", "close, X-User-Id"), 400),
        (mine().header("Host", "a").header("Host", "b"), 400),
        (mine().header("Host", "user@localhost"), 400),
    ]
    .into_iter()
    // A fixed request ID, because the gate generates a different one for each request.
    .map(|(request, status)| {
        (
            request.header("X-Request-Id", "request-id-of-the-tests"),
            status,
        )
    })
    .collect()
}

/// Header fields with a name that an upstream could read as `X-User-Id`.
fn users(fields: &[String]) -> Vec<&str> {
    let folds = |field: &&str| {
        let (name, _) = field.split_once(": ").unwrap();
        name.replace(|c: char| !c.is_ascii_alphanumeric(), "-") == "x-user-id"
    };
    fields.iter().map(String::as_str).filter(folds).collect()
}

fn explained(directory: &Directory, request: &Request) -> Outcome {
    let headers: Vec<String> = request
        .headers
        .iter()
        .map(|(name, value)| format!("-H{name}: {value}"))
        .collect();
    let mut arguments = vec!["explain"];
    arguments.extend(headers.iter().map(String::as_str));
    arguments.extend([request.method, &request.target]);
    let Ended {
        code,
        stdout,
        stderr,
    } = directory.call(&arguments);
    let after = |text: &str| stdout.split_once(text).map(|(_, rest)| rest);
    let is_forwarded = after("\nforwarded to `tasks` at ").is_some();
    let expected = if is_forwarded { Some(0) } else { Some(1) };
    assert_eq!(code, expected, "{request:?}: {stderr}");
    if let Some(rest) = after("\nforwarded to `tasks` at ") {
        let (_, head) = rest.split_once(":\n\n").unwrap();
        let (line, fields) = fields(head);
        return Outcome::Forwarded(line, fields);
    }
    let (status, detail) = after("\nresponse ").unwrap().split_once(": ").unwrap();
    let (status, _) = status.split_once(' ').unwrap();
    let failed = stdout.lines().find(|line| line.starts_with("  FAIL  "));
    let reason = failed.unwrap().split(' ').next_back().unwrap();
    // `explain` names the reason that a 404 hides from the client.
    let hidden = (status == "404" && reason == "subject_mismatch").then_some("no_route");
    Outcome::Rejected {
        status: status.parse().unwrap(),
        reason: hidden.unwrap_or(reason).to_owned(),
        detail: detail.lines().next().unwrap().to_owned(),
    }
}

fn served(gate: &Gate, upstream: &Upstream, request: &Request) -> Outcome {
    let response = request.response(gate.address);
    if response.status == 200 {
        let (line, fields) = fields(&upstream.next_head());
        // `explain` does not print a token that the upstream receives.
        let shown = |field: String| match field.strip_prefix("authorization: ") {
            Some(_) => "authorization: (as received)".to_owned(),
            None => field,
        };
        let fields = fields.into_iter().map(shown).collect();
        return Outcome::Forwarded(line, fields);
    }
    assert!(upstream.has_received_nothing(), "{request:?}: {response:?}");
    let body = response.json();
    let text = |member: &str| body[member].as_str().unwrap().to_owned();
    Outcome::Rejected {
        status: response.status,
        reason: text("reason"),
        detail: text("detail"),
    }
}

#[test]
fn explain_prints_the_metadata_of_the_resource() {
    let upstream = Upstream::start();
    let resource = r#"
[resource]
url = "https://api.example/tasks"
authorization_servers = ["https://login.example"]

[issuers.oauth]
keys = { secret_env = "BETTER_AUTH_SECRET" }
issuer = "https://login.example"

[[routes]]
path = "/tasks"
access = "authenticated"
"#;
    let directory = Directory::with(&(eight_lines(upstream.address) + resource));
    let target = "/.well-known/oauth-protected-resource/tasks";
    let ended = directory.call(&["explain", "GET", target]);
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    assert_eq!(
        ended.stdout,
        "GET /.well-known/oauth-protected-resource/tasks\n  \
           ok    request head\n  \
           ok    canonical path\n  \
           ok    route               the metadata of [resource]\n  \
           -     client rate limit   the metadata is public\n  \
           -     token               the metadata is public\n  \
           -     verification        the metadata is public\n  \
           -     subject rate limit  the metadata is public\n  \
           -     authorization       the metadata is public\n\
         \n\
         response 200 OK, by the gate itself:\n  \
           content-type: application/json\n  \
           content-length: 289\n  \
           cache-control: public, max-age=300\n  \
           access-control-allow-origin: *\n\
         \n\
         {\"authorization_servers\":[\"https://login.example\"],\"bearer_methods_supported\":[\"header\"],\"dpop_bound_access_tokens_required\":false,\"dpop_signing_alg_values_supported\":[\"RS256\",\"RS384\",\"RS512\",\"PS256\",\"PS384\",\"PS512\",\"ES256\",\"ES384\",\"ES512\",\"EdDSA\"],\
         \"resource\":\"https://api.example/tasks\"}\n"
    );
    let ended = directory.call(&["explain", "--output", "json", "GET", target]);
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["result"]["decision"], "metadata");
    assert_eq!(report["result"]["response"]["status"], 200);
    let ended = directory.call(&["explain", "GET", "/tasks"]);
    let output = ended.stdout.as_str();
    let route = "`/tasks`, authenticated, from `oauth`, of the protected resource\n";
    assert!(output.contains(route), "{output}");
}
