use std::path::Path;

use super::{Access, Config, ConfigDocument};

fn problems(text: &str) -> Vec<String> {
    let document = match ConfigDocument::parse(Path::new("gate.toml"), text) {
        Ok(document) => document,
        Err(problems) => return problems.to_string().lines().map(str::to_owned).collect(),
    };
    match document.finish() {
        Ok(()) => Vec::new(),
        Err(problems) => problems.to_string().lines().map(str::to_owned).collect(),
    }
}

fn read(text: &str) -> Config {
    ConfigDocument::parse(Path::new("gate.toml"), text)
        .unwrap()
        .config
}

#[test]
fn eight_lines_form_a_complete_configuration() {
    let config = read(concat!(
        "[upstreams.tasks]\nurl = \"http://127.0.0.1:3000\"\n",
        "[issuers.better-auth]\nkeys = { secret_env = \"BETTER_AUTH_SECRET\" }\n",
        "[[routes]]\npath = \"/api/{user_id}/tasks/{*rest}\"\naccess = { owner = \"user_id\" }\n",
    ));
    assert_eq!(config.routes[0].access, Access::Owner("user_id".into()));
    assert_eq!(config.listen.address.to_string(), "0.0.0.0:8080");
    assert_eq!(config.admin.address.to_string(), "127.0.0.1:9901");
    assert_eq!(config.issuers["better-auth"].subject, ["sub", "user_id"]);
}

#[test]
fn every_problem_is_reported_with_its_line_and_key() {
    let text = r#"
[listen]
adress = "0.0.0.0:8080"
header_timeout = "10 parsecs"
max_header_bytes = -1

[upstreams.tasks]
allow_remote = "yes"

[[routes]]
path = "/a"

[[routes]]
path = "/b"
access = "everybody"
"#;
    assert_eq!(
        problems(text),
        [
            "gate.toml:3: listen.adress: unknown key; did you mean `address`?",
            "gate.toml:4: listen.header_timeout: `10 parsecs` is not a valid duration; expected a number \
             and a unit, such as \"30s\", \"5m\" or \"7d\"",
            "gate.toml:5: listen.max_header_bytes: expected a size such as \"32KiB\" or \"10MiB\", \
             found integer `-1`",
            "gate.toml:7: upstreams.tasks: missing required key `url`",
            "gate.toml:8: upstreams.tasks.allow_remote: expected true or false, found string \"yes\"; write \
             `allow_remote = true`",
            "gate.toml:10: routes[0]: missing required key `access`",
            "gate.toml:15: routes[1].access: expected \"public\", \"authenticated\" or { owner = \
             \"user_id\" }, found string \"everybody\"",
        ]
    );
}

#[test]
fn syntax_errors_are_reported_with_their_line() {
    let found = problems("[listen]\naddress = \"0.0.0.0:8080\n");
    assert!(
        found[0].starts_with("gate.toml:2: invalid TOML: "),
        "{found:?}"
    );
}

#[test]
fn an_unknown_key_in_a_nested_table_lists_the_known_keys() {
    let found = problems("[issuers.a]\nkeys = { token = \"x\" }\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("issuers.a.keys.token: unknown key; expected one of"),
        "{found:?}"
    );
}

#[test]
fn durations_and_sizes_accept_units() {
    let config =
        read("[listen]\nidle_timeout = \"2m\"\nmax_body_bytes = \"1MiB\"\nmax_header_bytes = 9000");
    assert_eq!(config.listen.idle_timeout.as_secs(), 120);
    assert_eq!(config.listen.max_body_bytes, 1_048_576);
    assert_eq!(config.listen.max_header_bytes, 9000);
}
