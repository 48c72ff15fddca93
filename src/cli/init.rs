//! `claimgate init`: writes a configuration file from flags, or from the OpenAPI document of the API.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::app::App;
use crate::config::{ConfigDocument, DEFAULT_ROUTES};
use crate::openapi::Table;

use super::openapi::Source;
use super::terminal::{BOLD, COPY, WARNING};
use super::{DEFAULT_FILES, Failure, Outcome, counted, say, warn};

/// Environment variable of the Better Auth secret.
const SECRET: &str = "BETTER_AUTH_SECRET";

/// Environment variables of the Better Auth URL, as the gate and as browsers reach it.
const URL: &str = "BETTER_AUTH_URL";
const PUBLIC_URL: &str = "BETTER_AUTH_PUBLIC_URL";

/// Default upstream.
const UPSTREAM: &str = "http://127.0.0.1:8000";

#[derive(Debug, Args)]
pub(super) struct Init {
    /// URL of the Better Auth server, whose keys verify the tokens [default: `$BETTER_AUTH_URL`].
    #[arg(long, value_name = "URL", conflicts_with = "secret_env")]
    better_auth: Option<String>,
    /// URL of the Better Auth server as browsers reach it, if it differs [default: `$BETTER_AUTH_PUBLIC_URL`].
    #[arg(long, value_name = "URL", conflicts_with = "secret_env")]
    better_auth_public: Option<String>,
    /// Environment variable with the secret that verifies the tokens [default: `BETTER_AUTH_SECRET`, if it is set].
    #[arg(long, value_name = "NAME")]
    secret_env: Option<String>,
    /// URL of the API [default: that of --openapi if it is on this machine, else `http://127.0.0.1:8000`].
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Origin of a page that may call the API, such as `https://app.example`; repeatable.
    #[arg(long, value_name = "ORIGIN")]
    cors: Vec<String>,
    /// OpenAPI document of the API, a file or a URL: the routes are those of its operations.
    #[arg(long, value_name = "FILE|URL")]
    openapi: Option<Source>,
    /// Allow plaintext HTTP to another machine, for the document and for Better Auth.
    #[arg(long)]
    allow_http: bool,
    /// Allow an API on another machine. Its port must be closed to every client but the gate.
    #[arg(long)]
    allow_remote: bool,
    /// File to write; `-` is standard output. An existing file is never overwritten.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_FILES[0])]
    file: PathBuf,
}

/// Source of the keys that verify tokens.
enum KeySource {
    BetterAuth { url: String, public: Option<String> },
    SecretEnv(String),
}

impl Init {
    pub(super) fn run(self) -> Outcome {
        let is_stdout = self.file == Path::new("-");
        if !is_stdout && self.file.symlink_metadata().is_ok() {
            return Err(self.exists());
        }
        let keys = self.keys()?;
        let table = match &self.openapi {
            Some(source) => Some(Table::of(&source.operations(self.allow_http)?)),
            None => None,
        };
        let text = self.text(&keys, table.as_ref());
        let name = if is_stdout {
            Path::new("(new file)")
        } else {
            &self.file
        };
        let routes = count_routes(name, &text, &keys)?;
        for (route, problem) in table.iter().flat_map(|table| &table.left_out) {
            warn(format_args!(
                "{WARNING}warning:{WARNING:#} left out `{}`: {problem}",
                route.pattern
            ));
        }
        if is_stdout {
            say(text.trim_end());
            return Ok(ExitCode::SUCCESS);
        }
        self.write(&text)?;
        self.print_next_steps(&keys, routes);
        Ok(ExitCode::SUCCESS)
    }

    fn exists(&self) -> Failure {
        let file = self.file.display();
        Failure::other(format_args!(
            "write {file}: it exists already; name another with `--file FILE`, or delete it first"
        ))
    }

    /// Source of the keys by the flags, else by the environment. A URL wins over a secret, as in `claimgate run`.
    fn keys(&self) -> Result<KeySource, Failure> {
        if let Some(name) = &self.secret_env {
            return Ok(KeySource::SecretEnv(name.clone()));
        }
        let environment = ConfigDocument::parse(&self.file, "")?;
        let variable = |name| {
            let value = environment.variable(name);
            value.filter(|value| !value.trim().is_empty())
        };
        if let Some(url) = self.better_auth.clone().or_else(|| variable(URL)) {
            let public = self.better_auth_public.clone();
            let public = public.or_else(|| variable(PUBLIC_URL));
            return Ok(KeySource::BetterAuth { url, public });
        }
        if self.better_auth_public.is_none() && variable(SECRET).is_some() {
            return Ok(KeySource::SecretEnv(SECRET.to_owned()));
        }
        Err(Failure::other(format_args!(
            "find the keys that verify the tokens; write `--better-auth URL` for a Better Auth server with the JWT \
             plugin, or `--secret-env {SECRET}` for tokens signed with a shared secret"
        )))
    }

    fn text(&self, keys: &KeySource, table: Option<&Table>) -> String {
        let mut text = String::from(
            "# Configuration of claimgate. It listens on port 8080 of every interface unless [listen] has an `address`.\n\n",
        );
        let upstream = self.upstream.clone();
        let upstream = upstream.or_else(|| self.openapi.as_ref()?.local_origin());
        let upstream = upstream.unwrap_or_else(|| UPSTREAM.to_owned());
        text.push_str("# The API. Only the gate may reach it: it trusts the header X-User-Id.\n[upstreams.api]\n");
        push(&mut text, "url", &quoted(&upstream));
        if self.allow_remote {
            push(&mut text, "allow_remote", "true");
        }
        text.push_str("\n[issuers.better-auth]\n");
        match keys {
            KeySource::BetterAuth { url, public } => {
                push(
                    &mut text,
                    "better_auth",
                    &self.better_auth(url, public.as_deref()),
                );
            }
            KeySource::SecretEnv(name) => {
                let keys = format!("{{ secret_env = {} }}", quoted(name));
                push(&mut text, "keys", &keys);
                text.push_str(
                    "# Tokens for other services of the issuer are accepted too; set `audience` to exclude them.\n",
                );
                push(&mut text, "allow_any_audience", "true");
            }
        }
        if !self.cors.is_empty() {
            let origins: Vec<String> = self.cors.iter().map(|origin| quoted(origin)).collect();
            text.push_str("\n[cors]\n");
            push(&mut text, "origins", &format!("[{}]", origins.join(", ")));
        }
        text.push_str(
            "\n# Every request without a route is rejected: 404, or 405 for another method.\n",
        );
        match table {
            None => text.push_str(DEFAULT_ROUTES.trim_start()),
            Some(table) => push_routes(&mut text, table),
        }
        text
    }

    fn better_auth(&self, url: &str, public: Option<&str>) -> String {
        if public.is_none() && !self.allow_http {
            return quoted(url);
        }
        let mut keys = vec![format!("url = {}", quoted(url))];
        keys.extend(public.map(|public| format!("public = {}", quoted(public))));
        if self.allow_http {
            keys.push("allow_http = true".to_owned());
        }
        format!("{{ {} }}", keys.join(", "))
    }

    fn write(&self, text: &str) -> Result<(), Failure> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&self.file);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| {
            if error.kind() == io::ErrorKind::AlreadyExists {
                return self.exists();
            }
            Failure::other(format_args!("write {}: {error}", self.file.display()))
        })
    }

    fn print_next_steps(&self, keys: &KeySource, routes: usize) {
        let file = self.file.display();
        // Without another file beside it, the commands find it by themselves.
        let config =
            if self.file == Path::new(DEFAULT_FILES[0]) && !Path::new(DEFAULT_FILES[1]).exists() {
                String::new()
            } else {
                format!(" --config {file}")
            };
        say(format_args!(
            "{BOLD}{file}{BOLD:#}: written with {}\n\nNext:\n",
            counted(routes, "route")
        ));
        if let KeySource::SecretEnv(name) = keys {
            say(format_args!(
                "  {COPY}export {name}=…{COPY:#}    # the secret of the server that signs the tokens"
            ));
        }
        let openapi = match &self.openapi {
            Some(source) if self.allow_http => format!(" --openapi {source} --allow-http"),
            Some(source) => format!(" --openapi {source}"),
            None => String::new(),
        };
        say(format_args!(
            "  {COPY}claimgate check{config}{openapi}{COPY:#}\n  \
             {COPY}claimgate doctor{config}{COPY:#}\n  \
             {COPY}claimgate run{config}{COPY:#}"
        ));
    }
}

/// Number of routes of a configuration that starts. Its problems are those of the flags.
fn count_routes(file: &Path, text: &str, keys: &KeySource) -> Result<usize, Failure> {
    let mut document = ConfigDocument::parse(file, text)?;
    if let KeySource::SecretEnv(name) = keys {
        // Its value does not matter here, and may come later.
        document.set_variable(name, "0123456789abcdefghijklmnopqrstuvwxyz");
    }
    let app = App::compile(document)?;
    Ok(app.policy.gate.routes().routes().count())
}

fn push_routes(text: &mut String, table: &Table) {
    let routes = table.routes.iter().map(ToString::to_string);
    text.push_str(&routes.collect::<Vec<_>>().join("\n"));
    for (route, problem) in &table.left_out {
        let problem = problem.escape_debug();
        text.extend([
            "\n# Left out, so that it is 404: ",
            &problem.to_string(),
            ".\n",
        ]);
        for line in route.to_string().lines() {
            text.extend(["# ", line, "\n"]);
        }
    }
}

fn push(text: &mut String, key: &str, value: &str) {
    text.extend([key, " = ", value, "\n"]);
}

/// TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
