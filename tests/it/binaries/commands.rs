//! Commands that exit by themselves: output and exit codes.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::thread;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use super::program::Program;
use super::upstream::{Request, Upstream};
use super::{Directory, EIGHT_LINES, OTHER_SECRET, SECRET, eight_lines};

#[test]
fn names_a_missing_secret_and_starts_nothing() {
    let directory = Directory::with(EIGHT_LINES);
    for arguments in [&["run"][..], &["check"], &["explain", "GET", "/"]] {
        let ended = directory.claimgate_with(arguments, &[]).wait();
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
        assert_eq!(ended.stdout, "", "{arguments:?}");
        assert_eq!(
            ended.stderr,
            "config.toml:5: issuers.better-auth.keys.secret_env: the environment variable BETTER_AUTH_SECRET is not \
             set; set it in the environment that starts the gate\n1 problem: nothing was started\n",
            "{arguments:?}"
        );
    }
}

#[test]
fn no_command_panics_if_its_output_is_closed() {
    let directory = Directory::with(EIGHT_LINES);
    let token = directory.token("alice", &[]);
    let commands: [&[&str]; 14] = [
        &["--help"],
        &["--version"],
        &["run", "--help"],
        &["completions", "bash"],
        &["completions", "zsh"],
        &["completions", "fish"],
        &["init", "--file", "-"],
        &["check"],
        &["explain", "GET", "/api/alice/tasks"],
        &["explain", "--token", &token, "GET", "/api/alice/tasks"],
        &["token", "mint", "--subject", "alice"],
        &["token", "inspect", &token],
        &["doctor", "--token", &token],
        &["token", "inspect", "-"],
    ];
    for arguments in commands {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = Program::start_with(
            env!("CARGO_BIN_EXE_claimgate"),
            arguments,
            &[("BETTER_AUTH_SECRET", SECRET)],
            directory.0.path(),
            [Stdio::null(), writer.into()],
        )
        .wait();
        assert!(
            matches!(ended.code, Some(0 | 1)),
            "{arguments:?}: {ended:?}"
        );
        assert!(
            !ended.stderr.contains("panicked"),
            "{arguments:?}: {ended:?}"
        );
    }
}

#[test]
fn works_in_a_deleted_directory_and_without_an_environment() {
    let directory = Directory::with(EIGHT_LINES);
    let config = directory.path("config.toml");
    let script = format!(
        "mkdir gone && cd gone && rmdir ../gone && exec env -i BETTER_AUTH_SECRET='{SECRET}' {} \"$@\" <&-",
        env!("CARGO_BIN_EXE_claimgate")
    );
    let config = config.to_str().unwrap();
    for arguments in [
        &["check", "--config", config][..],
        &["explain", "--config", config, "GET", "/"],
        &["token", "inspect", "--config", config, "-"],
        &["completions", "bash"],
        &["check"],
        &["drain", "--admin", "127.0.0.1:1"],
    ] {
        let shell = ["-c", script.as_str(), "sh"];
        let ended = Program::start(
            "sh",
            &[&shell[..], arguments].concat(),
            &[],
            directory.0.path(),
        );
        let ended = ended.wait();
        assert!(ended.code.is_some(), "{arguments:?}: {ended:?}");
        assert_ne!(ended.code, Some(101), "{arguments:?}: {ended:?}");
        assert!(
            !ended.stderr.contains("panicked"),
            "{arguments:?}: {ended:?}"
        );
    }
}

#[test]
fn runs_without_a_command() {
    let upstream = Upstream::start();
    let directory = Directory::with(&eight_lines(upstream.address));
    for arguments in [
        &[][..],
        &["--config", "config.toml"],
        &["run"],
        &["run", "-c", "config.toml"],
    ] {
        let gate = directory.serve(arguments);
        Request::new("GET", "/api/alice/tasks")
            .response(gate.address)
            .assert_rejected(401, "token_missing");
        assert_eq!(gate.stop().code, Some(0), "{arguments:?}");
    }
}

#[test]
fn names_a_port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let config = eight_lines(taken);
    let (listen, admin) = (
        "[listen]\naddress = \"127.0.0.1:0\"",
        "[admin]\naddress = \"127.0.0.1:0\"",
    );
    for (section, setting) in [(listen, "[listen]"), (admin, "[admin]")] {
        let occupied = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = occupied.local_addr().unwrap();
        let section_with = section.replace("127.0.0.1:0", &address.to_string());
        let directory = Directory::with(&config.replace(section, &section_with));
        let ended = directory.call(&["run"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert_eq!(
            ended.stderr.lines().last(),
            Some(
                format!(
                    "failed to listen on {address}, `address` of {setting}: Address already in use (os error 98); \
                     `ss -ltnp 'sport = :{}'` shows the process that has the port: stop it, or set another address",
                    address.port()
                )
                .as_str()
            ),
            "{ended:?}"
        );
    }
}

#[test]
fn does_not_share_the_port_of_a_running_gate() {
    let upstream = Upstream::start();
    let config = eight_lines(upstream.address);
    let gate = Directory::with(&config);
    let gate = gate.serve(&["run"]);
    let second = config.replacen("127.0.0.1:0", &gate.address.to_string(), 1);
    let ended = Directory::with(&second).call(&["run"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("Address already in use"), "{ended:?}");
    assert_eq!(gate.stop().code, Some(0));
}

#[test]
fn diagnosis_prints_json_for_programs() {
    let upstream = Upstream::start();
    let directory = Directory::with(&eight_lines(upstream.address));
    let token = directory.token("alice", &[]);
    let json = |arguments: &[&str], code: i32| -> Value {
        let ended = directory.call(&[arguments, &["--output", "json"]].concat());
        assert_eq!(ended.code, Some(code), "{ended:?}");
        serde_json::from_str(&ended.stdout).unwrap()
    };

    let explained = json(&["explain", "--token", &token, "GET", "/api/bob/tasks"], 1);
    let result = &explained["result"];
    assert_eq!(result["decision"], "rejected");
    assert_eq!(result["response"]["reason"], "subject_mismatch");
    assert_eq!(result["stages"][7]["result"], "failed");
    let explained = json(
        &["explain", "--token", &token, "GET", "/api/alice/tasks"],
        0,
    );
    assert_eq!(explained["result"]["decision"], "forwarded");
    let headers = explained["result"]["forwarded"]["headers"]
        .as_array()
        .unwrap();
    assert!(
        headers.contains(&json!(["x-user-id", "alice"])),
        "{headers:?}"
    );
    assert!(!explained.to_string().contains(&token), "{explained}");

    let report = json(&["doctor", "--token", &token], 0);
    let findings = report["findings"].as_array().unwrap();
    let subjects: Vec<_> = findings.iter().map(|finding| &finding["subject"]).collect();
    assert_eq!(
        subjects,
        ["issuer `better-auth`", "upstream `tasks`", "token"]
    );
    let expired = directory.token("alice", &["--lifetime", "-1h"]);
    let report = json(&["doctor", "--token", &expired], 1);
    let token = report["findings"].as_array().unwrap().last().unwrap();
    assert_eq!(token["result"], "failed");
    assert!(
        token["fix"].as_str().is_some_and(|fix| !fix.is_empty()),
        "{token}"
    );

    let gate = directory.serve(&["run"]);
    let admin = gate.admin.to_string();
    let ended = directory.call(&["why", "--admin", &admin]);
    assert_eq!(
        (ended.code, &*ended.stderr),
        (Some(1), "no request was refused yet\n")
    );
    Request::new("GET", "/api/alice/tasks").response(gate.address);
    Request::new("GET", "/nothing").response(gate.address);
    let refusals = json(&["why", "--admin", &admin], 0);
    assert_eq!(refusals.as_array().unwrap().len(), 1);
    assert_eq!(refusals[0]["reason"], "no_route");
    assert!(refusals[0]["fix"].is_string(), "{refusals}");
    gate.stop();
}

#[test]
fn doctor_sends_the_health_check_of_an_upstream() {
    let upstream = Upstream::start();
    let healthy = eight_lines(upstream.address).replace(
        "[issuers",
        "health_check = { path = \"/health\" }\n\n[issuers",
    );
    let ended = Directory::with(&healthy).call(&["doctor"]);
    assert!(
        ended
            .stdout
            .contains("ok    upstream `tasks`: health check: 200 OK\n"),
        "{ended:?}"
    );
}

#[test]
fn schema_prints_the_committed_file() {
    let ended = Directory::with("").call(&["schema"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let committed = include_str!("../../../config.schema.json");
    assert_eq!(ended.stdout, committed);
}

#[test]
fn man_writes_a_page_for_each_command() {
    let directory = Directory::with("");
    let ended = directory.call(&["man", "--dir", "."]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for page in ["claimgate.1", "claimgate-run.1", "claimgate-token-mint.1"] {
        let text = std::fs::read_to_string(directory.path(page)).unwrap();
        assert!(text.contains(".TH"), "{page}: {text}");
    }
    let ended = directory.call(&["man"]);
    assert!(ended.stdout.contains(".TH claimgate 1"), "{ended:?}");
    let ended = directory.call(&["man", "--dir", "missing"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended
            .stderr
            .starts_with("failed to write manual pages to missing: "),
        "{ended:?}"
    );
}

#[test]
fn check_prints_json_for_programs() {
    let ended = Directory::with(EIGHT_LINES).call(&["check", "--output", "json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["valid"], true);
    assert_eq!(report["routes"], 1);
    assert_eq!(report["warnings"].as_array().unwrap().len(), 1);

    let wrong = EIGHT_LINES.replace("url = ", "uri = ");
    let ended = Directory::with(&wrong).call(&["check", "--output", "json"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let problem = json!({
        "line": 2,
        "key": "upstreams.tasks.uri",
        "message": "unknown key; did you mean `url`?",
    });
    assert_eq!(report["problems"], json!([problem]));
}

#[test]
fn prints_colours_only_where_they_are_wanted() {
    let directory = Directory::with(EIGHT_LINES);
    let plain = directory.call(&["check"]);
    assert!(!plain.stdout.contains('\u{1b}'), "{plain:?}");
    let coloured = directory.call(&["check", "--color", "always"]);
    assert!(coloured.stdout.contains("\u{1b}[32mvalid"), "{coloured:?}");
    let ended = directory.call(&["--config", "config.toml", "check"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("after the command"), "{ended:?}");
}

#[test]
fn check_prints_every_problem_and_warning() {
    let ended = Directory::with(EIGHT_LINES).call(&["check"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(
        ended.stdout,
        "config.toml: valid: 1 route, 1 issuer, 1 upstream, 1 warning\n"
    );
    assert_eq!(
        ended.stderr,
        "warning: config.toml:4: issuers.better-auth: has no `audience`: tokens that this issuer created for other \
         services are accepted\n"
    );

    let wrong = EIGHT_LINES.replace("url = ", "uri = ");
    let ended = Directory::with(&wrong).call(&["check", "--config", "config.toml"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert_eq!(ended.stdout, "");
    assert_eq!(
        ended.stderr,
        "config.toml:2: upstreams.tasks.uri: unknown key; did you mean `url`?\n\
         1 problem: nothing was started\n"
    );

    let ended = Directory::with("").call(&["check", "--config", "elsewhere.toml"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert_eq!(
        ended.stderr,
        "elsewhere.toml: cannot be read: No such file or directory (os error 2)\n\
         1 problem: nothing was started\n"
    );
}

#[test]
fn mints_and_inspects_a_token() {
    let directory = Directory::with(EIGHT_LINES);
    let claims = [
        "--claim",
        "email=alice@example.com",
        "--claim",
        "admin=true",
    ];
    let token = directory.token("alice", &claims);
    let inspect = |token: &str| directory.call(&["token", "inspect", token]);

    let ended = inspect(&token);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for text in [
        "\"alg\": \"HS256\"",
        "\"sub\": \"alice\"",
        "\"email\": \"alice@example.com\"",
        "\"admin\": true",
        "accepted: issuer `better-auth`, subject `alice`",
    ] {
        assert!(ended.stdout.contains(text), "`{text}`: {ended:?}");
    }

    let expired = directory.token("alice", &["--lifetime=-1h"]);
    let stranger = Directory::with(EIGHT_LINES)
        .claimgate_with(
            &["token", "mint", "--subject", "alice"],
            &[("BETTER_AUTH_SECRET", OTHER_SECRET)],
        )
        .wait();
    let (head, _) = token.rsplit_once('.').unwrap();
    for (token, last) in [
        (
            expired.as_str(),
            "rejected by issuer `better-auth` (token_expired): signature valid, but expired 1h",
        ),
        (
            stranger.stdout.trim(),
            "rejected by issuer `better-auth` (token_signature): the signature does not match the key: ",
        ),
        (
            "mGq4dPkzHh1nV0uWJ3cT8xYbS6rLeA2f.c2lnbmF0dXJl",
            "(token_malformed): A signed JWT has three parts separated by dots, got two: the signature is missing, or \
             this is a session token",
        ),
        (
            "a.b.c.d.e",
            "(token_malformed): The token has five parts: it is encrypted (JWE).",
        ),
        (
            "Bearer a.b.c",
            "(token_malformed): The token starts with `Bearer`",
        ),
        (&format!("{head}."), "(token_signature): "),
        ("Bearer", "rejected (token_malformed): "),
        ("", "rejected (token_malformed): "),
    ] {
        let ended = inspect(token);
        assert_eq!(ended.code, Some(1), "{token}: {ended:?}");
        let line = ended.stdout.lines().last().unwrap_or_default();
        assert!(line.contains(last), "{token}: {ended:?}");
    }
}

#[test]
fn escapes_control_characters_of_a_token() {
    let directory = Directory::with(EIGHT_LINES);
    let name = "--claim=name=\u{9b}2J\u{1b}[2J\u{202e}";
    let token = directory.token("al\u{202e}ice", &[name]);
    for arguments in [
        &["token", "inspect", &token][..],
        &["explain", "-t", &token, "GET", "/api/al%E2%80%AEice/tasks"],
    ] {
        let ended = directory.call(arguments);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let is_control = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!ended.stdout.contains(is_control), "{ended:?}");
        assert!(ended.stdout.contains("`al\\u{202e}ice`"), "{ended:?}");
    }
}

#[test]
fn reads_a_token_from_standard_input() {
    let directory = Directory::with(EIGHT_LINES);
    let token = directory.token("alice", &[]);
    let mut inspect = directory.claimgate(&["token", "inspect", "-"]);
    inspect.write(&format!("{token}\n"));
    let ended = inspect.wait();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("subject `alice`"), "{ended:?}");
}

#[test]
fn mints_a_token_with_the_claims_that_its_issuer_requires() {
    let config = format!(
        "{EIGHT_LINES}\n[issuers.other]\nkeys = {{ secret_env = \"OTHER_SECRET\" }}\nalgorithms = [\"HS384\"]\n\
         issuer = [\"https://app.example\"]\naudience = \"tasks\"\nsubject = [\"user_id\"]\nmax_lifetime = \"1h\"\n"
    );
    let directory = Directory::with(&config);
    let environment = [
        ("BETTER_AUTH_SECRET", SECRET),
        ("OTHER_SECRET", OTHER_SECRET),
    ];
    let call = |arguments: &[&str]| directory.claimgate_with(arguments, &environment).wait();
    let minted = call(&["token", "mint", "-s", "alice", "--issuer", "other"]);
    assert_eq!(minted.code, Some(0), "{minted:?}");
    let ended = call(&["token", "inspect", minted.stdout.trim()]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended
            .stdout
            .ends_with("accepted: issuer `other`, subject `alice`\n"),
        "{ended:?}"
    );
    let long = call(&[
        "token",
        "mint",
        "-s",
        "alice",
        "--issuer",
        "other",
        "--lifetime",
        "2h",
    ]);
    let ended = call(&["token", "inspect", long.stdout.trim()]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("(token_lifetime)"), "{ended:?}");

    let ended = call(&["token", "mint", "-s", "alice", "--issuer", "nobody"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended
            .stderr
            .starts_with("failed to sign a token: no issuer `nobody` in the configuration"),
        "{ended:?}"
    );
    let misspelt = Directory::with(&EIGHT_LINES.replace("[issuers.", "[isuers."));
    let ended = misspelt.call(&["token", "mint", "-s", "alice"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended.stderr.contains("did you mean `issuers`?"),
        "{ended:?}"
    );
    let ended = call(&["token", "mint", "-s", "alice", "--lifetime", "soon"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended
            .stderr
            .starts_with("failed to parse the lifetime `soon`: "),
        "{ended:?}"
    );
}

#[test]
fn prints_the_version_of_the_package() {
    let ended = Directory::with("").call(&["--version"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(ended.stdout, format!("claimgate {version}\n"));
}

#[test]
fn completions_contain_every_command() {
    for shell in ["bash", "fish", "zsh"] {
        let ended = Directory::with("").call(&["completions", shell]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        for command in ["run", "check", "explain", "dev", "token", "drain", "why"] {
            assert!(ended.stdout.contains(command), "{shell}: {command}");
        }
    }
}

#[test]
fn rejects_invalid_arguments() {
    let directory = Directory::with(EIGHT_LINES);
    for arguments in [
        &["serve"][..],
        &["run", "--port", "80"],
        &["explain", "GET"],
        &["dev"],
        &["dev", "--listen", "8080", "--", "true"],
    ] {
        let ended = directory.call(arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.starts_with("error: "), "{ended:?}");
    }
}

#[test]
fn doctor_names_the_expected_client_and_type() {
    let config = concat!(
        "[upstreams.tasks]\nurl = \"http://127.0.0.1:9\"\n",
        "[issuers.ours]\nkeys = { secret_env = \"BETTER_AUTH_SECRET\" }\n",
        "issuer = \"https://ours.example\"\naudience = \"tasks\"\nauthorized_party = [\"web\"]\n",
        "[issuers.theirs]\nkeys = { secret_env = \"BETTER_AUTH_SECRET\" }\n",
        "issuer = \"https://theirs.example\"\ntypes = [\"at+jwt\"]\n",
        "[[routes]]\npath = \"/tasks\"\naccess = \"authenticated\"\n",
    );
    let directory = Directory::with(config);
    for (claim, expected) in [
        (
            "azp=app",
            "rejected by issuer `ours` (token_audience): signature valid, but `aud` must contain \"tasks\", got \
             \"tasks\"; and `azp` must be \"web\", got \"app\"\n",
        ),
        (
            "iss=https://theirs.example",
            "rejected by issuer `theirs` (token_type): `typ` must be \"at+jwt\", got ",
        ),
    ] {
        let token = directory.token("alice", &["--claim", claim]);
        let ended = directory.call(&["doctor", "--token", &token]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stdout.contains(expected), "{}", ended.stdout);
    }
}

/// `openssl rand -base64 32` is a secret to some libraries and the base64 of one to others.
#[test]
fn doctor_tries_the_secret_in_other_encodings() {
    const BASE64: &str = "c2VjcmV0IG9mIHRoZSB0ZXN0cyBpbiBiYXNlNjQsIG5vIGxvZw==";
    const HEX: &str = "736563726574206f66207468652074657374732c20696e206865782c206e6f206c6f67";
    let config = |encoding: &str| {
        format!(
            "[upstreams.tasks]\nurl = \"http://127.0.0.1:9\"\n\
             [issuers.ours]\nkeys = {{ secret_env = \"BETTER_AUTH_SECRET\", encoding = \"{encoding}\" }}\n\
             [[routes]]\npath = \"/tasks\"\naccess = \"authenticated\"\n"
        )
    };
    for (secret, of_issuer, of_gate) in [
        (BASE64, "base64", "utf8"),
        (BASE64, "utf8", "base64"),
        (HEX, "hex", "utf8"),
        (HEX, "utf8", "hex"),
    ] {
        let environment = [("BETTER_AUTH_SECRET", secret)];
        let issuer = Directory::with(&config(of_issuer));
        let minted = issuer.claimgate_with(&["token", "mint", "--subject", "alice"], &environment);
        let minted = minted.wait().stdout;
        let gate = Directory::with(&config(of_gate));
        let doctor = gate.claimgate_with(&["doctor", "--token", minted.trim()], &environment);
        let ended = doctor.wait();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let suggestion = format!(
            "issuer `ours`: the signature is valid if the secret is read as {of_issuer}: set `encoding = \"{of_issuer}\"`"
        );
        assert!(ended.stdout.contains(&suggestion), "{ended:?}");
        let other = gate.claimgate_with(
            &["doctor", "--token", minted.trim()],
            &[(
                "BETTER_AUTH_SECRET",
                &format!("0123456789abcdef{}", &secret[16..]),
            )],
        );
        let ended = other.wait();
        assert!(!ended.stdout.contains("set `encoding"), "{ended:?}");
    }
}

#[test]
fn doctor_names_a_proxy_that_the_gate_ignores() {
    let config = concat!(
        "[upstreams.tasks]\nurl = \"http://127.0.0.1:9\"\n",
        "[issuers.theirs]\nkeys = { jwks_url = \"https://127.0.0.1:9/jwks\" }\naudience = \"tasks\"\n",
        "[[routes]]\npath = \"/tasks\"\naccess = \"authenticated\"\n",
    );
    let directory = Directory::with(config);
    let proxy = ("HTTPS_PROXY", "http://127.0.0.1:9");
    let hint =
        "; the gate ignores `HTTPS_PROXY` and connects directly: allow that, or use `jwks_file`\n";
    for (environment, is_named) in [
        (&[][..], false),
        (&[proxy], true),
        (&[proxy, ("NO_PROXY", "127.0.0.1")], false),
    ] {
        let ended = directory.claimgate_with(&["doctor"], environment).wait();
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stdout.contains(": connect: "), "{ended:?}");
        assert_eq!(ended.stdout.contains(hint), is_named, "{ended:?}");
    }
}

#[test]
fn doctor_reports_problems_with_keys_and_tokens() {
    let config = concat!(
        "[upstreams.tasks]\nurl = \"http://127.0.0.1:9\"\n",
        "[issuers.ours]\nkeys = { secret_env = \"BETTER_AUTH_SECRET\", encoding = \"utf8\" }\n",
        "issuer = \"https://ours.example\"\naudience = \"tasks\"\n",
        "[issuers.theirs]\nbetter_auth = \"http://127.0.0.1:9\"\n",
        "[[routes]]\npath = \"/tasks\"\naccess = \"authenticated\"\n",
    );
    let directory = Directory::with(config);
    let doctor = |extra: &[&str]| {
        let token = directory.token("alice", extra);
        let ended = directory.call(&["doctor", "--token", &token]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        ended.stdout
    };
    let output = doctor(&["--claim", "aud=web"]);
    for text in [
        "issuer `ours`: 1 key (HS256)\n",
        "issuer `theirs`: failed to fetch keys from http://127.0.0.1:9/api/auth/jwks: connect: ",
        "rejected by issuer `ours` (token_audience): signature valid, but `aud` must contain \"tasks\", got \"web\"\n",
        "issuer `theirs`: `iss` must be \"http://127.0.0.1:9\", got \"https://ours.example\"\n",
    ] {
        assert!(output.contains(text), "{text}: {output}");
    }
    let output = doctor(&["--claim", "iss=http://127.0.0.1:9"]);
    let unknown = "rejected by issuer `theirs` (keys_unavailable): the key set is unavailable, so the token cannot be \
                   verified\n";
    assert!(output.contains(unknown), "{output}");
    let output = doctor(&["--claim", "iss=https://nobody.example"]);
    let no_issuer = "no issuer of the configuration has the `iss` \"https://nobody.example\"\n";
    assert!(output.contains(no_issuer), "{output}");
    let without_iss = Directory::with(EIGHT_LINES).token("alice", &[]);
    let output = directory.call(&["doctor", "--token", &without_iss]).stdout;
    let no_iss = "no `iss` claim, and every issuer of the configuration requires one\n";
    assert!(output.contains(no_iss), "{output}");
    let output = doctor(&[]);
    assert!(
        output.contains("accepted: issuer `ours`, subject `alice`"),
        "{output}"
    );
}

/// Serves a status and a body at every path.
pub(super) fn serve(status: &'static str, body: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            while lines.next().is_some_and(|line| !line.is_empty()) {}
            let length = body.len();
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close");
            // The client may have closed the connection after the head.
            let _ = (&stream).write_all(format!("{head}\r\n\r\n{body}").as_bytes());
        }
    });
    address
}

#[test]
fn doctor_names_the_fix_of_a_failed_fetch() {
    let refused = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (page, empty) = (
        serve("200 OK", "<!doctype html><title>app</title>"),
        serve("200 OK", "{\"keys\":[]}"),
    );
    for (url, expected) in [
        (
            format!("http://{}/jwks", serve("404 Not Found", "")),
            "compare the path",
        ),
        (
            format!("http://{}/jwks", serve("401 Unauthorized", "")),
            "`token_file`",
        ),
        (
            format!("http://{}/jwks", serve("500 Oops", "")),
            "look at its log",
        ),
        (format!("http://{page}/jwks"), "other than a key set"),
        (format!("http://{empty}/jwks"), "must publish a public key"),
        (
            format!("https://{page}/jwks"),
            "a private authority needs `ca_file`",
        ),
        (format!("http://{refused}/jwks"), "compare host and port"),
        (
            "http://localhost:1/jwks".to_owned(),
            "compare host and port",
        ),
    ] {
        let config = format!(
            "[upstreams.tasks]\nurl = \"http://{page}\"\n[issuers.app]\nkeys = {{ jwks_url = \"{url}\" }}\n\
             audience = \"tasks\"\n[[routes]]\npath = \"/me\"\naccess = \"authenticated\"\n"
        );
        let ended = Directory::with(&config).call(&["doctor"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let fix = ended
            .stdout
            .lines()
            .find(|line| line.trim_start().starts_with("fix: "));
        assert!(
            fix.is_some_and(|fix| fix.contains(expected)),
            "{url}: {ended:?}"
        );
    }
}

#[test]
fn doctor_names_the_fix_of_an_unreachable_upstream() {
    let directory = Directory::with("");
    let socket = directory.path("api.sock");
    let _listens = UnixListener::bind(&socket).unwrap();
    // Bound, but not listening: no other test can take the port.
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    bound
        .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .unwrap();
    let closed = bound.local_addr().unwrap().as_socket().unwrap().port();
    let open = TcpListener::bind("[::1]:0").unwrap();
    let ipv6 = open.local_addr().unwrap().port();
    for (url, expected) in [
        (format!("unix:{}", socket.display()), "accepts connections"),
        (
            format!("unix:{}.gone", socket.display()),
            "fix: the socket does not exist",
        ),
        (
            format!("http://127.0.0.1:{closed}"),
            "fix: nothing listens there: start the API",
        ),
        (
            format!("http://127.0.0.1:{ipv6}"),
            "fix: a server listens at [::1]:PORT only: write [::1]:PORT in `url`",
        ),
    ] {
        let config = format!(
            "[upstreams.tasks]\nurl = \"{url}\"\n[[routes]]\npath = \"/\"\naccess = \"public\"\n"
        );
        let ended = Directory::with(&config).call(&["doctor"]);
        // An API may start after the gate.
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let expected = expected.replace("PORT", &ipv6.to_string());
        assert!(ended.stdout.contains(&expected), "{url}: {ended:?}");
    }
}

#[test]
fn doctor_names_the_fix_of_a_rejected_token() {
    let config = EIGHT_LINES.replace(
        "keys = ",
        "issuer = \"https://app.example\"\naudience = \"tasks\"\nkeys = ",
    );
    let directory = Directory::with(&config);
    let stranger = Directory::with(&config)
        .claimgate_with(
            &["token", "mint", "--subject", "alice"],
            &[("BETTER_AUTH_SECRET", OTHER_SECRET)],
        )
        .wait();
    let minted = |claim: &str| directory.token("alice", &["--claim", claim]);
    for (token, cause, fix) in [
        (
            stranger.stdout.trim().to_owned(),
            "(token_signature): ",
            "Compare the secret or key",
        ),
        (
            minted("iss=https://other.example"),
            "has the `iss` \"https://other.example\"",
            "Compare `iss`",
        ),
        (
            minted("aud=web"),
            "got \"web\"",
            "Compare `aud` with `audience`",
        ),
        (
            minted("nbf=4000000000"),
            "not valid for another ",
            "Set the clocks",
        ),
        (minted("exp=1000000000"), "expired ", "Sign in again"),
    ] {
        let ended = directory.call(&["doctor", "--token", &token]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        for text in [cause, &format!("  fix: {fix}")] {
            assert!(ended.stdout.contains(text), "{text}: {ended:?}");
        }
    }
}
