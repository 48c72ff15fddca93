//! Hash maps without a secret key: faster than the standard library's, for keys that clients cannot choose.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Hash map whose hashes are predictable.
pub(crate) type UnkeyedHashMap<K, V> = HashMap<K, V, BuildHasherDefault<UnkeyedHasher>>;

/// Odd number with bits in no order (2^64 divided by the golden ratio).
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Mixes in one word with a multiplication, as `FxHash` does.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct UnkeyedHasher(u64);

impl UnkeyedHasher {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    }
}

impl Hasher for UnkeyedHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.add(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let word = rest
                .iter()
                .fold(0, |word, byte| word << 8 | u64::from(*byte));
            self.add(word);
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.add(number.into());
    }

    fn write_u16(&mut self, number: u16) {
        self.add(number.into());
    }

    fn write_usize(&mut self, number: usize) {
        self.add(number as u64);
    }

    /// The multiplications mix the high bits best; the map takes the low ones for the bucket.
    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::hash::{BuildHasher, Hash};

    use super::*;

    fn hash(key: impl Hash) -> u64 {
        BuildHasherDefault::<UnkeyedHasher>::default().hash_one(key)
    }

    #[test]
    fn every_part_of_a_key_counts() {
        let keys = [
            ("/api/{user_id}/tasks", "GET", 200_u16),
            ("/api/{user_id}/tasks", "GET", 201),
            ("/api/{user_id}/tasks", "PUT", 200),
            ("/api/{user_id}/task", "GET", 200),
            ("/api/{user_id}/tasks/", "GET", 200),
            ("/bpi/{user_id}/tasks", "GET", 200),
            ("", "GET", 200),
        ];
        let hashes: BTreeSet<u64> = keys.into_iter().map(hash).collect();
        assert_eq!(hashes.len(), keys.len());
    }

    #[test]
    fn spreads_similar_keys_over_the_buckets() {
        // A hash map takes the low bits for the bucket, and the seven highest to tell the keys of one group apart.
        let low: BTreeSet<u64> = (0..256)
            .map(|number| hash(format!("/things-{number}")) % 512)
            .collect();
        let high: BTreeSet<u64> = (0..256)
            .map(|number| hash(format!("/things-{number}")) >> 57)
            .collect();
        assert!(low.len() > 160, "{}", low.len());
        assert!(high.len() > 80, "{}", high.len());
    }
}
