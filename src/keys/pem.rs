//! Public keys from PEM files (RFC 7468).

use std::path::Path;

use jsonwebtoken::DecodingKey;

use super::{Algorithm, KeyError, KeyKind, VerificationKey};

/// The shortest accepted DER form of an RSA key, in bytes: that of a 2048-bit modulus (PKCS #1).
const SHORTEST_RSA_DER: usize = 268;

/// Reads every public key of a file.
pub fn load(file: &Path, allowed: Option<&[Algorithm]>) -> Result<Vec<VerificationKey>, KeyError> {
    let text = String::from_utf8(super::read_file(file)?)
        .map_err(|_| KeyError::Unusable("the file is not PEM".to_owned()))?;
    parse(&text, allowed)
}

/// As [`load`], from text.
pub fn parse(text: &str, allowed: Option<&[Algorithm]>) -> Result<Vec<VerificationKey>, KeyError> {
    let blocks = text.split_inclusive("-----END");
    let mut keys = Vec::new();
    for block in blocks {
        let Some((_, block)) = block.split_once("-----BEGIN ") else {
            continue;
        };
        let Some((label, body)) = block.split_once("-----") else {
            continue;
        };
        if label.contains("PRIVATE KEY") {
            return Err(KeyError::Unusable(
                "the file holds a private key: the gate needs the public key alone".to_owned(),
            ));
        }
        let body = body.trim_end_matches("-----END");
        let block = format!("-----BEGIN {label}-----{body}-----END {label}-----\n");
        keys.push(one(&block, label, allowed)?);
    }
    if keys.is_empty() {
        return Err(KeyError::Unusable(
            "the file has no PEM public key".to_owned(),
        ));
    }
    Ok(keys)
}

fn one(
    block: &str,
    label: &str,
    allowed: Option<&[Algorithm]>,
) -> Result<VerificationKey, KeyError> {
    let bytes = block.as_bytes();
    if let Ok(key) = DecodingKey::from_ed_pem(bytes) {
        return VerificationKey::bind(key, KeyKind::Ed25519, None, allowed);
    }
    if let Ok(key) = DecodingKey::from_ec_pem(bytes) {
        // RFC 5480 section 2.2: an uncompressed point is 0x04 and both coordinates.
        let kind = match key.try_get_as_bytes().map(<[u8]>::len) {
            Ok(65) => KeyKind::P256,
            Ok(97) => KeyKind::P384,
            Ok(133) => KeyKind::P521,
            _ => {
                return Err(KeyError::Unusable(
                    "the curve of the key is not P-256, P-384 or P-521".to_owned(),
                ));
            }
        };
        return VerificationKey::bind(key, kind, None, allowed);
    }
    if let Ok(key) = DecodingKey::from_rsa_pem(bytes) {
        if key
            .try_get_as_bytes()
            .is_ok_and(|der| der.len() < SHORTEST_RSA_DER)
        {
            return Err(KeyError::Unusable(
                "the RSA key has fewer than 2048 bits".to_owned(),
            ));
        }
        return VerificationKey::bind(key, KeyKind::Rsa, None, allowed);
    }
    Err(KeyError::Unusable(format!(
        "the PEM block `{label}` is not an RSA, P-256, P-384, P-521 or Ed25519 public key"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 8410 section 10.1.
    const ED25519: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

    #[test]
    fn the_kind_of_a_key_is_its_own() {
        let keys = parse(&ED25519.repeat(2), None).unwrap();
        assert_eq!(keys.len(), 2);
        assert_eq!(keys[0].kind(), KeyKind::Ed25519);
        assert!(keys[0].is_for(Algorithm::named("EdDSA").unwrap()));
    }

    #[test]
    fn a_key_is_not_used_for_an_algorithm_of_another_kind() {
        let hs256 = [Algorithm::named("HS256").unwrap()];
        let error = parse(ED25519, Some(&hs256)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no algorithm of a key of kind Ed25519 is allowed"
        );
    }

    #[test]
    fn a_private_key_is_refused_in_words() {
        let pem = ED25519.replace("PUBLIC", "PRIVATE");
        assert!(
            parse(&pem, None)
                .unwrap_err()
                .to_string()
                .contains("private key")
        );
    }

    #[test]
    fn text_without_a_key_is_refused() {
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
