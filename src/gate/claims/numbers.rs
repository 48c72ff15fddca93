//! Numbers that would be read as other numbers.
//!
//! RFC 8259 section 6 limits neither the size nor the precision of a number. `serde_json` reads a number that is not
//! a 64-bit integer as a double: two account numbers could become one.

use serde_json::{Map, Number, Value};

/// Claims with a time. Rounding its fraction of a second does no harm.
const TIMES: [&str; 3] = ["exp", "nbf", "iat"];

/// Replaces every number that is not exactly the one in the text by `null`, except for times.
///
/// Tokens without such numbers are not scanned.
pub(super) fn forget_inexact(claims: &mut Map<String, Value>, json: &[u8]) {
    let others = |name: &str| !TIMES.contains(&name);
    let mut scanned = claims.iter().filter(|(name, _)| others(name));
    if !scanned.any(|(_, value)| has_double(value)) {
        return;
    }
    let inexact = inexact_numbers(json);
    for (_, value) in claims.iter_mut().filter(|(name, _)| others(name)) {
        forget(value, &inexact);
    }
}

fn has_double(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_double),
        Value::Object(members) => members.values().any(has_double),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

fn forget(value: &mut Value, inexact: &[Number]) {
    match value {
        Value::Number(number) if inexact.contains(number) => *value = Value::Null,
        Value::Array(items) => items.iter_mut().for_each(|item| forget(item, inexact)),
        Value::Object(members) => members.values_mut().for_each(|item| forget(item, inexact)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Numbers of a valid JSON text, as parsed, that differ from their text.
fn inexact_numbers(json: &[u8]) -> Vec<Number> {
    let is_part = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    let mut found = Vec::new();
    let mut rest = json;
    while let Some((first, after)) = rest.split_first() {
        if *first == b'"' {
            rest = after_string(after);
        } else if is_part(first) && !first.is_ascii_alphabetic() {
            let length = rest.iter().take_while(|byte| is_part(byte)).count();
            let (text, others) = rest.split_at(length);
            let number = serde_json::from_slice::<Number>(text).ok();
            let is_changed =
                |number: &Number| Decimal::of(number.to_string().as_bytes()) != Decimal::of(text);
            found.extend(number.filter(is_changed));
            rest = others;
        } else {
            rest = after;
        }
    }
    found
}

/// Value of a number: its digits without zeros at either end, and the power of ten of the last one.
#[derive(PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    digits: Vec<u8>,
    exponent: i64,
}

impl Decimal {
    /// Value of a JSON number (RFC 8259 section 6); `None` if its exponent is out of range.
    fn of(text: &[u8]) -> Option<Self> {
        let mut parts = text.splitn(2, |byte| matches!(byte, b'e' | b'E'));
        let (mantissa, exponent) = (parts.next()?, parts.next().unwrap_or(b"0"));
        let mut exponent: i64 = std::str::from_utf8(exponent).ok()?.parse().ok()?;
        let mut digits: Vec<u8> = Vec::new();
        let mut is_fraction = false;
        for byte in mantissa {
            if byte.is_ascii_digit() {
                digits.push(*byte);
                exponent = exponent.checked_sub(i64::from(is_fraction))?;
            } else {
                is_fraction |= *byte == b'.';
            }
        }
        while digits.pop_if(|last| *last == b'0').is_some() {
            exponent = exponent.checked_add(1)?;
        }
        let leading = digits.iter().take_while(|digit| **digit == b'0').count();
        digits.drain(..leading);
        Some(Self {
            is_negative: mantissa.starts_with(b"-"),
            exponent: if digits.is_empty() { 0 } else { exponent },
            digits,
        })
    }
}

/// Rest of a text after the end of a string.
fn after_string(mut rest: &[u8]) -> &[u8] {
    while let Some((first, after)) = rest.split_first() {
        rest = match first {
            b'"' => return after,
            b'\\' => after.split_first().map_or(after, |(_, after)| after),
            _ => after,
        };
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The claims as they are left.
    fn left(json: &str) -> String {
        let mut claims = serde_json::from_str(json).unwrap();
        forget_inexact(&mut claims, json.as_bytes());
        Value::Object(claims).to_string()
    }

    #[test]
    fn keeps_a_number_only_if_its_value_is_unchanged() {
        for (exact, kept) in [
            ("0", "0"),
            ("7", "7"),
            ("-7", "-7"),
            ("9007199254740993", "9007199254740993"),
            ("9223372036854775807", "9223372036854775807"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("18446744073709551615", "18446744073709551615"),
            ("0.5", "0.5"),
            ("-7.25", "-7.25"),
            ("1.0", "1.0"),
            ("0.1", "0.1"),
            ("-0", "-0.0"),
            ("1e3", "1000.0"),
            ("1E+3", "1000.0"),
            ("1.50", "1.5"),
            ("0e0", "0.0"),
            ("100e-2", "1.0"),
            ("9007199254740992.0", "9007199254740992.0"),
        ] {
            assert_eq!(
                left(&format!(r#"{{"a":{exact}}}"#)),
                format!(r#"{{"a":{kept}}}"#)
            );
        }
        for inexact in [
            "18446744073709551617",
            "123456789012345678901234567890",
            "-9223372036854775809",
            "0.10000000000000000001",
            "1.00000000000000000001",
            "9007199254740993.0",
            "1e-400",
            "1e-99999999999999999999",
            "0e99999999999999999999",
        ] {
            assert_eq!(
                left(&format!(r#"{{"a":{inexact}}}"#)),
                r#"{"a":null}"#,
                "{inexact}"
            );
        }
    }

    #[test]
    fn finds_numbers_in_lists_and_objects_but_not_in_strings() {
        assert_eq!(
            left(r#"{"a":["0.1e-400\"",0.1e-400,{"b":1e-400,"\\":"1e-400"}],"c":2,"1e-400":"x"}"#),
            r#"{"1e-400":"x","a":["0.1e-400\"",null,{"\\":"1e-400","b":null}],"c":2}"#
        );
    }

    #[test]
    fn keeps_the_times() {
        let inexact = "1700000000.00000000000000001";
        assert_eq!(
            left(&format!(
                r#"{{"exp":{inexact},"iat":{inexact},"nbf":{inexact}}}"#
            )),
            r#"{"exp":1700000000.0,"iat":1700000000.0,"nbf":1700000000.0}"#
        );
        assert_eq!(
            left(&format!(r#"{{"a":{{"exp":{inexact}}},"exp":1e9}}"#)),
            r#"{"a":{"exp":null},"exp":1000000000.0}"#
        );
    }
}
