//! Checks of RSA public keys.

use x509_cert::der::asn1::AnyRef;
use x509_cert::der::{Decode, Reader, SliceReader, Tag, Tagged};

/// Reports whether a modulus has at least 2048 bits (RFC 7518 section 3.3).
pub(super) fn is_long_enough(modulus: &[u8]) -> bool {
    let modulus = without_leading_zeros(modulus);
    match modulus.first() {
        Some(first) if modulus.len() == 2048 / 8 => *first >= 0x80,
        _ => modulus.len() > 2048 / 8,
    }
}

pub(super) fn without_leading_zeros(mut bytes: &[u8]) -> &[u8] {
    while let [0, rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

/// Reads the modulus of an `RSAPublicKey` in DER (RFC 8017 appendix A.1.1), with its leading zeros.
pub(super) fn modulus(der: &[u8]) -> Option<&[u8]> {
    let mut reader = SliceReader::new(der).ok()?;
    let modulus = reader.sequence(|numbers| {
        let modulus = AnyRef::decode(numbers)?;
        let _exponent = AnyRef::decode(numbers)?;
        modulus.tag().assert_eq(Tag::Integer)?;
        Ok(modulus)
    });
    modulus.ok().map(AnyRef::value)
}
