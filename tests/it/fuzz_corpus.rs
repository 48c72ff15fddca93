//! Kept inputs of the fuzz targets, against the invariants that the targets check.

// The same source as the library of the fuzz package, which is outside this workspace.
#[expect(unreachable_pub, reason = "public in the fuzz package")]
#[path = "../../fuzz/src/lib.rs"]
pub(crate) mod invariants;

use std::fs;
use std::path::Path;

use invariants::{configuration, gate, header_names, jwks, path, request_head, response, token};

/// Runs a check for every input of a target.
fn replay(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 20, "{target} has {} inputs", files.len());
    for file in files {
        // Names the input of a panic: the test harness prints output of failed tests only.
        eprintln!("{}", file.display());
        check(&fs::read(file).unwrap());
    }
}

#[test]
fn every_kept_path_has_one_reading() {
    replay("path", path::check);
}

#[test]
fn every_kept_token_is_read_alike_by_another_parser() {
    replay("token", token::check);
}

#[test]
fn no_kept_key_set_yields_a_forgeable_key() {
    replay("jwks", jwks::check);
}

#[test]
fn every_kept_configuration_compiles_or_has_a_problem() {
    replay("configuration", configuration::check);
}

#[test]
fn no_kept_header_name_passes_as_an_identity() {
    replay("header_names", header_names::check);
}

#[test]
fn every_kept_head_is_forwarded_as_judged_or_refused() {
    replay("gate", gate::check);
}

#[test]
fn every_kept_response_has_one_reading() {
    replay("response", response::check);
}

#[test]
fn every_kept_head_is_written_as_one_head() {
    replay("request_head", request_head::check);
}
