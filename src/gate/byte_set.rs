//! Sets of bytes, for checks of every byte of a text.

/// A set of bytes. A lookup costs less than a comparison with each member.
pub(super) struct ByteSet([bool; 256]);

impl ByteSet {
    /// ASCII letters and digits, and these bytes.
    #[expect(clippy::indexing_slicing, reason = "evaluated at compile time")]
    pub(super) const fn alphanumeric_and(others: &[u8]) -> Self {
        let mut members = [false; 256];
        let mut byte = 0;
        while byte < u8::MAX {
            members[byte as usize] = byte.is_ascii_alphanumeric();
            byte += 1;
        }
        let mut other = 0;
        while other < others.len() {
            members[others[other] as usize] = true;
            other += 1;
        }
        Self(members)
    }

    pub(super) fn contains(&self, byte: u8) -> bool {
        // Infallible: there is a member for every byte.
        self.0.get(usize::from(byte)).copied().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contains_letters_digits_and_the_listed_bytes() {
        static LISTED: ByteSet = ByteSet::alphanumeric_and(b"-\x00\xff");
        for byte in 0..=u8::MAX {
            let expected = byte.is_ascii_alphanumeric() || [b'-', 0, 0xff].contains(&byte);
            assert_eq!(LISTED.contains(byte), expected, "{byte:#x}");
        }
    }
}
