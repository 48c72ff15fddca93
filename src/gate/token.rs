//! Exactly one token, or the reason why not.

use std::fmt;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::refusal::Refusal;

/// The largest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// A bearer token as it came, not yet verified (RFC 6750 section 2.1). Never shown.
#[derive(Clone, Copy)]
pub struct BearerToken<'a>(&'a str);

impl<'a> BearerToken<'a> {
    /// Takes the one token of a request.
    pub(super) fn take(headers: &'a HeaderMap) -> Result<Self, Refusal> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else {
            return Err(Refusal::TokenMissing);
        };
        if values.next().is_some() {
            return Err(Refusal::TokenRepeated);
        }
        let text = value.to_str().map_err(|_| Refusal::TokenMalformed)?;
        let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
        // RFC 9110 section 11.1: scheme names are case-insensitive.
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
            return Err(Refusal::TokenMissing);
        }
        Self::new(token)
    }

    /// Takes a token that has its header's or its flag's wrapping off.
    pub fn new(token: &'a str) -> Result<Self, Refusal> {
        if is_session_token(token) {
            return Err(Refusal::TokenOpaque);
        }
        if token.len() > MAX_TOKEN_BYTES || !token.bytes().all(is_token_byte) {
            return Err(Refusal::TokenMalformed);
        }
        Ok(Self(token))
    }

    /// The token itself: for the verifier alone.
    pub(super) fn expose(self) -> &'a str {
        self.0
    }
}

/// What sign-in at Better Auth gives: 32 letters and digits, alone or with a dot and an HMAC-SHA256 in base64, which may
/// be percent-encoded. Its users send it by mistake.
fn is_session_token(token: &str) -> bool {
    let (name, signature) = token.split_once('.').unwrap_or((token, ""));
    let is_name = name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_signature = signature.is_empty()
        || ((44..=132).contains(&signature.len())
            && signature
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+/=%".contains(&byte)));
    is_name && is_signature
}

/// RFC 7515 section 7.1: base64url parts, joined by dots.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

impl fmt::Debug for BearerToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn exactly_one_bearer_token_is_taken() {
        let long = format!("Bearer {}", "a".repeat(MAX_TOKEN_BYTES + 1));
        let cases: &[(&[&str], Result<&str, Refusal>)] = &[
            (&["Bearer a.b.c"], Ok("a.b.c")),
            (&["bearer a.b.c"], Ok("a.b.c")),
            (&["BEARER a.b.c"], Ok("a.b.c")),
            (&[], Err(Refusal::TokenMissing)),
            (&[""], Err(Refusal::TokenMissing)),
            (&["Bearer"], Err(Refusal::TokenMissing)),
            (&["Bearer "], Err(Refusal::TokenMissing)),
            (&["Basic YTpi"], Err(Refusal::TokenMissing)),
            (&["a.b.c"], Err(Refusal::TokenMissing)),
            (&["Bearer\ta.b.c"], Err(Refusal::TokenMissing)),
            (&["Bearer  a.b.c"], Err(Refusal::TokenMalformed)),
            (
                &["Bearer a.b.c, Bearer d.e.f"],
                Err(Refusal::TokenMalformed),
            ),
            (&["Bearer \"a.b.c\""], Err(Refusal::TokenMalformed)),
            (&["Bearer a.b.c="], Err(Refusal::TokenMalformed)),
            (&["Bearer {\"payload\":1}"], Err(Refusal::TokenMalformed)),
            (&[&long], Err(Refusal::TokenMalformed)),
            (
                &["Bearer a.b.c", "Bearer a.b.c"],
                Err(Refusal::TokenRepeated),
            ),
            (&["Bearer a.b.c", "Basic YTpi"], Err(Refusal::TokenRepeated)),
            (&["", "Bearer a.b.c"], Err(Refusal::TokenRepeated)),
        ];
        for (values, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in *values {
                headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            let taken = BearerToken::take(&headers).map(BearerToken::expose);
            assert_eq!(taken, *expected, "{values:?}");
        }
    }

    #[test]
    fn a_session_token_is_told_apart() {
        let name = "sVeJ2xKq0NzYwLb7Rt5Hc9Mf3Gp1Du8A";
        let signed = format!("{name}.3q2+7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
        let encoded = signed.replace('+', "%2B").replace('=', "%3D");
        for token in [name, &signed, &encoded] {
            assert_eq!(
                BearerToken::new(token).unwrap_err(),
                Refusal::TokenOpaque,
                "{token}"
            );
        }
        for token in [
            &format!("{name}.e30.AAAA"),
            &name[1..],
            &format!("{name}.e30"),
        ] {
            assert_ne!(
                BearerToken::new(token).err(),
                Some(Refusal::TokenOpaque),
                "{token}"
            );
        }
    }

    #[test]
    fn a_token_is_never_shown() {
        let token = BearerToken::new("secret.secret.secret").unwrap();
        assert_eq!(format!("{token:?}"), "BearerToken(..)");
    }
}
