//! `claimgate dev`: runs an API behind the gate on a developer's machine.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Map;
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::app::{App, AppError};
use crate::clock::Clock;
use crate::config::{Address, ConfigDocument, DEFAULT_ROUTES, KeyPath, LogFormat};
use crate::gate::access::Rule;
use crate::observe::log;
use crate::proxy::upstream::Target;

use super::signals::Signals;
use super::terminal::{BOLD, COPY, DIM};
use super::token::Signer;
use super::{Failure, Outcome, say, warn};

/// Environment variable of the Better Auth secret.
const SECRET: &str = "BETTER_AUTH_SECRET";

/// Subject of the tokens.
const USER: &str = "alice";

/// File with the tokens, for a second terminal.
const ENV_FILE: &str = ".claimgate-dev.env";

/// Default listen address.
const LISTEN_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// Range of the API's port, below the ephemeral ports of Linux and other systems.
const PORTS: Range<u16> = 20_000..32_768;

/// Time between SIGTERM and SIGKILL for the API.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Interval between connection attempts to the API.
const CONNECT_INTERVAL: Duration = Duration::from_millis(50);

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
                let port = free_port()
                    .map_err(|error| Failure::other(format_args!("find a free port: {error}")))?;
                (
                    ConfigDocument::parse(Path::new("(built-in)"), &built_in(port))?,
                    Some(port),
                )
            }
        };
        if let Some(listen) = &self.listen {
            document.config.listen.address = listen.clone();
        } else if !document.has(&KeyPath::of("listen").key("address")) {
            // The default of `run` is every interface: too open for a gate with a development secret.
            document.config.listen.address = Address::Tcp(LISTEN_ADDRESS);
        }
        document.config.log.format = LogFormat::Text;
        let secret = match document.variable(SECRET) {
            Some(secret) => secret,
            None => random_secret()?,
        };
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
        let mut api = signals
            .runtime()
            .block_on(async { self.spawn(port, &secret) })?;
        let outcome = signals.wait_or(async {
            if let Some(upstream) = &upstream
                && let Some(code) = wait_until_listening(&mut api, upstream).await
            {
                return code;
            }
            let _file = tokens.as_ref().and_then(|tokens| tokens.write(&address));
            print_summary(&address, &path, tokens.as_ref());
            say(format_args!("Probes and metrics: http://{admin}/metrics\n"));
            exit_code(api.wait().await)
        });
        running.stop();
        signals.runtime().block_on(stop(&mut api));
        running.wait();
        Ok(outcome.unwrap_or(ExitCode::SUCCESS))
    }

    fn spawn(&self, port: Option<u16>, secret: &str) -> Result<Child, Failure> {
        let (program, arguments) = self
            .command
            .split_first()
            .ok_or_else(|| Failure::other("read the command: it is empty"))?;
        let mut command = Command::new(program);
        // A separate process group, so that stopping it also stops the children of COMMAND.
        command
            .env(SECRET, secret)
            .kill_on_drop(true)
            .process_group(0);
        let port = port.map(|port| port.to_string()).unwrap_or_default();
        if !port.is_empty() {
            command.env("PORT", &port).env("UVICORN_PORT", &port);
        }
        command.args(
            arguments
                .iter()
                .map(|argument| argument.replace("{port}", &port)),
        );
        let spawned = command.spawn();
        spawned.map_err(|error| Failure::other(format_args!("run `{program}`: {error}")))
    }
}

/// Default configuration.
fn built_in(port: u16) -> String {
    format!(
        r#"[admin]
address = "127.0.0.1:0"

[upstreams.api]
url = "http://127.0.0.1:{port}"

[issuers.better-auth]
keys = {{ secret_env = "{SECRET}", encoding = "utf8" }}
{DEFAULT_ROUTES}"#
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

/// Waits until the API accepts connections. Returns its exit code if it exits first.
async fn wait_until_listening(api: &mut Child, upstream: &Target) -> Option<ExitCode> {
    warn(format_args!("waiting for the API to listen on {upstream}"));
    loop {
        let listens = match upstream {
            Target::Tcp(host, port) => TcpStream::connect((host.trim_matches(['[', ']']), *port))
                .await
                .is_ok(),
            Target::Unix(path) => UnixStream::connect(path).await.is_ok(),
        };
        if listens {
            return None;
        }
        if let Ok(status) = timeout(CONNECT_INTERVAL, api.wait()).await {
            warn(format_args!(
                "the API exited before it listened on {upstream}"
            ));
            return Some(exit_code(status));
        }
    }
}

fn exit_code(status: std::io::Result<std::process::ExitStatus>) -> ExitCode {
    let code = status.ok().and_then(|status| status.code());
    code.and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Sends SIGTERM to the API, and SIGKILL after [`STOP_TIMEOUT`].
async fn stop(api: &mut Child) {
    let Some(id) = api
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw)
    else {
        return;
    };
    let _exited = kill_process_group(id, Signal::TERM);
    if timeout(STOP_TIMEOUT, api.wait()).await.is_err() {
        let _exited = kill_process_group(id, Signal::KILL);
        let _status = api.wait().await;
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

    /// Writes the tokens to [`ENV_FILE`], readable only by the current user.
    fn write(&self, address: &Address) -> Option<EnvFile> {
        let Self { valid, expired } = self;
        let path = PathBuf::from(ENV_FILE);
        let text = format!(
            "GATE={}\nUSER_ID={USER}\nTOKEN={valid}\nEXPIRED={expired}\n",
            url(address)
        );
        let _missing = std::fs::remove_file(&path);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        match file.and_then(|mut file| file.write_all(text.as_bytes())) {
            Ok(()) => Some(EnvFile(path)),
            Err(error) => {
                warn(format_args!("failed to write {ENV_FILE}: {error}"));
                None
            }
        }
    }
}

/// File with the tokens, removed on drop.
struct EnvFile(PathBuf);

impl Drop for EnvFile {
    fn drop(&mut self) {
        let _missing = std::fs::remove_file(&self.0);
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

fn print_summary(address: &Address, path: &str, tokens: Option<&Tokens>) {
    let gate = url(address);
    say(format_args!("\nListening on {COPY}{gate}{COPY:#}\n"));
    let Some(tokens) = tokens else {
        say("No issuer has a shared secret, so there is no example token.");
        return;
    };
    let other = path.replacen(USER, "bob", 1);
    let valid = &tokens.valid;
    say(format_args!(
        "{BOLD}Token{BOLD:#} for `{USER}`, valid for 24 hours:\n\n{DIM}{valid}{DIM:#}\n"
    ));
    say(format_args!(
        "In a second terminal:\n\n. ./{ENV_FILE}    # GATE, USER_ID, TOKEN and EXPIRED"
    ));
    say(format_args!(
        "curl -i {gate}{path} -H \"Authorization: Bearer $TOKEN\"      # forwarded"
    ));
    say(format_args!(
        "curl -i {gate}{other} -H \"Authorization: Bearer $TOKEN\"        # 403: path of another user"
    ));
    say(format_args!(
        "curl -i {gate}{path}                                        # 401: no token"
    ));
    say(format_args!(
        "curl -i {gate}{path} -H \"Authorization: Bearer $EXPIRED\"    # 401: expired token\n"
    ));
}
