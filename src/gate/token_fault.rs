//! Faults in the form of a token, and reasons why a request has none: the sub-causes of `token_malformed` and
//! `token_missing`.
//!
//! The texts describe the form of the request and never quote it. They have no character that a quoted string
//! (RFC 9110 section 5.6.4) escapes, because challenges contain them.

use std::fmt;
use std::sync::Arc;

/// Fault that makes a token unreadable. Displays as a sentence for the client's developer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFault {
    /// Longer than this limit, in bytes.
    TooLong(usize),
    /// `Bearer Bearer TOKEN`.
    SchemeRepeated,
    Quoted,
    WhiteSpace,
    /// Several values in one header, separated by a comma.
    Several,
    NotAscii,
    PercentEncoded,
    Padding,
    /// `+` or `/` instead of `-` and `_` (RFC 4648 sections 4 and 5).
    StandardAlphabet,
    /// A byte outside of base64url.
    Character,
    /// The name of the query parameter has another spelling.
    ParameterName,
    /// A number is missing among the pieces of a cookie.
    CookiePiece,
    /// The subprotocol does not contain base64url.
    SubprotocolEncoding,
    /// Number of parts, if it is not three.
    Parts(usize),
    /// Fault of one part.
    Part(Part, PartFault),
    /// A header member that changes the meaning of the token: `crit`, `b64` or `zip`.
    Extension(&'static str),
    /// A header member is not text.
    HeaderMember(&'static str),
    NoAlgorithm,
    KeyIdTooLong,
    /// A time claim has no usable value.
    Time(&'static str, TimeFault),
    NoExpiry,
}

/// Part of a compact JWS (RFC 7515 section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Header,
    Claims,
    Signature,
}

/// Fault of one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartFault {
    /// Not canonical base64url.
    Encoding,
    /// Invalid UTF-8.
    NotUtf8,
    NotJson,
    NotObject,
    /// Two members of one object have the same name.
    DuplicateName,
    /// A number is too large for a double.
    NumberTooLarge,
}

/// Fault of a time claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeFault {
    Text,
    NotNumber,
    Milliseconds,
    OutOfRange,
}

/// A request without a token. Displays as a sentence for the client's developer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingToken {
    /// Token sources of the route.
    pub sources: Arc<str>,
    /// Content of a source that is almost a token.
    pub near_miss: Option<NearMiss>,
}

/// Content of a token source that is almost a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NearMiss {
    /// A token without the scheme `Bearer`.
    NoScheme,
    /// `Authorization` with another scheme.
    OtherScheme,
    /// `Bearer` without a token.
    NoToken,
    /// The source's header in another spelling, such as `X_Auth_Token`.
    OtherSpelling,
}

impl fmt::Display for TokenFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong(limit) => {
                return write!(f, "The token is longer than {limit} bytes, the limit of this service.");
            }
            Self::SchemeRepeated => {
                "The token starts with `Bearer`: the scheme is there twice. Send `Authorization: Bearer TOKEN`."
            }
            Self::Quoted => "The token is in quotes. Send it without them.",
            Self::WhiteSpace => {
                "The token has a space, tab or line break. Send it on one line, after one space."
            }
            Self::Several => "The header has several tokens, separated by a comma. Send one.",
            Self::NotAscii => "The token has bytes outside of ASCII. Send it exactly as issued.",
            Self::PercentEncoded => "The token is percent-encoded. Send it exactly as issued.",
            Self::Padding => {
                "The token has base64 padding (`=`). The parts of a JWT are base64url without padding."
            }
            Self::StandardAlphabet => {
                "The token has `+` or `/`. The parts of a JWT are base64url, with `-` and `_` instead."
            }
            Self::Character => "The token has a character outside of base64url. Send it exactly as issued.",
            Self::ParameterName => {
                "The name of the query parameter with the token has another spelling, such as another case or an \
                 encoded character."
            }
            Self::CookiePiece => {
                "A piece of the cookie with the token is missing. Pieces are numbered from 0 without a gap."
            }
            Self::SubprotocolEncoding => {
                "The subprotocol with the token is not base64url without padding."
            }
            Self::Parts(5) => {
                "The token has five parts: it is encrypted (JWE). Only signed tokens (JWS) are accepted."
            }
            Self::Parts(2) => {
                "A signed JWT has three parts separated by dots, got two: the signature is missing, or this is a \
                 session token, to be exchanged for a JWT."
            }
            Self::Parts(1) => {
                "A signed JWT has three parts separated by dots, got one: this is an opaque token, not a JWT."
            }
            Self::Parts(parts) => {
                return write!(f, "A signed JWT has three parts separated by dots, got {parts}.");
            }
            Self::Part(part, fault) => return write!(f, "The {part} of the token {fault}."),
            Self::Extension(name) => {
                return write!(f, "The header of the token has `{name}`, which is not supported.");
            }
            Self::HeaderMember(name) => {
                return write!(f, "The member `{name}` of the token's header must be text.");
            }
            Self::NoAlgorithm => "The header of the token has no `alg`.",
            Self::KeyIdTooLong => "The `kid` of the token is longer than 256 bytes.",
            Self::Time(claim, fault) => return write!(f, "The claim `{claim}` {fault}."),
            Self::NoExpiry => "The token has no `exp`. Every token must expire.",
        })
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "first part (header)",
            Self::Claims => "second part (claims)",
            Self::Signature => "third part (signature)",
        })
    }
}

impl fmt::Display for PartFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encoding => "is not valid base64url",
            Self::NotUtf8 => "is not UTF-8",
            Self::NotJson => "is not JSON",
            Self::NotObject => "is not a JSON object",
            Self::DuplicateName => "has two members with the same name",
            Self::NumberTooLarge => "has a number that is too large",
        })
    }
}

impl fmt::Display for TimeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "is text. It must be a number: seconds since 1970",
            Self::NotNumber => "is not a number: seconds since 1970",
            Self::Milliseconds => "is in milliseconds. It must be in seconds since 1970",
            Self::OutOfRange => "is out of range. It must be in seconds since 1970",
        })
    }
}

impl fmt::Display for MissingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sources, near_miss } = self;
        match near_miss {
            None => write!(
                f,
                "Sign in first: this path needs a bearer token in {sources}."
            ),
            Some(near_miss) => write!(
                f,
                "{near_miss} This path needs a bearer token in {sources}."
            ),
        }
    }
}

impl fmt::Display for NearMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoScheme => {
                "`Authorization` has a token without its scheme: send `Authorization: Bearer TOKEN`."
            }
            Self::OtherScheme => {
                "`Authorization` has another scheme than `Bearer`: send `Authorization: Bearer TOKEN`."
            }
            Self::NoToken => "`Authorization` has `Bearer` without a token after it.",
            Self::OtherSpelling => {
                "A header with a token has another spelling than its name here, such as `_` instead of `-`."
            }
        })
    }
}

impl TokenFault {
    /// One fault of each kind.
    pub fn examples() -> Vec<Self> {
        vec![
            Self::TooLong(8192),
            Self::SchemeRepeated,
            Self::Quoted,
            Self::WhiteSpace,
            Self::Several,
            Self::NotAscii,
            Self::PercentEncoded,
            Self::Padding,
            Self::StandardAlphabet,
            Self::Character,
            Self::ParameterName,
            Self::CookiePiece,
            Self::SubprotocolEncoding,
            Self::Parts(1),
            Self::Parts(2),
            Self::Parts(4),
            Self::Parts(5),
            Self::Part(Part::Header, PartFault::Encoding),
            Self::Part(Part::Claims, PartFault::NotUtf8),
            Self::Part(Part::Claims, PartFault::NotJson),
            Self::Part(Part::Claims, PartFault::NotObject),
            Self::Part(Part::Claims, PartFault::DuplicateName),
            Self::Part(Part::Claims, PartFault::NumberTooLarge),
            Self::Extension("crit"),
            Self::HeaderMember("kid"),
            Self::NoAlgorithm,
            Self::KeyIdTooLong,
            Self::NoExpiry,
            Self::Time("exp", TimeFault::Text),
            Self::Time("exp", TimeFault::NotNumber),
            Self::Time("exp", TimeFault::Milliseconds),
            Self::Time("exp", TimeFault::OutOfRange),
        ]
    }

    /// Fault of a text that is not a compact JWS: the first that explains it, in the order in which a developer would
    /// look.
    pub(super) fn of(token: &str) -> Self {
        let has = |characters: &[char]| token.contains(characters);
        let first = token.split([' ', '\t']).next().unwrap_or_default();
        if !token.is_ascii() {
            Self::NotAscii
        } else if first.len() < token.len() && first.eq_ignore_ascii_case("bearer") {
            Self::SchemeRepeated
        } else if token.starts_with(['"', '\'']) || token.ends_with(['"', '\'']) {
            Self::Quoted
        } else if has(&[',']) {
            Self::Several
        } else if has(&[' ', '\t', '\r', '\n']) {
            Self::WhiteSpace
        } else if has(&['%']) {
            Self::PercentEncoded
        } else if has(&['+', '/']) {
            Self::StandardAlphabet
        } else if has(&['=']) {
            Self::Padding
        } else {
            Self::Character
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_fault_has_its_own_text() {
        let faults = TokenFault::examples();
        let texts: BTreeSet<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), faults.len());
        for text in texts {
            // RFC 9110 section 5.6.4, and the gRPC percent-encoding of `grpc-message`.
            let plain = |byte: u8| (b' '..=b'~').contains(&byte) && !b"\"\\%".contains(&byte);
            assert!(text.bytes().all(plain), "{text}");
            assert!(text.ends_with('.'), "{text}");
        }
    }

    #[test]
    fn finds_the_cause_that_a_developer_can_act_on() {
        for (token, expected) in [
            ("Bearer a.b.c", TokenFault::SchemeRepeated),
            ("bearer\ta.b.c", TokenFault::SchemeRepeated),
            ("\"a.b.c\"", TokenFault::Quoted),
            ("'a.b.c'", TokenFault::Quoted),
            ("a.b.c\"", TokenFault::Quoted),
            ("a.b.c,d.e.f", TokenFault::Several),
            ("a.b.c, Bearer d.e.f", TokenFault::Several),
            (" a.b.c", TokenFault::WhiteSpace),
            ("a.b. c", TokenFault::WhiteSpace),
            ("a.b.\nc", TokenFault::WhiteSpace),
            ("a%2Eb.c", TokenFault::PercentEncoded),
            ("a.b.c=", TokenFault::Padding),
            ("a==.b.c", TokenFault::Padding),
            ("a+.b/.c=", TokenFault::StandardAlphabet),
            ("a.b.ä", TokenFault::NotAscii),
            ("{a.b.c}", TokenFault::Character),
            ("bearer", TokenFault::Character),
        ] {
            assert_eq!(TokenFault::of(token), expected, "{token}");
        }
    }
}
