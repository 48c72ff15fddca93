//! Failure to bind a listener, with its fix.

use std::fmt;
use std::io::{self, ErrorKind};

use crate::config::Address;

/// Lowest port that needs no privilege (`net.ipv4.ip_unprivileged_port_start`, by default).
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// A listener could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address}, {setting}: {source}{}", Fix(.address, .source))]
pub struct ListenError {
    /// Address as configured.
    pub address: Address,
    /// Setting of the address, as in `` `address` of [listen] ``.
    pub setting: String,
    /// Cause.
    pub source: io::Error,
}

impl ListenError {
    /// True if another process has the address.
    pub fn is_taken(&self) -> bool {
        self.source.kind() == ErrorKind::AddrInUse
    }
}

/// Fix of a failed bind, after a semicolon; empty if there is none.
struct Fix<'a>(&'a Address, &'a io::Error);

impl fmt::Display for Fix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(address, error) = self;
        match (error.kind(), address) {
            (ErrorKind::AddrInUse, Address::Tcp(tcp)) => {
                let port = tcp.port();
                write!(
                    f,
                    "; `ss -ltnp 'sport = :{port}'` shows the process that has the port: stop it, or set another address"
                )
            }
            (ErrorKind::AddrInUse, Address::Unix(path)) => {
                let path = path.display();
                write!(
                    f,
                    "; `ss -lxp src {path}` shows the process that listens there: stop it, or set another path"
                )
            }
            (ErrorKind::PermissionDenied, Address::Tcp(tcp))
                if tcp.port() < FIRST_UNPRIVILEGED_PORT =>
            {
                write!(
                    f,
                    "; ports below {FIRST_UNPRIVILEGED_PORT} need the capability CAP_NET_BIND_SERVICE: grant it, or set a \
                     port such as 8080"
                )
            }
            (ErrorKind::PermissionDenied, Address::Unix(path)) => {
                let folder = path.parent().unwrap_or(path).display();
                write!(
                    f,
                    "; the user of the gate must be able to write to {folder}"
                )
            }
            (ErrorKind::NotFound, Address::Unix(path)) => {
                let folder = path.parent().unwrap_or(path).display();
                write!(f, "; create the folder {folder}")
            }
            (ErrorKind::AddrNotAvailable, Address::Tcp(tcp)) => {
                let any = if tcp.is_ipv4() { "0.0.0.0" } else { "[::]" };
                write!(
                    f,
                    "; no interface of this machine has the address: `{any}:{}` listens on all of them",
                    tcp.port()
                )
            }
            _ if error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => {
                f.write_str("; this machine has no IPv6: set an IPv4 address, such as 0.0.0.0:8080")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_fix(address: &str, kind: ErrorKind, expected: &str) {
        let error = ListenError {
            address: address.parse().unwrap(),
            setting: "`address` of [listen]".to_owned(),
            source: kind.into(),
        };
        let text = error.to_string();
        let start = format!("listen on {address}, `address` of [listen]: ");
        assert!(text.starts_with(&start), "{text}");
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn names_the_setting_and_the_fix() {
        let taken = ErrorKind::AddrInUse;
        assert_fix("127.0.0.1:8080", taken, "`ss -ltnp 'sport = :8080'`");
        assert_fix("unix:/run/gate.sock", taken, "`ss -lxp src /run/gate.sock`");
        let denied = ErrorKind::PermissionDenied;
        assert_fix("0.0.0.0:80", denied, "CAP_NET_BIND_SERVICE");
        assert_fix("unix:/run/gate.sock", denied, "write to /run");
        assert_fix(
            "unix:/run/a/gate.sock",
            ErrorKind::NotFound,
            "create the folder /run/a",
        );
        let elsewhere = ErrorKind::AddrNotAvailable;
        assert_fix("192.0.2.1:80", elsewhere, "`0.0.0.0:80` listens on all");
        assert_fix("[2001:db8::1]:80", elsewhere, "`[::]:80` listens on all");
    }
}
