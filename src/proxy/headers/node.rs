//! Nodes of a forwarding chain: an IP address, possibly with a port (RFC 7239 section 6).

use std::net::IpAddr;

/// Address of a node in `X-Forwarded-For`, or of a `for` parameter in `Forwarded`, without its port. An IPv4-mapped IPv6
/// address is the IPv4 address. Returns `None` for `unknown`, an obfuscated identifier (`_hidden`) and anything else.
pub(super) fn address(node: &[u8]) -> Option<IpAddr> {
    let node = str::from_utf8(node).ok()?.trim_matches([' ', '\t']);
    let unquoted = node
        .strip_prefix('"')
        .and_then(|node| node.strip_suffix('"'));
    let node = unquoted.unwrap_or(node);
    let (address, port) = if let Some(bracketed) = node.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        (without_zone(address)?, port)
    } else if let Some(address) = without_zone(node) {
        (address, "")
    } else {
        // The port of an IPv6 address needs brackets, so this is an IPv4 address.
        let (address, port) = node.split_at(node.find(':')?);
        (IpAddr::V4(address.parse().ok()?), port)
    };
    (port.is_empty() || is_port(port)).then(|| address.to_canonical())
}

/// Parses an address with an optional zone (RFC 4007 section 11), as in `fe80::1%eth0`.
fn without_zone(text: &str) -> Option<IpAddr> {
    match text.split_once('%') {
        Some((address, zone)) if !zone.is_empty() => Some(IpAddr::V6(address.parse().ok()?)),
        Some(_) => None,
        None => text.parse().ok(),
    }
}

/// Returns whether this is a colon and a port, which may be obfuscated (RFC 7239 section 6.3).
fn is_port(text: &str) -> bool {
    let Some(port) = text.strip_prefix(':') else {
        return false;
    };
    let is_obfuscated = |name: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        !name.is_empty() && name.bytes().all(is_allowed)
    };
    let is_number = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    is_number || port.strip_prefix('_').is_some_and(is_obfuscated)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7239 section 6 and its examples; Azure Application Gateway and IIS add ports to `X-Forwarded-For`.
    #[test]
    fn finds_the_address_in_every_form_of_a_node() {
        for (node, expected) in [
            ("192.0.2.43", "192.0.2.43"),
            (" 192.0.2.43\t", "192.0.2.43"),
            ("192.0.2.43:47011", "192.0.2.43"),
            ("192.0.2.43:0", "192.0.2.43"),
            ("\"192.0.2.43:47011\"", "192.0.2.43"),
            ("192.0.2.43:_obf.port-1", "192.0.2.43"),
            ("2001:db8:cafe::17", "2001:db8:cafe::17"),
            ("[2001:db8:cafe::17]", "2001:db8:cafe::17"),
            ("[2001:db8:cafe::17]:4711", "2001:db8:cafe::17"),
            ("\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
            ("[2001:DB8:CAFE:0:0:0:0:17]:_x", "2001:db8:cafe::17"),
            ("::ffff:192.0.2.43", "192.0.2.43"),
            ("::FFFF:c000:22b", "192.0.2.43"),
            ("[::ffff:192.0.2.43]:4711", "192.0.2.43"),
            ("fe80::1%eth0", "fe80::1"),
            ("[fe80::1%25eth0]:80", "fe80::1"),
        ] {
            assert_eq!(address(node.as_bytes()), expected.parse().ok(), "{node}");
        }
    }

    #[test]
    fn finds_no_address_in_anything_else() {
        for node in [
            "",
            "unknown",
            "_hidden",
            "_SEVKISEK:80",
            "localhost",
            "192.0.2",
            "192.0.2.043",
            "192.0.2.43:",
            "192.0.2.43:x",
            "192.0.2.43:123456",
            "192.0.2.43:80:80",
            "192.0.2.43%eth0",
            "192.0.2.43/32",
            "192.0.2.43 198.51.100.1",
            "[2001:db8::1",
            "2001:db8::1]",
            "[2001:db8::1]80",
            "[]",
            "fe80::1%",
            "\"192.0.2.43",
            "for=192.0.2.43",
        ] {
            assert_eq!(address(node.as_bytes()), None, "{node}");
        }
        assert_eq!(address(b"192.0.2.43\xff"), None);
    }
}
