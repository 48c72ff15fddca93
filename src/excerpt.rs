//! Excerpts of texts that another server sent, for messages.

/// Longest excerpt, in characters.
const MAX_CHARACTERS: usize = 200;

/// Start of a text, escaped: a key set or metadata can neither forge lines of a log or a terminal, nor fill them.
pub(crate) fn excerpt(text: &str) -> String {
    let mut characters = text.chars();
    let start = characters.by_ref().take(MAX_CHARACTERS);
    let mut excerpt: String = start.flat_map(char::escape_debug).collect();
    if characters.next().is_some() {
        excerpt.push('…');
    }
    excerpt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_bounds_the_text_of_another_server() {
        for (text, expected) in [
            ("https://a.example/x?y=1", "https://a.example/x?y=1"),
            ("Zoë", "Zoë"),
            ("a\nb\r\t\u{1b}[2J\0", r"a\nb\r\t\u{1b}[2J\0"),
            // CVE-2021-42574: a bidirectional override reorders the rest of the line.
            ("a\u{202e}b\u{2066}", r"a\u{202e}b\u{2066}"),
        ] {
            assert_eq!(excerpt(text), expected);
        }
        let long = excerpt(&"a".repeat(256 * 1024));
        assert_eq!(long, "a".repeat(MAX_CHARACTERS) + "…");
    }
}
