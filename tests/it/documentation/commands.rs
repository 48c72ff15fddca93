//! Every command line of claimgate in the documentation, parsed as the program parses it.

use claimgate::cli::Arguments;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use super::{blocks, pages, prose, read};

/// True for the name of the program, its path, or its image.
fn is_program(word: &str) -> bool {
    let name = word.rsplit(['/', '(']).next().unwrap_or_default();
    name == "claimgate" || name.starts_with("claimgate:")
}

/// Command lines of claimgate in a line of shell, each up to an operator or a comment.
fn commands(line: &str) -> Vec<Vec<String>> {
    let line = line.split_once(" #").map_or(line, |(command, _)| command);
    let words = shlex::split(line).unwrap_or_default();
    let names: Vec<String> = Arguments::command()
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    let mut commands = Vec::new();
    for (at, pair) in words.windows(2).enumerate() {
        let name = pair[1].trim_end_matches(')').to_owned();
        if is_program(&pair[0]) && (at == 0 || names.contains(&name)) {
            let ends = |word: &&String| !word.starts_with(['&', '|', ';', '<', '>', '2']);
            let arguments = words[at + 1..].iter().take_while(ends);
            let arguments = arguments.map(|word| word.trim_end_matches(')').to_owned());
            let command = std::iter::once("claimgate".to_owned()).chain(arguments);
            commands.push(command.collect());
        }
    }
    commands
}

#[test]
fn every_command_in_the_documentation_parses() {
    let mut parsed = 0;
    for page in pages() {
        for block in blocks(&page) {
            if block.info != "sh" && block.info != "text" {
                continue;
            }
            for command in block.text.replace("\\\n", " ").lines().flat_map(commands) {
                let result = Arguments::try_parse_from(&command);
                // `--version` and `--help` print to standard output.
                let failure = result.err().filter(clap::Error::use_stderr);
                let error = failure.map(|error| error.to_string());
                assert_eq!(error, None, "{}: {}", block.place, command.join(" "));
                parsed += 1;
            }
        }
        // Inline code may leave out arguments and have placeholders.
        let text = prose(&read(&page));
        for command in text.split('`').skip(1).step_by(2).flat_map(commands) {
            let Err(error) = Arguments::try_parse_from(&command) else {
                continue;
            };
            let is_incomplete = matches!(
                error.kind(),
                ErrorKind::MissingRequiredArgument
                    | ErrorKind::MissingSubcommand
                    | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                    | ErrorKind::InvalidValue
                    | ErrorKind::ValueValidation
            );
            let place = page.display();
            assert!(is_incomplete, "{place}: {}: {error}", command.join(" "));
        }
    }
    assert!(parsed >= 40, "only {parsed} commands");
}
