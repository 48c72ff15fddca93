//! Configuration from environment variables, for a gate without a file.
//!
//! The variables are written as TOML and parsed like a file, so that a file made from them decides the same. Problems
//! name the variable instead of a line.

use std::net::SocketAddr;
use std::path::Path;

use toml::Value;

use super::problem::{KeyPath, Problem, Problems, Step};
use super::{Admin, ConfigDocument, environment};

/// Name of the source in messages.
pub const SOURCE: &str = "environment";

/// Name of the issuer.
const ISSUER: &str = "better-auth";

const UPSTREAM: &str = "UPSTREAM";
const ALLOW_REMOTE: &str = "UPSTREAM_ALLOW_REMOTE";
const SERVER: &str = "BETTER_AUTH_URL";
const PUBLIC: &str = "BETTER_AUTH_PUBLIC_URL";
const ALLOW_HTTP: &str = "BETTER_AUTH_ALLOW_HTTP";
const SECRET: &str = "BETTER_AUTH_SECRET";
const CORS_ORIGINS: &str = "CORS_ORIGINS";
const FRONTEND: &str = "FRONTEND_URL";
const PORT: &str = "PORT";
const ADMIN: &str = "ADMIN_ADDRESS";

/// Paths that work without a file: sign-in is public and rate limited, everything of a user belongs to that user.
///
/// Better Auth signs in below `/sign-in/` and `/sign-up/`, other servers at `/signin` and `/signup`.
pub const DEFAULT_ROUTES: &str = r#"
[[routes]]
path = "/health"
access = "public"

# Signing in is limited, so that a client cannot guess passwords.
[[routes]]
path = "/api/auth/sign-in/{*rest}"
access = "public"
rate_limit = { requests = 20, per = "1m", by = "client-address" }

[[routes]]
path = "/api/auth/sign-up/{*rest}"
access = "public"
rate_limit = { requests = 20, per = "1m", by = "client-address" }

[[routes]]
path = "/api/auth/signin"
access = "public"
rate_limit = { requests = 20, per = "1m", by = "client-address" }

[[routes]]
path = "/api/auth/signup"
access = "public"
rate_limit = { requests = 20, per = "1m", by = "client-address" }

[[routes]]
path = "/api/auth/{*rest}"
access = "public"

# The user in the path must be the subject of the token.
[[routes]]
path = "/api/{user_id}/{*rest}"
access = { owner = "user_id" }
"#;

/// Values of the variables. An empty variable counts as unset.
#[derive(Debug)]
pub(super) struct Variables {
    upstream: Option<String>,
    allow_remote: bool,
    server: Option<String>,
    public: Option<String>,
    allow_http: bool,
    has_secret: bool,
    origins: Option<(&'static str, String)>,
    port: Option<String>,
    admin: Option<String>,
}

impl ConfigDocument {
    /// Configuration from the environment of the process.
    pub fn from_environment() -> Result<Self, Problems> {
        Self::from_variables(environment)
    }

    /// Admin address of a gate that the environment configures, even if other variables are invalid.
    pub fn environment_admin_address() -> SocketAddr {
        let address = environment(ADMIN).and_then(|address| address.trim().parse().ok());
        address.unwrap_or_else(|| Admin::default().address)
    }

    /// Configuration from the variables that `lookup` returns.
    pub fn from_variables(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let variables = Variables::read(&lookup, &mut problems);
        variables.check(&mut problems);
        if !problems.is_empty() {
            return Err(Problems {
                file: SOURCE.into(),
                all: problems,
            });
        }
        let mut document = Self::parse(Path::new(SOURCE), &variables.to_toml())?;
        if let Some(secret) = lookup(SECRET) {
            document.set_variable(SECRET, &secret);
        }
        document.environment = Some(variables);
        Ok(document)
    }
}

impl Variables {
    fn read(lookup: &impl Fn(&str) -> Option<String>, problems: &mut Vec<Problem>) -> Self {
        let get = |name: &str| {
            let value = lookup(name)?;
            let value = value.trim();
            (!value.is_empty()).then(|| value.to_owned())
        };
        let mut flag = |name: &str| match get(name).as_deref() {
            None | Some("false" | "0") => false,
            Some("true" | "1") => true,
            Some(other) => {
                let message = format!("must be `true` or `false`, got `{other}`");
                problems.push(problem(name, message));
                false
            }
        };
        let (allow_remote, allow_http) = (flag(ALLOW_REMOTE), flag(ALLOW_HTTP));
        let origins = [CORS_ORIGINS, FRONTEND].into_iter();
        let mut origins = origins.filter_map(|name| Some((name, get(name)?)));
        Self {
            upstream: get(UPSTREAM),
            allow_remote,
            server: get(SERVER),
            public: get(PUBLIC),
            allow_http,
            has_secret: get(SECRET).is_some(),
            origins: origins.next(),
            port: get(PORT),
            admin: get(ADMIN),
        }
    }

    /// Reports everything that is missing, and the values that cannot be part of a configuration.
    fn check(&self, problems: &mut Vec<Problem>) {
        if self.upstream.is_none() {
            let message = "is required: the URL of the API, such as `http://127.0.0.1:8000`";
            problems.push(problem(UPSTREAM, message));
        }
        if self.server.is_none() && !self.has_secret {
            let message = "or `BETTER_AUTH_SECRET` is required: the URL of the Better Auth server that issues the \
                           tokens, or the secret that signs them";
            problems.push(problem(SERVER, message));
        }
        if self.server.is_none() {
            if self.public.is_some() {
                problems.push(problem(PUBLIC, "has no effect without `BETTER_AUTH_URL`"));
            }
            if self.allow_http {
                problems.push(problem(
                    ALLOW_HTTP,
                    "has no effect without `BETTER_AUTH_URL`",
                ));
            }
        }
        if let Some(port) = &self.port
            && port.parse::<u16>().is_err()
        {
            let message = format!("must be a port from 0 to 65535, got `{port}`");
            problems.push(problem(PORT, message));
        }
    }

    /// The variables as a configuration file.
    fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut line = |line: &str| {
            text.push_str(line);
            text.push('\n');
        };
        if let Some(port) = &self.port {
            line("[listen]");
            line(&format!(
                "address = {}\n",
                quoted(&format!("0.0.0.0:{port}"))
            ));
        }
        if let Some(admin) = &self.admin {
            line("[admin]");
            line(&format!("address = {}\n", quoted(admin)));
        }
        line("[upstreams.api]");
        line(&format!(
            "url = {}",
            quoted(self.upstream.as_deref().unwrap_or_default())
        ));
        if self.allow_remote {
            line("allow_remote = true");
        }
        line(&format!("\n[issuers.{ISSUER}]"));
        match &self.server {
            Some(server) if self.public.is_none() && !self.allow_http => {
                line(&format!("better_auth = {}", quoted(server)));
            }
            Some(server) => {
                let public = self.public.as_deref();
                let public = public.map(|public| format!(", public = {}", quoted(public)));
                let http = if self.allow_http {
                    ", allow_http = true"
                } else {
                    ""
                };
                line(&format!(
                    "better_auth = {{ url = {}{}{http} }}",
                    quoted(server),
                    public.unwrap_or_default()
                ));
            }
            None => line(&format!("keys = {{ secret_env = \"{SECRET}\" }}")),
        }
        if let Some((_, origins)) = &self.origins {
            let origins = origins
                .split(',')
                .map(|origin| origin.trim().trim_end_matches('/'));
            let origins: Vec<_> = origins.filter(|origin| !origin.is_empty()).collect();
            // Browsers do not send cookies to a server that allows every origin.
            let credentials = !origins.contains(&"*");
            let list = origins.iter().map(|origin| quoted(origin));
            line("\n[cors]");
            line(&format!(
                "origins = [{}]",
                list.collect::<Vec<_>>().join(", ")
            ));
            line(&format!("credentials = {credentials}"));
        }
        text.push_str(DEFAULT_ROUTES);
        text
    }

    /// Warning about a secret that verifies no token.
    pub(super) fn warning(&self) -> Option<String> {
        let is_unused = self.server.is_some() && self.has_secret;
        is_unused.then(|| {
            format!(
                "{SOURCE}: {SECRET}: has no effect with `{SERVER}`: tokens are verified with the key set of the server; to \
                 accept HS256 tokens instead, unset `{SERVER}`"
            )
        })
    }
}

impl Variables {
    /// Variable that a key of the configuration comes from; the key itself if it comes from none.
    pub(super) fn place(&self, path: &KeyPath) -> KeyPath {
        let key = |index: usize| match path.steps().get(index) {
            Some(Step::Key(key)) => key.as_str(),
            Some(Step::Index(_)) | None => "",
        };
        let variable = match (key(0), key(2), key(3)) {
            ("listen", ..) => Some(PORT),
            ("admin", ..) => Some(ADMIN),
            ("upstreams", ..) => Some(UPSTREAM),
            ("issuers", "better_auth", "public") => Some(PUBLIC),
            ("issuers", ..) if self.server.is_some() => Some(SERVER),
            ("issuers", ..) => Some(SECRET),
            ("cors", ..) => self.origins.as_ref().map(|(name, _)| *name),
            _ => None,
        };
        variable.map_or_else(|| path.clone(), KeyPath::of)
    }
}

/// A fix in the terms of a file, in the terms of the environment.
pub(super) fn translate(message: &str) -> String {
    let table = match message.split_once("write `better_auth = {") {
        Some((before, _)) => format!("{before}set `allow_http = true`"),
        None => message.to_owned(),
    };
    table
        .replace("`allow_http = true`", "`BETTER_AUTH_ALLOW_HTTP=true`")
        .replace("`allow_remote = true`", "`UPSTREAM_ALLOW_REMOTE=true`")
}

fn problem(variable: &str, message: impl Into<String>) -> Problem {
    Problem {
        line: None,
        path: KeyPath::of(variable),
        message: message.into(),
    }
}

/// TOML string.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::App;

    const SECRET_VALUE: &str = "a secret of the tests, 32 bytes at least";

    /// Compiles the variables, and returns the problems as lines.
    fn compile(variables: &[(&str, &str)]) -> Result<App, Vec<String>> {
        let lookup = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let document = ConfigDocument::from_variables(lookup);
        let compiled = document.and_then(App::compile);
        compiled.map_err(|problems| problems.lines().collect())
    }

    #[test]
    fn lists_everything_that_is_missing_at_once() {
        let problems = compile(&[("PORT", "http"), ("UPSTREAM", " ")]).unwrap_err();
        assert_eq!(
            problems,
            [
                "environment: UPSTREAM: is required: the URL of the API, such as `http://127.0.0.1:8000`",
                "environment: BETTER_AUTH_URL: or `BETTER_AUTH_SECRET` is required: the URL of the Better Auth server \
                 that issues the tokens, or the secret that signs them",
                "environment: PORT: must be a port from 0 to 65535, got `http`",
            ]
        );
    }

    #[test]
    fn names_the_variable_of_an_invalid_value() {
        for (variables, expected) in [
            (
                [
                    ("UPSTREAM", "localhost:8000"),
                    ("BETTER_AUTH_SECRET", SECRET_VALUE),
                ],
                "environment: UPSTREAM: `localhost:8000` is not a valid upstream URL",
            ),
            (
                [
                    ("UPSTREAM", "http://api:8000"),
                    ("BETTER_AUTH_SECRET", SECRET_VALUE),
                ],
                "environment: UPSTREAM: ",
            ),
            (
                [
                    ("UPSTREAM", "http://127.0.0.1:8000"),
                    ("BETTER_AUTH_SECRET", "short"),
                ],
                "environment: BETTER_AUTH_SECRET: the secret has 5 bytes",
            ),
            (
                [
                    ("UPSTREAM", "http://127.0.0.1:8000"),
                    ("BETTER_AUTH_URL", "http://frontend:3000"),
                ],
                "environment: BETTER_AUTH_URL: would fetch keys from another machine without TLS",
            ),
        ] {
            let problems = compile(&variables).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].starts_with(expected), "{problems:?}");
            assert!(!problems[0].contains("= true"), "{problems:?}");
            assert!(!problems[0].contains(SECRET_VALUE), "{problems:?}");
        }
        let origins = [
            ("UPSTREAM", "http://127.0.0.1:8000"),
            ("BETTER_AUTH_SECRET", SECRET_VALUE),
            ("FRONTEND_URL", "localhost"),
        ];
        let problems = compile(&origins).unwrap_err();
        assert!(
            problems[0].starts_with("environment: FRONTEND_URL: "),
            "{problems:?}"
        );
    }

    #[test]
    fn allows_other_machines_only_on_request() {
        let app = compile(&[
            ("UPSTREAM", "http://api:8000"),
            ("UPSTREAM_ALLOW_REMOTE", "true"),
            ("BETTER_AUTH_URL", "http://frontend:3000"),
            ("BETTER_AUTH_PUBLIC_URL", "http://localhost:3000"),
            ("BETTER_AUTH_ALLOW_HTTP", "1"),
            (
                "CORS_ORIGINS",
                "http://localhost:3000/, https://app.example",
            ),
            ("PORT", "8085"),
        ]);
        let app = app.unwrap();
        assert_eq!(app.config.listen.address.to_string(), "0.0.0.0:8085");
        let remote = app.remote_keys[0].as_ref().unwrap();
        assert_eq!(
            remote.url().to_string(),
            "http://frontend:3000/api/auth/jwks"
        );
        let issuer = &app.policy.gate.issuers()[0];
        assert_eq!(
            issuer.accepted.as_deref(),
            Some(&["http://localhost:3000".to_owned()][..])
        );
        let cors = app.config.cors.unwrap();
        assert_eq!(
            cors.origins,
            ["http://localhost:3000", "https://app.example"]
        );
        assert!(cors.credentials);
    }

    #[test]
    fn prefers_the_key_set_to_the_secret_and_says_so() {
        let app = compile(&[
            ("UPSTREAM", "http://127.0.0.1:8000"),
            ("BETTER_AUTH_URL", "https://app.example"),
            ("BETTER_AUTH_SECRET", SECRET_VALUE),
        ]);
        let app = app.unwrap();
        assert!(app.remote_keys[0].is_some());
        assert_eq!(app.warnings.len(), 1, "{:?}", app.warnings);
        assert!(
            app.warnings[0].contains("has no effect with `BETTER_AUTH_URL`"),
            "{:?}",
            app.warnings
        );
    }

    #[test]
    fn refuses_settings_of_a_server_that_is_not_named() {
        let problems = compile(&[
            ("UPSTREAM", "http://127.0.0.1:8000"),
            ("BETTER_AUTH_SECRET", SECRET_VALUE),
            ("BETTER_AUTH_PUBLIC_URL", "http://localhost:3000"),
            ("BETTER_AUTH_ALLOW_HTTP", "yes"),
        ]);
        let problems = problems.unwrap_err();
        assert_eq!(
            problems,
            [
                "environment: BETTER_AUTH_ALLOW_HTTP: must be `true` or `false`, got `yes`",
                "environment: BETTER_AUTH_PUBLIC_URL: has no effect without `BETTER_AUTH_URL`",
            ]
        );
    }
}
