//! Connection test of the upstreams.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::proxy::upstream::{SharedUpstream, Target, health};

use super::finding::Finding;

/// Connects to every endpoint of an upstream once, and sends its health check if it has one.
///
/// No result changes the exit code: an API may start after the gate.
pub(super) async fn check(upstream: &SharedUpstream) -> Vec<Finding> {
    let policy = &upstream.policy;
    let subject = format!("upstream `{}`", policy.name);
    let mut findings = Vec::new();
    let mut is_reachable = false;
    for target in &policy.targets {
        findings.push(match connect(target, policy.connect_timeout).await {
            Ok(()) => {
                is_reachable = true;
                Finding::passed(&subject, format!("{target} accepts connections"))
            }
            Err(error) => {
                let fix = fix(target, &error, policy.connect_timeout).await;
                let text = format!("failed to connect to {target}: {error}");
                Finding::warning(&subject, text, fix)
            }
        });
    }
    if let Some(check) = policy.health_check.as_ref().filter(|_| is_reachable) {
        findings.push(match health::probe(upstream, check).await {
            Some(status) if health::is_healthy(status) => {
                Finding::passed(&subject, format!("health check: {status}"))
            }
            Some(status) => Finding::warning(
                &subject,
                format!("health check: {status}"),
                "the API reports that it is not healthy, or `path` of `health_check` is not its health path",
            ),
            None => Finding::warning(
                &subject,
                "health check: no response",
                "the API accepts connections and does not respond within `timeout` of `health_check`: look at its log",
            ),
        });
    }
    findings
}

async fn connect(target: &Target, limit: Duration) -> io::Result<()> {
    let connected = async {
        match target {
            Target::Tcp(host, port) => {
                let host = host.trim_matches(['[', ']']);
                TcpStream::connect((host, *port)).await.map(drop)
            }
            Target::Unix(path) => UnixStream::connect(path).await.map(drop),
        }
    };
    timeout(limit, connected)
        .await
        .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// Fix of a failed connection.
async fn fix(target: &Target, error: &io::Error, limit: Duration) -> String {
    if let Some(other) = other_loopback(target)
        && connect(&other, limit).await.is_ok()
    {
        return format!(
            "a server listens at {other} only: write {other} in `url`, or let it listen at {target}"
        );
    }
    let fix = match (error.kind(), target) {
        (ErrorKind::TimedOut, _) => {
            "compare the address with `url`; a firewall or a NetworkPolicy may drop the packets"
        }
        (ErrorKind::NotFound, Target::Unix(_)) => {
            "the socket does not exist: start the API, or compare its path with `url`"
        }
        (ErrorKind::PermissionDenied, Target::Unix(_)) => {
            "the user of the gate needs write permission for the socket"
        }
        (ErrorKind::ConnectionRefused, _) => {
            "nothing listens there: start the API, or compare its address and port with `url`; in a container, loopback is \
             the container's own"
        }
        (_, Target::Tcp(..)) => {
            "compare host and port with `url`; the host name must resolve on this machine"
        }
        (_, Target::Unix(_)) => "compare the path with `url`",
    };
    fix.to_owned()
}

/// Same port at the loopback address of the other family.
fn other_loopback(target: &Target) -> Option<Target> {
    let Target::Tcp(host, port) = target else {
        return None;
    };
    let address: IpAddr = host.trim_matches(['[', ']']).parse().ok()?;
    let other = match address {
        IpAddr::V4(address) if address.is_loopback() => format!("[{}]", Ipv6Addr::LOCALHOST),
        IpAddr::V6(address) if address.is_loopback() => Ipv4Addr::LOCALHOST.to_string(),
        IpAddr::V4(_) | IpAddr::V6(_) => return None,
    };
    Some(Target::Tcp(other, *port))
}
