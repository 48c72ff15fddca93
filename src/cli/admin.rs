//! Requests to the admin listener of a gate that runs on this machine.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use clap::Args;

use crate::config::{Admin, ConfigDocument, admin_address};

use super::{ConfigFile, ConfigPlace, Failure, warn};

/// Timeout for connecting, and for each read of the response.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct RunningGate {
    #[command(flatten)]
    config: ConfigFile,
    /// Admin address of the running gate, instead of the one in the configuration.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

/// Response of the admin listener.
#[derive(Debug)]
pub(super) struct AdminResponse {
    /// Address of the admin listener.
    pub(super) address: SocketAddr,
    /// Status line, as in `HTTP/1.1 200 OK`.
    pub(super) status: String,
    pub(super) body: String,
}

impl AdminResponse {
    pub(super) fn has_status(&self, code: u16) -> bool {
        self.status.split(' ').nth(1) == Some(&code.to_string())
    }
}

impl RunningGate {
    /// Configured admin address. The rest of the file does not matter: the running gate keeps its policy if the file has
    /// become invalid.
    fn address(&self) -> SocketAddr {
        self.admin.unwrap_or_else(|| {
            let (address, warning) = match self.config.running_place() {
                Ok(ConfigPlace::File(file)) => admin_address(&file),
                Ok(ConfigPlace::Dev(session)) => (session.admin, None),
                Ok(ConfigPlace::Environment) => (ConfigDocument::environment_admin_address(), None),
                Err(problems) => (Admin::default().address, Some(problems.to_string())),
            };
            if let Some(warning) = warning {
                warn(format_args!("warning: {warning}"));
            }
            address
        })
    }

    pub(super) fn request(
        &self,
        method: &str,
        path: &str,
        accept: &str,
    ) -> Result<AdminResponse, Failure> {
        let address = loopback(self.address());
        let response = send(address, method, path, accept).map_err(|error| {
            Failure::other(format_args!(
                "reach the admin listener of the gate at {address}: {error}"
            ))
        })?;
        let (head, body) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
        Ok(AdminResponse {
            address,
            status: head.lines().next().unwrap_or_default().to_owned(),
            body: body.to_owned(),
        })
    }
}

/// Replaces an unspecified address, such as `0.0.0.0`, with loopback.
fn loopback(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn send(address: SocketAddr, method: &str, path: &str, accept: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response)
}
