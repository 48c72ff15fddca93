//! Configurations: good ones with their warnings, bad ones with every problem as it is printed.

mod example;

use std::fs;
use std::path::{Path, PathBuf};

use claimgate::app::App;
use claimgate::config::{ConfigDocument, Problems};

/// What the fixtures find in the environment: the README of the fixtures lists them.
const VARIABLES: [(&str, &str); 5] = [
    (
        "BETTER_AUTH_SECRET",
        "a secret of the tests, long enough even for HS512: 64 bytes at the least",
    ),
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
fn a_good_configuration_compiles_with_its_warnings() {
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
fn a_bad_configuration_is_told_every_problem_with_its_line() {
    let files = fixtures("invalid");
    assert!(files.len() >= 25, "only {} bad configurations", files.len());
    let mut differences = Vec::new();
    for file in files {
        let found = match compile(&file, &fs::read_to_string(&file).unwrap()) {
            Ok(_) => "nothing is wrong\n".to_owned(),
            Err(problems) => format!("{problems}\n"),
        };
        differences.extend(difference(&file, &found));
    }
    assert!(differences.is_empty(), "{}", differences.concat());
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let problems = ConfigDocument::load(Path::new("/no/such/gate.toml")).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "/no/such/gate.toml: cannot be read: No such file or directory (os error 2)"
    );
}

#[test]
fn five_mistakes_are_five_problems_in_the_order_of_their_lines() {
    let file = directory("invalid").join("five-mistakes.toml");
    let problems = compile(&file, &fs::read_to_string(&file).unwrap()).unwrap_err();
    let lines: Vec<_> = problems.all.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [Some(2), Some(3), Some(6), Some(10), Some(14)]);
}

/// Compiles text as `claimgate run` would, under the bare name of its file.
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

/// Every configuration of a kind; each must have its `.expected`, and each of those its configuration.
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
    assert!(
        !files.is_empty(),
        "there is no {kind} configuration: the test would pass on nothing"
    );
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
