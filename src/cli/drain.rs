//! `claimgate drain`: the preStop hook of a pod.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::config::Written;

use super::{ConfigFile, Failure, Outcome, say};

/// How long the running gate may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct Drain {
    #[command(flatten)]
    config: ConfigFile,
    /// The admin address of the running gate, instead of the configuration's.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// How long to wait after that, as in "10s": for a preStop hook that must last.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "0s")]
    wait: Duration,
}

impl Drain {
    pub(super) fn run(self) -> Outcome {
        let address = match self.admin {
            Some(address) => address,
            None => {
                let written = Written::load(&self.config.config)?;
                let address = written.config.admin.address;
                written.finish()?;
                address
            }
        };
        let address = on_this_machine(address);
        let answer = post(address).map_err(|error| {
            Failure::other(format_args!(
                "reach the gate's admin listener at {address}: {error}"
            ))
        })?;
        if !answer.starts_with("HTTP/1.1 200 ") {
            let status = answer.lines().next().unwrap_or_default();
            return Err(Failure::other(format_args!(
                "drain the gate at {address}: it answered {status}"
            )));
        }
        say("draining");
        std::thread::sleep(self.wait);
        Ok(ExitCode::SUCCESS)
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

fn post(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "POST /drain HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
