//! `claimgate dev`: runs an API behind the gate on a developer's machine.

mod api;
mod listening;
mod session;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use serde_json::Map;
use tokio::task::LocalSet;

use crate::app::{App, AppError};
use crate::clock::Clock;
use crate::config::{Address, ConfigDocument, DEFAULT_ROUTES, KeyPath, LogFormat, Problems};
use crate::gate::access::Rule;
use crate::observe::log;
use crate::proxy::upstream::Target;

use super::signals::Signals;
use super::terminal::{BOLD, COPY, DIM, FAIL, OK};
use super::token::Signer;
use super::{Failure, Outcome, say, warn};

use api::Api;
pub(super) use session::DevSession;
use session::FILE;

/// Environment variable of the Better Auth secret.
const SECRET: &str = "BETTER_AUTH_SECRET";

/// Subject of the tokens.
const USER: &str = "alice";

/// Documentation pages of FastAPI and others, which only `claimgate dev` makes public.
const DOCUMENTATION_ROUTES: &str = r#"
[[routes]]
path = "/docs/{*rest}"
access = "public"
methods = ["GET"]

[[routes]]
path = "/redoc"
access = "public"
methods = ["GET"]

[[routes]]
path = "/openapi.json"
access = "public"
methods = ["GET"]
"#;

/// Default limit of connections: few enough for the descriptor limit of a terminal.
const MAX_CONNECTIONS: usize = 500;

/// Default listen address.
const LISTEN_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// Range of the API's port, below the ephemeral ports of Linux and other systems.
const PORTS: Range<u16> = 20_000..32_768;

const ONE_HOUR: i64 = 60 * 60;

#[derive(Debug, Args)]
pub(super) struct Dev {
    /// Configuration file; by default, each path under `/api/{user_id}/` belongs to that user, and `/health` and
    /// `/api/auth/` are public.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on, instead of the one in the configuration [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<Address>,
    /// Port of an API that cannot take it from $PORT.
    #[arg(long, value_name = "PORT", conflicts_with = "config")]
    port: Option<u16>,
    /// Command that runs the API. The API must listen on 127.0.0.1 at the port in $PORT; `{port}` in an argument is
    /// replaced with that port.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Dev {
    pub(super) fn run(self) -> Outcome {
        let (mut document, port) = match &self.config {
            Some(file) => (ConfigDocument::load(file)?, None),
            None => {
                let port = self.port.map_or_else(free_port, Ok);
                let port = port
                    .map_err(|error| Failure::other(format_args!("find a free port: {error}")))?;
                (built_in_document(port)?, Some(port))
            }
        };
        if let Some(listen) = &self.listen {
            document.config.listen.address = listen.clone();
        } else if !document.has(&KeyPath::of("listen").key("address")) {
            // The default of `run` is every interface: too open for a gate with a development secret.
            document.config.listen.address = Address::Tcp(LISTEN_ADDRESS);
        }
        if !document.has(&KeyPath::of("listen").key("max_connections")) {
            document.config.listen.max_connections = MAX_CONNECTIONS;
        }
        document.config.log.format = LogFormat::Compact;
        let own_secret = document.variable(SECRET);
        let is_generated = own_secret.is_none();
        let secret = own_secret.map_or_else(random_secret, Ok)?;
        document.set_variable(SECRET, &secret);
        let tokens = Tokens::sign(&document);
        let app = App::compile(document)?;
        let upstream = app
            .policy
            .upstreams
            .first()
            .and_then(|upstream| upstream.policy.targets.first().cloned());
        let port = port.or(match upstream {
            Some(Target::Tcp(_, port)) => Some(port),
            Some(Target::Unix(_)) | None => None,
        });
        let path = example_path(&app);
        let (_log, _dropped) = log::start(&app.config.log)
            .map_err(|error| Failure::other(format_args!("start the log writer: {error}")))?;
        for warning in app.warnings.iter().filter(|_| self.config.is_some()) {
            warn(format_args!("warning: {warning}"));
        }
        let running = app.start(Clock::System).map_err(|error| match &error {
            AppError::Listen(failed) if failed.is_taken() => Failure::other(format_args!(
                "{error}; `--listen 127.0.0.1:0` listens on a free port"
            )),
            AppError::Listen(_) | AppError::Thread(_) => Failure::other(error),
        })?;
        let mut signals = Signals::listen().map_err(Failure::other)?;
        let (address, admin) = (running.address().clone(), running.admin_address());
        let session = DevSession {
            admin,
            port: self.config.is_none().then_some(port).flatten(),
            config: self.config.clone(),
        };
        // The API starts within it, because its output is printed by tasks of this thread.
        let tasks = LocalSet::new();
        let mut api = signals
            .runtime()
            .block_on(tasks.run_until(async { Api::spawn(&self.command, port, &secret) }))?;
        let outcome = signals.wait_or(tasks.run_until(async {
            if let Some(upstream) = &upstream {
                if let Some(code) = api.wait_until_listening(upstream).await {
                    return code;
                }
                api.warn_of_open_port(upstream);
            }
            let secret = is_generated.then_some(secret.as_str());
            let _file = session.write(&url(&address), secret, tokens.as_ref());
            print_summary(&address, admin, &path, tokens.as_ref());
            api.wait().await
        }));
        running.stop();
        let stop = tasks.run_until(api.stop());
        signals.runtime().block_on(stop);
        running.wait();
        Ok(outcome.unwrap_or(ExitCode::SUCCESS))
    }
}

/// The built-in configuration, for an API at this port.
fn built_in_document(port: u16) -> Result<ConfigDocument, Problems> {
    ConfigDocument::parse(Path::new("(built-in)"), &built_in(port))
}

fn built_in(port: u16) -> String {
    format!(
        r#"[admin]
address = "127.0.0.1:0"

[upstreams.api]
url = "http://127.0.0.1:{port}"

[issuers.better-auth]
keys = {{ secret_env = "{SECRET}", encoding = "utf8" }}
{DEFAULT_ROUTES}{DOCUMENTATION_ROUTES}"#
    )
}

/// Finds a free port in [`PORTS`]. The system could assign an ephemeral port to a connection or another program before
/// the API binds it.
fn free_port() -> std::io::Result<u16> {
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let mut ports = (0..100).map(|_| fastrand::u16(PORTS));
    if let Some(port) = ports.find(is_free) {
        return Ok(port);
    }
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn random_secret() -> Result<String, Failure> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::other("generate a random secret"))?;
    Ok(BASE64_STANDARD.encode(bytes))
}

/// Path of the first route with an owner, for the subject of the tokens.
fn example_path(app: &App) -> String {
    let mut routes = app.policy.gate.routes().routes();
    let owned = routes.find_map(|route| match &route.access.rule {
        Rule::Owner { parameter, .. } => Some((route, parameter)),
        Rule::Public | Rule::Authenticated => None,
    });
    let Some((route, parameter)) = owned else {
        return "/".to_owned();
    };
    let path = route.pattern.replace(&format!("{{{parameter}}}"), USER);
    match path.split_once("/{*") {
        Some((path, _)) if path == format!("/api/{USER}") => format!("{path}/tasks"),
        Some((path, _)) => path.to_owned(),
        None => path,
    }
}

/// Example tokens.
struct Tokens {
    valid: String,
    expired: String,
}

impl Tokens {
    fn sign(document: &ConfigDocument) -> Option<Self> {
        let signer = Signer::of(document, None).ok()?;
        let now = Clock::System.now();
        Some(Self {
            valid: signer.sign(USER, 24 * ONE_HOUR, Map::new(), now).ok()?,
            expired: signer.sign(USER, -ONE_HOUR, Map::new(), now).ok()?,
        })
    }
}

fn url(address: &Address) -> String {
    match address {
        Address::Tcp(address) => {
            let host = if address.ip().is_unspecified() {
                SocketAddr::from(([127, 0, 0, 1], address.port()))
            } else {
                *address
            };
            format!("http://{host}")
        }
        Address::Unix(_) | Address::Passed(_) => address.to_string(),
    }
}

/// Prints the addresses, a token, and requests to try.
fn print_summary(address: &Address, admin: SocketAddr, path: &str, tokens: Option<&Tokens>) {
    let gate = url(address);
    say(format_args!("\nListening on {COPY}{gate}{COPY:#}"));
    say(format_args!("Status page: {COPY}http://{admin}/{COPY:#}\n"));
    let Some(tokens) = tokens else {
        say("No issuer has a shared secret, so there is no example token.");
        return;
    };
    let other = path.replacen(USER, "bob", 1);
    say(format_args!(
        "{BOLD}Token{BOLD:#} for `{USER}`, valid for 24 hours:\n\n{DIM}{}{DIM:#}\n",
        tokens.valid
    ));
    say(format_args!(
        "In a second terminal:\n\n{COPY}. ./{FILE}{COPY:#}    # GATE, USER_ID, TOKEN and EXPIRED"
    ));
    let valid = "-H \"Authorization: Bearer $TOKEN\"";
    let expired = "-H \"Authorization: Bearer $EXPIRED\"";
    let width = path.len().max(other.len());
    for (path, header, color, effect) in [
        (path, valid, OK, "forwarded"),
        (&*other, valid, FAIL, "403: path of another user"),
        (path, "", FAIL, "401: no token"),
        (path, expired, FAIL, "401: expired token"),
    ] {
        say(format_args!(
            "{COPY}curl -i {gate}{path:width$} {header:37}{COPY:#}  # {color}{effect}{color:#}"
        ));
    }
    say(format_args!(
        "{COPY}claimgate why{COPY:#} REQUEST_ID{DIM}    # after a refusal: its cause and fix{DIM:#}\n"
    ));
}
