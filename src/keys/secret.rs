//! Shared secrets from environment variables and files.

use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jsonwebtoken::DecodingKey;
use zeroize::Zeroizing;

use crate::config::Encoding;

use super::{Algorithm, KeyError, KeyKind, VerificationKey};

/// Byte order mark in UTF-8.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Byte order marks in UTF-16, little and big endian.
const UTF16_BOMS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// Start of a PEM file (RFC 7468 section 2).
const PEM: &[u8] = b"-----BEGIN";

/// Shared secret. Zeroed on drop and redacted in `Debug`.
pub struct Secret(Zeroizing<Vec<u8>>);

/// Secret of an issuer and, during a rotation, the previous one. Tokens of both are accepted.
#[derive(Debug)]
pub struct Secrets {
    pub current: Secret,
    /// Previous secret, accepted until it is removed from the file.
    pub previous: Option<Secret>,
    /// True if the two lines of the file look like one base64 text.
    pub looks_wrapped: bool,
}

impl Secret {
    /// Decodes the configured text of a secret.
    pub fn decode(text: Vec<u8>, encoding: Encoding) -> Result<Self, KeyError> {
        let text = Zeroizing::new(text);
        check_text(&text)?;
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

    /// Secret as text, for the connection that authenticates with it; none if it is not UTF-8.
    pub fn as_text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Creates the key for the allowed algorithms. Fails if the secret is too short for one of them.
    pub fn verification_key(
        &self,
        allowed: Option<&[Algorithm]>,
    ) -> Result<VerificationKey, KeyError> {
        if self.0.starts_with(PEM) {
            // CVE-2026-39999: a public key is not secret, so anyone could sign with it.
            return Err(KeyError::Unusable(
                "the secret is a PEM file: use `pem_file` for public keys".to_owned(),
            ));
        }
        let key = VerificationKey::bind(
            DecodingKey::from_secret(&self.0),
            KeyKind::Secret,
            None,
            allowed,
        )?;
        for algorithm in &key.algorithms {
            let needed = min_length(*algorithm);
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

    /// Guesses whether the secret is text in an encoding other than `utf8`.
    pub fn looks_like(&self) -> Option<&'static str> {
        let text = &self.0;
        if text.len() >= 64 && text.iter().all(u8::is_ascii_hexdigit) {
            return Some("hex");
        }
        let padded = text.ends_with(b"=") && decode_base64(&alphabet::STANDARD, text).is_some();
        padded.then_some("base64")
    }

    /// Returns the bytes, to sign a development token.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl Secrets {
    /// Reads one secret from the value of an environment variable.
    pub fn from_variable(
        name: &str,
        value: Option<String>,
        encoding: Encoding,
    ) -> Result<Self, KeyError> {
        let text = value.ok_or_else(|| KeyError::NoVariable(name.to_owned()))?;
        if text.is_empty() {
            return Err(KeyError::EmptyVariable(name.to_owned()));
        }
        Ok(Self {
            current: Secret::decode(text.into_bytes(), encoding)?,
            previous: None,
            looks_wrapped: false,
        })
    }

    /// Reads one or two secrets from a file, one per line: the current and the previous.
    pub fn from_file(file: &Path, encoding: Encoding) -> Result<Self, KeyError> {
        let text = Zeroizing::new(super::read_file(file)?);
        check_byte_order_mark(&text)?;
        let text = without_final_newline(&text);
        let decode = |line: &[u8]| Secret::decode(line.to_vec(), encoding);
        // Newlines in random bytes and in PEM do not separate secrets.
        let has_lines = is_text(text) && !text.starts_with(PEM);
        let mut lines = text.splitn(2, |byte| has_lines && *byte == b'\n');
        let (first, second) = (lines.next().unwrap_or_default(), lines.next());
        if second.is_some_and(|second| second.contains(&b'\n')) {
            return Err(KeyError::Unusable(
                "the file has more than two lines: expected the secret and, optionally, the previous one"
                    .to_owned(),
            ));
        }
        Ok(match second {
            None => Self {
                current: decode(first)?,
                previous: None,
                looks_wrapped: false,
            },
            Some(second) => {
                let first = first.strip_suffix(b"\r").unwrap_or(first);
                Self {
                    current: decode(first)?,
                    previous: Some(decode(second)?),
                    looks_wrapped: looks_wrapped(first, second),
                }
            }
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = &Secret> {
        std::iter::once(&self.current).chain(&self.previous)
    }

    /// Reports whether the current and the previous secret are equal.
    pub fn are_alike(&self) -> bool {
        self.previous
            .as_ref()
            .is_some_and(|previous| previous.0 == self.current.0)
    }

    /// Creates the key of each secret; see [`Secret::verification_key`].
    pub fn verification_keys(
        &self,
        allowed: Option<&[Algorithm]>,
    ) -> Result<Vec<VerificationKey>, KeyError> {
        let keys = self.iter().zip(1..).map(|(secret, line)| {
            let key = secret.verification_key(allowed);
            key.map_err(|error| match self.previous {
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

/// Rejects a file with a byte order mark: the issuer would not take it for a part of the secret.
fn check_byte_order_mark(file: &[u8]) -> Result<(), KeyError> {
    let (_, words) = file.split_at_checked(2).unwrap_or_default();
    let is_utf16 = UTF16_BOMS.iter().any(|mark| file.starts_with(mark))
        && words.chunks(2).all(|word| word.contains(&0));
    if is_utf16 || (file.starts_with(BOM) && is_text(file)) {
        let encoding = if is_utf16 { "UTF-16" } else { "UTF-8" };
        return Err(KeyError::Unusable(format!(
            "the file with the secret starts with a byte order mark ({encoding}), which is not part of the secret; \
             save it as UTF-8 without a byte order mark"
        )));
    }
    Ok(())
}

/// Rejects text with characters around the secret that the issuer probably does not have: every token would be invalid.
/// Random bytes are taken as they are.
fn check_text(text: &[u8]) -> Result<(), KeyError> {
    let Some(text) = std::str::from_utf8(text).ok().filter(|_| is_text(text)) else {
        return Ok(());
    };
    let quotes = ['"', '\'', '`', '\u{201c}', '\u{201d}'];
    let found = if text.starts_with('\u{feff}') {
        "a byte order mark at its start"
    } else if text.ends_with(['\n', '\r']) {
        "a line break at its end"
    } else if text.trim() != text {
        "white space at its start or end"
    } else if text.chars().count() > 1 && text.starts_with(quotes) && text.ends_with(quotes) {
        "quotes around it"
    } else {
        return Ok(());
    };
    Err(KeyError::Unusable(format!(
        "the secret has {found}; remove that, or if it is part of the secret, write the secret in base64 and set \
         `encoding = \"base64\"`"
    )))
}

/// Removes one newline from the end of a file: it is not part of the secret.
fn without_final_newline(text: &[u8]) -> &[u8] {
    match text.strip_suffix(b"\n") {
        Some(text) => text.strip_suffix(b"\r").unwrap_or(text),
        None => text,
    }
}

/// Reports whether two lines look like one base64 text: `openssl rand -base64 64` and `base64` wrap at 64 and 76
/// characters.
fn looks_wrapped(first: &[u8], second: &[u8]) -> bool {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_=".contains(byte);
    matches!(first.len(), 64 | 76)
        && second.len() < first.len()
        && first.iter().chain(second).all(is_base64)
        && !first.iter().all(u8::is_ascii_hexdigit)
}

/// Reports whether the bytes are UTF-8 text without control characters other than whitespace.
fn is_text(bytes: &[u8]) -> bool {
    let is_textual = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    std::str::from_utf8(bytes).is_ok_and(|text| text.chars().all(is_textual))
}

/// Minimum length of a secret in bytes: the length of the hash (RFC 7518 section 3.2).
fn min_length(algorithm: Algorithm) -> usize {
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
    fn decodes_a_secret_in_the_configured_encoding() {
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
    fn rejects_a_secret_shorter_than_the_hash() {
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
    fn rejects_a_public_key_as_a_secret() {
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
    fn guesses_the_encoding_of_a_secret() {
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
    fn reads_one_secret_per_line_without_newlines() {
        for (content, secrets) in [
            (&b"abc\n"[..], &[&b"abc"[..]][..]),
            (b"abc\r\n", &[b"abc"]),
            (b"abc", &[b"abc"]),
            (b"new\nold\n", &[b"new", b"old"]),
            (b"new\r\nold\r\n", &[b"new", b"old"]),
            (b"new\nold", &[b"new", b"old"]),
            // An empty secret is too short for every algorithm: the key reports it.
            (b"abc\n\n", &[b"abc", b""]),
            (b"a \"b\" c\n", &[b"a \"b\" c"]),
            // Random bytes are one secret.
            (b"\x01abc\ndef\n", &[b"\x01abc\ndef"]),
            (b"\xff\na\nb\nc", &[b"\xff\na\nb\nc"]),
            (b"\xff\xfe\x01abc", &[b"\xff\xfe\x01abc"]),
            (b"\xef\xbb\xbf\x01", &[b"\xef\xbb\xbf\x01"]),
            (b" \x01 ", &[b" \x01 "]),
            (b"-----BEGIN X\na\nb\n", &[b"-----BEGIN X\na\nb"]),
        ] {
            let read = from_file(content, Encoding::Utf8).unwrap();
            let found: Vec<&[u8]> = read.iter().map(Secret::expose).collect();
            assert_eq!(found, secrets, "{content:?}");
        }
        let hex = from_file(b"6869\n6a6b\n", Encoding::Hex).unwrap();
        assert_eq!(hex.current.expose(), b"hi");
        assert_eq!(hex.previous.unwrap().expose(), b"jk");
    }

    /// Windows editors and PowerShell's `>` write a byte order mark, `docker --env-file` keeps quotes, and a `Secret` made
    /// with `echo` ends with a line break. The issuer reads the secret without them.
    #[test]
    fn rejects_characters_around_a_secret_with_their_name() {
        for (content, cause) in [
            (&b"\xef\xbb\xbfsecret\n"[..], "a byte order mark (UTF-8)"),
            (b"\xef\xbb\xbfnew\nold\n", "a byte order mark (UTF-8)"),
            (b"\xff\xfes\0e\0c\0\r\0\n\0", "a byte order mark (UTF-16)"),
            (b"\xfe\xff\0s\0e\0c", "a byte order mark (UTF-16)"),
            (b"\"secret\"\n", "quotes around it"),
            (b"'secret'", "quotes around it"),
            ("\u{201c}secret\u{201d}".as_bytes(), "quotes around it"),
            (b" secret\n", "white space at its start or end"),
            (b"secret \r\n", "white space at its start or end"),
            (b"secret\t", "white space at its start or end"),
            ("secret\u{a0}".as_bytes(), "white space at its start or end"),
            (b"new \nold\n", "white space at its start or end"),
            (b"abcd\n'old'\n", "quotes around it"),
            (b"secret\r\r\n", "a line break at its end"),
        ] {
            for encoding in [Encoding::Utf8, Encoding::Base64, Encoding::Hex] {
                let error = from_file(content, encoding).unwrap_err().to_string();
                assert!(error.contains(cause), "{content:?}: {error}");
            }
        }
        for (value, cause) in [
            ("hunter2\n", "a line break at its end"),
            ("\"hunter2\"", "quotes around it"),
            ("\u{feff}hunter2", "a byte order mark at its start"),
            (" hunter2", "white space at its start or end"),
        ] {
            let read = Secrets::from_variable("A", Some(value.to_owned()), Encoding::Utf8);
            let error = read.unwrap_err().to_string();
            assert!(error.contains(cause), "{value:?}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn recognizes_one_base64_text_on_two_lines() {
        let long = "mR3w+/".repeat(16);
        for (first, second, expected) in [
            (&long[..64], "c2VjcmV0IG9mIHRoZSB0ZXN0cw==", true),
            (&long[..76], "c2VjcmV0", true),
            (&long[..64], &long[..64], false),
            (&long[..44], "c2VjcmV0", false),
            (&long[..64], "not base64!", false),
            // A key in hex, and the previous one.
            (&"ab".repeat(32), "c2VjcmV0IG9mIHRoZSB0ZXN0cw==", false),
        ] {
            let read = from_file(format!("{first}\n{second}\n").as_bytes(), Encoding::Utf8);
            assert_eq!(read.unwrap().looks_wrapped, expected, "{first} {second}");
        }
    }

    #[test]
    fn rejects_a_file_with_three_secrets() {
        let error = from_file(b"a\nb\nc\n", Encoding::Utf8).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the file has more than two lines: expected the secret and, optionally, the previous one"
        );
    }

    fn from_file(content: &[u8], encoding: Encoding) -> Result<Secrets, KeyError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        Secrets::from_file(file.path(), encoding)
    }

    #[test]
    fn redacts_a_secret_in_debug_output() {
        let secret = Secret::decode(b"hunter2".to_vec(), Encoding::Utf8).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(..)");
    }
}
