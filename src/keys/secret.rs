//! Shared secrets, from the environment or a file.

use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jsonwebtoken::DecodingKey;
use zeroize::Zeroizing;

use crate::config::Encoding;

use super::{Algorithm, KeyError, KeyKind, VerificationKey};

/// A shared secret. Wiped when dropped, never shown.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes a secret from the value of an environment variable.
    pub fn from_variable(
        name: &str,
        value: Option<String>,
        encoding: Encoding,
    ) -> Result<Self, KeyError> {
        let text = value.ok_or_else(|| KeyError::NoVariable(name.to_owned()))?;
        Self::decode(text.into_bytes(), encoding)
    }

    /// Takes a secret from a file; one line end at its end is not part of it.
    pub fn from_file(file: &Path, encoding: Encoding) -> Result<Self, KeyError> {
        let mut text = super::read_file(file)?;
        if text.last() == Some(&b'\n') {
            text.pop();
            if text.last() == Some(&b'\r') {
                text.pop();
            }
        }
        Self::decode(text, encoding)
    }

    /// Takes a secret as it is written.
    pub fn decode(text: Vec<u8>, encoding: Encoding) -> Result<Self, KeyError> {
        let text = Zeroizing::new(text);
        let bytes = match encoding {
            Encoding::Utf8 => return Ok(Self(text)),
            Encoding::Base64 => {
                decode_base64(&alphabet::STANDARD, &text).ok_or(KeyError::Encoding("base64"))?
            }
            Encoding::Base64url => {
                decode_base64(&alphabet::URL_SAFE, &text).ok_or(KeyError::Encoding("base64url"))?
            }
            Encoding::Hex => decode_hex(&text).ok_or(KeyError::Encoding("hex"))?,
        };
        Ok(Self(Zeroizing::new(bytes)))
    }

    /// The key for these algorithms, each of which must allow a secret of this length.
    pub fn verification_key(
        &self,
        allowed: Option<&[Algorithm]>,
    ) -> Result<VerificationKey, KeyError> {
        if self.0.starts_with(b"-----BEGIN") {
            // CVE-2026-39999: a public key used as a secret is a secret that everybody has.
            return Err(KeyError::Unusable(
                "the secret is a PEM file: name public keys with `pem_file`".to_owned(),
            ));
        }
        let key = VerificationKey::bind(
            DecodingKey::from_secret(&self.0),
            KeyKind::Secret,
            None,
            allowed,
        )?;
        for algorithm in &key.algorithms {
            let needed = shortest(*algorithm);
            if self.0.len() < needed {
                return Err(KeyError::ShortSecret {
                    found: self.0.len(),
                    algorithm: format!("{algorithm:?}"),
                    needed,
                });
            }
        }
        Ok(key)
    }

    /// What the text of the secret seems to be, if it is another encoding than the bytes themselves.
    pub fn looks_like(&self) -> Option<&'static str> {
        let text = &self.0;
        if text.len() >= 64 && text.iter().all(u8::is_ascii_hexdigit) {
            return Some("hex");
        }
        let padded = text.ends_with(b"=") && decode_base64(&alphabet::STANDARD, text).is_some();
        padded.then_some("base64")
    }

    /// The bytes: for signing a development token.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The shortest secret of an algorithm in bytes: the length of its hash (RFC 7518 section 3.2).
fn shortest(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::HS384 => 48,
        Algorithm::HS512 => 64,
        Algorithm::HS256
        | Algorithm::RS256
        | Algorithm::RS384
        | Algorithm::RS512
        | Algorithm::PS256
        | Algorithm::PS384
        | Algorithm::PS512
        | Algorithm::ES256
        | Algorithm::ES384
        | Algorithm::ES512
        | Algorithm::EdDSA => 32,
    }
}

fn decode_base64(alphabet: &alphabet::Alphabet, text: &[u8]) -> Option<Vec<u8>> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(alphabet, config).decode(text).ok()
}

fn decode_hex(text: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    if text.len() % 2 != 0 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let pairs = (0..text.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str, encoding: Encoding) -> Result<Vec<u8>, KeyError> {
        Secret::decode(text.into(), encoding).map(|secret| secret.expose().to_vec())
    }

    #[test]
    fn a_secret_is_read_as_it_is_said_to_be_written() {
        assert_eq!(secret("aGk=", Encoding::Utf8), Ok(b"aGk=".to_vec()));
        assert_eq!(secret("aGk=", Encoding::Base64), Ok(b"hi".to_vec()));
        assert_eq!(secret("aGk", Encoding::Base64url), Ok(b"hi".to_vec()));
        assert_eq!(secret("6869", Encoding::Hex), Ok(b"hi".to_vec()));
        assert_eq!(
            secret("-_", Encoding::Base64),
            Err(KeyError::Encoding("base64"))
        );
        assert_eq!(secret("686", Encoding::Hex), Err(KeyError::Encoding("hex")));
        assert_eq!(secret("é9", Encoding::Hex), Err(KeyError::Encoding("hex")));
    }

    #[test]
    fn a_secret_shorter_than_the_hash_is_refused() {
        let secret = Secret::decode(vec![b'x'; 47], Encoding::Utf8).unwrap();
        assert!(secret.verification_key(None).is_ok());
        let hs384 = [Algorithm::named("HS384").unwrap()];
        let error = secret.verification_key(Some(&hs384)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the secret has 47 bytes, and HS384 needs at least 48"
        );
    }

    #[test]
    fn a_public_key_is_not_a_secret() {
        let pem =
            b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----".to_vec();
        let secret = Secret::decode(pem, Encoding::Utf8).unwrap();
        assert!(
            secret
                .verification_key(None)
                .unwrap_err()
                .to_string()
                .contains("pem_file")
        );
    }

    #[test]
    fn a_secret_that_looks_encoded_is_noticed() {
        let looks = |text: &str| {
            Secret::decode(text.into(), Encoding::Utf8)
                .unwrap()
                .looks_like()
        };
        assert_eq!(looks(&"ab".repeat(32)), Some("hex"));
        assert_eq!(
            looks("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            Some("base64")
        );
        assert_eq!(looks("correct horse battery staple, said the secret"), None);
    }

    #[test]
    fn the_line_end_of_a_file_is_not_part_of_the_secret() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (written, read) in [
            ("abc\n", "abc"),
            ("abc\r\n", "abc"),
            ("abc", "abc"),
            ("abc \n\n", "abc \n"),
        ] {
            std::fs::write(file.path(), written).unwrap();
            let secret = Secret::from_file(file.path(), Encoding::Utf8).unwrap();
            assert_eq!(secret.expose(), read.as_bytes(), "{written:?}");
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::decode(b"hunter2".to_vec(), Encoding::Utf8).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }
}
