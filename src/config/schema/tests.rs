use std::fs;
use std::path::{Path, PathBuf};

use http::Method;
use jsonschema::Validator;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::CONFIG_SCHEMA;
use crate::config::known_keys::tables;
use crate::config::{Config, ConfigDocument};
use crate::gate::routes::METHODS;
use crate::keys::Algorithm;

/// Variable that makes the comparing test write the file instead.
const WRITE: &str = "CLAIMGATE_WRITE_SCHEMA";

/// Invalid fixtures with problems beyond the reach of a schema: values that only a parser or a compiler understands, and
/// references between keys.
const BEYOND_THE_SCHEMA: &[&str] = &[
    "ambiguous-upstream",
    "any-audience",
    "conflicting-routes",
    "cors-disabled",
    "dpop",
    "duplicate-address",
    "duplicate-iss",
    "empty-subject",
    "exchanges",
    "identity-headers",
    "issuers-without-iss",
    "key-set-urls",
    "leeway-too-long",
    "limits-out-of-range",
    "misplaced-key-settings",
    "no-issuer",
    "plaintext-upstream",
    "public-keys",
    "redis-authority",
    "redis-password",
    "redis-url",
    "resource-empty",
    "resource-missing",
    "resource-routes",
    "route-paths",
    "secrets",
    "subject-prefixes",
    "tracing-url",
    "tracing",
    "upstream-timeouts",
    "upstream-tls",
    "upstream-urls",
    "variables",
    "zero-durations",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The schema of the structs. Draft 7, which the editor extensions for TOML support best.
fn generated() -> Value {
    let generator = SchemaSettings::draft07().into_generator();
    let mut schema = generator.into_root_schema_for::<Config>().to_value();
    schema["title"] = json!("claimgate configuration");
    // Rules that the compiler of the configuration checks, and a schema can say.
    schema["required"] = json!(["upstreams", "routes"]);
    schema["properties"]["routes"]["minItems"] = json!(1);
    let definitions = &mut schema["definitions"];
    let sample = &mut definitions["Log"]["properties"]["sample"];
    (sample["minimum"], sample["maximum"]) = (json!(0), json!(1));
    definitions["Route"]["properties"]["mismatch"]["enum"] = json!([401, 403, 404]);
    let methods: Vec<&str> = METHODS.iter().map(Method::as_str).collect();
    let algorithms = Algorithm::ALL.map(Algorithm::name).into_iter();
    let algorithms: Vec<&str> = algorithms.chain(["Ed25519"]).collect();
    for (definition, key, words) in [
        ("Route", "methods", &methods),
        ("Cors", "methods", &methods),
        ("Issuer", "algorithms", &algorithms),
    ] {
        let list = &mut definitions[definition]["properties"][key];
        assert!(list.is_object(), "{definition}: {key}");
        list["items"] = json!({ "enum": words });
        list["minItems"] = json!(1);
    }
    one_of(
        &mut schema,
        "Keys",
        &[
            "secret_env",
            "secret_file",
            "pem_file",
            "jwks_file",
            "jwks_url",
            "discovery",
        ],
    );
    let issuer = &mut schema["definitions"]["Issuer"];
    issuer["anyOf"] = json!([
        { "required": ["keys"], "not": { "required": ["better_auth"] } },
        { "required": ["better_auth"], "not": { "required": ["keys"] } },
        { "required": ["introspection"], "not": { "required": ["keys", "better_auth"] } },
    ]);
    one_of(
        &mut schema,
        "TokenSource",
        &["header", "cookie", "query", "websocket", "session"],
    );
    for_toml(&mut schema);
    schema
}

/// Removes null, which TOML does not have and editors would offer as a value, and the line breaks of doc comments.
fn for_toml(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            if let Some(Value::String(description)) = members.get_mut("description") {
                *description = description.replace('\n', " ");
            }
            if let Some(Value::Array(types)) = members.get_mut("type") {
                types.retain(|name| name != "null");
                if let [name] = types.as_slice() {
                    let name = name.clone();
                    members.insert("type".to_owned(), name);
                }
            }
            if let Some(Value::Array(choices)) = members.get_mut("anyOf") {
                choices.retain(|choice| *choice != json!({ "type": "null" }));
                if let [choice] = choices.as_slice() {
                    let choice = choice.clone();
                    members.remove("anyOf");
                    if choice.get("$ref").is_some() {
                        // Draft 7 ignores the siblings of a reference.
                        members.insert("allOf".to_owned(), json!([choice]));
                    } else if let Value::Object(choice) = choice {
                        members.extend(choice);
                    }
                }
            }
            members.values_mut().for_each(for_toml);
        }
        Value::Array(elements) => elements.iter_mut().for_each(for_toml),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Requires exactly one of these keys in a table.
fn one_of(schema: &mut Value, definition: &str, keys: &[&str]) {
    let definition = &mut schema["definitions"][definition];
    assert!(definition.is_object(), "no definition");
    let required = keys.iter().map(|key| json!({ "required": [key] }));
    definition["oneOf"] = required.collect();
}

fn validator() -> Validator {
    jsonschema::validator_for(&serde_json::from_str(CONFIG_SCHEMA).unwrap()).unwrap()
}

/// A TOML text as JSON.
fn to_json(text: &str) -> Option<Value> {
    let table: toml::Table = toml::from_str(text).ok()?;
    serde_json::to_value(table).ok()
}

fn toml_files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
        .collect();
    files.sort();
    assert!(files.len() > 10, "{files:?}");
    files
}

fn errors(validator: &Validator, value: &Value) -> Vec<String> {
    let errors = validator.iter_errors(value);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a switch for people, not a setting"
)]
fn the_committed_schema_is_that_of_the_structs() {
    let file = root().join("config.schema.json");
    let text = format!("{:#}\n", generated());
    if std::env::var(WRITE).is_ok() {
        fs::write(file, text).unwrap();
        return;
    }
    assert!(
        text == CONFIG_SCHEMA,
        "config.schema.json is outdated: run `{WRITE}=1 cargo test --lib schema`, then again without it"
    );
}

#[test]
fn accepts_every_valid_configuration() {
    let validator = validator();
    let mut files = toml_files("tests/fixtures/config/valid");
    files.push(root().join("config.toml.example"));
    let mut folders = vec![root().join("deploy")];
    let mut deployed = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "toml") {
                let text = fs::read_to_string(&path).unwrap();
                assert!(text.starts_with("#:schema "), "{}", path.display());
                files.push(path);
                deployed += 1;
            }
        }
    }
    assert!(deployed >= 4, "only {deployed} files of deploy");
    for file in files {
        let value = to_json(&fs::read_to_string(&file).unwrap()).unwrap();
        let errors = errors(&validator, &value);
        assert!(errors.is_empty(), "{}: {errors:#?}", file.display());
    }
}

#[test]
fn accepts_every_form_of_a_value_that_the_parser_accepts() {
    let validator = validator();
    let sizes = ["4096", "\"32KiB\"", "\"32 kib\"", "\"1.5K\"", "\".5MiB\""];
    let durations = ["\"0\"", "\"30s\"", "\"5m 30s\"", "\"1.5s\"", "\" 1 day \""];
    let listeners = ["\"0.0.0.0:80\"", "\"[::]:80\"", "\"[fe80::1%1]:80\""];
    let sockets = ["\"unix:/run/gate.sock\"", "\"systemd:0\""];
    let networks = ["[\"10.0.0.0/8\"]", "[\"10.1.2.3\"]", "[\"::1/128\"]"];
    for (section, key, values) in [
        ("listen", "max_body_bytes", sizes.as_slice()),
        ("listen", "idle_timeout", &durations),
        ("listen", "address", &listeners),
        ("listen", "address", &sockets),
        ("listen", "trusted_proxies", &networks),
        ("admin", "address", &listeners),
    ] {
        for value in values {
            let text = format!(
                "[{section}]\n{key} = {value}\n[upstreams.a]\nurl = \"http://127.0.0.1:1\"\n\
                 [[routes]]\npath = \"/\"\naccess = \"public\"\n"
            );
            let document = ConfigDocument::parse(Path::new("form.toml"), &text);
            let parsed = document.and_then(ConfigDocument::finish);
            assert!(parsed.is_ok(), "the parser rejects {key} = {value}");
            let errors = errors(&validator, &to_json(&text).unwrap());
            assert!(errors.is_empty(), "{key} = {value}: {errors:#?}");
        }
    }
}

#[test]
fn offers_editors_neither_null_nor_markup_of_rust() {
    for absent in ["null", "[`", "\\n"] {
        assert!(!CONFIG_SCHEMA.contains(absent), "contains `{absent}`");
    }
    assert!(CONFIG_SCHEMA.contains("\"description\""));
}

#[test]
fn accepts_the_alternatives_of_the_example() {
    let validator = validator();
    let example = fs::read_to_string(root().join("config.toml.example")).unwrap();
    let mut tried = 0;
    for (at, line) in example.lines().enumerate() {
        let Some((key, _)) = line
            .strip_prefix("# ")
            .and_then(|line| line.split_once(" = "))
        else {
            continue;
        };
        if key.contains(' ') {
            continue;
        }
        // The section of the line, with this key alone and what the section requires.
        let section = example
            .lines()
            .take(at)
            .filter(|line| line.starts_with('['))
            .last()
            .unwrap();
        let required = match section {
            "[[routes]]" if key != "access" => "path = \"/\"\naccess = \"public\"\n",
            "[[routes]]" => "path = \"/\"\n",
            "[cors]" if key != "origins" => "origins = [\"*\"]\n",
            section if section.starts_with("[upstreams") && key != "url" => {
                "url = \"http://127.0.0.1:1\"\n"
            }
            section if section.starts_with("[issuers") && key != "keys" && key != "better_auth" => {
                "better_auth = \"https://app.example\"\n"
            }
            "[redis]" | "[tracing]" if key != "url" => "url = \"http://127.0.0.1:1\"\n",
            _ => "",
        };
        let text = format!("{section}\n{required}{}\n", line.trim_start_matches("# "));
        let Some(value) = to_json(&text) else {
            continue;
        };
        let errors = errors(&validator, &value);
        let errors: Vec<_> = errors
            .iter()
            .filter(|error| !error.contains("is a required property"))
            .collect();
        assert!(errors.is_empty(), "{text}{errors:#?}");
        tried += 1;
    }
    assert!(tried > 30, "only {tried} alternatives");
}

#[test]
fn has_the_keys_of_every_table() {
    let schema: Value = serde_json::from_str(CONFIG_SCHEMA).unwrap();
    let mut keys = Vec::new();
    collect_keys(&schema, &mut keys);
    let tables = tables();
    assert!(tables.len() > 20);
    for table in &tables {
        for key in table.keys {
            assert!(
                keys.contains(&(*key).to_owned()),
                "{table}: `{key}` is not in the schema"
            );
        }
    }
    let known = |key: &String| {
        tables
            .iter()
            .any(|table| table.keys.contains(&key.as_str()))
    };
    let unknown: Vec<_> = keys.iter().filter(|key| !known(key)).collect();
    assert!(unknown.is_empty(), "not in the structs: {unknown:?}");
}

fn collect_keys(schema: &Value, keys: &mut Vec<String>) {
    match schema {
        Value::Object(members) => {
            for (name, member) in members {
                if name == "properties" {
                    keys.extend(member.as_object().unwrap().keys().cloned());
                }
                collect_keys(member, keys);
            }
        }
        Value::Array(elements) => elements
            .iter()
            .for_each(|element| collect_keys(element, keys)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn rejects_invalid_configurations_within_its_reach() {
    let validator = validator();
    let mut accepted = Vec::new();
    let mut rejected = 0;
    for file in toml_files("tests/fixtures/config/invalid") {
        let Some(value) = to_json(&fs::read_to_string(&file).unwrap_or_default()) else {
            continue;
        };
        if validator.is_valid(&value) {
            accepted.push(file.file_stem().unwrap().to_str().unwrap().to_owned());
        } else {
            rejected += 1;
        }
    }
    assert!(rejected > 10, "only {rejected} rejected");
    assert_eq!(accepted, BEYOND_THE_SCHEMA);
}

#[test]
fn rejects_a_value_of_another_type_for_each_key_as_the_parser_does() {
    let validator = validator();
    let example = fs::read_to_string(root().join("config.toml.example")).unwrap();
    let value = to_json(&example).unwrap();
    let mut paths = Vec::new();
    leaves(&value, String::new(), &mut paths);
    assert!(paths.len() > 60, "{}", paths.len());
    for path in paths {
        let mut changed = value.clone();
        *changed.pointer_mut(&path).unwrap() = json!({ "not": ["a", "value"] });
        assert!(
            !validator.is_valid(&changed),
            "the schema accepts a table at {path}"
        );
        let table = toml::Table::try_from(&changed).unwrap();
        let document = ConfigDocument::parse(Path::new("changed.toml"), &table.to_string());
        let problems = document.and_then(ConfigDocument::finish);
        assert!(problems.is_err(), "the parser accepts a table at {path}");
    }
}

fn leaves(value: &Value, path: String, found: &mut Vec<String>) {
    match value {
        Value::Object(members) if path.ends_with("/headers") || path.ends_with("/set") => {
            found.extend(members.keys().take(0).cloned());
        }
        Value::Object(members) => {
            for (name, member) in members {
                let name = name.replace('~', "~0").replace('/', "~1");
                leaves(member, format!("{path}/{name}"), found);
            }
        }
        Value::Array(elements) if elements.iter().all(Value::is_object) => {
            for (index, element) in elements.iter().enumerate() {
                leaves(element, format!("{path}/{index}"), found);
            }
        }
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            found.push(path);
        }
    }
}
