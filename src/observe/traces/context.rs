//! Which trace a request is in, as its head says it: W3C Trace Context, level 2
//! (<https://www.w3.org/TR/trace-context-2/>).

use std::num::{NonZeroU64, NonZeroU128};

use http::{HeaderMap, HeaderName, HeaderValue};

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Its spans are sent.
const SAMPLED: u8 = 1;

/// The trace's name is random in every part that a sampler looks at.
const RANDOM: u8 = 2;

/// The length of all that version 00 says, in bytes.
const LENGTH: usize = 55;

/// The most members of a `tracestate`.
const MAX_MEMBERS: usize = 32;

/// The longest key and the longest value of a member, in bytes.
const MAX_MEMBER_BYTES: usize = 256;

/// A place in a trace: the trace, and a span in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) trace: NonZeroU128,
    pub(super) span: NonZeroU64,
    flags: u8,
}

impl Context {
    /// The beginning of a trace.
    pub(super) fn root(is_sampled: bool) -> Self {
        Self {
            trace: NonZeroU128::new(fastrand::u128(..)).unwrap_or(NonZeroU128::MIN),
            span: new_span(),
            flags: RANDOM | if is_sampled { SAMPLED } else { 0 },
        }
    }

    /// What a head says; nothing if it says nothing, or nothing clear.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Self::parse(value.to_str().ok()?),
            _ => None,
        }
    }

    /// Section 3.2.2. A later version begins like this one, and may say more.
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

    /// Another span of the same trace.
    pub(super) fn child(self) -> Self {
        Self {
            span: new_span(),
            ..self
        }
    }

    /// Whether the spans of the trace are sent.
    pub(super) fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The flags as OTLP has them.
    pub(super) fn flags(self) -> u32 {
        self.flags.into()
    }

    /// Says to the next that this is its parent.
    pub(super) fn write(self, headers: &mut HeaderMap) {
        let Self { trace, span, flags } = self;
        let text = format!("00-{trace:032x}-{span:016x}-{flags:02x}");
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(TRACEPARENT, value);
        }
    }
}

fn new_span() -> NonZeroU64 {
    NonZeroU64::new(fastrand::u64(..)).unwrap_or(NonZeroU64::MIN)
}

/// So many digits, the letters small.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_number = text.len() == digits && text.bytes().all(is_digit);
    is_number.then(|| u128::from_str_radix(text, 16).ok())?
}

/// Whether what other systems have added can be read by all: section 3.3.1.
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
    let starts_key = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_of_key = |byte: u8| starts_key(byte) || b"_-*/@".contains(&byte);
    let is_of_value = |byte: u8| matches!(byte, b' '..=b'~') && !b",=".contains(&byte);
    let fits = |text: &str| (1..=MAX_MEMBER_BYTES).contains(&text.len());
    fits(key)
        && fits(value)
        && key.bytes().next().is_some_and(starts_key)
        && key.bytes().all(is_of_key)
        && value.bytes().all(is_of_value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of section 3.2.3.
    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(name: &HeaderName, values: &[&'static str]) -> HeaderMap {
        let values = values.iter();
        let values = values.map(|value| (name.clone(), HeaderValue::from_static(value)));
        values.collect()
    }

    #[test]
    fn a_place_in_a_trace_is_read_as_the_standard_says() {
        let context = Context::of(&headers(&TRACEPARENT, &[EXAMPLE])).unwrap();
        assert_eq!(
            context.trace.get(),
            0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736
        );
        assert_eq!(context.span.get(), 0x00f0_67aa_0ba9_02b7);
        assert!(context.is_sampled());
        let not = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        assert!(!Context::parse(not).unwrap().is_sampled());
        let mut written = HeaderMap::new();
        context.write(&mut written);
        assert_eq!(written, headers(&TRACEPARENT, &[EXAMPLE]));
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        for later in [
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-09-what-the-future-brings",
        ] {
            let mut written = HeaderMap::new();
            Context::parse(later).unwrap().write(&mut written);
            assert_eq!(written, headers(&TRACEPARENT, &[EXAMPLE]), "{later}");
        }
    }

    #[test]
    fn what_is_not_clear_is_no_place_in_a_trace() {
        for bad in [
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
            assert_eq!(Context::parse(bad), None, "{bad}");
        }
        assert_eq!(
            Context::of(&headers(&TRACEPARENT, &[EXAMPLE, EXAMPLE])),
            None
        );
        assert_eq!(Context::of(&HeaderMap::new()), None);
    }

    #[test]
    fn a_tracestate_is_kept_if_all_of_it_can_be_read() {
        for good in [
            &["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"][..],
            &["rojo=1", "congo=2"],
            &["a=1 , , b=2,"],
            &["0tenant@system=a b"],
            &[],
        ] {
            assert!(is_tracestate(&headers(&TRACESTATE, good)), "{good:?}");
        }
        for bad in [
            &["rojo"][..],
            &["=1"],
            &["rojo="],
            &["Rojo=1"],
            &["rojo=a=b"],
            &["rojo=1", "congo"],
            &["ro jo=1"],
        ] {
            assert!(!is_tracestate(&headers(&TRACESTATE, bad)), "{bad:?}");
        }
        let of = |members: usize| -> HeaderMap {
            let value = HeaderValue::try_from("k=v,".repeat(members)).unwrap();
            [(TRACESTATE, value)].into_iter().collect()
        };
        assert!(is_tracestate(&of(32)));
        assert!(!is_tracestate(&of(33)));
    }
}
