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
        PollOutcome::Unchanged => "unchanged".to_owned(),
        PollOutcome::Unstable => "unstable".to_owned(),
        PollOutcome::Changed { result, files } => {
            let names = files.iter().filter_map(|file| file.file_name());
            let names: Vec<_> = names.filter_map(|name| name.to_str()).collect();
            let names = names.join(" ");
            match result {
                Ok(_) => format!("compiled: {names}"),
                Err(problems) => format!("failed: {names}: {}", problems.all[0].message),
            }
        }
    }
}

#[test]
fn ignores_a_partially_written_file() {
    let folder = Folder::new();
    let mut source = folder.load();
    assert_eq!(poll(&mut source, false), "unchanged");
    let whole = format!(
        "{}require = [{{ claim = \"a\", has = \"b\" }}]\n",
        folder.config()
    );
    // Valid, but incomplete.
    folder.write("config.toml", &format!("{}\n", folder.config()));
    assert_eq!(poll(&mut source, false), "unstable");
    folder.write("config.toml", &whole);
    assert_eq!(poll(&mut source, false), "unstable");
    assert_eq!(poll(&mut source, false), "compiled: config.toml");
    assert_eq!(poll(&mut source, false), "unchanged");
}

#[test]
fn ignores_a_change_that_is_reverted_before_the_next_poll() {
    let folder = Folder::new();
    let mut source = folder.load();
    folder.write("config.toml", "");
    assert_eq!(poll(&mut source, false), "unstable");
    folder.write("config.toml", &folder.config());
    assert_eq!(poll(&mut source, false), "unchanged");
}

#[test]
fn a_request_compiles_the_current_contents_at_once() {
    let folder = Folder::new();
    let mut source = folder.load();
    assert_eq!(poll(&mut source, true), "unchanged");
    folder.write("secret", "another secret of the tests, 32 bytes at least");
    assert_eq!(poll(&mut source, true), "compiled: secret");
}

#[test]
fn reports_an_invalid_configuration_once_until_it_changes() {
    let folder = Folder::new();
    let mut source = folder.load();
    folder.write("secret", "short");
    assert_eq!(poll(&mut source, false), "unstable");
    assert_eq!(
        poll(&mut source, false),
        "failed: secret: the secret has 5 bytes, and HS256 needs at least 32"
    );
    assert_eq!(poll(&mut source, false), "unchanged");
    assert!(source.problems().is_some());
    fs::remove_file(folder.path("config.toml")).unwrap();
    assert_eq!(poll(&mut source, false), "unstable");
    let missing = "failed: config.toml: cannot be read: No such file or directory (os error 2)";
    assert_eq!(poll(&mut source, false), missing);
    // Files of the last valid configuration are still watched.
    folder.write("secret", "a secret of the tests, 32 bytes at least");
    assert_eq!(
        poll(&mut source, true),
        missing.replace("config.toml", "secret")
    );
    folder.write("config.toml", &folder.config());
    assert_eq!(poll(&mut source, true), "compiled: config.toml");
    assert!(source.problems().is_none());
}

#[test]
fn watches_files_that_a_new_configuration_refers_to() {
    let folder = Folder::new();
    let mut source = folder.load();
    let config = folder.config().replace("/secret\"", "/other\"");
    folder.write("config.toml", &config);
    assert!(poll(&mut source, true).starts_with("failed: config.toml: "));
    folder.write("other", "another secret of the tests, 32 bytes at least");
    assert_eq!(poll(&mut source, true), "compiled: other");
    // The previous file is not watched any more.
    folder.write("secret", "");
    assert_eq!(poll(&mut source, true), "unchanged");
}

#[test]
fn watches_listener_certificates_only_after_a_failed_compilation() {
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
    assert_eq!(poll(&mut source, true), "unchanged");
    folder.write("config.toml", &format!("{config}\n"));
    assert!(poll(&mut source, true).starts_with("failed: config.toml: "));
    copy(key, "gate.key");
    assert_eq!(poll(&mut source, true), "compiled: gate.key");
}

#[test]
fn rejects_a_pipe_on_reload() {
    let folder = Folder::new();
    let mut source = folder.load();
    fs::remove_file(folder.path("secret")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(folder.path("secret"))
        .status();
    assert!(made.unwrap().success());
    let outcome = poll(&mut source, true);
    assert!(
        outcome.ends_with("secret is a pipe and cannot be read again"),
        "{outcome}"
    );
}
