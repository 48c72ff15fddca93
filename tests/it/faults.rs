//! Known faults: every line of `tests/wild/faults` names a test that exists. `tests/wild/run` runs exactly these tests.

use std::fs;
use std::path::{Path, PathBuf};

/// Test named by a line.
struct Named<'a> {
    kind: &'a str,
    /// Modules or files, outermost first.
    modules: Vec<&'a str>,
    name: &'a str,
}

#[test]
fn every_known_fault_names_a_test_that_exists() {
    let mut checked = 0;
    let mut problems = Vec::new();
    for file in files() {
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            checked += 1;
            let problem = match named(line) {
                None => "expected `SECTION | fault | KIND TEST`",
                Some(named) if !named.exists() => "this test does not exist",
                Some(_) => continue,
            };
            problems.push(format!(
                "{}:{}: {problem}: {line}",
                file.display(),
                number + 1
            ));
        }
    }
    assert!(checked > 0, "no fault: the check would pass on nothing");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("tests/wild/faults")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "txt"))
        .collect();
    files.sort();
    files
}

/// Parses `SECTION | fault | KIND TEST`.
fn named(line: &str) -> Option<Named<'_>> {
    let parts: Vec<&str> = line.split('|').map(str::trim).collect();
    let [section, fault, test] = parts[..] else {
        return None;
    };
    let (kind, path) = test.split_once(' ')?;
    let mut modules: Vec<&str> = path.split("::").collect();
    let name = modules.pop()?;
    let is_complete = !section.is_empty() && !fault.is_empty() && !modules.is_empty();
    (is_complete && ["lib", "it", "task-service", "e2e"].contains(&kind)).then_some(Named {
        kind,
        modules,
        name,
    })
}

impl Named<'_> {
    /// Reports whether a source file of the module, or of one around it, defines the test.
    fn exists(&self) -> bool {
        let (folder, keyword) = match self.kind {
            "lib" => ("src", "fn"),
            "it" => ("tests/it", "fn"),
            "task-service" => ("src/bin/task-service", "fn"),
            _ => ("tests/e2e", "def"),
        };
        let definition = format!("{keyword} {}(", self.name);
        (1..=self.modules.len()).any(|count| {
            let path = root().join(folder).join(self.modules[..count].join("/"));
            let path = if self.kind == "e2e" {
                path
            } else {
                path.with_extension("rs")
            };
            fs::read_to_string(path).is_ok_and(|text| text.contains(&definition))
        })
    }
}
