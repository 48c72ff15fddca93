//! `init`, and `check --openapi`.

use std::fs;

use serde_json::{Value, json};

use super::commands::serve;
use super::program::Ended;
use super::{Directory, SECRET};

/// Document of an API with every kind of access.
const DOCUMENT: &str = r#"openapi: 3.1.0
info: {title: "Notes", version: "1"}
paths:
  /health:
    get: {}
  /api/{user_id}/notes:
    get: {}
    post: {}
  /api/{user_id}/notes/{id}:
    delete: {}
  /prices:
    get: {security: []}
  /files/{a}-{b}:
    get: {}
"#;

/// Directory without a configuration.
fn empty() -> Directory {
    let directory = Directory::with("");
    fs::remove_file(directory.path("config.toml")).unwrap();
    directory
}

fn read(directory: &Directory) -> String {
    fs::read_to_string(directory.path("claimgate.toml")).unwrap()
}

/// Asserts that `check` accepts the written file, without a warning.
fn assert_valid(directory: &Directory, more: &[&str]) {
    let check = [&["check", "--config", "claimgate.toml"], more].concat();
    let ended = directory.call(&check);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stderr, "", "{}", read(directory));
}

/// Runs a command without the secret in its environment.
fn call_without_secret(directory: &Directory, arguments: &[&str], more: &[(&str, &str)]) -> Ended {
    directory.claimgate_with(arguments, more).wait()
}

#[test]
fn init_writes_a_small_configuration_that_starts() {
    for flags in [
        &["--better-auth", "http://127.0.0.1:3000"][..],
        &[
            "--better-auth",
            "https://app.example",
            "--upstream",
            "http://127.0.0.1:9000",
        ],
        &["--better-auth", "http://app.example", "--allow-http"],
        &[
            "--better-auth",
            "http://frontend:3000",
            "--better-auth-public",
            "http://localhost:3000",
            "--allow-http",
        ],
        &[
            "--secret-env",
            "BETTER_AUTH_SECRET",
            "--cors",
            "https://a.example",
            "--cors",
            "https://b.example",
        ],
        &[
            "--secret-env",
            "BETTER_AUTH_SECRET",
            "--upstream",
            "http://api.example",
            "--allow-remote",
        ],
    ] {
        let directory = empty();
        let ended = call_without_secret(&directory, &[&["init"], flags].concat(), &[]);
        assert_eq!(ended.code, Some(0), "{flags:?}: {ended:?}");
        let next = "  claimgate check
  claimgate doctor
  claimgate run
";
        assert!(
            ended
                .stdout
                .starts_with("claimgate.toml: written with 7 routes\n"),
            "{ended:?}"
        );
        assert!(ended.stdout.ends_with(next), "{ended:?}");
        assert_eq!(
            ended.stdout.contains("export BETTER_AUTH_SECRET=…"),
            flags.contains(&"--secret-env"),
            "{ended:?}"
        );
        let text = read(&directory);
        assert!(text.lines().count() <= 60, "{text}");
        for value in flags.iter().filter(|flag| flag.contains("://")) {
            assert!(text.contains(&format!("\"{value}\"")), "{value}: {text}");
        }
        assert_valid(&directory, &[]);
    }
}

#[test]
fn init_takes_the_keys_from_the_environment() {
    let url = ("BETTER_AUTH_URL", "https://app.example");
    let secret = ("BETTER_AUTH_SECRET", SECRET);
    for (environment, expected) in [
        (&[url][..], "better_auth = \"https://app.example\""),
        (&[secret], "secret_env = \"BETTER_AUTH_SECRET\""),
        (&[url, secret], "better_auth = "),
        (
            &[url, ("BETTER_AUTH_PUBLIC_URL", "https://www.app.example")],
            "{ url = \"https://app.example\", public = \"https://www.app.example\" }",
        ),
        (&[("BETTER_AUTH_URL", ""), secret], "secret_env = "),
    ] {
        let directory = empty();
        let ended = call_without_secret(&directory, &["init"], environment);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(read(&directory).contains(expected), "{}", read(&directory));
    }
    let directory = empty();
    let ended = call_without_secret(&directory, &["init"], &[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for flag in ["`--better-auth URL`", "`--secret-env BETTER_AUTH_SECRET`"] {
        assert!(ended.stderr.contains(flag), "{ended:?}");
    }
    assert!(!directory.path("claimgate.toml").exists());
}

#[test]
fn init_never_overwrites_a_file() {
    let directory = empty();
    fs::write(directory.path("claimgate.toml"), "mine").unwrap();
    let ended = directory.call(&["init"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(
        ended.stderr,
        "failed to write claimgate.toml: it exists already; name another with `--file FILE`, or delete it first\n"
    );
    assert_eq!(read(&directory), "mine");

    let ended = directory.call(&["init", "--file", "other.toml"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(directory.path("other.toml").exists());
    let ended = directory.call(&["init", "--file", "-"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(
        ended.stdout,
        fs::read_to_string(directory.path("other.toml")).unwrap()
    );
    assert_eq!(read(&directory), "mine");
}

#[test]
fn init_writes_no_file_that_would_not_start() {
    for (flags, problem) in [
        (&["--upstream", "127.0.0.1"][..], "upstreams.api.url"),
        (&["--upstream", "http://api.example"], "allow_remote"),
        (&["--cors", "https://a.example/x"], "cors.origins"),
        (&["--better-auth", "http://app.example"], "allow_http"),
        (
            &["--better-auth", "https://a\"\n[x]"],
            "issuers.better-auth.better_auth",
        ),
    ] {
        let directory = empty();
        let ended = directory.call(&[&["init"], flags].concat());
        assert_eq!(ended.code, Some(2), "{flags:?}: {ended:?}");
        assert!(ended.stderr.contains(problem), "{flags:?}: {ended:?}");
        assert!(!directory.path("claimgate.toml").exists());
    }
}

#[test]
fn init_writes_the_routes_of_a_document() {
    let directory = empty();
    fs::write(directory.path("openapi.yaml"), DOCUMENT).unwrap();
    let ended = directory.call(&["init", "--openapi", "openapi.yaml"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let left_out = "left out `/files/{a}-{b}`: ";
    assert!(ended.stderr.contains(left_out), "{ended:?}");
    let text = read(&directory);
    let (_, routes) = text.split_once("another method.\n").unwrap();
    assert!(
        routes.starts_with(
            r#"[[routes]]
path = "/health"
methods = ["GET"]
access = "public"

[[routes]]
path = "/prices"
methods = ["GET"]
access = "public"

[[routes]]
path = "/api/{user_id}/notes"
methods = ["GET", "POST"]
access = { owner = "user_id" }

[[routes]]
path = "/api/{user_id}/notes/{id}"
methods = ["DELETE"]
access = { owner = "user_id" }

# Left out, so that it is 404: `/files/{a}-{b}` has two parameters in one segment"#
        ),
        "{text}"
    );
    assert_valid(&directory, &[]);
}

#[test]
fn check_names_the_operations_that_the_routes_leave_open() {
    let directory = empty();
    let document = DOCUMENT.replace("  /files/{a}-{b}:\n    get: {}\n", "");
    fs::write(directory.path("openapi.yaml"), document).unwrap();
    let ended = directory.call(&["init", "--openapi", "openapi.yaml"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let strict = ["--openapi", "openapi.yaml", "--strict"];
    assert_valid(&directory, &strict);

    let text = read(&directory);
    let changed = text
        .replacen(
            "access = { owner = \"user_id\" }",
            "access = \"authenticated\"",
            1,
        )
        .replace("methods = [\"DELETE\"]", "methods = [\"PUT\"]");
    fs::write(directory.path("claimgate.toml"), changed).unwrap();
    let check = [
        "check",
        "--config",
        "claimgate.toml",
        "--openapi",
        "openapi.yaml",
    ];
    let ended = directory.call(&check);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stderr.ends_with(
            "warning: GET, POST /api/{user_id}/notes has the user `{user_id}` in its path, but the route \
             `/api/{user_id}/notes` serves every user with a valid token; in the route `/api/{user_id}/notes`, write:\n  \
             access = { owner = \"user_id\" }\n\
             warning: DELETE /api/{user_id}/notes/{id} is in no route: its path has only other methods, so every \
             request is 405; add:\n  [[routes]]\n  path = \"/api/{user_id}/notes/{id}\"\n  methods = [\"DELETE\"]\n  \
             access = { owner = \"user_id\" }\n\
             note: the route `/api/{user_id}/notes/{id}` serves no operation of the document\n"
        ),
        "{}",
        ended.stderr
    );
    assert!(
        ended
            .stdout
            .ends_with("openapi.yaml: 5 operations, 2 findings\n"),
        "{ended:?}"
    );

    let ended = directory.call(&[&check[..], &["--strict", "--output", "json"]].concat());
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["valid"], true);
    let audit = &report["openapi"];
    assert_eq!(audit["operations"], 5);
    assert_eq!(audit["unused_routes"], json!(["/api/{user_id}/notes/{id}"]));
    assert_eq!(audit["findings"][0]["kind"], "no-owner");
    assert_eq!(audit["findings"][0]["methods"], json!(["GET", "POST"]));
    assert_eq!(audit["findings"][0]["path"], "/api/{user_id}/notes");
    assert_eq!(
        audit["findings"][0]["lines"],
        "access = { owner = \"user_id\" }\n"
    );
    assert_eq!(audit["findings"][1]["kind"], "no-route");
    let ended = directory.call(&[&check[..], &["--strict"]].concat());
    assert_eq!(ended.code, Some(2), "{ended:?}");
}

#[test]
fn names_the_fault_of_a_document_that_cannot_be_read() {
    let read = |source: &str, more: &[&str]| {
        let directory = empty();
        fs::write(directory.path("page.html"), "<html></html>").unwrap();
        let init = [&["init", "--openapi", source], more].concat();
        let ended = directory.call(&init);
        assert!(!directory.path("claimgate.toml").exists(), "{ended:?}");
        assert_eq!(ended.code, Some(1), "{ended:?}");
        ended.stderr
    };
    let missing = serve("404 Not Found", "");
    let moved = serve("307 Temporary Redirect\r\nLocation: /v1/openapi.json", "");
    for (source, fault) in [
        ("missing.json", "missing.json: No such file"),
        ("page.html", "page.html: it is not an OpenAPI document"),
        (
            &format!("http://{missing}/openapi.json"),
            "the response is 404 Not Found",
        ),
        (
            &format!("http://{moved}/openapi.json"),
            "to /v1/openapi.json; use that URL",
        ),
        (
            "http://api.example/openapi.json",
            "use `https://`, or `--allow-http`",
        ),
        (
            "http://a:b@127.0.0.1/openapi.json",
            "no user name or password",
        ),
        ("http://127.0.0.1:1/openapi.json", "connect: "),
    ] {
        let error = read(source, &[]);
        assert!(
            error.starts_with("failed to read the OpenAPI document "),
            "{error}"
        );
        assert!(error.contains(fault), "{source}: {error}");
    }
    // The name does not resolve, but the client tried.
    let error = read("http://api.invalid/openapi.json", &["--allow-http"]);
    assert!(error.contains("DNS: api.invalid"), "{error}");
}

#[test]
fn reads_a_document_larger_than_a_key_set() {
    let padding = "x".repeat(1024 * 1024);
    let document = json!({"openapi": "3.0.3", "info": {"description": padding}, "paths": {"/health": {"get": {}}}});
    let body: &'static str = document.to_string().leak();
    let api = serve("200 OK", body);
    let directory = empty();
    let ended = directory.call(&["init", "--openapi", &format!("http://{api}/openapi.json")]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let text = read(&directory);
    assert!(text.contains(&format!("url = \"http://{api}\"")), "{text}");
}

#[test]
fn strict_needs_a_document() {
    let ended = Directory::with("").call(&["check", "--strict"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("--openapi"), "{ended:?}");
}
