//! Elements of a `Forwarded` header (RFC 7239 section 4).

/// Elements of one header field, the last one first. Empty elements are skipped (RFC 9110 section 5.6.1).
pub(super) fn of(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    rsplit(field, b',').filter(|element| !element.is_empty())
}

/// Value of a parameter, without its quotes. Returns `None` if the element does not have it exactly once.
pub(super) fn parameter(element: &[u8], name: &str) -> Option<Vec<u8>> {
    let mut values = rsplit(element, b';').filter_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (found, value) = pair.split_at(equals);
        let is_named = found.trim_ascii().eq_ignore_ascii_case(name.as_bytes());
        is_named.then(|| unquoted(value.get(1..).unwrap_or_default().trim_ascii()))
    });
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// Splits at every separator outside a quoted string, from the end: an unbalanced quote of an earlier hop cannot swallow
/// the element of a later one.
fn rsplit(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut is_quoted = false;
        let found = (0..text.len()).rev().find(|index| {
            let (before, after) = text.split_at(*index);
            match after.first() {
                Some(b'"') => is_quoted ^= !is_escaped(before),
                Some(byte) if *byte == separator => return !is_quoted,
                Some(_) | None => {}
            }
            false
        });
        let (before, part) = match found {
            Some(index) => {
                let (before, part) = text.split_at(index);
                (Some(before), part.get(1..).unwrap_or_default())
            }
            None => (None, text),
        };
        rest = before;
        Some(part.trim_ascii())
    })
}

/// Returns whether the character after this text is escaped by a backslash.
fn is_escaped(before: &[u8]) -> bool {
    let backslashes = before.iter().rev().take_while(|byte| **byte == b'\\');
    backslashes.count() % 2 == 1
}

/// Content of a quoted string (RFC 9110 section 5.6.4); a token is returned unchanged.
fn unquoted(value: &[u8]) -> Vec<u8> {
    let inner = value
        .strip_prefix(b"\"")
        .and_then(|value| value.strip_suffix(b"\""));
    let Some(inner) = inner else {
        return value.to_vec();
    };
    let mut is_escaped = false;
    let kept = inner.iter().filter(|byte| {
        is_escaped = **byte == b'\\' && !is_escaped;
        !is_escaped
    });
    kept.copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(field: &str) -> Vec<String> {
        let nodes =
            of(field.as_bytes()).map(|element| parameter(element, "for").unwrap_or_default());
        nodes.map(|node| String::from_utf8(node).unwrap()).collect()
    }

    #[test]
    fn reads_the_examples_of_rfc_7239() {
        // Sections 4, 5 and 7.1.
        for (field, expected) in [
            ("for=\"_gazonk\"", vec!["_gazonk"]),
            (
                "For=\"[2001:db8:cafe::17]:4711\"",
                vec!["[2001:db8:cafe::17]:4711"],
            ),
            (
                "for=192.0.2.60;proto=http;by=203.0.113.43",
                vec!["192.0.2.60"],
            ),
            (
                "for=192.0.2.43, for=198.51.100.17",
                vec!["198.51.100.17", "192.0.2.43"],
            ),
            (
                "for=192.0.2.43,for=\"[2001:db8:cafe::17]\",for=unknown",
                vec!["unknown", "[2001:db8:cafe::17]", "192.0.2.43"],
            ),
        ] {
            assert_eq!(nodes(field), expected, "{field}");
        }
    }

    #[test]
    fn separators_in_quoted_strings_do_not_split() {
        for (field, expected) in [
            ("host=\"a,b;for=9.9.9.9\";for=1.1.1.1", vec!["1.1.1.1"]),
            (r#"host="a\",for=9.9.9.9";for=1.1.1.1"#, vec!["1.1.1.1"]),
            (r#"host="\\";FOR="1.1.1.1""#, vec!["1.1.1.1"]),
            (", for=1.1.1.1 , ,", vec!["1.1.1.1"]),
            ("proto=https", vec![""]),
            // RFC 7239 section 4: each parameter at most once.
            ("for=1.1.1.1;for=2.2.2.2", vec![""]),
        ] {
            assert_eq!(nodes(field), expected, "{field}");
        }
    }

    #[test]
    fn a_broken_element_does_not_hide_a_later_one() {
        for client in ["for=\"9.9.9.9", "\"", "for=9.9.9.9;host=\"x\\\"", "=\"\"\""] {
            let field = format!("{client}, for=1.1.1.1;host=\"gate.test\"");
            assert_eq!(nodes(&field).first().unwrap(), "1.1.1.1", "{client}");
        }
    }
}
