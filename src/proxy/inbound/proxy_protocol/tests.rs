use super::*;

fn v4(text: &str) -> ProxiedSource {
    ProxiedSource::Address(text.parse().unwrap())
}

fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = V2_SIGNATURE.to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend(body);
    bytes
}

/// Valid headers of every kind and their source.
fn valid() -> Vec<(Vec<u8>, ProxiedSource)> {
    let over_ip4 = [203, 0, 113, 7, 10, 0, 0, 1, 0x9c, 0x40, 0x1f, 0x90];
    let mut over_ip6 = [0; 36];
    over_ip6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    over_ip6[15] = 7;
    let mut mapped = [0; 36];
    mapped[10..16].copy_from_slice(&[0xff, 0xff, 203, 0, 113, 7]);
    let extended = [&over_ip4[..], &[0x04, 0, 3, 1, 2, 3]].concat();
    let lines = [
        (
            "PROXY TCP4 203.0.113.7 10.0.0.1 40000 8080\r\n",
            v4("203.0.113.7"),
        ),
        (
            "PROXY TCP4 255.255.255.255 0.0.0.0 0 65535\r\n",
            v4("255.255.255.255"),
        ),
        (
            "PROXY TCP6 2001:db8::7 ::1 40000 8080\r\n",
            v4("2001:db8::7"),
        ),
        (
            "PROXY TCP6 ::ffff:203.0.113.7 ::1 1 2\r\n",
            v4("203.0.113.7"),
        ),
        ("PROXY UNKNOWN\r\n", ProxiedSource::Proxy),
        (
            "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
            ProxiedSource::Proxy,
        ),
    ];
    let mut all: Vec<_> = lines
        .into_iter()
        .map(|(line, source)| (line.as_bytes().to_vec(), source))
        .collect();
    all.extend([
        (binary(0x21, 0x11, &over_ip4), v4("203.0.113.7")),
        (binary(0x21, 0x11, &extended), v4("203.0.113.7")),
        (binary(0x21, 0x21, &over_ip6), v4("2001:db8::7")),
        (binary(0x21, 0x21, &mapped), v4("203.0.113.7")),
        (binary(0x21, 0x31, &[b'/'; 216]), ProxiedSource::UnixSocket),
        (binary(0x21, 0x00, b""), ProxiedSource::Proxy),
        (binary(0x20, 0x00, b""), ProxiedSource::Proxy),
        (binary(0x20, 0x11, &over_ip4), ProxiedSource::Proxy),
        (
            binary(0x21, 0x00, &[0; MAX_V2_LENGTH - 16]),
            ProxiedSource::Proxy,
        ),
    ]);
    all
}

#[test]
fn parses_the_client_address() {
    for (bytes, source) in valid() {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let length = bytes.len();
        assert_eq!(parse(&bytes).unwrap(), Some((source, length)), "{text}");
        // The following bytes belong to the client.
        for rest in ["GET / HTTP/1.1\r\n", "\r\n", "PROXY TCP4", "\0"] {
            let both = [&bytes, rest.as_bytes()].concat();
            assert_eq!(parse(&both).unwrap(), Some((source, length)), "{text}");
        }
    }
}

#[test]
fn waits_for_the_rest_of_an_incomplete_header() {
    for (bytes, _) in valid() {
        for end in 0..bytes.len() {
            let start = &bytes[..end];
            assert!(parse(start).unwrap().is_none(), "{start:?}");
        }
    }
}

#[test]
fn rejects_malformed_headers() {
    let lines = [
        "GET / HTTP/1.1\r\n",
        "proxy TCP4 203.0.113.7 10.0.0.1 1 2\r\n",
        "PROXY\r\n",
        "PROXY \r\n",
        "PROXY  TCP4 203.0.113.7 10.0.0.1 1 2\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 1 2\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 1 2 \r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 1\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 1 2 3\r\n",
        "PROXY TCP4  203.0.113.7 10.0.0.1 1 2\r\n",
        "PROXY TCP4 203.0.113.07 10.0.0.1 1 2\r\n",
        "PROXY TCP4 203.0.113 10.0.0.1 1 2\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.256 1 2\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 01 2\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 +1 2\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 1 65536\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1  2\r\n",
        "PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
        "PROXY TCP6 203.0.113.7 10.0.0.1 1 2\r\n",
        "PROXY TCP6 2001:db8::7%eth0 ::1 1 2\r\n",
        "PROXY UDP4 203.0.113.7 10.0.0.1 1 2\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 1 \u{0662}\r\n",
    ];
    let too_long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1_LENGTH));
    let endless = "PROXY UNKNOWN ".to_owned() + &"x".repeat(MAX_V1_LENGTH);
    let mut malformed: Vec<_> = lines.map(str::as_bytes).map(<[u8]>::to_vec).into();
    malformed.extend([too_long.into_bytes(), endless.into_bytes()]);
    let zeros = [0; UNIX_ADDRESSES_LENGTH];
    malformed.extend([
        binary(0x11, 0x11, &zeros),
        binary(0x31, 0x11, &zeros),
        binary(0x22, 0x11, &zeros),
        binary(0x21, 0x12, &zeros),
        binary(0x21, 0x22, &zeros),
        binary(0x21, 0x32, &zeros),
        binary(0x21, 0x10, &zeros),
        binary(0x21, 0x01, &zeros),
        binary(0x21, 0x41, &zeros),
        binary(0x21, 0x11, &zeros[..11]),
        binary(0x21, 0x21, &zeros[..35]),
        binary(0x21, 0x31, &zeros[..215]),
        binary(0x20, 0x00, &[0; MAX_V2_LENGTH]),
        b"\r\n\r\n\0\r\nQUIX\n".to_vec(),
    ]);
    for bytes in malformed {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(parse(&bytes).is_err(), "{text:?}");
    }
}

#[test]
fn never_panics_on_corrupted_headers() {
    for (bytes, _) in valid() {
        for at in 0..bytes.len().min(60) {
            for byte in [0, 1, b' ', b'\n', b'\r', 0x21, 0x7f, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = byte;
                if let Ok(Some((_, length))) = parse(&changed) {
                    assert!(length <= changed.len());
                }
            }
        }
    }
}
