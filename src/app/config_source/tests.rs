use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{ConfigSource, PollOutcome};
use crate::app::App;

const CONFIG: &str = r#"
[upstreams.tasks]
url = "http://127.0.0.1:3000"

[issuers.test]
keys = { secret_file = "SECRET" }

[[routes]]
path = "/api/{user_id}/{*rest}"
access = { owner = "user_id" }
"#;

/// Temporary directory with a configuration and a secret.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(TempDir::new().unwrap());
        folder.write("secret", "a secret of the tests, 32 bytes at least");
        folder.write("config.toml", &folder.config());
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn config(&self) -> String {
        CONFIG.replace("SECRET", self.path("secret").to_str().unwrap())
    }

    fn load(&self) -> ConfigSource {
        App::load(&self.path("config.toml"))
            .unwrap()
            .source
            .unwrap()
    }
}

/// Result of a poll and the names of the changed files, as text.
fn poll(source: &mut ConfigSource, requested: bool) -> String {
    match source.poll(requested, App::compile) {
        PollOutcome::Unchanged => "nothing".to_owned(),
        PollOutcome::Unstable => "unfinished".to_owned(),
        PollOutcome::Changed { result, files } => {
            let names = files.iter().filter_map(|file| file.file_name());
            let names: Vec<_> = names.filter_map(|name| name.to_str()).collect();
            let names = names.join(" ");
            match result {
                Ok(_) => format!("good: {names}"),
                Err(problems) => format!("bad: {names}: {}", problems.all[0].message),
            }
        }
    }
}

#[test]
fn what_is_half_written_is_not_taken() {
    let folder = Folder::new();
    let mut source = folder.load();
    assert_eq!(poll(&mut source, false), "nothing");
    let whole = format!(
        "{}require = [{{ claim = \"a\", has = \"b\" }}]\n",
        folder.config()
    );
    // Valid, but incomplete.
    folder.write("config.toml", &format!("{}\n", folder.config()));
    assert_eq!(poll(&mut source, false), "unfinished");
    folder.write("config.toml", &whole);
    assert_eq!(poll(&mut source, false), "unfinished");
    assert_eq!(poll(&mut source, false), "good: config.toml");
    assert_eq!(poll(&mut source, false), "nothing");
}

#[test]
fn what_is_written_back_before_it_was_taken_is_no_change() {
    let folder = Folder::new();
    let mut source = folder.load();
    folder.write("config.toml", "");
    assert_eq!(poll(&mut source, false), "unfinished");
    folder.write("config.toml", &folder.config());
    assert_eq!(poll(&mut source, false), "nothing");
}

#[test]
fn a_wish_takes_what_is_there() {
    let folder = Folder::new();
    let mut source = folder.load();
    assert_eq!(poll(&mut source, true), "nothing");
    folder.write("secret", "another secret of the tests, 32 bytes at least");
    assert_eq!(poll(&mut source, true), "good: secret");
}

#[test]
fn what_is_broken_is_told_once_and_tried_again_when_it_changes() {
    let folder = Folder::new();
    let mut source = folder.load();
    folder.write("secret", "short");
    assert_eq!(poll(&mut source, false), "unfinished");
    assert_eq!(
        poll(&mut source, false),
        "bad: secret: the secret has 5 bytes, and HS256 needs at least 32"
    );
    assert_eq!(poll(&mut source, false), "nothing");
    assert!(source.problems().is_some());
    fs::remove_file(folder.path("config.toml")).unwrap();
    assert_eq!(poll(&mut source, false), "unfinished");
    let gone = "bad: config.toml: cannot be read: No such file or directory (os error 2)";
    assert_eq!(poll(&mut source, false), gone);
    // Files of the last valid configuration are still watched.
    folder.write("secret", "a secret of the tests, 32 bytes at least");
    assert_eq!(
        poll(&mut source, true),
        gone.replace("config.toml", "secret")
    );
    folder.write("config.toml", &folder.config());
    assert_eq!(poll(&mut source, true), "good: config.toml");
    assert!(source.problems().is_none());
}

#[test]
fn a_file_that_is_named_for_the_first_time_is_followed() {
    let folder = Folder::new();
    let mut source = folder.load();
    let config = folder.config().replace("/secret\"", "/other\"");
    folder.write("config.toml", &config);
    assert!(poll(&mut source, true).starts_with("bad: config.toml: "));
    folder.write("other", "another secret of the tests, 32 bytes at least");
    assert_eq!(poll(&mut source, true), "good: other");
    // The previous file is not watched any more.
    folder.write("secret", "");
    assert_eq!(poll(&mut source, true), "nothing");
}

#[test]
fn the_certificates_of_listeners_are_looked_at_only_while_something_is_wrong() {
    let folder = Folder::new();
    let tls = "tests/fixtures/config/tls/gate.crt";
    let key = "tests/fixtures/keys/p256.private.pem";
    let copy = |from: &str, to: &str| {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(from);
        fs::copy(from, folder.path(to)).unwrap();
    };
    copy(tls, "gate.crt");
    copy(key, "gate.key");
    let files = ["gate.crt", "gate.key"].map(|file| folder.path(file));
    let listen = format!(
        "[listen]\ntls = {{ certificate = {:?}, key = {:?} }}\n",
        files[0], files[1]
    );
    let config = format!("{listen}{}", folder.config());
    folder.write("config.toml", &config);
    let mut source = folder.load();
    folder.write("gate.key", "");
    assert_eq!(poll(&mut source, true), "nothing");
    folder.write("config.toml", &format!("{config}\n"));
    assert!(poll(&mut source, true).starts_with("bad: config.toml: "));
    copy(key, "gate.key");
    assert_eq!(poll(&mut source, true), "good: gate.key");
}

#[test]
fn a_pipe_is_read_once() {
    let folder = Folder::new();
    let mut source = folder.load();
    fs::remove_file(folder.path("secret")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(folder.path("secret"))
        .status();
    assert!(made.unwrap().success());
    let outcome = poll(&mut source, true);
    assert!(
        outcome.ends_with("secret is a pipe, and cannot be read again"),
        "{outcome}"
    );
}
