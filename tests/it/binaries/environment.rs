//! A gate without a configuration file.

use std::fs;

use super::upstream::{Request, Upstream};
use super::{Directory, EIGHT_LINES, Gate, SECRET};

impl Directory {
    fn empty() -> Self {
        let directory = Self::with("");
        fs::remove_file(directory.path("config.toml")).unwrap();
        directory
    }
}

#[test]
fn serves_from_the_environment_alone() {
    let upstream = Upstream::start();
    let directory = Directory::empty();
    let url = format!("http://{}", upstream.address);
    let variables = [
        ("UPSTREAM", url.as_str()),
        ("BETTER_AUTH_SECRET", SECRET),
        ("FRONTEND_URL", "http://localhost:3000"),
        ("PORT", "0"),
        ("ADMIN_ADDRESS", "127.0.0.1:0"),
    ];
    let call = |arguments: &[&str]| directory.claimgate_with(arguments, &variables).wait();
    let minted = call(&["token", "mint", "--subject", "alice"]);
    assert_eq!(minted.code, Some(0), "{minted:?}");
    let token = super::program::keep_secret(minted.stdout.trim());

    let mut gate = Gate::of(directory.claimgate_with(&["run"], &variables));
    let status = |path: &str, token: Option<&str>| {
        let mut request = Request::new("GET", path);
        if let Some(token) = token {
            request = request.bearer(token);
        }
        request.response(gate.address).status
    };
    assert_eq!(status("/api/alice/tasks", Some(&token)), 200);
    assert_eq!(status("/api/bob/tasks", Some(&token)), 403);
    assert_eq!(status("/api/alice/tasks", None), 401);
    assert_eq!(status("/health", None), 200);
    assert_eq!(status("/api/auth/session", None), 200);
    assert_eq!(status("/other", Some(&token)), 404);
    let sign_in = "/api/auth/sign-in/email";
    let limited = (0..40).any(|_| status(sign_in, None) == 429);
    assert!(limited, "sign-in is not rate limited");

    gate.program.signal("HUP");
    gate.program
        .wait_for_line("no reload: the environment of a process does not change");
    let ended = gate.stop();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn lists_every_missing_variable_in_one_message() {
    let ended = Directory::empty().claimgate_with(&["run"], &[]).wait();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    for expected in [
        "UPSTREAM",
        "BETTER_AUTH_URL",
        "BETTER_AUTH_SECRET",
        "claimgate init",
        "--config FILE",
    ] {
        assert!(ended.stderr.contains(expected), "{expected}: {ended:?}");
    }
}

#[test]
fn prints_the_environment_into_a_file_that_the_shell_creates() {
    let directory = Directory::empty();
    let command = format!(
        "{} config > claimgate.toml",
        env!("CARGO_BIN_EXE_claimgate")
    );
    let ended = std::process::Command::new("sh")
        .args(["-c", &command])
        .env_clear()
        .env("UPSTREAM", "http://127.0.0.1:8000")
        .env("BETTER_AUTH_URL", "https://app.example")
        .current_dir(directory.path("."))
        .output()
        .unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let ended = directory.call(&["check"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.starts_with("claimgate.toml: valid: 7 routes"),
        "{ended:?}"
    );
}

#[test]
fn finds_either_file_and_refuses_to_choose_between_both() {
    let directory = Directory::empty();
    fs::write(directory.path("claimgate.toml"), EIGHT_LINES).unwrap();
    let ended = directory.call(&["check"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.starts_with("claimgate.toml: valid"),
        "{ended:?}"
    );

    fs::write(directory.path("config.toml"), EIGHT_LINES).unwrap();
    let ended = directory.call(&["check"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended.stderr.starts_with(
            "claimgate.toml: config.toml exists as well; name one of them with `--config FILE`"
        ),
        "{ended:?}"
    );
}
