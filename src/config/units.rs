//! Durations, sizes, addresses and networks in human-readable form.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::{IpNet, Ipv4Net};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// Longest duration of a key, in days. A deadline is the current time plus a duration, and must not overflow.
const MAX_DAYS: u32 = 365;

/// Longest HSTS `max-age`, in days: preload lists ask for two years.
const MAX_HSTS_DAYS: u32 = 3650;

/// Shortest duration except zero: the resolution of the timers. A shorter interval would be a busy loop.
const MIN_DURATION: Duration = Duration::from_millis(1);

/// Largest size.
const MAX_SIZE: ByteSize = ByteSize::tib(1);

/// A duration such as `"30s"`, `"5m"` or `"7d"`.
pub(super) mod duration {
    use super::{Deserializer, Duration, MAX_DAYS, Serializer, duration_up_to};

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        source: D,
    ) -> Result<Duration, D::Error> {
        duration_up_to(MAX_DAYS, source)
    }

    pub(in crate::config) fn serialize<S: Serializer>(
        duration: &Duration,
        sink: S,
    ) -> Result<S::Ok, S::Error> {
        sink.collect_str(&humantime::format_duration(*duration))
    }
}

/// An HSTS `max-age`.
pub(super) mod hsts {
    use super::{Deserializer, Duration, MAX_HSTS_DAYS, duration_up_to};

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        source: D,
    ) -> Result<Option<Duration>, D::Error> {
        duration_up_to(MAX_HSTS_DAYS, source).map(Some)
    }

    pub(in crate::config) use super::optional_duration::serialize;
}

fn duration_up_to<'de, D: Deserializer<'de>>(
    max_days: u32,
    source: D,
) -> Result<Duration, D::Error> {
    let text = source.deserialize_any(Text("a duration such as \"30s\", \"5m\" or \"7d\""))?;
    let too_long = || {
        let message = format_args!("must be at most {max_days}d, got \"{text}\"").to_string();
        de::Error::custom(message)
    };
    let parsed = match humantime::parse_duration(&text) {
        Ok(parsed) => parsed,
        Err(humantime::DurationError::NumberOverflow) => return Err(too_long()),
        Err(_) => {
            let meant = if is_number(&text) {
                format!("did you mean \"{text}s\"?")
            } else {
                "expected a number and a unit, such as \"30s\", \"5m\" or \"7d\"".to_owned()
            };
            return Err(de::Error::custom(format_args!(
                "`{text}` is not a valid duration; {meant}"
            )));
        }
    };
    if parsed > Duration::from_hours(24) * max_days {
        return Err(too_long());
    }
    if !parsed.is_zero() && parsed < MIN_DURATION {
        return Err(de::Error::custom(format_args!(
            "must be at least 1ms, got \"{text}\""
        )));
    }
    Ok(parsed)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// An optional duration.
pub(super) mod optional_duration {
    use super::{Deserializer, Duration, Serializer, duration};

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        source: D,
    ) -> Result<Option<Duration>, D::Error> {
        duration::deserialize(source).map(Some)
    }

    #[expect(
        clippy::ref_option,
        reason = "serde calls it with a reference to the field"
    )]
    pub(in crate::config) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        sink: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => duration::serialize(duration, sink),
            None => sink.serialize_none(),
        }
    }
}

/// A size in bytes, such as `"32KiB"`, `"10MiB"` or `4096`.
pub(super) mod size {
    use super::{Deserializer, MAX_SIZE, Serializer, SizeVisitor, de};

    /// Units, largest first.
    const UNITS: [(u64, &str); 4] = [
        (1 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        source: D,
    ) -> Result<u64, D::Error> {
        let bytes = source.deserialize_any(SizeVisitor)?;
        if bytes > MAX_SIZE.as_u64() {
            return Err(de::Error::custom(format_args!(
                "must be at most 1TiB, got {bytes} bytes"
            )));
        }
        Ok(bytes)
    }

    /// Writes the size with the largest unit that divides it.
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde calls it with a reference to the field"
    )]
    pub(in crate::config) fn serialize<S: Serializer>(
        bytes: &u64,
        sink: S,
    ) -> Result<S::Ok, S::Error> {
        let mut units = UNITS.iter();
        match units.find(|(unit, _)| *bytes > 0 && bytes.is_multiple_of(*unit)) {
            Some((unit, name)) => sink.collect_str(&format_args!("{}{name}", bytes / unit)),
            None => sink.serialize_u64(*bytes),
        }
    }
}

/// An optional size.
pub(super) mod optional_size {
    use super::{Deserializer, Serializer, size};

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        source: D,
    ) -> Result<Option<u64>, D::Error> {
        size::deserialize(source).map(Some)
    }

    #[expect(
        clippy::ref_option,
        reason = "serde calls it with a reference to the field"
    )]
    pub(in crate::config) fn serialize<S: Serializer>(
        bytes: &Option<u64>,
        sink: S,
    ) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => size::serialize(bytes, sink),
            None => sink.serialize_none(),
        }
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a size such as \"32KiB\" or \"10MiB\"")
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<u64, E> {
        u64::try_from(bytes)
            .map_err(|_| de::Error::invalid_value(de::Unexpected::Signed(bytes), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        let parsed = text.parse::<ByteSize>();
        parsed.map(|size| size.as_u64()).map_err(|_| {
            de::Error::custom(format_args!(
                "`{text}` is not a valid size; expected a number and a unit, such as \"32KiB\" or \"10MiB\""
            ))
        })
    }
}

/// Address of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `"0.0.0.0:8080"` or `"[::]:8080"`.
    Tcp(SocketAddr),
    /// `"unix:/run/claimgate/gate.sock"`.
    Unix(PathBuf),
    /// `"systemd:0"`: index of a socket passed to the process (`LISTEN_FDS`).
    Passed(usize),
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let expected = "an address such as \"0.0.0.0:8080\" or \"unix:/run/gate.sock\"";
        let text = source.deserialize_any(Text(expected))?;
        text.parse().map_err(de::Error::custom)
    }
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') {
                Ok(Self::Unix(PathBuf::from(path)))
            } else {
                Err(format!("`{text}` must have an absolute path after `unix:`"))
            };
        }
        if let Some(index) = text.strip_prefix("systemd:") {
            return index.parse().map(Self::Passed).map_err(|_| {
                format!("`{text}` must have an index, counted from 0, after `systemd:`")
            });
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            let meant = meant_address(text, "0.0.0.0").map_or_else(
                || {
                    "expected an IP address and a port, such as \"0.0.0.0:8080\", or a socket path, such as \
                     \"unix:/run/gate.sock\""
                        .to_owned()
                },
                |meant| format!("did you mean \"{meant}\"?"),
            );
            format!("`{text}` is not a valid address; {meant}")
        })
    }
}

/// Address meant by a text in the form of another program: `:8080`, `localhost:8080`, `/run/gate.sock`. A text without a
/// host means `any_host`.
fn meant_address(text: &str, any_host: &str) -> Option<String> {
    if text.starts_with('/') {
        return Some(format!("unix:{text}"));
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
    if scheme == "unix" {
        return rest.starts_with('/').then(|| format!("unix:{rest}"));
    }
    let rest = rest.trim_end_matches('/');
    let with_host = |host: &str, port: &str| {
        let host = match host {
            "" | "*" => any_host,
            "localhost" => "127.0.0.1",
            host => host,
        };
        let bracketed = if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        let address: Result<SocketAddr, _> = bracketed.parse();
        address.ok().map(|_| bracketed)
    };
    if is_number(rest) {
        return with_host("", rest);
    }
    if let Ok(ip) = rest.trim_matches(['[', ']']).parse::<IpAddr>() {
        return with_host(&ip.to_string(), "8080");
    }
    let (host, port) = rest.rsplit_once(':')?;
    with_host(host, port)
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Passed(index) => write!(f, "systemd:{index}"),
        }
    }
}

/// An IP address and a port.
pub(super) mod socket_address {
    use super::{Deserializer, Serializer, SocketAddr, Text, de, meant_address};

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        source: D,
    ) -> Result<SocketAddr, D::Error> {
        let text = source.deserialize_any(Text("an address such as \"127.0.0.1:9901\""))?;
        text.parse().map_err(|_| {
            let meant =
                meant_address(&text, "127.0.0.1").filter(|meant| !meant.starts_with("unix:"));
            let meant = meant.map_or_else(
                || "expected an IP address and a port, such as \"127.0.0.1:9901\"".to_owned(),
                |meant| format!("did you mean \"{meant}\"?"),
            );
            de::Error::custom(format_args!("`{text}` is not a valid address; {meant}"))
        })
    }

    pub(in crate::config) fn serialize<S: Serializer>(
        address: &SocketAddr,
        sink: S,
    ) -> Result<S::Ok, S::Error> {
        sink.collect_str(address)
    }
}

/// CIDR block such as `10.0.0.0/8`. A bare address is a block of one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(pub IpNet);

impl Network {
    /// A network of IPv4-mapped IPv6 addresses (RFC 4291 section 2.5.5.2) is the IPv4 network: addresses are compared in
    /// their IPv4 form.
    fn canonical(network: IpNet) -> Self {
        let IpNet::V6(mapped) = network else {
            return Self(network);
        };
        let length = mapped.prefix_len().checked_sub(96);
        let address = mapped.addr().to_ipv4_mapped();
        let canonical = length
            .zip(address)
            .and_then(|(length, address)| Ipv4Net::new(address, length).ok());
        Self(canonical.map_or(network, IpNet::V4))
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let text = source.deserialize_any(Text("a network such as \"10.0.0.0/8\""))?;
        let network = text.parse::<IpNet>().ok();
        let network = network.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        network.map(Self::canonical).ok_or_else(|| {
            de::Error::custom(format_args!(
                "`{text}` is not a valid network; expected a CIDR block or an IP address, such as \"10.0.0.0/8\" \
                 or \"10.1.2.3\""
            ))
        })
    }
}

/// One string or an array of strings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OneOrMany(pub Vec<String>);

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, sink: S) -> Result<S::Ok, S::Error> {
        sink.collect_str(self)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, sink: S) -> Result<S::Ok, S::Error> {
        sink.collect_str(&self.0)
    }
}

impl Serialize for OneOrMany {
    fn serialize<S: Serializer>(&self, sink: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [text] => sink.serialize_str(text),
            texts => texts.serialize(sink),
        }
    }
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or an array of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![text.to_owned()]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMany, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element::<String>()? {
                    texts.push(text);
                }
                Ok(OneOrMany(texts))
            }
        }
        source.deserialize_any(Either)
    }
}

/// Visitor of strings. Holds the description of the expected value.
pub(super) struct Text(pub(super) &'static str);

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_mapped_addresses_is_the_ipv4_network() {
        for (network, expected) in [
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:192.0.2.7/128", "192.0.2.7/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("10.0.0.0/8", "10.0.0.0/8"),
        ] {
            let found = Network::canonical(network.parse().unwrap());
            assert_eq!(found.0.to_string(), expected, "{network}");
        }
    }
}
