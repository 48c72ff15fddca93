//! Settings from flags or the environment. `--help` hides secrets.

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

const DEFAULT_PORT: u16 = 3000;

/// Sample service of users and their tasks. It trusts the X-User-Id header, so only a gate that sets the header may be
/// able to reach it.
#[derive(clap::Parser)]
#[command(name = "task-service", version)]
pub(crate) struct Settings {
    /// Address to listen on: `ADDRESS:PORT` or `unix:/path` [default: 127.0.0.1:3000]
    #[arg(long, env = "TASK_SERVICE_ADDRESS", value_name = "ADDRESS")]
    address: Option<Address>,

    /// Port to listen on at 127.0.0.1, without an address
    #[arg(long, env = "PORT")]
    port: Option<u16>,

    /// Database of users and tasks: `sqlite:FILE`, `sqlite::memory:` or `postgres://…`
    #[arg(
        long,
        env = "DATABASE_URL",
        value_name = "URL",
        default_value = "sqlite:tasks.sqlite3",
        hide_env_values = true
    )]
    pub(crate) database_url: String,

    /// Secret that signs tokens, at least 32 bytes; prefer the environment or a file to this flag
    // The process list shows the value of a flag, so the short help does not name it.
    #[arg(
        long,
        env = "BETTER_AUTH_SECRET",
        value_name = "SECRET",
        hide_env_values = true,
        hide_short_help = true
    )]
    better_auth_secret: Option<String>,

    /// File with the secret; a trailing newline is ignored
    #[arg(long, env = "BETTER_AUTH_SECRET_FILE", value_name = "FILE")]
    better_auth_secret_file: Option<PathBuf>,

    /// Lifetime of a token in days
    #[arg(
        long,
        env = "JWT_EXPIRATION_DAYS",
        value_name = "DAYS",
        default_value = "7",
        value_parser = clap::value_parser!(u16).range(1..=365)
    )]
    pub(crate) jwt_expiration_days: u16,

    /// Cost of bcrypt: the binary logarithm of its rounds
    #[arg(
        long,
        env = "BCRYPT_COST",
        value_name = "COST",
        default_value = "12",
        value_parser = clap::value_parser!(u32).range(4..=15)
    )]
    pub(crate) bcrypt_cost: u32,
}

/// Address of the listener.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Missing or ambiguous secret. The text contains the variables, never the secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    #[error("no secret to sign tokens: set BETTER_AUTH_SECRET or BETTER_AUTH_SECRET_FILE")]
    Missing,
    #[error("both BETTER_AUTH_SECRET and BETTER_AUTH_SECRET_FILE are set: unset one of them")]
    Two,
    #[error("failed to read the file {path} of BETTER_AUTH_SECRET_FILE")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
}

/// Secret and its environment variable.
pub(crate) struct Secret {
    pub(crate) variable: &'static str,
    pub(crate) bytes: Vec<u8>,
}

impl Settings {
    /// Configured address, or the configured port on loopback.
    pub(crate) fn address(&self) -> Address {
        let port = self.port.unwrap_or(DEFAULT_PORT);
        let default = Address::Tcp((Ipv4Addr::LOCALHOST, port).into());
        self.address.clone().unwrap_or(default)
    }

    /// Secret from the flag, the environment or the file.
    pub(crate) fn secret(&self) -> Result<Secret, SecretError> {
        match (&self.better_auth_secret, &self.better_auth_secret_file) {
            (Some(_), Some(_)) => Err(SecretError::Two),
            (None, None) => Err(SecretError::Missing),
            (Some(secret), None) => Ok(Secret {
                variable: "BETTER_AUTH_SECRET",
                bytes: secret.clone().into_bytes(),
            }),
            (None, Some(path)) => {
                let mut bytes = fs::read(path).map_err(|source| SecretError::File {
                    path: path.clone(),
                    source,
                })?;
                if bytes.last() == Some(&b'\n') {
                    bytes.pop();
                    if bytes.last() == Some(&b'\r') {
                        bytes.pop();
                    }
                }
                Ok(Secret {
                    variable: "BETTER_AUTH_SECRET_FILE",
                    bytes,
                })
            }
        }
    }
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some("") => Err("a path must follow `unix:`"),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| "must be an IP address with a port, or unix:/path"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
