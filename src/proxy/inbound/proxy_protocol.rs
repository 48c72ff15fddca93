//! The PROXY protocol, versions 1 and 2: before the first byte of its client, a proxy says who that is
//! (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::proxy::transport::Wire;

/// What a header of version 1 begins with.
const WORD: &[u8] = b"PROXY ";

/// The longest header of version 1, in bytes.
const LONGEST_LINE: usize = 107;

/// What a header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest header of version 2 that is read, in bytes: what follows the addresses may be long.
const LONGEST: usize = 4096;

/// The room for the addresses of two Unix sockets.
const UNIX_ADDRESSES: usize = 216;

/// Who is at the other end of a connection of the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProxiedSource {
    /// The proxy itself, as for a check of health, or somebody it does not know.
    Proxy,
    /// A client at this address.
    Address(IpAddr),
    /// A client on a Unix socket.
    UnixSocket,
}

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyHeaderError {
    /// The connection has ended before its first byte.
    #[error("nothing came")]
    Empty,
    /// What came is something else.
    #[error("there is no PROXY header")]
    Malformed,
    /// The connection is broken.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads a header to its end, and no further.
pub(super) async fn read(wire: &mut Wire) -> Result<ProxiedSource, ProxyHeaderError> {
    let mut bytes = Vec::new();
    loop {
        if let Some((source, length)) = parse(&bytes)? {
            wire.put_back(bytes.split_off(length));
            return Ok(source);
        }
        if wire.read_more(&mut bytes).await? == 0 {
            return Err(if bytes.is_empty() {
                ProxyHeaderError::Empty
            } else {
                ProxyHeaderError::Malformed
            });
        }
    }
}

/// The header that these bytes begin with, and its length; nothing if more have to come.
fn parse(bytes: &[u8]) -> Result<Option<(ProxiedSource, usize)>, ProxyHeaderError> {
    if begins_like(bytes, WORD) {
        parse_line(bytes)
    } else if begins_like(bytes, SIGNATURE) {
        parse_binary(bytes)
    } else {
        Err(ProxyHeaderError::Malformed)
    }
}

fn begins_like(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(one, other)| one == other)
}

/// Version 1: one line of text.
fn parse_line(bytes: &[u8]) -> Result<Option<(ProxiedSource, usize)>, ProxyHeaderError> {
    let window = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        return if window.len() < LONGEST_LINE {
            Ok(None)
        } else {
            Err(ProxyHeaderError::Malformed)
        };
    };
    let line = window.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    let line = line.and_then(|line| str::from_utf8(line).ok());
    let source = line.and_then(source_of_line);
    let source = source.ok_or(ProxyHeaderError::Malformed)?;
    Ok(Some((source, end + 1)))
}

fn source_of_line(line: &str) -> Option<ProxiedSource> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(ProxiedSource::Proxy);
    }
    let [source, target, source_port, target_port] =
        <[&str; 4]>::try_from(words.collect::<Vec<_>>()).ok()?;
    let read = |address: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => address.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => address.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let client = read(source)?;
    read(target)?;
    (is_port(source_port) && is_port(target_port)).then(|| address(client))
}

fn is_port(text: &str) -> bool {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_short = text == "0" || !text.starts_with('0');
    is_number && is_short && text.parse::<u16>().is_ok()
}

/// Version 2: a signature, four bytes that say what follows and how long it is, addresses, and extensions that are
/// skipped.
fn parse_binary(bytes: &[u8]) -> Result<Option<(ProxiedSource, usize)>, ProxyHeaderError> {
    let Some((head, rest)) = bytes.split_first_chunk::<16>() else {
        return Ok(None);
    };
    let [.., command, family, high, low] = *head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let needed = match (command, family) {
        // The proxy speaks for itself; or it speaks for somebody and does not say who.
        (0x20, _) | (0x21, 0x00) => 0,
        (0x21, 0x11) => 2 * (4 + 2),
        (0x21, 0x21) => 2 * (16 + 2),
        (0x21, 0x31) => UNIX_ADDRESSES,
        _ => return Err(ProxyHeaderError::Malformed),
    };
    if length < needed || head.len() + length > LONGEST {
        return Err(ProxyHeaderError::Malformed);
    }
    let Some(rest) = rest.get(..length) else {
        return Ok(None);
    };
    let source = match (command, family, rest.first_chunk(), rest.first_chunk()) {
        (0x21, 0x11, Some(v4), _) => address(IpAddr::from(*v4 as [u8; 4])),
        (0x21, 0x21, _, Some(v6)) => address(IpAddr::from(*v6 as [u8; 16])),
        (0x21, 0x31, ..) => ProxiedSource::UnixSocket,
        _ => ProxiedSource::Proxy,
    };
    Ok(Some((source, head.len() + length)))
}

fn address(address: IpAddr) -> ProxiedSource {
    ProxiedSource::Address(address.to_canonical())
}

#[cfg(test)]
mod tests;
