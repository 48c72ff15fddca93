//! Examples of values, for messages about a value of another type.

use super::problem::{KeyPath, Step};

/// Example of the value at `path` in TOML: every table has one.
pub(super) fn example(path: &KeyPath) -> Option<&'static str> {
    let pattern = pattern(path);
    let found = EXAMPLES.iter().find(|(known, _)| *known == pattern);
    found.map(|(_, example)| *example)
}

/// Path with `*` for the names of upstreams and issuers, and `[]` for indices.
fn pattern(path: &KeyPath) -> String {
    let mut pattern = String::new();
    for (position, step) in path.steps().iter().enumerate() {
        let is_name = position == 1 && matches!(pattern.as_str(), "upstreams" | "issuers");
        match step {
            Step::Index(_) => pattern.push_str("[]"),
            Step::Key(_) if is_name => pattern.push_str(".*"),
            Step::Key(key) if position == 0 => pattern.push_str(key),
            Step::Key(key) => pattern.extend([".", key]),
        }
    }
    pattern
}

const CERTIFICATE: &str = "{ certificate = \"/tls/tls.crt\", key = \"/tls/tls.key\" }";
const CORS: &str = "{ origins = [\"https://app.example\"] }";
const HEADER_EDITS: &str = "{ set = { X-Tenant = \"acme\" }, remove = [\"X-Debug\"] }";
const RATE_LIMIT: &str = "{ requests = 10, per = \"1m\", by = \"client-address\" }";
const REQUIREMENT: &str = "{ claim = \"role\", has = \"admin\" }";
const RESOURCE: &str =
    "{ url = \"https://api.example\", authorization_servers = [\"https://app.example/api/auth\"] }";

const EXAMPLES: &[(&str, &str)] = &[
    ("listen", "{ address = \"0.0.0.0:8080\" }"),
    ("listen.tls", CERTIFICATE),
    ("listen.tls.more[]", CERTIFICATE),
    ("listeners[]", "{ address = \"127.0.0.1:8081\" }"),
    ("listeners[].tls", CERTIFICATE),
    ("listeners[].tls.more[]", CERTIFICATE),
    ("admin", "{ address = \"127.0.0.1:9901\" }"),
    ("drain", "{ grace = \"25s\" }"),
    ("log", "{ level = \"info\" }"),
    ("identity", "{ headers = { X-User-Email = \"email\" } }"),
    ("identity.headers", "{ X-User-Email = \"email\" }"),
    ("cors", CORS),
    ("upstreams", "{ api = { url = \"http://127.0.0.1:8000\" } }"),
    ("upstreams.*", "{ url = \"http://127.0.0.1:8000\" }"),
    ("upstreams.*.url", "\"http://127.0.0.1:8000\""),
    ("upstreams.*.retries", "{ attempts = 1, budget = 20 }"),
    ("upstreams.*.ejection", "{ failures = 5, time = \"10s\" }"),
    ("upstreams.*.health_check", "{ path = \"/health\" }"),
    ("upstreams.*.tls", "{ ca_file = \"/tls/ca.crt\" }"),
    (
        "issuers",
        "{ app = { better_auth = \"https://app.example\" } }",
    ),
    ("issuers.*", "{ better_auth = \"https://app.example\" }"),
    ("issuers.*.better_auth", "{ url = \"https://app.example\" }"),
    ("issuers.*.better_auth.sessions", "{ max_age = \"30s\" }"),
    (
        "issuers.*.introspection",
        "{ url = \"https://login.example/oauth2/introspect\", client_id = \"gate\", client_secret_file = \"/run/secrets/client\" }",
    ),
    (
        "issuers.*.accept[]",
        "{ types = [\"at+jwt\"], audience = \"https://api.example\" }",
    ),
    ("issuers.*.keys", "{ secret_env = \"BETTER_AUTH_SECRET\" }"),
    ("redis", "{ url = \"redis://127.0.0.1:6379\" }"),
    ("resource", RESOURCE),
    ("tracing", "{ url = \"http://127.0.0.1:4318\" }"),
    ("routes[]", "{ path = \"/health\", access = \"public\" }"),
    ("routes[].rate_limit", RATE_LIMIT),
    ("routes[].rate_limit[]", RATE_LIMIT),
    ("routes[].require[]", REQUIREMENT),
    ("routes[].exempt", REQUIREMENT),
    ("routes[].tokens[]", "{ header = \"Authorization\" }"),
    ("routes[].cors", CORS),
    (
        "routes[].replace_prefix",
        "{ from = \"/api\", to = \"/v1\" }",
    ),
    ("routes[].request_headers", HEADER_EDITS),
    ("routes[].request_headers.set", "{ X-Tenant = \"acme\" }"),
    ("routes[].response_headers", HEADER_EDITS),
    ("routes[].response_headers.set", "{ X-Tenant = \"acme\" }"),
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::ConfigDocument;
    use crate::config::known_keys::tables;

    #[test]
    fn every_table_has_an_example() {
        let patterns = tables().into_iter().map(|table| table.to_string());
        let patterns: Vec<String> = patterns
            // The message about `access` lists its forms.
            .filter(|pattern| !pattern.is_empty() && pattern != "routes[].access")
            .collect();
        assert!(patterns.len() > 20, "{patterns:?}");
        for pattern in patterns {
            let has_example = EXAMPLES.iter().any(|(known, _)| *known == pattern);
            assert!(has_example, "no example of `{pattern}`");
        }
    }

    #[test]
    fn every_example_is_valid() {
        for (pattern, example) in EXAMPLES {
            // `a[].b` becomes `a = [{ b = … }]`.
            let mut text = (*example).to_owned();
            for part in pattern.split('.').rev() {
                let key = part.replace('*', "name");
                text = match key.strip_suffix("[]") {
                    Some(key) => format!("{{ {key} = [{text}] }}"),
                    None => format!("{{ {key} = {text} }}"),
                };
            }
            let text = text.strip_prefix('{').unwrap().strip_suffix('}').unwrap();
            let document = ConfigDocument::parse(Path::new("example.toml"), text).unwrap();
            let path = pattern.replace(".*", ".name").replace("[]", "[0]");
            for problem in document.problems {
                assert!(
                    !problem.path.to_string().starts_with(&path)
                        || problem.message.starts_with("missing required key"),
                    "{pattern}: {example}: {problem:?}"
                );
            }
        }
    }
}
