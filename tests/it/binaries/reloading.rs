//! Hot reload of the running program: log lines and SIGHUP.

use std::fs;

use super::upstream::{Request, Upstream};
use super::{Directory, Ended, Gate, OTHER_SECRET, SECRET, eight_lines};

impl Gate {
    /// Waits for a log line that contains `text`, and parses it.
    fn log_line(&mut self, text: &str) -> serde_json::Value {
        serde_json::from_str(&self.program.wait_for_line(text)).unwrap()
    }
}

fn write(directory: &Directory, file: &str, text: &str) {
    fs::write(directory.path(file), text).unwrap();
}

fn route(path: &str) -> String {
    format!("\n[[routes]]\npath = \"{path}\"\naccess = \"public\"\n")
}

#[test]
fn logs_every_change_and_every_problem_with_its_line() {
    let upstream = Upstream::start();
    let config = eight_lines(upstream.address);
    let directory = Directory::with(&config);
    let mut gate = directory.serve(&["run"]);
    let (reloaded, failed) = ("configuration reloaded\"", "configuration reload failed");

    gate.program.signal("HUP");
    assert_eq!(gate.log_line("configuration unchanged")["level"], "INFO");

    write(
        &directory,
        "config.toml",
        &format!("{config}{}", route("/new")),
    );
    let line = gate.log_line(reloaded);
    assert_eq!(line["generation"], 2);
    assert_eq!(line["changes"], "route /new added");
    assert_eq!(line["level"], "INFO");

    let lines = config.lines().count();
    let two = "[[routes]]\npath = \"/a\"\naccess = \"pubic\"\nmetods = []\n";
    write(&directory, "config.toml", &format!("{config}{two}"));
    let (first, second) = (gate.log_line(failed), gate.log_line(failed));
    let (third, fourth) = (lines + 3, lines + 4);
    for (line, problem) in [
        (first, format!("config.toml:{third}: routes[1].access: ")),
        (
            second,
            format!("config.toml:{fourth}: routes[1].metods: unknown key"),
        ),
    ] {
        let message = line["message"].as_str().unwrap();
        assert!(
            message.contains(&format!("keeping generation 2: {problem}")),
            "{message}"
        );
        assert_eq!(line["level"], "ERROR");
        assert_eq!(line["generation"], 2);
    }
    let response = Request::new("GET", "/new").response(gate.address);
    assert_eq!(response.status, 200, "{}", response.body);
    // SIGHUP logs the problems again.
    gate.program.signal("HUP");
    gate.log_line(failed);
    gate.log_line(failed);

    let other = config.replace("workers = 2", "workers = 3\nidle_timeout = \"5s\"");
    let other = other.replace("level = \"debug\"", "level = \"info\"");
    write(&directory, "config.toml", &other);
    let line = gate.log_line(reloaded);
    assert_eq!(line["generation"], 3);
    assert_eq!(line["changes"], "route /new removed, [listen] changed");
    for key in ["listen.workers", "log.level"] {
        let message = format!("`{key}` changed; restart to apply it");
        let line = gate.log_line("restart to apply it");
        assert_eq!(line["message"], message);
        assert_eq!(line["level"], "WARN");
    }
    let Ended { code, stderr, .. } = gate.stop();
    assert_eq!(code, Some(0));
    assert_eq!(stderr.matches(failed).count(), 4, "{stderr}");
}

#[test]
fn rotates_a_secret_file_and_signs_with_its_first_line() {
    let upstream = Upstream::start();
    let config = eight_lines(upstream.address);
    let config = config.replace(
        "secret_env = \"BETTER_AUTH_SECRET\"",
        "secret_file = \"secret\"",
    );
    let directory = Directory::with(&config);
    write(&directory, "secret", SECRET);
    let mut gate = directory.serve(&[]);
    let old = directory.token("alice", &[]);
    let ask = |gate: &Gate, token: &str| {
        let request = Request::new("GET", "/api/alice/tasks").bearer(token);
        request.response(gate.address).status
    };
    assert_eq!(ask(&gate, &old), 200);

    write(&directory, "secret", &format!("{OTHER_SECRET}\n{SECRET}\n"));
    let line = gate.log_line("configuration reloaded\"");
    assert_eq!(line["changes"], "file secret changed");
    let new = directory.token("alice", &[]);
    assert_eq!((ask(&gate, &old), ask(&gate, &new)), (200, 200));

    write(&directory, "secret", &format!("{OTHER_SECRET}\n"));
    gate.log_line("configuration reloaded\"");
    assert_eq!((ask(&gate, &old), ask(&gate, &new)), (401, 200));
    assert_eq!(directory.token("alice", &[]).split('.').count(), 3);
    assert_eq!(gate.stop().code, Some(0));

    // Two equal lines are no rotation.
    write(&directory, "secret", &format!("{SECRET}\n{SECRET}\n"));
    for command in [&["check"][..], &["doctor"]] {
        let ended = directory.call(command);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let warning =
            "issuers.better-auth.keys.secret_file: both lines of the file contain the same";
        assert!(ended.stderr.contains(warning), "{ended:?}");
    }
}
