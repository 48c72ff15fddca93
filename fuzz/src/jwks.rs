//! Key sets: a hostile or broken JWKS response yields no key that a signature could be forged with.

use claimgate::keys::{Algorithm, KeyKind, jwks};

/// Largest number of keys of one set.
const MAX_KEYS: usize = 100;

/// Parses the input as a key set (RFC 7517 section 5).
pub fn check(data: &[u8]) {
    let Ok(set) = jwks::parse(data, None) else {
        return;
    };
    assert!(
        !set.keys.is_empty(),
        "a set without a usable key is an error"
    );
    assert!(set.keys.len() <= MAX_KEYS, "{} keys", set.keys.len());
    for reason in &set.skipped {
        assert!(
            !reason.is_empty() && !reason.contains(['\n', '\r', '\u{1b}']),
            "{reason:?}"
        );
    }
    for key in &set.keys {
        for algorithm in Algorithm::ALL {
            if algorithm.kind() == KeyKind::Secret {
                // A secret in a public set is known to everyone.
                assert!(!key.is_for(algorithm), "a shared secret from a set");
            }
            for signature in ["", "AA", "AAAA"] {
                assert!(
                    !key.verifies(algorithm, b"x.y", signature),
                    "{algorithm:?} {signature:?}"
                );
            }
        }
    }
}
