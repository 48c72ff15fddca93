//! The settings: flags, or the environment. Secrets are hidden from `--help`.

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

const DEFAULT_PORT: u16 = 3000;

/// A small service of users and their tasks. It believes the X-User-Id header, so only a gate that
/// sets it may reach the service.
#[derive(clap::Parser)]
#[command(name = "task-service", version)]
pub(crate) struct Settings {
    /// Where to listen: `ADDRESS:PORT` or `unix:/path` [default: 127.0.0.1:3000]
    #[arg(long, env = "TASK_SERVICE_ADDRESS", value_name = "ADDRESS")]
    address: Option<Address>,

    /// The port of 127.0.0.1 to listen on when no address is given
    #[arg(long, env = "PORT")]
    port: Option<u16>,

    /// Where users and tasks are kept: `sqlite:FILE`, `sqlite::memory:` or `postgres://…`
    #[arg(
        long,
        env = "DATABASE_URL",
        value_name = "URL",
        default_value = "sqlite:tasks.sqlite3",
        hide_env_values = true
    )]
    pub(crate) database_url: String,

    /// The secret that signs tokens, at least 32 bytes; better given by the environment or a file
    // A flag is seen in the list of processes, so the short help does not name it.
    #[arg(
        long,
        env = "BETTER_AUTH_SECRET",
        value_name = "SECRET",
        hide_env_values = true,
        hide_short_help = true
    )]
    better_auth_secret: Option<String>,

    /// A file with that secret; a newline at its end does not count
    #[arg(long, env = "BETTER_AUTH_SECRET_FILE", value_name = "FILE")]
    better_auth_secret_file: Option<PathBuf>,

    /// How many days a token is good
    #[arg(
        long,
        env = "JWT_EXPIRATION_DAYS",
        value_name = "DAYS",
        default_value = "7",
        value_parser = clap::value_parser!(u16).range(1..=365)
    )]
    pub(crate) jwt_expiration_days: u16,

    /// The cost of bcrypt, the logarithm of its rounds
    #[arg(
        long,
        env = "BCRYPT_COST",
        value_name = "COST",
        default_value = "12",
        value_parser = clap::value_parser!(u32).range(4..=15)
    )]
    pub(crate) bcrypt_cost: u32,
}

/// Where the service listens.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Why there is no secret. The variables are named, the secret never is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    #[error(
        "BETTER_AUTH_SECRET is not set, nor is BETTER_AUTH_SECRET_FILE: tokens are signed with it"
    )]
    Missing,
    #[error("both BETTER_AUTH_SECRET and BETTER_AUTH_SECRET_FILE are set: one of them must go")]
    Two,
    #[error("the file {path} of BETTER_AUTH_SECRET_FILE cannot be read")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
}

/// A secret, and the variable that gave it.
pub(crate) struct Secret {
    pub(crate) variable: &'static str,
    pub(crate) bytes: Vec<u8>,
}

impl Settings {
    /// The address asked for, or a port of loopback.
    pub(crate) fn address(&self) -> Address {
        let port = self.port.unwrap_or(DEFAULT_PORT);
        let default = Address::Tcp((Ipv4Addr::LOCALHOST, port).into());
        self.address.clone().unwrap_or(default)
    }

    /// The secret, from whichever of its two places is given.
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

    fn from_str(written: &str) -> Result<Self, Self::Err> {
        match written.strip_prefix("unix:") {
            Some("") => Err("a path must follow `unix:`"),
            Some(path) => Ok(Self::Unix(path.into())),
            None => written
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
