//! What text can hold of the design: who may name what. Each check asserts that it has found something to check.

use std::fs;
use std::path::{Path, PathBuf};

/// A source with the part that is not a test.
struct Source {
    /// Below the root of the repository.
    path: String,
    text: String,
}

fn sources(directory: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = vec![root.join(directory)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root).unwrap();
                let path = path.to_str().unwrap().to_owned();
                found.push(Source { path, text });
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(
        !found.is_empty(),
        "{directory} has no sources: the check would pass on nothing"
    );
    found
}

impl Source {
    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// Everything before its unit tests, without comments, with the number of each line.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let (code, _) = self
            .text
            .split_once("#[cfg(test)]\nmod tests")
            .unwrap_or((&self.text, ""));
        let code = if self.is_test() { "" } else { code };
        let lines = code
            .lines()
            .enumerate()
            .map(|(number, line)| (number + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Where the code has one of these texts.
    fn naming(&self, texts: &[&str]) -> Vec<String> {
        let named = self
            .code()
            .filter(|(_, line)| texts.iter().any(|text| line.contains(text)));
        named
            .map(|(number, line)| format!("{}:{number}: {}", self.path, line.trim()))
            .collect()
    }
}

/// Asserts that of these sources only the allowed ones name the texts, and that those do.
#[track_caller]
fn only(directory: &str, texts: &[&str], allowed: fn(&str) -> bool) {
    let (mut seen, mut wrong) = (0, Vec::new());
    for source in sources(directory) {
        let named = source.naming(texts);
        if allowed(&source.path) {
            seen += named.len();
        } else {
            wrong.extend(named);
        }
    }
    assert!(
        seen > 0,
        "nobody names {texts:?}: the check would pass on nothing"
    );
    assert!(
        wrong.is_empty(),
        "{texts:?} is named by others:\n{}",
        wrong.join("\n")
    );
}

fn is_gate(path: &str) -> bool {
    path == "src/gate.rs" || path.starts_with("src/gate/")
}

#[test]
fn the_gate_waits_for_nothing_and_asks_nobody_the_time() {
    let mut checked = 0;
    for source in sources("src").iter().filter(|source| is_gate(&source.path)) {
        checked += source.code().count();
        let named = source.naming(&[
            "tokio",
            ".await",
            "async ",
            "SystemTime",
            "Instant",
            // An address is a value, a socket is not.
            "std::net::Tcp",
            "std::net::Udp",
            "ToSocketAddrs",
            "std::os",
            "std::fs",
            "std::io",
            "clock.now",
        ]);
        assert!(named.is_empty(), "{}", named.join("\n"));
    }
    assert!(checked > 500, "{checked} lines");
}

#[test]
fn only_the_route_table_names_matchit() {
    only("src", &["matchit"], |path| path == "src/gate/routes.rs");
}

#[test]
fn only_keys_verification_and_the_token_command_name_jsonwebtoken() {
    only("src", &["jsonwebtoken"], |path| {
        path == "src/keys.rs"
            || path.starts_with("src/keys/")
            || path == "src/gate/verify.rs"
            || path == "src/cli/token.rs"
            // The task service signs and verifies by itself, and knows nothing of the library.
            || path.starts_with("src/bin/task-service/")
    });
}

#[test]
fn whom_to_trust_is_decided_in_one_place_and_nobody_is_trusted_blindly() {
    let builders = ["ServerConfig::builder", "ClientConfig::builder"];
    only("src", &builders, |path| path.starts_with("src/tls/"));
    only("src", &["x509_cert::"], |path| {
        let all = [
            "src/gate/certificate.rs",
            // RSA moduli in DER.
            "src/keys/rsa.rs",
            "src/tls/pem.rs",
            "src/tls/revocation.rs",
        ];
        all.contains(&path)
    });
    for source in sources("src") {
        let named = source.naming(&[
            ".dangerous()",
            "ServerCertVerifier",
            "allow_unknown_revocation_status",
            "max_early_data_size",
        ]);
        assert!(named.is_empty(), "{}", named.join("\n"));
    }
}

#[test]
fn only_the_clock_asks_the_system_the_time() {
    only("src", &["SystemTime::now", "SystemTime"], |path| {
        path == "src/clock.rs" || path == "src/bin/task-service/clock.rs"
    });
}

#[test]
fn only_one_place_says_what_browsers_may_do() {
    only("src", &["ACCESS_CONTROL_"], |path| {
        path == "src/gate/cors.rs"
    });
}

#[test]
fn only_the_gate_makes_a_permit() {
    only("src", &["Permit::new("], |path| path == "src/gate.rs");
    only("src", &["pub(super) fn new(caller: Caller"], |path| {
        path == "src/gate/permit.rs"
    });
}

#[test]
fn the_upstream_takes_a_permit_by_value() {
    only("src", &["        permit: Permit,"], |path| {
        path == "src/proxy/upstream.rs" || path == "src/proxy.rs"
    });
}

#[test]
fn only_the_exchange_and_the_health_check_get_a_connection_to_an_upstream() {
    only("src", &["check_out(", "endpoint.open("], |path| {
        path == "src/proxy/upstream.rs" || path == "src/proxy/upstream/endpoint.rs"
    });
    only("src", &["into_connection("], |path| {
        path == "src/proxy/upstream/health.rs" || path == "src/proxy/upstream/connect.rs"
    });
}

#[test]
fn only_the_control_thread_puts_a_policy_in_force() {
    only("src", &["change_policy("], |path| {
        path == "src/app/background.rs" || path == "src/proxy/shared.rs"
    });
}

#[test]
fn the_task_service_imports_nothing_of_the_library() {
    let mut checked = 0;
    for source in sources("src/bin/task-service") {
        checked += source.code().count();
        let named = source.naming(&["claimgate::"]);
        assert!(named.is_empty(), "{}", named.join("\n"));
    }
    assert!(checked > 500, "{checked} lines");
}

#[test]
fn the_configuration_reads_no_other_module() {
    let modules = [
        "app", "cli", "clock", "gate", "keys", "observe", "proxy", "tls",
    ];
    let modules = modules.map(|module| format!("crate::{module}"));
    let modules: Vec<&str> = modules.iter().map(String::as_str).collect();
    let mut checked = 0;
    for source in sources("src") {
        if source.path == "src/config.rs" || source.path.starts_with("src/config/") {
            checked += source.code().count();
            let named = source.naming(&modules);
            assert!(named.is_empty(), "{}", named.join("\n"));
        }
    }
    assert!(checked > 300, "{checked} lines");
}

#[test]
fn the_gate_and_the_keys_do_not_know_the_proxy() {
    let mut checked = 0;
    for source in sources("src").iter().filter(|source| is_gate(&source.path)) {
        checked += 1;
        let named = source.naming(&["crate::proxy", "crate::app", "crate::observe"]);
        assert!(named.is_empty(), "{}", named.join("\n"));
    }
    assert!(checked > 5, "{checked} sources");
}

#[test]
fn nothing_panics_by_habit() {
    let mut checked = 0;
    for source in sources("src") {
        checked += source.code().count();
        let named = source.naming(&[".unwrap()", "todo!", "unimplemented!", "dbg!"]);
        assert!(named.is_empty(), "{}", named.join("\n"));
    }
    assert!(checked > 3000, "{checked} lines");
}

#[test]
fn no_test_sleeps_or_is_left_out() {
    // Written so that this file does not find itself.
    let texts = [concat!("slee", "p("), concat!("#[igno", "re")];
    let mut checked = 0;
    for source in sources("tests/it") {
        checked += 1;
        let named: Vec<_> = source
            .text
            .lines()
            .filter(|line| texts.iter().any(|text| line.contains(text)))
            .map(|line| format!("{}: {line}", source.path))
            .collect();
        assert!(named.is_empty(), "{}", named.join("\n"));
    }
    assert!(checked > 10, "{checked} sources");
}

#[test]
fn every_file_of_tests_is_a_module_of_the_binary() {
    let main = include_str!("main.rs");
    let mut checked = 0;
    for source in sources("tests/it") {
        let name = source.path.strip_prefix("tests/it/").unwrap();
        if name == "main.rs" || name.contains('/') {
            continue;
        }
        checked += 1;
        let module = format!("mod {};", name.strip_suffix(".rs").unwrap());
        assert!(
            main.lines().any(|line| line == module),
            "{module} is not in main.rs"
        );
    }
    assert!(checked > 5, "{checked} files");
}
