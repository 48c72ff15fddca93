//! The PROXY protocol, versions 1 and 2: a proxy sends the address of its client before the client's first byte
//! (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::proxy::transport::Wire;

/// Start of a version 1 header.
const V1_PREFIX: &[u8] = b"PROXY ";

/// Size limit of a version 1 header, in bytes.
const MAX_V1_LENGTH: usize = 107;

/// Start of a version 2 header.
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Size limit of a version 2 header, in bytes: extensions may follow the addresses.
const MAX_V2_LENGTH: usize = 4096;

/// Size of the addresses of two Unix sockets, in bytes.
const UNIX_ADDRESSES_LENGTH: usize = 216;

/// Client according to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProxiedSource {
    /// The proxy itself, as in a health check, or an unknown client.
    Proxy,
    Address(IpAddr),
    UnixSocket,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyHeaderError {
    #[error("read a PROXY header: the connection closed before its first byte")]
    Empty,
    #[error("parse the PROXY header")]
    Malformed,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads exactly one header.
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

/// Parses the header at the start of these bytes and returns its length; none if it is incomplete.
fn parse(bytes: &[u8]) -> Result<Option<(ProxiedSource, usize)>, ProxyHeaderError> {
    if agrees_with(bytes, V1_PREFIX) {
        parse_v1(bytes)
    } else if agrees_with(bytes, V2_SIGNATURE) {
        parse_v2(bytes)
    } else {
        Err(ProxyHeaderError::Malformed)
    }
}

fn agrees_with(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(one, other)| one == other)
}

/// Parses version 1: one line of text.
fn parse_v1(bytes: &[u8]) -> Result<Option<(ProxiedSource, usize)>, ProxyHeaderError> {
    let window = bytes.get(..MAX_V1_LENGTH).unwrap_or(bytes);
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        return if window.len() < MAX_V1_LENGTH {
            Ok(None)
        } else {
            Err(ProxyHeaderError::Malformed)
        };
    };
    let line = window.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    let line = line.and_then(|line| str::from_utf8(line).ok());
    let source = line.and_then(parse_v1_line);
    let source = source.ok_or(ProxyHeaderError::Malformed)?;
    Ok(Some((source, end + 1)))
}

fn parse_v1_line(line: &str) -> Option<ProxiedSource> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(ProxiedSource::Proxy);
    }
    let [source, target, source_port, target_port] =
        <[&str; 4]>::try_from(words.collect::<Vec<_>>()).ok()?;
    let parse_address = |address: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => address.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => address.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let client = parse_address(source)?;
    parse_address(target)?;
    (is_port(source_port) && is_port(target_port)).then(|| address(client))
}

fn is_port(text: &str) -> bool {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_minimal = text == "0" || !text.starts_with('0');
    is_number && is_minimal && text.parse::<u16>().is_ok()
}

/// Parses version 2: a signature, four bytes for command, family and length, the addresses, and ignored extensions.
fn parse_v2(bytes: &[u8]) -> Result<Option<(ProxiedSource, usize)>, ProxyHeaderError> {
    let Some((head, rest)) = bytes.split_first_chunk::<16>() else {
        return Ok(None);
    };
    let [.., command, family, high, low] = *head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let needed = match (command, family) {
        // LOCAL command; or PROXY command with an unspecified family.
        (0x20, _) | (0x21, 0x00) => 0,
        (0x21, 0x11) => 2 * (4 + 2),
        (0x21, 0x21) => 2 * (16 + 2),
        (0x21, 0x31) => UNIX_ADDRESSES_LENGTH,
        _ => return Err(ProxyHeaderError::Malformed),
    };
    if length < needed || head.len() + length > MAX_V2_LENGTH {
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
