//! Design rules that no lint checks, on the source text. Each test fails if it finds nothing to check.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Source file.
struct Source {
    /// Relative to the root of the repository.
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
    assert!(!found.is_empty(), "{directory} has no sources");
    found
}

impl Source {
    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("/tests/")
    }

    /// Numbered lines without comments and unit tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let (code, _) = self
            .text
            .split_once("#[cfg(test)]\nmod tests {")
            .unwrap_or((&self.text, ""));
        let code = if self.is_test() { "" } else { code };
        let lines = code
            .lines()
            .enumerate()
            .map(|(number, line)| (number + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// Lines that contain one of these texts.
    fn containing(&self, texts: &[&str]) -> Vec<String> {
        let named = self
            .code()
            .filter(|(_, line)| texts.iter().any(|text| line.contains(text)));
        named
            .map(|(number, line)| format!("{}:{number}: {}", self.path, line.trim()))
            .collect()
    }
}

/// Asserts that only allowed sources contain one of the texts, and that one does.
#[track_caller]
fn only(directory: &str, texts: &[&str], allowed: fn(&str) -> bool) {
    let (mut seen, mut wrong) = (0, Vec::new());
    for source in sources(directory) {
        let named = source.containing(texts);
        if allowed(&source.path) {
            seen += named.len();
        } else {
            wrong.extend(named);
        }
    }
    assert!(seen > 0, "no allowed source contains {texts:?}");
    assert!(
        wrong.is_empty(),
        "other sources contain {texts:?}:\n{}",
        wrong.join("\n")
    );
}

fn is_gate(path: &str) -> bool {
    path == "src/gate.rs" || path.starts_with("src/gate/")
}

#[test]
fn the_gate_has_no_async_code_no_clock_and_no_io() {
    let mut checked = 0;
    for source in sources("src").iter().filter(|source| is_gate(&source.path)) {
        checked += source.code().count();
        let named = source.containing(&[
            "tokio",
            ".await",
            "async ",
            "SystemTime",
            "Instant",
            // Addresses are values and allowed, sockets are not.
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
fn only_the_route_table_uses_matchit() {
    only("src", &["matchit"], |path| {
        path.starts_with("src/gate/routes")
    });
}

#[test]
fn only_keys_verification_and_the_token_command_use_jsonwebtoken() {
    only("src", &["jsonwebtoken"], |path| {
        path == "src/keys.rs"
            || path.starts_with("src/keys/")
            || path == "src/gate/verify.rs"
            || path == "src/cli/token.rs"
            // The task service signs and verifies on its own, without the library.
            || path.starts_with("src/bin/task-service/")
    });
}

#[test]
fn only_tls_builds_configurations_and_none_skips_verification() {
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
        let named = source.containing(&[
            ".dangerous()",
            "ServerCertVerifier",
            "allow_unknown_revocation_status",
            "max_early_data_size",
        ]);
        assert!(named.is_empty(), "{}", named.join("\n"));
    }
}

#[test]
fn only_cors_sets_cors_headers() {
    only("src", &["ACCESS_CONTROL_"], |path| {
        path == "src/gate/cors.rs"
    });
}

#[test]
fn only_the_gate_makes_a_permit() {
    only("src", &["Permit::new("], |path| path == "src/gate.rs");
    only("src", &["        caller: Caller,"], |path| {
        path == "src/gate/permit.rs"
    });
}

#[test]
fn only_the_gate_reads_a_target_and_only_its_target_is_sent() {
    only("src", &["RequestTarget::read(", "Target::read("], |path| {
        path.starts_with("src/gate")
    });
    only("src", &["RequestHead::begin("], |path| {
        ["src/proxy/headers.rs", "src/proxy/request_head.rs"].contains(&path)
    });
}

#[test]
fn the_upstream_takes_a_permit_by_value() {
    only("src", &["        permit: Permit,"], |path| {
        path == "src/proxy/upstream.rs" || path == "src/proxy.rs"
    });
}

#[test]
fn only_exchanges_and_health_checks_open_upstream_connections() {
    only("src", &["endpoint.check_out(", "endpoint.open("], |path| {
        path == "src/proxy/upstream.rs" || path == "src/proxy/upstream/endpoint.rs"
    });
    only("src", &["connect::open("], |path| {
        path == "src/proxy/upstream/health.rs" || path == "src/proxy/upstream/endpoint.rs"
    });
}

#[test]
fn only_the_control_thread_changes_the_policy() {
    only("src", &["change_policy("], |path| {
        path == "src/app/background.rs" || path == "src/proxy/shared.rs"
    });
}

#[test]
fn the_task_service_imports_nothing_of_the_library() {
    let mut checked = 0;
    for source in sources("src/bin/task-service") {
        checked += source.code().count();
        let named = source.containing(&["claimgate::"]);
        assert!(named.is_empty(), "{}", named.join("\n"));
    }
    assert!(checked > 500, "{checked} lines");
}

#[test]
fn the_configuration_imports_no_other_module() {
    let modules = [
        "app", "cli", "clock", "gate", "keys", "observe", "proxy", "tls",
    ];
    let modules = modules.map(|module| format!("crate::{module}"));
    let modules: Vec<&str> = modules.iter().map(String::as_str).collect();
    let mut checked = 0;
    for source in sources("src") {
        if source.path == "src/config.rs" || source.path.starts_with("src/config/") {
            checked += source.code().count();
            let named = source.containing(&modules);
            assert!(named.is_empty(), "{}", named.join("\n"));
        }
    }
    assert!(checked > 300, "{checked} lines");
}

#[test]
fn the_gate_does_not_import_the_proxy() {
    let mut checked = 0;
    for source in sources("src").iter().filter(|source| is_gate(&source.path)) {
        checked += 1;
        let named = source.containing(&["crate::proxy", "crate::app", "crate::observe"]);
        assert!(named.is_empty(), "{}", named.join("\n"));
    }
    assert!(checked > 5, "{checked} sources");
}

/// Modules of the library, from their paths to their imports of other modules.
///
/// An import of a descendant is left out: a parent may use and re-export its children.
fn module_imports() -> BTreeMap<String, BTreeSet<String>> {
    let sources: BTreeMap<String, Source> = sources("src")
        .into_iter()
        .filter(|source| !source.path.starts_with("src/bin/") && !source.is_test())
        .map(|source| (module(&source.path), source))
        .collect();
    let imports = sources.iter().map(|(module, source)| {
        let mut imports = BTreeSet::new();
        for path in source.imports() {
            let Some(mut path) = absolute(module, &path) else {
                continue;
            };
            // The last segments may be items; the root of the crate contains only modules.
            while !sources.contains_key(&path) {
                let Some((parent, _)) = path.rsplit_once("::") else {
                    break;
                };
                path.truncate(parent.len());
            }
            let is_descendant = path.starts_with(&format!("{module}::"));
            if sources.contains_key(&path) && path != *module && !is_descendant {
                imports.insert(path);
            }
        }
        (module.clone(), imports)
    });
    imports.collect()
}

/// Path of the module in a file, as in `crate::gate::token`.
fn module(file: &str) -> String {
    let path = file.strip_prefix("src/").unwrap();
    let path = path.strip_suffix(".rs").unwrap().replace('/', "::");
    match path.as_str() {
        "lib" => "crate".to_owned(),
        _ => format!("crate::{path}"),
    }
}

/// Resolves an import of a module; `None` for another crate.
fn absolute(module: &str, import: &str) -> Option<String> {
    let mut parent = module;
    let mut rest = import;
    while let Some(after) = rest.strip_prefix("super::") {
        parent = parent.rsplit_once("::")?.0;
        rest = after;
    }
    if rest.len() < import.len() {
        return Some(format!("{parent}::{rest}"));
    }
    import.starts_with("crate::").then(|| import.to_owned())
}

/// Expands a use tree into its paths.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((head, list)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap();
        paths.push(format!("{prefix}{path}"));
        return;
    };
    let list = list.trim_end().strip_suffix('}').unwrap();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&format!("{prefix}{head}"), &list[start..at], paths);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !list[start..].trim().is_empty() {
        expand(&format!("{prefix}{head}"), &list[start..], paths);
    }
}

impl Source {
    /// Paths of the `use` declarations at file level, except those of tests.
    fn imports(&self) -> Vec<String> {
        let mut lines = self.code().map(|(_, line)| line);
        let mut paths = Vec::new();
        let mut is_test = false;
        while let Some(line) = lines.next() {
            let start = line.strip_prefix("pub");
            let start = start.map_or(line, |rest| rest.trim_start_matches(['(', ')', ' ']));
            let start = ["crate) ", "super) "]
                .iter()
                .find_map(|visibility| start.strip_prefix(visibility))
                .unwrap_or(start);
            if let Some(first) = start.strip_prefix("use ") {
                let mut tree = first.to_owned();
                while !tree.ends_with(';') {
                    tree.push_str(lines.next().unwrap().trim());
                }
                if !is_test {
                    expand("", tree.trim_end_matches(';'), &mut paths);
                }
            }
            is_test = line == "#[cfg(test)]";
        }
        paths
    }
}

/// Every module that a module imports, directly or not.
fn reachable<'a>(
    imports: &'a BTreeMap<String, BTreeSet<String>>,
    module: &str,
) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = imports[module].iter().map(String::as_str).collect();
    while let Some(module) = open.pop() {
        if found.insert(module) {
            open.extend(imports[module].iter().map(String::as_str));
        }
    }
    found
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let imports = module_imports();
    let edges: usize = imports.values().map(BTreeSet::len).sum();
    assert!(edges > 300, "{edges} imports");
    let reachable: BTreeMap<&str, BTreeSet<&str>> = imports
        .keys()
        .map(|module| (module.as_str(), reachable(&imports, module)))
        .collect();
    let mut circles = BTreeSet::new();
    for (module, found) in &reachable {
        let circle: BTreeSet<&str> = found
            .iter()
            .copied()
            .filter(|other| reachable[other].contains(module))
            .collect();
        if !circle.is_empty() {
            circles.insert(circle);
        }
    }
    let mut lines = Vec::new();
    for circle in circles {
        lines.push(format!("circle of {} modules:", circle.len()));
        for module in &circle {
            let within = imports[*module].iter();
            let within: Vec<_> = within.filter(|it| circle.contains(it.as_str())).collect();
            lines.push(format!("  {module} imports {within:?}"));
        }
    }
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}

#[test]
fn no_test_sleeps_or_is_ignored() {
    // Split, so that the check does not match this file.
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
fn every_test_file_is_a_module_of_the_binary() {
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

/// Files of the repository that hold text, except lock files and the folders of tools.
fn texts() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut found, mut open) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let is_tool = ["target", "node_modules", "__pycache__"].contains(&name);
            // Hidden files belong to tools, except those that the repository has.
            let is_hidden = name.starts_with('.') && ![".ci", ".dockerignore"].contains(&name);
            let is_lock = ["Cargo.lock", "package-lock.json"].contains(&name);
            if is_tool || is_hidden || is_lock || path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path = path.strip_prefix(root).unwrap();
                let path = path.to_str().unwrap().to_owned();
                found.push(Source { path, text });
            }
        }
    }
    found
}

#[test]
fn no_file_names_a_package_registry() {
    // Split, so that the check does not match this file. Each ecosystem's tools know their registry, or a mirror.
    let hosts = [
        concat!("crates", ".io"),
        concat!("static.rust", "-lang"),
        concat!("pypi", ".org"),
        concat!("files.python", "hosted"),
        concat!("registry.", "npmjs"),
        concat!("deb.", "debian"),
        concat!("docker", ".io"),
        concat!("ghcr", ".io"),
        concat!("quay", ".io"),
        concat!("proxy.", "golang"),
    ];
    let texts = texts();
    for expected in [".ci/run", "deploy/Dockerfile", "README.md", "Cargo.toml"] {
        assert!(texts.iter().any(|it| it.path == expected), "{expected}");
    }
    let mut named = Vec::new();
    for Source { path, text } in &texts {
        for (number, line) in text.lines().enumerate() {
            if hosts.iter().any(|host| line.contains(host)) {
                named.push(format!("{path}:{}", number + 1));
            }
        }
    }
    assert!(named.is_empty(), "{}", named.join("\n"));
}
