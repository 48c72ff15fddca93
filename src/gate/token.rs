//! Exactly one token, or the reason why not.

mod cookie;
mod query;
mod subprotocol;

use std::borrow::Cow;
use std::fmt;

use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, HeaderName};

pub use cookie::CookieName;
pub use query::ParameterName;
pub use subprotocol::Subprotocol;

use super::inbound::Inbound;
use super::origin::{self, Origin};
use super::refusal::Refusal;

/// The largest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Where a route takes its token from. What it does not name is not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSources {
    /// Each place; of all together, one may have a token.
    pub sources: Vec<TokenSource>,
    /// The origins of pages that may send a cookie, beside the request's own.
    pub origins: Vec<Origin>,
}

/// A place where a token may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// `Authorization: Bearer TOKEN` (RFC 6750 section 2.1).
    Authorization,
    /// Another header, which has the token alone, or `Bearer TOKEN`.
    Header(HeaderName),
    /// A cookie.
    Cookie(CookieName),
    /// A parameter of the query.
    Query(ParameterName),
    /// The subprotocol after this one, when a WebSocket is asked for.
    WebSocket(Subprotocol),
}

/// The one token of a request, and where it was.
pub(super) struct FoundToken<'a> {
    text: Cow<'a, str>,
    /// By its place among the route's sources.
    pub(super) source: usize,
}

/// A bearer token as it came, not yet verified (RFC 6750 section 2.1). Never shown.
#[derive(Clone, Copy)]
pub struct BearerToken<'a>(&'a str);

impl Default for TokenSources {
    fn default() -> Self {
        Self {
            sources: vec![TokenSource::Authorization],
            origins: Vec::new(),
        }
    }
}

impl TokenSources {
    /// Finds the one token of a request.
    pub(super) fn find<'a>(&self, inbound: &'a Inbound) -> Result<FoundToken<'a>, Refusal> {
        let mut taken = Err(Refusal::TokenMissing);
        for (source, token_source) in self.sources.iter().enumerate() {
            let found = match token_source.find(inbound) {
                Ok(None) => continue,
                Ok(Some(text)) => Ok(FoundToken { text, source }),
                Err(refusal) => Err(refusal),
            };
            // RFC 6750 section 2: a client must not use more than one way. Which of them counts is not for the gate
            // to guess: the upstream may guess otherwise.
            if !matches!(taken, Err(Refusal::TokenMissing)) {
                return Err(Refusal::TokenRepeated);
            }
            taken = found;
        }
        let taken = taken?;
        BearerToken::new(&taken.text)?;
        Ok(taken)
    }

    /// Whether the page that sent the token may: only a cookie is sent without the page's doing.
    pub(super) fn check_origin(
        &self,
        found: &FoundToken<'_>,
        inbound: &Inbound,
    ) -> Result<(), Refusal> {
        match self.sources.get(found.source) {
            Some(TokenSource::Cookie(_)) | None => origin::check(inbound, &self.origins),
            Some(
                TokenSource::Authorization
                | TokenSource::Header(_)
                | TokenSource::Query(_)
                | TokenSource::WebSocket(_),
            ) => Ok(()),
        }
    }

    /// Takes everything out of a head, its target in origin form, that could be the token of this route.
    pub fn strip(&self, head: &mut Parts, websocket: bool) {
        for source in &self.sources {
            match source {
                TokenSource::Authorization => {
                    head.headers.remove(AUTHORIZATION);
                }
                TokenSource::Header(name) => {
                    head.headers.remove(name);
                }
                TokenSource::Cookie(name) => name.strip(&mut head.headers),
                TokenSource::Query(name) => name.strip(&mut head.uri),
                TokenSource::WebSocket(name) => name.strip(&mut head.headers, websocket),
            }
        }
    }
}

impl TokenSource {
    /// What stands here. An empty value is none.
    fn find<'a>(&self, inbound: &'a Inbound) -> Result<Option<Cow<'a, str>>, Refusal> {
        let head = &inbound.head;
        let found = match self {
            Self::Authorization => bearer(&head.headers)?,
            Self::Header(name) => bare(&head.headers, name)?,
            Self::Cookie(name) => name.take(&head.headers)?,
            Self::Query(name) => name.take(&head.uri)?,
            Self::WebSocket(name) => name.take(inbound)?,
        };
        Ok(found.filter(|text| !text.is_empty()))
    }

    /// Whether one token could be in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cookie(one), Self::Cookie(other)) => one.overlaps(other),
            _ => self == other,
        }
    }
}

impl fmt::Display for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authorization => write!(f, "`Authorization`"),
            Self::Header(name) => write!(f, "the header `{name}`"),
            Self::Cookie(name) => write!(f, "the cookie `{}`", name.as_str()),
            Self::Query(name) => write!(f, "the parameter `{}` of the query", name.as_str()),
            Self::WebSocket(name) => write!(f, "the subprotocol after `{}`", name.as_str()),
        }
    }
}

/// What `Authorization` has.
fn bearer(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>, Refusal> {
    let Some(text) = only(headers, &AUTHORIZATION)? else {
        return Ok(None);
    };
    Ok(after_bearer(text).map(Cow::from))
}

/// What another header has.
fn bare<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<Cow<'a, str>>, Refusal> {
    let Some(text) = only(headers, name)? else {
        return Ok(None);
    };
    Ok(Some(after_bearer(text).unwrap_or(text).into()))
}

/// What comes after the scheme, if the scheme is this one.
fn after_bearer(text: &str) -> Option<&str> {
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    // RFC 9110 section 11.1: scheme names are case-insensitive.
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// The one field of this name, if there is any.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Refusal::TokenRepeated);
    }
    let text = value.to_str().map_err(|_| Refusal::TokenMalformed)?;
    Ok(Some(text))
}

/// RFC 9110 section 5.6.2: what names are made of.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl FoundToken<'_> {
    /// The token.
    pub(super) fn token(&self) -> BearerToken<'_> {
        BearerToken(&self.text)
    }
}

impl<'a> BearerToken<'a> {
    /// Takes a token that has its header's or its flag's wrapping off.
    pub fn new(token: &'a str) -> Result<Self, Refusal> {
        if is_session_token(token) {
            return Err(Refusal::TokenOpaque);
        }
        // Without stopping at the first that is wrong, many are looked at in one step.
        let is_plain = token
            .bytes()
            .fold(true, |so_far, byte| so_far & is_token_byte(byte));
        if token.len() > MAX_TOKEN_BYTES || !is_plain {
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

impl fmt::Debug for FoundToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FoundToken(..)")
    }
}

impl fmt::Debug for BearerToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(..)")
    }
}

#[cfg(test)]
mod tests;
