//! What is asked of the running gate: over its admin listener, from the same machine.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use clap::Args;

use crate::config::ConfigDocument;

use super::{ConfigFile, Failure};

/// How long the running gate may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which gate.
#[derive(Debug, Args)]
pub(super) struct RunningGate {
    #[command(flatten)]
    config: ConfigFile,
    /// The admin address of the running gate, instead of the configuration's.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

/// What it has answered.
#[derive(Debug)]
pub(super) struct Answered {
    /// Who.
    pub(super) address: SocketAddr,
    /// The first line, as in `HTTP/1.1 200 OK`.
    pub(super) status: String,
    /// What came after the head.
    pub(super) body: String,
}

impl Answered {
    pub(super) fn has_status(&self, code: u16) -> bool {
        self.status.split(' ').nth(1) == Some(&code.to_string())
    }
}

impl RunningGate {
    pub(super) fn ask(&self, method: &str, path: &str) -> Result<Answered, Failure> {
        let address = match self.admin {
            Some(address) => address,
            None => {
                let document = ConfigDocument::load(&self.config.config)?;
                let address = document.config.admin.address;
                document.finish()?;
                address
            }
        };
        let address = on_this_machine(address);
        let answer = send(address, method, path).map_err(|error| {
            Failure::other(format_args!(
                "reach the gate's admin listener at {address}: {error}"
            ))
        })?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        Ok(Answered {
            address,
            status: head.lines().next().unwrap_or_default().to_owned(),
            body: body.to_owned(),
        })
    }
}

/// The loopback address on which a listener of every address is reached.
fn on_this_machine(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn send(address: SocketAddr, method: &str, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
