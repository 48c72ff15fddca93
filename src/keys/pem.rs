//! Public keys from PEM files (RFC 7468).

use std::path::Path;

use jsonwebtoken::DecodingKey;
use pem::Pem;

use super::rsa::{is_long_enough, modulus};
use super::{Algorithm, KeyError, KeyKind, VerificationKey};

/// Loads every public key of a file.
pub fn load(file: &Path, allowed: Option<&[Algorithm]>) -> Result<Vec<VerificationKey>, KeyError> {
    let text = String::from_utf8(super::read_file(file)?)
        .map_err(|_| KeyError::Unusable("the file is not valid PEM: not UTF-8 text".to_owned()))?;
    parse(&text, allowed)
}

/// Parses every public key of a PEM text. Text outside of PEM blocks is ignored (RFC 7468 section 2).
pub fn parse(text: &str, allowed: Option<&[Algorithm]>) -> Result<Vec<VerificationKey>, KeyError> {
    let unusable = |message: &str| KeyError::Unusable(message.to_owned());
    // Checked before parsing, so that no error text quotes a private key.
    let is_private = |line: &str| line.contains("-----BEGIN ") && line.contains("PRIVATE KEY");
    if text.lines().any(is_private) {
        return Err(unusable(
            "the file holds a private key: `pem_file` needs the public key only",
        ));
    }
    let blocks = pem::parse_many(text)
        .map_err(|error| unusable(&format!("the file is not valid PEM: {error}")))?;
    // `parse_many` drops a block without an END line, and every block after it.
    if blocks.len() < text.matches("-----BEGIN ").count() {
        return Err(unusable(
            "the file is not valid PEM: a block has no END line",
        ));
    }
    if blocks.is_empty() {
        return Err(unusable("the file has no PEM public key"));
    }
    blocks.iter().map(|block| one(block, allowed)).collect()
}

fn one(block: &Pem, allowed: Option<&[Algorithm]>) -> Result<VerificationKey, KeyError> {
    // jsonwebtoken reads a subject public key info from PEM alone.
    let text = pem::encode(block);
    let bytes = text.as_bytes();
    let bind = |kind: KeyKind, key: DecodingKey, invalid: &str| {
        if !kind.admits(&key) {
            return Err(KeyError::Unusable(invalid.to_owned()));
        }
        VerificationKey::bind(key, kind, None, allowed)
    };
    if let Ok(key) = DecodingKey::from_ed_pem(bytes) {
        return bind(KeyKind::Ed25519, key, "an Ed25519 key must have 32 bytes");
    }
    if let Ok(key) = DecodingKey::from_ec_pem(bytes) {
        let invalid = "the curve of the key is not P-256, P-384 or P-521";
        // RFC 5480 section 2.2: an uncompressed point is 0x04 and both coordinates. A point of the same length on
        // another curve is not a point on this one.
        return match key.try_get_as_bytes().map(<[u8]>::len) {
            Ok(65) => bind(KeyKind::P256, key, invalid),
            Ok(97) => bind(KeyKind::P384, key, invalid),
            Ok(133) => bind(KeyKind::P521, key, invalid),
            _ => Err(KeyError::Unusable(invalid.to_owned())),
        };
    }
    if let Ok(key) = DecodingKey::from_rsa_pem(bytes) {
        let invalid = "not an RSA key of 2048 to 8192 bits";
        // aws-lc would also accept a subject public key info here: only an `RSAPublicKey` has a modulus to read.
        return match key.try_get_as_bytes().ok().and_then(modulus) {
            Some(modulus) if is_long_enough(modulus) => bind(KeyKind::Rsa, key, invalid),
            Some(_) => Err(KeyError::Unusable(
                "the RSA key has fewer than 2048 bits".to_owned(),
            )),
            None => Err(KeyError::Unusable(invalid.to_owned())),
        };
    }
    Err(KeyError::Unusable(format!(
        "the PEM block `{}` is not an RSA, P-256, P-384, P-521 or Ed25519 public key",
        block.tag()
    )))
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    // RFC 8410 section 10.1.
    const ED25519: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

    // A curve with points of the same length as P-256.
    const SECP256K1: &str = "-----BEGIN PUBLIC KEY-----\n\
        MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAE8B1rkBirQh3UEEBMuGkHIGVSK/hXNACP\n\
        EFzzhaAjqA8OuinQ8MVAjtaBmE3FJZgqvvzNn3/wHdJtpJmc8/ailQ==\n-----END PUBLIC KEY-----\n";

    #[test]
    fn detects_the_kind_of_a_key() {
        let keys = parse(&ED25519.repeat(2), None).unwrap();
        assert_eq!(keys.len(), 2);
        assert_eq!(keys[0].kind(), KeyKind::Ed25519);
        assert!(keys[0].is_for(Algorithm::named("EdDSA").unwrap()));
        // As written by Windows editors.
        let windows = format!("\u{feff}{}", ED25519.replace('\n', "\r\n"));
        assert_eq!(parse(&windows, None).unwrap().len(), 1);
    }

    #[test]
    fn rejects_an_algorithm_of_another_kind() {
        let hs256 = [Algorithm::named("HS256").unwrap()];
        let error = parse(ED25519, Some(&hs256)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no allowed algorithm fits a key of kind Ed25519"
        );
    }

    /// Parses a fixture key after a change to its DER.
    fn changed(pem: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<KeyKind, String> {
        let body = pem.split("-----").nth(2).unwrap();
        let mut der = STANDARD.decode(body.replace('\n', "")).unwrap();
        change(&mut der);
        let begin = "-----BEGIN PUBLIC KEY-----\n";
        let pem = format!(
            "{begin}{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode(der)
        );
        parse(&pem, None)
            .map(|keys| keys[0].kind())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn rejects_a_key_that_cannot_verify_anything() {
        let rsa = include_str!("../../tests/fixtures/keys/rsa.public.pem");
        let p256 = include_str!("../../tests/fixtures/keys/p256.public.pem");
        let p521 = include_str!("../../tests/fixtures/keys/p521.public.pem");
        // An RSA key ends with its modulus and `02 03 01 00 01`, the exponent; an EC key with its point.
        assert_eq!(changed(rsa, |_| ()), Ok(KeyKind::Rsa));
        let invalid = Err("not an RSA key of 2048 to 8192 bits".to_owned());
        assert_eq!(changed(rsa, |der| *der.last_mut().unwrap() = 2), invalid);
        assert_eq!(
            changed(rsa, |der| *der.iter_mut().nth_back(5).unwrap() &= 0xfe),
            invalid
        );
        let short = changed(rsa, |der| {
            *der.iter_mut().nth_back(5 + 255).unwrap() &= 0x7f;
        });
        assert_eq!(
            short,
            Err("the RSA key has fewer than 2048 bits".to_owned())
        );

        let flip = |der: &mut Vec<u8>| *der.last_mut().unwrap() ^= 1;
        let other = Err("the curve of the key is not P-256, P-384 or P-521".to_owned());
        for (pem, kind) in [(p256, KeyKind::P256), (p521, KeyKind::P521)] {
            assert_eq!(changed(pem, |_| ()), Ok(kind));
            assert_eq!(changed(pem, flip), other);
        }
        assert_eq!(changed(SECP256K1, |_| ()), other);
    }

    #[test]
    fn rejects_an_spki_labeled_as_a_pkcs1_key() {
        let rsa = include_str!("../../tests/fixtures/keys/rsa.public.pem");
        let relabeled = rsa.replace("PUBLIC KEY", "RSA PUBLIC KEY");
        let error = parse(&relabeled, None).unwrap_err();
        assert_eq!(error.to_string(), "not an RSA key of 2048 to 8192 bits");
    }

    #[test]
    fn accepts_several_blocks_with_text_around_them() {
        let crlf = ED25519.replace('\n', "\r\n");
        let headers = ED25519.replacen("-----\n", "-----\nComment: a key\n\n", 1);
        let joined = ED25519.trim_end().repeat(2);
        for (text, count) in [
            (format!("subject=a\n{ED25519}and\n{ED25519}the end"), 2),
            (format!("{ED25519}\n\n{ED25519}"), 2),
            (joined, 2),
            (crlf, 1),
            (headers, 1),
            (format!("  {}", ED25519.replace('\n', "\n  ")), 1),
            (ED25519.trim_end().to_owned(), 1),
        ] {
            let keys = parse(&text, None).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(keys.len(), count, "{text}");
            assert!(keys.iter().all(|key| key.kind() == KeyKind::Ed25519));
        }
    }

    #[test]
    fn rejects_a_file_with_one_malformed_block() {
        let unterminated = ED25519.split("-----END").next().unwrap();
        let no_end = "the file is not valid PEM: a block has no END line";
        let mismatched = ED25519.replace("END PUBLIC", "END RSA PUBLIC");
        let not_base64 = ED25519.replace("MCow", "M*ow");
        let not_pem = "the file is not valid PEM: ";
        for (block, message) in [
            (unterminated, no_end),
            (&mismatched, "mismatching BEGIN"),
            (&not_base64, not_pem),
            (
                &ED25519.replace("PUBLIC KEY", "X509 CRL"),
                "the PEM block `X509 CRL` is not",
            ),
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n\nAA",
                "private key",
            ),
        ] {
            for text in [block.to_owned(), format!("{ED25519}{block}")] {
                let error = parse(&text, None).unwrap_err().to_string();
                assert!(error.contains(message), "{text}: {error}");
            }
            assert!(
                parse(&format!("{block}{ED25519}"), None).is_err(),
                "{block}"
            );
        }
    }

    #[test]
    fn rejects_a_private_key() {
        let pem = ED25519.replace("PUBLIC", "PRIVATE");
        assert!(
            parse(&pem, None)
                .unwrap_err()
                .to_string()
                .contains("private key")
        );
    }

    #[test]
    fn rejects_text_without_a_key() {
        assert!(parse("hello", None).is_err());
        assert!(
            parse(
                "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
                None
            )
            .is_err()
        );
    }
}
