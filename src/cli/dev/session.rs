//! The running `claimgate dev` of a folder: a file with what other commands and a second terminal need.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{ConfigDocument, Problems};

use super::super::warn;
use super::{SECRET, Tokens, USER, built_in_document};

/// File of the session, in the working directory of `claimgate dev`.
pub(super) const FILE: &str = ".claimgate-dev.env";

/// Timeout of the connection that shows whether the gate still runs.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A running gate of `claimgate dev`.
#[derive(Debug, Clone)]
pub(in crate::cli) struct DevSession {
    /// Admin address.
    pub(in crate::cli) admin: SocketAddr,
    /// Port of the API, with the built-in configuration.
    pub(super) port: Option<u16>,
    /// Configuration file, unless the built-in configuration is used.
    pub(super) config: Option<PathBuf>,
}

impl DevSession {
    /// The running gate of the working directory. A file that a killed gate left behind is ignored.
    pub(in crate::cli) fn find() -> Option<Self> {
        let text = fs::read_to_string(FILE).ok()?;
        let admin = value(&text, "CLAIMGATE_ADMIN")?.parse().ok()?;
        TcpStream::connect_timeout(&admin, CONNECT_TIMEOUT).ok()?;
        Some(Self {
            admin,
            port: value(&text, "API_PORT").and_then(|port| port.parse().ok()),
            config: value(&text, "CLAIMGATE_CONFIG").map(PathBuf::from),
        })
    }

    /// The configuration of the running gate, with its secret.
    pub(in crate::cli) fn document(&self) -> Result<ConfigDocument, Problems> {
        let mut document = match &self.config {
            Some(file) => ConfigDocument::load(file)?,
            None => built_in_document(self.port.unwrap_or_default())?,
        };
        let text = fs::read_to_string(FILE).unwrap_or_default();
        if let Some(secret) = value(&text, SECRET) {
            document.set_variable(SECRET, secret);
        }
        Ok(document)
    }

    /// Writes the file, readable only by the current user. It holds a generated secret, and none that the user set.
    pub(super) fn write(
        &self,
        gate: &str,
        secret: Option<&str>,
        tokens: Option<&Tokens>,
    ) -> Option<SessionFile> {
        let mut text = format!("GATE={gate}\nCLAIMGATE_ADMIN={}\n", self.admin);
        if let Some(secret) = secret {
            let _ = writeln!(text, "{SECRET}={secret}");
        }
        if let Some(port) = self.port {
            let _ = writeln!(text, "API_PORT={port}");
        }
        if let Some(config) = self.config.as_deref().and_then(Path::to_str) {
            let _ = writeln!(text, "CLAIMGATE_CONFIG='{config}'");
        }
        if let Some(Tokens { valid, expired }) = tokens {
            let _ = writeln!(text, "USER_ID={USER}\nTOKEN={valid}\nEXPIRED={expired}");
        }
        let path = PathBuf::from(FILE);
        let _missing = fs::remove_file(&path);
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        match file.and_then(|mut file| file.write_all(text.as_bytes())) {
            Ok(()) => Some(SessionFile(path)),
            Err(error) => {
                warn(format_args!("failed to write {FILE}: {error}"));
                None
            }
        }
    }
}

/// Value of a variable in the file, without its quotes.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.split_once('='));
    let (_, value) = lines.find(|(known, _)| *known == name)?;
    Some(value.trim_matches('\''))
}

/// File of the session, removed on drop.
pub(super) struct SessionFile(PathBuf);

impl Drop for SessionFile {
    fn drop(&mut self) {
        let _missing = fs::remove_file(&self.0);
    }
}
