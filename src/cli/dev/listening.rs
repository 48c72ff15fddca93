//! Listening sockets of a process group, from `/proc`.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// State `TCP_LISTEN` in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Addresses on which the processes of a group accept TCP connections; empty without `/proc`.
pub(super) fn addresses(group: u32) -> BTreeSet<SocketAddr> {
    let mut found = BTreeSet::new();
    for process in processes(group) {
        let sockets = sockets(&process);
        for table in ["net/tcp", "net/tcp6"] {
            let text = fs::read_to_string(process.join(table)).unwrap_or_default();
            let listening = text.lines().skip(1).filter_map(listening);
            found.extend(
                listening
                    .filter(|(_, inode)| sockets.contains(inode))
                    .map(|(address, _)| address),
            );
        }
    }
    found
}

/// Directories of the processes of a group.
fn processes(group: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| group_of(path) == Some(group)).collect()
}

/// Process group in `stat`: the third field after the name, which may have spaces and parentheses.
fn group_of(process: &Path) -> Option<u32> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(2)?.parse().ok()
}

/// Inodes of the open sockets of a process.
fn sockets(process: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(process.join("fd")).into_iter().flatten();
    let links = entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok());
    links
        .filter_map(|link| {
            let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect()
}

/// Address and inode of a line of `/proc/net/tcp`, if the socket listens.
fn listening(line: &str) -> Option<(SocketAddr, String)> {
    let mut fields = line.split_ascii_whitespace();
    let address = fields.nth(1)?;
    (fields.nth(1)? == LISTEN).then_some(())?;
    let inode = fields.nth(5)?;
    let (address, port) = address.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((SocketAddr::new(ip(address)?, port), inode.to_owned()))
}

/// Address in the form of the kernel: words of 32 bits in the byte order of the machine.
fn ip(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok();
    let bytes = |at: usize| word(at).map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(Ipv4Addr::from(bytes(0)?).into()),
        32 => {
            let mut all = [0; 16];
            for (at, part) in all.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&bytes(at)?);
            }
            Some(Ipv6Addr::from(all).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn finds_the_sockets_of_its_own_process_group() {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let v6 = TcpListener::bind("[::1]:0").unwrap();
        let group = group_of(Path::new("/proc/self")).unwrap();
        let found = addresses(group);
        for listener in [v4, v6] {
            let address = listener.local_addr().unwrap();
            assert!(found.contains(&address), "{address}: {found:?}");
        }
        // No group has this number.
        assert!(addresses(u32::MAX).is_empty());
    }

    #[test]
    fn reads_a_line_of_the_kernel() {
        let line = "   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100";
        let expected = ("127.0.0.1:3000".parse().unwrap(), "4711".to_owned());
        assert_eq!(listening(line), Some(expected));
        assert_eq!(listening(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(listening("nonsense"), None);
    }
}
