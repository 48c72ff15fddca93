//! The commands that end by themselves: what they print, and their exit codes.

use std::net::TcpListener;

use super::upstream::{Request, Upstream};
use super::{Directory, EIGHT_LINES, OTHER_SECRET, SECRET, eight_lines};

#[test]
fn a_missing_secret_is_named_and_nothing_is_started() {
    let directory = Directory::with(EIGHT_LINES);
    for arguments in [&["run"][..], &["check"], &["explain", "GET", "/"]] {
        let ended = directory.claimgate_with(arguments, &[]).wait();
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
        assert_eq!(ended.stdout, "", "{arguments:?}");
        assert_eq!(
            ended.stderr,
            "config.toml:5: issuers.better-auth.keys.secret_env: the environment variable BETTER_AUTH_SECRET is not \
             set\n1 problem: nothing was started\n",
            "{arguments:?}"
        );
    }
}

#[test]
fn run_is_what_is_done_without_a_command() {
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
            .answer(gate.address)
            .refused(401, "token_missing");
        assert_eq!(gate.stop().code, Some(0), "{arguments:?}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let config = eight_lines(taken);
    let (listen, admin) = (
        "[listen]\naddress = \"127.0.0.1:0\"",
        "[admin]\naddress = \"127.0.0.1:0\"",
    );
    for section in [listen, admin] {
        let occupied = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = occupied.local_addr().unwrap();
        let section_with = section.replace("127.0.0.1:0", &address.to_string());
        let directory = Directory::with(&config.replace(section, &section_with));
        let ended = directory.call(&["run"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert_eq!(
            ended.stderr.lines().last(),
            Some(
                format!("failed to listen on {address}: Address already in use (os error 98)")
                    .as_str()
            ),
            "{ended:?}"
        );
    }
}

#[test]
fn a_second_gate_does_not_share_the_port_of_the_first() {
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
fn check_says_what_is_wrong_and_what_is_doubtful() {
    let ended = Directory::with(EIGHT_LINES).call(&["check"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(
        ended.stdout,
        "config.toml: good: 1 route, 1 issuer, 1 upstream, 1 warning\n"
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
fn a_token_is_minted_and_inspected() {
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
        "accepted: a token of the issuer `better-auth` about `alice`",
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
            "refused by the issuer `better-auth` (token_expired): signed by its key, but expired 1h",
        ),
        (
            stranger.stdout.trim(),
            "refused by the issuer `better-auth` (token_signature): ",
        ),
        (
            "mGq4dPkzHh1nV0uWJ3cT8xYbS6rLeA2f.c2lnbmF0dXJl",
            "like a session token of Better Auth: exchange that at /api/auth/token",
        ),
        ("a.b.c.d.e", "a token of five parts is encrypted (JWE)"),
        (&format!("{head}."), "(token_signature): "),
        ("Bearer", "refused (token_malformed): "),
        ("", "refused (token_malformed): "),
    ] {
        let ended = inspect(token);
        assert_eq!(ended.code, Some(1), "{token}: {ended:?}");
        let line = ended.stdout.lines().last().unwrap_or_default();
        assert!(line.contains(last), "{token}: {ended:?}");
    }
}

#[test]
fn what_a_token_says_cannot_move_the_cursor() {
    let directory = Directory::with(EIGHT_LINES);
    let name = "--claim=name=\u{9b}2J\u{1b}[2J\u{202e}";
    let token = directory.token("al\u{202e}ice", &[name]);
    for arguments in [
        &["token", "inspect", &token][..],
        &["explain", "-t", &token, "GET", "/api/al%E2%80%AEice/tasks"],
    ] {
        let ended = directory.call(arguments);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let obeyed = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!ended.stdout.contains(obeyed), "{ended:?}");
        assert!(ended.stdout.contains("`al\\u{202e}ice`"), "{ended:?}");
    }
}

#[test]
fn a_token_is_read_from_standard_input() {
    let directory = Directory::with(EIGHT_LINES);
    let token = directory.token("alice", &[]);
    let mut inspect = directory.claimgate(&["token", "inspect", "-"]);
    inspect.write(&format!("{token}\n"));
    let ended = inspect.wait();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("about `alice`"), "{ended:?}");
}

#[test]
fn a_token_is_minted_as_its_issuer_demands() {
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
            .ends_with("accepted: a token of the issuer `other` about `alice`\n"),
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
        ended.stderr.starts_with("failed to sign a token: "),
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
            .starts_with("failed to read the lifetime `soon`: "),
        "{ended:?}"
    );
}

#[test]
fn the_version_is_the_packages() {
    let ended = Directory::with("").call(&["--version"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(ended.stdout, format!("claimgate {version}\n"));
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "fish", "zsh"] {
        let ended = Directory::with("").call(&["completions", shell]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        for command in ["run", "check", "explain", "dev", "token", "drain", "why"] {
            assert!(ended.stdout.contains(command), "{shell}: {command}");
        }
    }
}

#[test]
fn wrong_arguments_are_told_apart_from_a_wrong_configuration() {
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
fn doctor_says_which_client_and_which_type_are_expected() {
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
            "refused by the issuer `ours` (token_audience): signed by its key, but expects the audience \"tasks\"; the \
             token says \"tasks\"; and expects the client (`azp`) \"web\"; the token says \"app\"\n",
        ),
        (
            "iss=https://theirs.example",
            "refused by the issuer `theirs` (token_type): expects the `typ` \"at+jwt\"; the token says ",
        ),
    ] {
        let token = directory.token("alice", &["--claim", claim]);
        let ended = directory.call(&["doctor", "--token", &token]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stdout.contains(expected), "{}", ended.stdout);
    }
}

#[test]
fn doctor_says_what_is_wrong_with_keys_and_tokens() {
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
    let said = doctor(&["--claim", "aud=web"]);
    for text in [
        "issuer `ours`: 1 key (HS256)\n",
        "issuer `theirs`: no keys from http://127.0.0.1:9/api/auth/jwks: connect: ",
        "refused by the issuer `ours` (token_audience): signed by its key, but expects the audience \"tasks\"; the \
         token says \"web\"\n",
        "the issuer `theirs`: expects the `iss` \"http://127.0.0.1:9\"; the token says \"https://ours.example\"\n",
    ] {
        assert!(said.contains(text), "{text}: {said}");
    }
    let said = doctor(&["--claim", "iss=http://127.0.0.1:9"]);
    let unknown = "refused by the issuer `theirs` (keys_unavailable): its keys could not be fetched, so nobody can tell";
    assert!(said.contains(unknown), "{said}");
    let said = doctor(&["--claim", "iss=https://nobody.example"]);
    let nobody = "no issuer of this configuration is called \"https://nobody.example\", as the token's `iss` is";
    assert!(said.contains(nobody), "{said}");
    let of_anybody = Directory::with(EIGHT_LINES).token("alice", &[]);
    let said = directory.call(&["doctor", "--token", &of_anybody]).stdout;
    let nobody = "it has no `iss`, and every issuer of this configuration expects one\n";
    assert!(said.contains(nobody), "{said}");
    let said = doctor(&[]);
    assert!(
        said.contains("accepted: a token of the issuer `ours` about `alice`"),
        "{said}"
    );
}
