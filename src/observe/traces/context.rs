//! W3C Trace Context, level 2 (<https://www.w3.org/TR/trace-context-2/>).

use std::num::{NonZeroU64, NonZeroU128};

use http::{HeaderMap, HeaderName};

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Flag: the spans of the trace are recorded.
const SAMPLED: u8 = 1;

/// Flag: the trace ID is random in the bits that samplers use.
const RANDOM: u8 = 2;

/// Length of a version 00 `traceparent`, in bytes.
const LENGTH: usize = 55;

/// List members of a `tracestate`, at most.
const MAX_MEMBERS: usize = 32;

/// Length of a key or a value, at most, in bytes.
const MAX_MEMBER_BYTES: usize = 256;

/// Span context: trace ID, span ID and trace flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) trace: NonZeroU128,
    pub(super) span: NonZeroU64,
    flags: u8,
}

impl Context {
    /// Begins a trace.
    pub(super) fn root(is_sampled: bool) -> Self {
        Self {
            trace: NonZeroU128::new(fastrand::u128(..)).unwrap_or(NonZeroU128::MIN),
            span: new_span(),
            flags: RANDOM | if is_sampled { SAMPLED } else { 0 },
        }
    }

    /// Parses the `traceparent` of a request head. Returns `None` if it is absent, repeated or invalid.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Self::parse(value.to_str().ok()?),
            _ => None,
        }
    }

    /// Section 3.2.2. A later version begins like version 00 and may have further fields.
    fn parse(text: &str) -> Option<Self> {
        let (known, more) = text.split_at_checked(LENGTH)?;
        let parts: Vec<&str> = known.split('-').collect();
        let [version, trace, span, flags] = parts.try_into().ok()?;
        match hex(version, 2)? {
            0 if more.is_empty() => {}
            0 | 0xff => return None,
            _ if more.is_empty() || more.starts_with('-') => {}
            _ => return None,
        }
        Some(Self {
            trace: NonZeroU128::new(hex(trace, 32)?)?,
            span: NonZeroU64::new(u64::try_from(hex(span, 16)?).ok()?)?,
            flags: u8::try_from(hex(flags, 2)?).ok()? & (SAMPLED | RANDOM),
        })
    }

    /// New span of the same trace.
    pub(super) fn child(self) -> Self {
        Self {
            span: new_span(),
            ..self
        }
    }

    pub(super) fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Flags of an OTLP span.
    pub(super) fn flags(self) -> u32 {
        self.flags.into()
    }

    /// `traceparent` with this span as the parent of the next.
    pub(super) fn text(self) -> String {
        let Self { trace, span, flags } = self;
        format!("00-{trace:032x}-{span:016x}-{flags:02x}")
    }
}

fn new_span() -> NonZeroU64 {
    NonZeroU64::new(fastrand::u64(..)).unwrap_or(NonZeroU64::MIN)
}

/// Parses lowercase hexadecimal of exactly this length.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_number = text.len() == digits && text.bytes().all(is_digit);
    is_number.then(|| u128::from_str_radix(text, 16).ok())?
}

/// Returns true if `tracestate` is absent or valid (section 3.3.1).
pub(super) fn is_tracestate(headers: &HeaderMap) -> bool {
    let mut members = 0;
    headers.get_all(TRACESTATE).iter().all(|value| {
        let Ok(text) = value.to_str() else {
            return false;
        };
        text.split(',').all(|member| {
            let member = member.trim_matches([' ', '\t']);
            members += usize::from(!member.is_empty());
            members <= MAX_MEMBERS && (member.is_empty() || is_member(member))
        })
    })
}

fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else {
        return false;
    };
    let is_key_start = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_key = |byte: u8| is_key_start(byte) || b"_-*/@".contains(&byte);
    let is_value = |byte: u8| matches!(byte, b' '..=b'~') && !b",=".contains(&byte);
    let fits = |text: &str| (1..=MAX_MEMBER_BYTES).contains(&text.len());
    fits(key)
        && fits(value)
        && key.bytes().next().is_some_and(is_key_start)
        && key.bytes().all(is_key)
        && value.bytes().all(is_value)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// Example of section 3.2.3.
    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(name: &HeaderName, values: &[&'static str]) -> HeaderMap {
        let values = values.iter();
        let values = values.map(|value| (name.clone(), HeaderValue::from_static(value)));
        values.collect()
    }

    #[test]
    fn parses_and_writes_the_example_of_the_standard() {
        let context = Context::of(&headers(&TRACEPARENT, &[EXAMPLE])).unwrap();
        assert_eq!(
            context.trace.get(),
            0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736
        );
        assert_eq!(context.span.get(), 0x00f0_67aa_0ba9_02b7);
        assert!(context.is_sampled());
        let unsampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        assert!(!Context::parse(unsampled).unwrap().is_sampled());
        assert_eq!(context.text(), EXAMPLE);
    }

    #[test]
    fn reads_the_known_fields_of_a_later_version() {
        for later in [
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-09-what-the-future-brings",
        ] {
            assert_eq!(Context::parse(later).unwrap().text(), EXAMPLE, "{later}");
        }
    }

    #[test]
    fn rejects_an_invalid_or_repeated_traceparent() {
        for invalid in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-011",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473600f067aa0ba902b7--01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
            "0é-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Context::parse(invalid), None, "{invalid}");
        }
        assert_eq!(
            Context::of(&headers(&TRACEPARENT, &[EXAMPLE, EXAMPLE])),
            None
        );
        assert_eq!(Context::of(&HeaderMap::new()), None);
    }

    #[test]
    fn accepts_a_tracestate_only_if_every_member_is_valid() {
        for valid in [
            &["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"][..],
            &["rojo=1", "congo=2"],
            &["a=1 , , b=2,"],
            &["0tenant@system=a b"],
            &[],
        ] {
            assert!(is_tracestate(&headers(&TRACESTATE, valid)), "{valid:?}");
        }
        for invalid in [
            &["rojo"][..],
            &["=1"],
            &["rojo="],
            &["Rojo=1"],
            &["rojo=a=b"],
            &["rojo=1", "congo"],
            &["ro jo=1"],
        ] {
            assert!(
                !is_tracestate(&headers(&TRACESTATE, invalid)),
                "{invalid:?}"
            );
        }
        let of = |members: usize| -> HeaderMap {
            let value = HeaderValue::try_from("k=v,".repeat(members)).unwrap();
            [(TRACESTATE, value)].into_iter().collect()
        };
        assert!(is_tracestate(&of(32)));
        assert!(!is_tracestate(&of(33)));
    }
}
