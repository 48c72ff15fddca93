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

/// What a PEM file begins with (RFC 7468 section 2).
const PEM: &[u8] = b"-----BEGIN";

/// A shared secret. Wiped when dropped, never shown.
pub struct Secret(Zeroizing<Vec<u8>>);

/// The secret of an issuer, and while it is replaced the one before, whose tokens are good for as long as it is there.
#[derive(Debug)]
pub struct Secrets {
    /// What issuers sign with, or will.
    pub current: Secret,
    /// What they signed with before.
    pub before: Option<Secret>,
}

impl Secret {
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
            Encoding::Hex => hex::decode(&text).map_err(|_| KeyError::Encoding("hex"))?,
        };
        Ok(Self(Zeroizing::new(bytes)))
    }

    /// The secret itself, if it is text: to be sent where it belongs, and nowhere else.
    pub fn as_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The key for these algorithms, each of which must allow a secret of this length.
    pub fn verification_key(
        &self,
        allowed: Option<&[Algorithm]>,
    ) -> Result<VerificationKey, KeyError> {
        if self.0.starts_with(PEM) {
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

impl Secrets {
    /// Takes one from the value of an environment variable.
    pub fn from_variable(
        name: &str,
        value: Option<String>,
        encoding: Encoding,
    ) -> Result<Self, KeyError> {
        let text = value.ok_or_else(|| KeyError::NoVariable(name.to_owned()))?;
        Ok(Self {
            current: Secret::decode(text.into_bytes(), encoding)?,
            before: None,
        })
    }

    /// Takes one from a file, or two: each has a line.
    pub fn from_file(file: &Path, encoding: Encoding) -> Result<Self, KeyError> {
        let text = Zeroizing::new(super::read_file(file)?);
        let text = without_line_end(&text);
        let decode = |line: &[u8]| Secret::decode(line.to_vec(), encoding);
        // Random bytes, and PEM, have line ends of their own.
        let has_lines = is_text(text) && !text.starts_with(PEM);
        let mut lines = text.splitn(2, |byte| has_lines && *byte == b'\n');
        let (first, second) = (lines.next().unwrap_or_default(), lines.next());
        if second.is_some_and(|second| second.contains(&b'\n')) {
            return Err(KeyError::Unusable(
                "the file has more than two lines: the secret, and perhaps the one before it"
                    .to_owned(),
            ));
        }
        Ok(match second {
            None => Self {
                current: decode(first)?,
                before: None,
            },
            Some(second) => Self {
                current: decode(first.strip_suffix(b"\r").unwrap_or(first))?,
                before: Some(decode(second)?),
            },
        })
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Secret> {
        std::iter::once(&self.current).chain(&self.before)
    }

    /// Whether two are one.
    pub fn are_alike(&self) -> bool {
        self.before
            .as_ref()
            .is_some_and(|before| before.0 == self.current.0)
    }

    /// The keys for these algorithms, as [`Secret::verification_key`] has them.
    pub fn verification_keys(
        &self,
        allowed: Option<&[Algorithm]>,
    ) -> Result<Vec<VerificationKey>, KeyError> {
        let keys = self.iter().zip(1..).map(|(secret, line)| {
            let key = secret.verification_key(allowed);
            key.map_err(|error| match self.before {
                Some(_) => KeyError::Unusable(format!("line {line}: {error}")),
                None => error,
            })
        });
        keys.collect()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// One line end at the end of a file is not part of the secret.
fn without_line_end(text: &[u8]) -> &[u8] {
    match text.strip_suffix(b"\n") {
        Some(text) => text.strip_suffix(b"\r").unwrap_or(text),
        None => text,
    }
}

/// Whether it could have been written by a person.
fn is_text(bytes: &[u8]) -> bool {
    let is_of_text = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    std::str::from_utf8(bytes).is_ok_and(|text| text.chars().all(is_of_text))
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
        assert_eq!(secret("6A6b", Encoding::Hex), Ok(b"jk".to_vec()));
        assert_eq!(secret("686", Encoding::Hex), Err(KeyError::Encoding("hex")));
        assert_eq!(secret("é9", Encoding::Hex), Err(KeyError::Encoding("hex")));
        assert_eq!(secret("+1", Encoding::Hex), Err(KeyError::Encoding("hex")));
        assert_eq!(secret("0x", Encoding::Hex), Err(KeyError::Encoding("hex")));
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
    fn a_file_has_a_secret_on_each_of_its_lines_and_line_ends_are_no_part_of_them() {
        for (written, read) in [
            (&b"abc\n"[..], &[&b"abc"[..]][..]),
            (b"abc\r\n", &[b"abc"]),
            (b"abc", &[b"abc"]),
            (b" abc \n", &[b" abc "]),
            (b"new\nold\n", &[b"new", b"old"]),
            (b"new\r\nold\r\n", &[b"new", b"old"]),
            (b"new\nold", &[b"new", b"old"]),
            // Too short for any algorithm, which says so.
            (b"abc\n\n", &[b"abc", b""]),
            // Not text: bytes of chance.
            (b"\x01abc\ndef\n", &[b"\x01abc\ndef"]),
            (b"\xff\na\nb\nc", &[b"\xff\na\nb\nc"]),
            (b"-----BEGIN X\na\nb\n", &[b"-----BEGIN X\na\nb"]),
        ] {
            let secrets = from_file(written, Encoding::Utf8).unwrap();
            let found: Vec<&[u8]> = secrets.iter().map(Secret::expose).collect();
            assert_eq!(found, read, "{written:?}");
        }
        let hex = from_file(b"6869\n6a6b\n", Encoding::Hex).unwrap();
        assert_eq!(hex.current.expose(), b"hi");
        assert_eq!(hex.before.unwrap().expose(), b"jk");
    }

    #[test]
    fn a_file_has_no_third_secret() {
        let error = from_file(b"a\nb\nc\n", Encoding::Utf8).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the file has more than two lines: the secret, and perhaps the one before it"
        );
    }

    fn from_file(written: &[u8], encoding: Encoding) -> Result<Secrets, KeyError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), written).unwrap();
        Secrets::from_file(file.path(), encoding)
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::decode(b"hunter2".to_vec(), Encoding::Utf8).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }
}
