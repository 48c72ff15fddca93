//! Examples, exit codes and the page of each command, as `--help` shows them.

/// Text after the options of the program itself.
pub(super) const PROGRAM: &str = "\
Start:     run, dev, init
Diagnose:  check (the configuration), doctor (everything outside), explain (one request), why (one refusal)

Documentation: docs/README.md, docs/reference/cli.md";

pub(super) const RUN: &str = "\
Examples:
  claimgate run --config claimgate.toml
  UPSTREAM=http://127.0.0.1:8000 BETTER_AUTH_URL=http://localhost:3000 claimgate run

Exit codes: 0 after a graceful shutdown, 1 failure, 2 invalid configuration, 130 second signal
See docs/reference/cli.md#claimgate-run";

pub(super) const INIT: &str = "\
Examples:
  claimgate init --better-auth https://app.example --cors https://app.example
  claimgate init --secret-env BETTER_AUTH_SECRET --openapi http://127.0.0.1:8000/openapi.json

Exit codes: 0 written, 1 failure, 2 invalid arguments
See docs/reference/cli.md#claimgate-init";

pub(super) const CHECK: &str = "\
Examples:
  claimgate check --config claimgate.toml
  claimgate check --openapi http://127.0.0.1:8000/openapi.json --strict
  claimgate check --output json

Exit codes: 0 valid, 1 failure, 2 invalid, or a finding with --strict
See docs/reference/cli.md#claimgate-check";

pub(super) const CONFIG: &str = "\
Examples:
  claimgate config > claimgate.toml
  claimgate config --config claimgate.toml --defaults

Exit codes: 0 printed, 1 failure, 2 invalid configuration
See docs/reference/cli.md#claimgate-config";

pub(super) const EXPLAIN: &str = "\
Examples:
  claimgate explain GET /api/alice/tasks
  claimgate explain --token \"$TOKEN\" -H 'Origin: https://app.example' POST /api/alice/tasks
  claimgate explain --cookie \"better-auth.session_token=$SESSION\" GET /api/alice/tasks
  claimgate explain --offline --output json GET /health

Exit codes: 0 forwarded or an allowed preflight, 1 rejected, 2 invalid configuration
See docs/reference/cli.md#claimgate-explain";

pub(super) const DEV: &str = "\
Examples:
  claimgate dev -- uvicorn app:app
  claimgate dev -- npm run dev -- --port {port}
  claimgate dev --port 3000 -- npm run dev

Exit codes: that of the API; 0 after Ctrl-C
See docs/reference/cli.md#claimgate-dev";

pub(super) const TOKEN: &str = "\
Examples:
  claimgate token mint --subject alice --lifetime 15m
  claimgate token inspect \"$TOKEN\"

Exit codes: 0 minted or accepted, 1 rejected or a failure, 2 invalid configuration
See docs/reference/cli.md#claimgate-token-mint";

pub(super) const DOCTOR: &str = "\
Examples:
  claimgate doctor
  claimgate doctor --token \"$TOKEN\" --output json
  claimgate doctor --cookie \"better-auth.session_token=$SESSION\"

Exit codes: 0 no failure, 1 a key set, an exchange, a certificate or the token fails, 2 invalid configuration
See docs/reference/cli.md#claimgate-doctor";

pub(super) const WHY: &str = "\
Examples:
  claimgate why
  claimgate why ba5484c041a2a79ced698c38ae5ec313

Exit codes: 0 explained, 1 unknown request ID or no running gate
See docs/reference/cli.md#claimgate-why, and docs/reference/responses.md for every reason";

pub(super) const DRAIN: &str = "\
Examples:
  claimgate drain
  claimgate drain --admin 127.0.0.1:9901 --wait 10s

Exit codes: 0 draining, 1 no running gate
See docs/reference/cli.md#claimgate-drain";

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use crate::cli::Arguments;

    #[test]
    fn every_example_parses_and_every_page_exists() {
        let page = include_str!("../../docs/reference/cli.md");
        let mut examples = 0;
        for command in Arguments::command().get_subcommands() {
            let Some(help) = command.get_after_help() else {
                continue;
            };
            let help = help.to_string();
            for line in help.lines().filter(|line| line.starts_with("  ")) {
                let (_, arguments) = line.split_once("claimgate ").unwrap();
                let arguments = arguments.split(" > ").next().unwrap();
                let words = shlex::split(&format!("claimgate {arguments}")).unwrap();
                let parsed = Arguments::try_parse_from(words);
                assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
                examples += 1;
            }
            let (_, anchor) = help.split_once("cli.md#").unwrap();
            let anchor = anchor.split(',').next().unwrap().trim();
            let heading = format!("\n## {}\n", anchor.replacen('-', " ", 2));
            assert!(page.contains(&heading), "no heading for {anchor}");
        }
        assert!(examples >= 20, "only {examples} examples");
    }
}
