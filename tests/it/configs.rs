//! Valid configurations with their warnings, invalid ones with every problem as printed.

mod example;

use std::fs;
use std::path::{Path, PathBuf};

use claimgate::app::App;
use claimgate::config::{ConfigDocument, Problems};

/// Environment variables that the fixtures use, listed in `tests/fixtures/README.md`.
const VARIABLES: [(&str, &str); 6] = [
    (
        "BETTER_AUTH_SECRET",
        "a secret of the tests, long enough even for HS512: 64 bytes at the least",
    ),
    ("EMPTY_SECRET", ""),
    ("SHORT_SECRET", "a secret of 24 bytes ..."),
    (
        "BASE64_SECRET",
        "dGhpcnR5LXR3byBieXRlcyBhdCBsZWFzdCwgaW4gYmFzZTY0",
    ),
    (
        "PADDED_SECRET",
        "dGhpcnR5LXR3byBieXRlcyBhdCBsZWFzdCwgYW5kIHBhZGRlZA==",
    ),
    (
        "PEM_SECRET",
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----",
    ),
];

#[test]
fn valid_configurations_compile_with_their_warnings() {
    let mut differences = Vec::new();
    for file in fixtures("valid") {
        let found = match compile(&file, &fs::read_to_string(&file).unwrap()) {
            Ok(app) => lines(&app.warnings),
            Err(problems) => format!("{problems}\n"),
        };
        differences.extend(difference(&file, &found));
    }
    assert!(differences.is_empty(), "{}", differences.concat());
}

#[test]
fn invalid_configurations_report_every_problem_with_its_line() {
    let files = fixtures("invalid");
    assert!(
        files.len() >= 25,
        "only {} invalid configurations",
        files.len()
    );
    let mut differences = Vec::new();
    for file in files {
        let found = match compile(&file, &fs::read_to_string(&file).unwrap()) {
            Ok(_) => "no problem\n".to_owned(),
            Err(problems) => format!("{problems}\n"),
        };
        differences.extend(difference(&file, &found));
    }
    assert!(differences.is_empty(), "{}", differences.concat());
}

#[test]
fn a_missing_file_is_named() {
    let problems = ConfigDocument::load(Path::new("/no/such/gate.toml")).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "/no/such/gate.toml: cannot be read: No such file or directory (os error 2)"
    );
}

#[test]
fn problems_are_sorted_by_line() {
    let file = directory("invalid").join("five-mistakes.toml");
    let problems = compile(&file, &fs::read_to_string(&file).unwrap()).unwrap_err();
    let lines: Vec<_> = problems.all.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [Some(2), Some(3), Some(6), Some(10), Some(14)]);
}

/// Compiles text as `claimgate run` does, with the bare file name in the messages.
fn compile(file: &Path, text: &str) -> Result<App, Problems> {
    let mut document = ConfigDocument::parse(Path::new(file.file_name().unwrap()), text)?;
    for (name, value) in VARIABLES {
        document.set_variable(name, value);
    }
    App::compile(document)
}

fn directory(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/config")
        .join(kind)
}

/// All fixtures of one kind. Asserts that `.toml` and `.expected` files come in pairs.
fn fixtures(kind: &str) -> Vec<PathBuf> {
    let found: Vec<PathBuf> = fs::read_dir(directory(kind))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let with = |extension: &str| {
        let is = |file: &&PathBuf| file.extension().is_some_and(|found| found == extension);
        let mut files: Vec<PathBuf> = found.iter().filter(is).cloned().collect();
        files.sort();
        files
    };
    let files = with("toml");
    assert!(!files.is_empty(), "no {kind} configurations found");
    let expected: Vec<PathBuf> = files
        .iter()
        .map(|file| file.with_extension("expected"))
        .collect();
    assert_eq!(with("expected"), expected);
    files
}

fn difference(file: &Path, found: &str) -> Option<String> {
    let expected = fs::read_to_string(file.with_extension("expected")).unwrap();
    (found != expected).then(|| {
        format!(
            "{}:\n--- expected\n{expected}--- found\n{found}\n",
            file.display()
        )
    })
}

fn lines(texts: &[String]) -> String {
    texts.iter().flat_map(|text| [text, "\n"]).collect()
}
