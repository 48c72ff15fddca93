//! JSON Web Key Sets (RFC 7517). Unusable keys are skipped; the others stay usable.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::excerpt::excerpt;

use super::rsa::{is_long_enough, without_leading_zeros};
use super::{Algorithm, KeyError, KeyKind, VerificationKey};

/// Maximum number of keys read from one set.
const MAX_KEYS: usize = 100;

/// Maximum number of keys with the same `kid` and algorithm. The gate tries each of them, also for a forged token.
const MAX_COMPETING: usize = 4;

/// Keys of a set, and the reasons for the skipped ones.
#[derive(Debug, Default)]
pub struct KeySet {
    /// Usable keys.
    pub keys: Vec<VerificationKey>,
    /// One text for each skipped key: its index and the reason.
    pub skipped: Vec<String>,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// JSON Web Key (RFC 7517 section 4, RFC 7518 section 6), reduced to the members that verification needs.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Loads a set from a file.
pub fn load(file: &Path, allowed: Option<&[Algorithm]>) -> Result<KeySet, KeyError> {
    parse(&super::read_file(file)?, allowed)
}

/// Parses a set. Fails if the set has no usable key.
pub fn parse(json: &[u8], allowed: Option<&[Algorithm]>) -> Result<KeySet, KeyError> {
    // RFC 8259 section 8.1: a parser may ignore a byte order mark.
    let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
    let document: Document = serde_json::from_slice(json).map_err(|_| not_a_key_set(json))?;
    let mut set = KeySet::default();
    for (index, value) in document.keys.into_iter().enumerate() {
        if index >= MAX_KEYS {
            set.skipped
                .push(format!("every key after the first {MAX_KEYS}"));
            break;
        }
        let added = parse_key(value, allowed).and_then(|key| set.add(key));
        if let Err(error) = added {
            set.skipped.push(format!("key {index}: {error}"));
        }
    }
    if set.keys.is_empty() {
        let reason = if set.skipped.is_empty() {
            "it is empty".to_owned()
        } else {
            set.skipped.join("; ")
        };
        return Err(KeyError::Unusable(format!(
            "the key set has no usable key: {reason}"
        )));
    }
    Ok(set)
}

/// Names what the document is instead, if it is one that issuers publish beside their key set.
fn not_a_key_set(json: &[u8]) -> KeyError {
    let members: Map<String, Value> = serde_json::from_slice(json).unwrap_or_default();
    let is_certificate = |value: &Value| {
        let text = value.as_str();
        text.is_some_and(|text| text.starts_with("-----BEGIN CERTIFICATE"))
    };
    let found = if members.contains_key("jwks_uri") {
        "this is provider metadata; use `discovery` with its URL"
    } else if members.contains_key("kty") {
        "this is a single key; a key set is `{\"keys\": [KEY]}`"
    } else if members.values().any(is_certificate) {
        "these are certificates; use the URL of the issuer's JWKS"
    } else {
        "expected a JSON object with an array `keys`"
    };
    KeyError::Unusable(format!("not a JSON Web Key Set: {found}"))
}

impl KeySet {
    /// Adds a key. Keys may share a `kid` (RFC 7517 section 4.5): the algorithm of a token distinguishes them, and keys
    /// for the same algorithm are tried in turn.
    fn add(&mut self, key: VerificationKey) -> Result<(), KeyError> {
        if self.keys.contains(&key) {
            return Err(KeyError::Unusable("the same as an earlier key".to_owned()));
        }
        let competing = self.keys.iter().filter(|other| key.competes_with(other));
        if key.kid().is_some() && competing.count() >= MAX_COMPETING {
            return Err(KeyError::Unusable(format!(
                "more than {MAX_COMPETING} keys with the same `kid` and algorithm"
            )));
        }
        self.keys.push(key);
        Ok(())
    }
}

/// Reads one public key of a set, or alone.
pub fn parse_key(value: Value, allowed: Option<&[Algorithm]>) -> Result<VerificationKey, KeyError> {
    let unusable = |text: &str| KeyError::Unusable(text.to_owned());
    let jwk: Jwk = serde_json::from_value(value).map_err(|_| unusable("not a JSON Web Key"))?;
    let verifies = jwk
        .key_ops
        .as_ref()
        .is_none_or(|ops| ops.iter().any(|op| op == "verify"));
    if jwk.usage.as_ref().is_some_and(|usage| usage != "sig") || !verifies {
        return Err(unusable(
            "`use` or `key_ops` does not allow verifying signatures",
        ));
    }
    let (kind, key) = jwk.key()?;
    let named = match &jwk.alg {
        None => None,
        Some(name) => Some(Algorithm::named(name).ok_or_else(|| unusable("unsupported `alg`"))?),
    };
    VerificationKey::bind(key, kind, named, allowed).map(|key| key.with_kid(jwk.kid))
}

impl Jwk {
    fn key(&self) -> Result<(KeyKind, DecodingKey), KeyError> {
        let unusable = |text: &str| KeyError::Unusable(text.to_owned());
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                let (modulus, exponent) = (
                    decode("n", self.n.as_deref())?,
                    decode("e", self.e.as_deref())?,
                );
                let (modulus, exponent) = (
                    without_leading_zeros(&modulus),
                    without_leading_zeros(&exponent),
                );
                if !is_long_enough(modulus) {
                    return Err(unusable("the RSA key has fewer than 2048 bits"));
                }
                if matches!(exponent, [] | [1 | 2]) {
                    return Err(unusable("the RSA exponent is less than 3"));
                }
                // RFC 7518 section 6.3.1.1 forbids leading zeros. Some issuers add one, which the verifier rejects.
                Ok((
                    KeyKind::Rsa,
                    DecodingKey::from_rsa_raw_components(modulus, exponent),
                ))
            }
            ("EC", Some("P-256")) => self.point(KeyKind::P256, 32),
            ("EC", Some("P-384")) => self.point(KeyKind::P384, 48),
            ("EC", Some("P-521")) => self.point(KeyKind::P521, 66),
            ("OKP", Some("Ed25519")) => {
                let x = self.x.as_deref().unwrap_or_default();
                if decode("x", self.x.as_deref())?.len() != 32 {
                    return Err(unusable("an Ed25519 key must have 32 bytes"));
                }
                let key = DecodingKey::from_ed_components(x)
                    .map_err(|_| unusable("not an Ed25519 key"))?;
                Ok((KeyKind::Ed25519, key))
            }
            ("oct", _) => Err(unusable(
                "a shared secret (`oct`) is not allowed in a key set: use `secret_file`",
            )),
            (kty, curve) => Err(KeyError::Unusable(format!(
                "keys of type {}{} are not supported",
                excerpt(kty),
                curve
                    .map(|curve| format!(" on {}", excerpt(curve)))
                    .unwrap_or_default()
            ))),
        }
    }

    /// Reads a point: two coordinates, each padded to the full length of the curve (RFC 7518 section 6.2.1).
    fn point(&self, kind: KeyKind, length: usize) -> Result<(KeyKind, DecodingKey), KeyError> {
        let unusable = |text: &str| KeyError::Unusable(text.to_owned());
        let (x, y) = (self.x.as_deref(), self.y.as_deref());
        if decode("x", x)?.len() != length || decode("y", y)?.len() != length {
            return Err(unusable("a coordinate has the wrong length for the curve"));
        }
        let key = DecodingKey::from_ec_components(x.unwrap_or_default(), y.unwrap_or_default());
        match key {
            Ok(key) if kind.admits(&key) => Ok((kind, key)),
            _ => Err(unusable("not a point on the curve")),
        }
    }
}

/// Decodes a member in base64url.
fn decode(member: &str, text: Option<&str>) -> Result<Vec<u8>, KeyError> {
    let text = text.ok_or_else(|| KeyError::Unusable(format!("`{member}` is missing")))?;
    let bytes = URL_SAFE_NO_PAD.decode(text);
    bytes.map_err(|_| KeyError::Unusable(format!("`{member}` is not base64url")))
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 8037 appendix A.2 and RFC 7517 appendix A.1.
    const ED25519: &str =
        r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    const P256: &str = r#"{"kty":"EC","crv":"P-256","kid":"1",
        "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#;

    fn set(keys: &[&str]) -> Result<KeySet, KeyError> {
        parse(
            format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes(),
            None,
        )
    }

    #[test]
    fn skips_unusable_keys_and_keeps_the_others() {
        let found = set(&[
            ED25519,
            P256,
            P256,
            r#"{"kty":"oct","k":"AAAA"}"#,
            r#"{"kty":"OKP","crv":"X25519","x":"AAAA"}"#,
            r#"{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA"}"#,
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#,
            &P256.replace("\"1\"", "\"2\",\"use\":\"enc\""),
            &P256.replace("\"1\"", "\"3\",\"alg\":\"ES384\""),
            &P256.replace("\"1\"", "\"4\",\"key_ops\":[\"sign\"]"),
            "7",
        ])
        .unwrap();
        assert_eq!(found.keys.len(), 2);
        let skipped = found.skipped.join("\n");
        assert_eq!(
            skipped,
            "key 2: the same as an earlier key\n\
             key 3: a shared secret (`oct`) is not allowed in a key set: use `secret_file`\n\
             key 4: keys of type OKP on X25519 are not supported\n\
             key 5: a coordinate has the wrong length for the curve\n\
             key 6: the RSA key has fewer than 2048 bits\n\
             key 7: `use` or `key_ops` does not allow verifying signatures\n\
             key 8: `alg` ES384 does not fit a key of kind P256\n\
             key 9: `use` or `key_ops` does not allow verifying signatures\n\
             key 10: not a JSON Web Key"
        );
    }

    /// RSA key with this `kid` and `alg`. The modulus differs by its last byte.
    fn rsa(kid: &str, alg: &str, last: u8) -> String {
        let modulus = URL_SAFE_NO_PAD.encode([vec![0xff; 255], vec![last]].concat());
        format!(r#"{{"kty":"RSA","kid":"{kid}","alg":"{alg}","n":"{modulus}","e":"AQAB"}}"#)
    }

    // RFC 7517 section 4.5: different keys may have the same `kid`, for example if they have different `kty` values but
    // are equivalent alternatives.
    #[test]
    fn keeps_keys_that_share_a_kid() {
        let found = set(&[
            P256,
            &rsa("1", "RS256", 1),
            &rsa("1", "RS384", 1),
            &rsa("1", "RS512", 1),
            &rsa("1", "RS256", 3),
            &rsa("1", "RS256", 1),
        ])
        .unwrap();
        let algorithms: Vec<_> = found.keys.iter().map(VerificationKey::algorithms).collect();
        assert_eq!(algorithms, ["ES256", "RS256", "RS384", "RS512", "RS256"]);
        assert_eq!(found.skipped, ["key 5: the same as an earlier key"]);
    }

    #[test]
    fn a_skipped_key_cannot_forge_a_line_of_the_log() {
        let key = r#"{"kty":"a\nb","crv":"\u001b[2J"}"#;
        let found = set(&[ED25519, key]).unwrap();
        assert_eq!(
            found.skipped,
            [r"key 1: keys of type a\nb on \u{1b}[2J are not supported"]
        );
    }

    #[test]
    fn limits_keys_with_the_same_kid_and_algorithm() {
        let keys: Vec<_> = (0..6)
            .map(|number| rsa("1", "RS256", 2 * number + 1))
            .collect();
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        let found = set(&keys).unwrap();
        assert_eq!(found.keys.len(), MAX_COMPETING);
        assert_eq!(
            found.skipped,
            [
                "key 4: more than 4 keys with the same `kid` and algorithm",
                "key 5: more than 4 keys with the same `kid` and algorithm"
            ]
        );
    }

    #[test]
    fn checks_rsa_numbers_without_leading_zeros() {
        let rsa = |zeros: usize, bytes: usize, exponent: &str| {
            let modulus = [vec![0; zeros], vec![0xff; bytes]].concat();
            let modulus = URL_SAFE_NO_PAD.encode(modulus);
            let text = format!(r#"{{"kty":"RSA","n":"{modulus}","e":"{exponent}"}}"#);
            set(&[&text]).map_err(|error| error.to_string())
        };
        assert!(rsa(0, 256, "AQAB").is_ok());
        assert!(rsa(1, 256, "AAEAAQ").is_ok());
        let short = rsa(1, 255, "AQAB").unwrap_err();
        assert!(short.contains("fewer than 2048 bits"), "{short}");
        let modulus = URL_SAFE_NO_PAD.encode([0x7f; 256]);
        let text = format!(r#"{{"kty":"RSA","n":"{modulus}","e":"AQAB"}}"#);
        let short = set(&[&text]).unwrap_err().to_string();
        assert!(short.contains("fewer than 2048 bits"), "{short}");
        for exponent in ["", "AA", "AQ", "AAE", "Ag", "AAAC"] {
            let small = rsa(0, 256, exponent).unwrap_err();
            assert!(small.contains("less than 3"), "{exponent}: {small}");
        }
    }

    #[test]
    fn ignores_a_byte_order_mark() {
        let text = format!("\u{feff}{{\"keys\":[{ED25519}]}}");
        assert_eq!(parse(text.as_bytes(), None).unwrap().keys.len(), 1);
    }

    #[test]
    fn names_a_document_that_is_no_key_set() {
        for (json, expected) in [
            ("<html>", "expected a JSON object with an array `keys`"),
            (
                r#"{"keys":{}}"#,
                "expected a JSON object with an array `keys`",
            ),
            (
                r#"{"issuer":"https://a.example","jwks_uri":"https://a.example/jwks"}"#,
                "this is provider metadata; use `discovery` with its URL",
            ),
            (
                ED25519,
                r#"this is a single key; a key set is `{"keys": [KEY]}`"#,
            ),
            (
                r#"{"kid":"-----BEGIN CERTIFICATE-----\nMII"}"#,
                "these are certificates; use the URL of the issuer's JWKS",
            ),
        ] {
            let error = parse(json.as_bytes(), None).unwrap_err().to_string();
            assert_eq!(error, format!("not a JSON Web Key Set: {expected}"));
        }
    }

    // Key sets in the field: members that verification does not need, and keys of other uses.
    #[test]
    fn reads_keys_with_members_of_many_issuers() {
        let modulus = URL_SAFE_NO_PAD.encode([0xff; 256]);
        let rsa = format!(r#""kty":"RSA","n":"{modulus}","e":"AQAB""#);
        let found = set(&[
            &format!(
                r#"{{{rsa},"kid":"entra","x5t":"AA","x5c":["MII"],"issuer":"https://a.example"}}"#
            ),
            &format!(r#"{{{rsa},"kid":"null","alg":null,"use":null,"key_ops":null,"x5u":null}}"#),
            &format!(r#"{{{rsa},"kid":"ops","key_ops":["encrypt","verify"],"ext":true}}"#),
            &format!(r#"{{{rsa},"kid":"keycloak","use":"enc","alg":"RSA-OAEP"}}"#),
            &format!(r#"{{{rsa},"kid":"other","alg":"RSA-OAEP-256"}}"#),
            r#"{"kty":"RSA","kid":"x5c","x5c":["MII"]}"#,
            r#"{"kty":"AKP","alg":"ML-DSA-44","pub":"AA"}"#,
            r#"{"kty":"EC","crv":"secp256k1","x":"AA","y":"AA"}"#,
            &format!(r#"{{{rsa},"kid":7}}"#),
        ])
        .unwrap();
        let kids: Vec<_> = found.keys.iter().map(VerificationKey::kid).collect();
        assert_eq!(kids, [Some("entra"), Some("null"), Some("ops")]);
        assert_eq!(
            found.skipped,
            [
                "key 3: `use` or `key_ops` does not allow verifying signatures",
                "key 4: unsupported `alg`",
                "key 5: `n` is missing",
                "key 6: keys of type AKP are not supported",
                "key 7: keys of type EC on secp256k1 are not supported",
                "key 8: not a JSON Web Key",
            ]
        );
    }

    #[test]
    fn rejects_a_set_without_a_usable_key() {
        for json in [
            "",
            "<html>",
            "[]",
            r#"{"keys":{}}"#,
            r#"{"keys":[]}"#,
            r#"{"keys":[{"kty":"oct"}]}"#,
        ] {
            assert!(parse(json.as_bytes(), None).is_err(), "{json}");
        }
    }
}
