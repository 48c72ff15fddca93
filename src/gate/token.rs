//! Token sources: find exactly one bearer token in a request.

mod cookie;
mod query;
mod session;
mod subprotocol;

use std::borrow::Cow;
use std::fmt;

use http::header::{AUTHORIZATION, COOKIE, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

pub use cookie::CookieName;
pub use query::ParameterName;
pub use session::{SessionSource, is_session_token};
pub use subprotocol::Subprotocol;

use crate::config::DpopMode;
use crate::keys::credential::{Credential, CredentialForm};

use super::dpop::DPOP;
use super::inbound::Inbound;
use super::issuer_id::IssuerId;
use super::managed_headers::alike;
use super::origin::{self, Origin};
use super::path::CanonicalPath;
use super::refusal::Refusal;
use super::request_target::RequestTarget;
use super::single_value::{Repeated, single_value};
use super::token_fault::{MissingToken, NearMiss, TokenFault};

/// Longest accepted token, in bytes, unless an issuer has its own limit.
pub const DEFAULT_MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Lengths of opaque tokens, in bytes. A shorter text can be guessed, a longer one is something else.
const MIN_OPAQUE_BYTES: usize = 16;
const MAX_OPAQUE_BYTES: usize = 512;

/// Token sources of a route. The gate reads no other place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSources {
    /// Sources that together must hold one token.
    pub sources: Vec<TokenSource>,
    /// Origins of pages that may send a cookie, in addition to the request's own.
    pub origins: Vec<Origin>,
    /// Sessions that the issuer exchanges.
    pub sessions: Option<SessionSource>,
    /// Sessions of issuers that the route does not accept. The upstream does not see them either.
    pub other_sessions: Vec<SessionSource>,
    /// Issuer that introspects opaque access tokens.
    pub introspection: Option<IssuerId>,
    /// Scheme `DPoP` in `Authorization` (RFC 9449 section 7.1): `Required` if no token without it is accepted.
    pub dpop: DpopMode,
}

/// Place of a token in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSource {
    /// `Authorization: Bearer TOKEN` (RFC 6750 section 2.1).
    Authorization,
    /// Another header: `TOKEN` or `Bearer TOKEN`.
    Header(HeaderName),
    Cookie(CookieName),
    /// Query parameter.
    Query(ParameterName),
    /// Subprotocol that follows this one in a WebSocket handshake.
    WebSocket(Subprotocol),
}

/// Removes the tokens of a route from the fields of one head.
#[derive(Debug)]
pub struct TokenFilter<'a> {
    sources: &'a [TokenSource],
    sessions: Option<&'a SessionSource>,
    other_sessions: &'a [SessionSource],
    /// Subprotocols without tokens, joined; `None` if no subprotocol is a token.
    subprotocols: Option<Vec<u8>>,
}

/// Token of a request and its source.
pub(super) struct FoundToken<'a> {
    text: Cow<'a, str>,
    /// True if the token is a session that ends with the browser.
    ends_with_browser: bool,
    pub(super) form: TokenForm,
    pub(super) scheme: Scheme,
    /// Index among the route's token sources; `None` for a cookie of a session.
    pub(super) source: Option<usize>,
}

/// Authentication scheme of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Bearer,
    /// With a proof in the header `DPoP`.
    Dpop,
}

/// Form of a token, which decides how it is verified.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TokenForm {
    Jwt,
    /// Credential that only this issuer can verify.
    Credential(IssuerId, CredentialForm),
}

/// Bearer token as received, not yet verified (RFC 6750 section 2.1). Never printed.
#[derive(Clone, Copy)]
pub struct BearerToken<'a>(&'a str);

impl Default for TokenSources {
    fn default() -> Self {
        Self {
            sources: vec![TokenSource::Authorization],
            origins: Vec::new(),
            sessions: None,
            other_sessions: Vec::new(),
            introspection: None,
            dpop: DpopMode::default(),
        }
    }
}

impl TokenSources {
    /// Finds the one token of a request, of at most `max_bytes` bytes.
    pub(super) fn find<'a>(
        &'a self,
        inbound: &'a Inbound,
        max_bytes: usize,
    ) -> Result<FoundToken<'a>, Refusal> {
        let mut found = None;
        for (source, token_source) in self.sources.iter().enumerate() {
            let token = match token_source.find(inbound, self.dpop != DpopMode::Off) {
                Ok(None) => continue,
                Ok(Some((text, scheme))) => Ok((text, scheme, source)),
                Err(refusal) => Err(refusal),
            };
            // RFC 6750 section 2: a client must not use more than one method. The gate does not choose one: the
            // upstream could choose the other.
            if found.is_some() {
                return Err(Refusal::TokenRepeated);
            }
            found = Some(token);
        }
        let headers = &inbound.head.headers;
        // An upstream could read its token from the other spelling.
        let has_other_spelling = self.other_spellings(headers).next().is_some();
        match found {
            Some(_) if has_other_spelling => Err(Refusal::TokenRepeated),
            Some(found) => {
                let (text, scheme, source) = found?;
                self.check_session_beside(source, headers)?;
                let form = self.form(&text, source, max_bytes)?;
                Ok(FoundToken {
                    text,
                    ends_with_browser: false,
                    form,
                    scheme,
                    source: Some(source),
                })
            }
            None => match self.find_session(headers, max_bytes)? {
                Some(_) if has_other_spelling => Err(Refusal::TokenRepeated),
                Some(found) => Ok(found),
                None => Err(self.missing(headers, has_other_spelling)),
            },
        }
    }

    /// Form of a token from an explicit source. An opaque token is accepted in `Authorization` alone.
    fn form(&self, text: &str, source: usize, max_bytes: usize) -> Result<TokenForm, Refusal> {
        let is_authorization = self.sources.get(source) == Some(&TokenSource::Authorization);
        if is_authorization && text.len() <= MAX_OPAQUE_BYTES {
            if let Some(issuer) = self.introspection
                && is_opaque(text)
            {
                return Ok(TokenForm::Credential(issuer, CredentialForm::AccessToken));
            }
            if let Some(sessions) = &self.sessions
                && is_session_token(text)
            {
                return Ok(TokenForm::Credential(
                    sessions.issuer,
                    CredentialForm::SessionToken,
                ));
            }
        }
        BearerToken::new(text, max_bytes)?;
        Ok(TokenForm::Jwt)
    }

    /// Refuses a session cookie beside a token that is not in a header of its own. A browser attaches the cookie to every
    /// request, so it is no second token beside a header, which only a program sets; a link can contain a query.
    fn check_session_beside(&self, source: usize, headers: &HeaderMap) -> Result<(), Refusal> {
        let (Some(sessions), Some(source)) = (&self.sessions, self.sources.get(source)) else {
            return Ok(());
        };
        match source {
            TokenSource::Authorization | TokenSource::Header(_) => Ok(()),
            TokenSource::Cookie(_) | TokenSource::Query(_) | TokenSource::WebSocket(_) => {
                match sessions.find(headers)? {
                    Some(_) if sessions.reads_cookie => Err(Refusal::TokenRepeated),
                    Some(_) | None => Ok(()),
                }
            }
        }
    }

    /// Token in the cookies of a session: the signed cookie cache while it is valid, else the session token.
    fn find_session<'a>(
        &'a self,
        headers: &'a HeaderMap,
        max_bytes: usize,
    ) -> Result<Option<FoundToken<'a>>, Refusal> {
        let Some(sessions) = &self.sessions else {
            return Ok(None);
        };
        let cache = sessions.find_cache(headers).and_then(|cache| {
            let cache = cache.filter(|text| !text.is_empty());
            if let Some(text) = &cache {
                BearerToken::new(text, max_bytes)?;
            }
            Ok(cache)
        });
        // The session token decides where the cache is unusable: a client could leave the cache out.
        let cache = match cache {
            Err(refusal) => {
                let found = self.find_session_cookie(headers)?;
                return found.map_or(Err(refusal), |found| Ok(Some(found)));
            }
            Ok(cache) => cache,
        };
        if let Some(text) = cache {
            return Ok(Some(FoundToken {
                text,
                ends_with_browser: false,
                form: TokenForm::Jwt,
                scheme: Scheme::Bearer,
                source: None,
            }));
        }
        self.find_session_cookie(headers)
    }

    /// Session token in its cookie.
    pub(super) fn find_session_cookie<'a>(
        &'a self,
        headers: &'a HeaderMap,
    ) -> Result<Option<FoundToken<'a>>, Refusal> {
        let Some(sessions) = self.sessions.as_ref().filter(|it| it.reads_cookie) else {
            return Ok(None);
        };
        Ok(sessions.find(headers)?.map(|cookie| FoundToken {
            text: cookie.value.into(),
            ends_with_browser: cookie.ends_with_browser,
            form: TokenForm::Credential(sessions.issuer, cookie.form()),
            scheme: Scheme::Bearer,
            source: None,
        }))
    }

    /// Headers that an upstream may read as one of the sources' headers: `X_Auth_Token` for `X-Auth-Token`.
    fn other_spellings<'a>(&self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a HeaderName> {
        let is_other = |name: &HeaderName| {
            let cookie = self.sessions.as_ref().map(|_| &COOKIE);
            let mut own = self
                .sources
                .iter()
                .filter_map(TokenSource::header)
                .chain(cookie);
            own.any(|own| name != own && alike(name.as_str(), own.as_str()))
        };
        headers.keys().filter(move |name| is_other(name))
    }

    /// Returns whether a source is the header with this name.
    pub fn are_in(&self, name: &HeaderName) -> bool {
        let mut own = self.sources.iter().filter_map(TokenSource::header);
        own.any(|own| own == name)
    }

    /// Refusal of a request without a token.
    fn missing(&self, headers: &HeaderMap, has_other_spelling: bool) -> Refusal {
        let authorization = headers
            .get(AUTHORIZATION)
            .filter(|_| self.sources.contains(&TokenSource::Authorization));
        let near_miss = if has_other_spelling {
            Some(NearMiss::OtherSpelling)
        } else {
            authorization.and_then(|value| near_miss(value.as_bytes()))
        };
        Refusal::TokenMissing(MissingToken {
            sources: self.to_string().into(),
            near_miss,
        })
    }

    /// Checks that the page may send this token. Only cookies need it: a browser attaches them by itself.
    pub(super) fn check_origin(
        &self,
        found: &FoundToken<'_>,
        inbound: &Inbound,
    ) -> Result<(), Refusal> {
        match found.source.and_then(|source| self.sources.get(source)) {
            Some(TokenSource::Cookie(_)) | None => origin::check(inbound, &self.origins),
            Some(
                TokenSource::Authorization
                | TokenSource::Header(_)
                | TokenSource::Query(_)
                | TokenSource::WebSocket(_),
            ) => Ok(()),
        }
    }

    /// Filter that removes everything that could be a token of this route from the fields of a head. `websocket` is true
    /// if the head opens a WebSocket.
    pub fn filter(&self, headers: &HeaderMap, websocket: bool) -> TokenFilter<'_> {
        let names = self.sources.iter().filter_map(|source| match source {
            TokenSource::WebSocket(name) => Some(name),
            TokenSource::Authorization
            | TokenSource::Header(_)
            | TokenSource::Cookie(_)
            | TokenSource::Query(_) => None,
        });
        TokenFilter {
            sources: &self.sources,
            sessions: self.sessions.as_ref(),
            other_sessions: &self.other_sessions,
            subprotocols: subprotocol::without_tokens(names, headers, websocket),
        }
    }

    /// Returns whether a request uses the scheme `DPoP`, as far as these sources accept it.
    pub fn uses_dpop(&self, headers: &HeaderMap) -> bool {
        let value = headers.get(AUTHORIZATION).and_then(|it| it.to_str().ok());
        let uses = value.and_then(|text| after_scheme("dpop", text)).is_some();
        uses && self.dpop != DpopMode::Off && self.sources.contains(&TokenSource::Authorization)
    }

    /// Removes everything that could be a token of this route from a target.
    pub fn strip_target<'a>(&self, target: Cow<'a, RequestTarget>) -> Cow<'a, RequestTarget> {
        let names = self.sources.iter().filter_map(|source| match source {
            TokenSource::Query(name) => Some(name),
            TokenSource::Authorization
            | TokenSource::Header(_)
            | TokenSource::Cookie(_)
            | TokenSource::WebSocket(_) => None,
        });
        names.fold(target, |target, name| Cow::Owned(name.strip(&target)))
    }

    /// Text of a target without its tokens; `None` if it has none, or is not valid.
    pub fn bare_target(&self, uri: &Uri) -> Option<String> {
        let path = CanonicalPath::parse(uri.path()).ok()?;
        let target = RequestTarget::read(uri, path).ok()?;
        let bare = self.strip_target(Cow::Borrowed(&target));
        (*bare != target).then(|| bare.as_str().to_owned())
    }
}

impl TokenFilter<'_> {
    /// Value of a field without tokens; `None` removes the field.
    pub fn value<'v>(&self, name: &HeaderName, value: &'v [u8]) -> Option<Cow<'v, [u8]>> {
        // A proof is for the gate alone, and for one request.
        if *name == DPOP {
            return None;
        }
        let mut value = Cow::Borrowed(value);
        for source in self.sources {
            let Some(own) = source.header() else {
                continue;
            };
            if own != name {
                // An upstream could read its token from the other spelling.
                if alike(name.as_str(), own.as_str()) {
                    return None;
                }
                continue;
            }
            value = match source {
                TokenSource::Authorization | TokenSource::Header(_) => return None,
                TokenSource::Cookie(cookie) => cookie.without_token(value)?,
                TokenSource::WebSocket(_) if self.subprotocols.is_some() => return None,
                TokenSource::WebSocket(_) | TokenSource::Query(_) => value,
            };
        }
        if self.sessions.is_none() && self.other_sessions.is_empty() {
            return Some(value);
        }
        let mut sessions = self.sessions.into_iter().chain(self.other_sessions);
        if *name == COOKIE {
            return sessions.try_fold(value, |value, sessions| sessions.without_session(value));
        }
        let may_be_cookie = sessions.next().is_some() && alike(name.as_str(), COOKIE.as_str());
        (!may_be_cookie).then_some(value)
    }

    /// Value of the one `Sec-WebSocket-Protocol` that replaces the removed ones.
    pub fn subprotocols(&self) -> Option<&[u8]> {
        let rest = self.subprotocols.as_deref();
        rest.filter(|rest| !rest.is_empty())
    }
}

impl TokenSource {
    /// Reads the source. An empty value counts as absent.
    fn find<'a>(
        &self,
        inbound: &'a Inbound,
        accepts_dpop: bool,
    ) -> Result<Option<(Cow<'a, str>, Scheme)>, Refusal> {
        let head = &inbound.head;
        let found = match self {
            Self::Authorization => {
                let found = authorization(&head.headers, accepts_dpop)?;
                return Ok(found.filter(|(text, _)| !text.is_empty()));
            }
            Self::Header(name) => header_token(&head.headers, name)?,
            Self::Cookie(name) => name.find(&head.headers)?,
            Self::Query(name) => name.find(&head.uri)?,
            Self::WebSocket(name) => name.find(inbound)?,
        };
        let found = found.filter(|text| !text.is_empty());
        Ok(found.map(|text| (text, Scheme::Bearer)))
    }

    /// Header of the source; `None` for the query.
    fn header(&self) -> Option<&HeaderName> {
        match self {
            Self::Authorization => Some(&AUTHORIZATION),
            Self::Header(name) => Some(name),
            Self::Cookie(_) => Some(&COOKIE),
            Self::WebSocket(_) => Some(&SEC_WEBSOCKET_PROTOCOL),
            Self::Query(_) => None,
        }
    }

    /// Returns whether one token could be in both sources.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cookie(one), Self::Cookie(other)) => one.overlaps(other),
            (Self::Header(one), Self::Header(other)) => alike(one.as_str(), other.as_str()),
            _ => self == other,
        }
    }
}

/// Names of all sources, as in "`Authorization`, the header `x-token` or the cookie `session`".
impl fmt::Display for TokenSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sessions = self.sessions.as_ref().filter(|it| it.reads_cookie);
        let sources = self
            .sources
            .iter()
            .map(|source| source as &dyn fmt::Display);
        let all = sources.chain(sessions.map(|sessions| sessions as &dyn fmt::Display));
        let last = all.clone().count().saturating_sub(1);
        for (index, source) in all.enumerate() {
            let separator = match index {
                0 => "",
                _ if index == last => " or ",
                _ => ", ",
            };
            write!(f, "{separator}{source}")?;
        }
        Ok(())
    }
}

impl fmt::Display for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authorization => write!(f, "`Authorization`"),
            Self::Header(name) => write!(f, "the header `{name}`"),
            Self::Cookie(name) => write!(f, "the cookie `{}`", name.as_str()),
            Self::Query(name) => write!(f, "the query parameter `{}`", name.as_str()),
            Self::WebSocket(name) => write!(f, "the subprotocol after `{}`", name.as_str()),
        }
    }
}

/// Token of `Authorization`, with its scheme.
fn authorization(
    headers: &HeaderMap,
    accepts_dpop: bool,
) -> Result<Option<(Cow<'_, str>, Scheme)>, Refusal> {
    let Some(text) = single_text(headers, &AUTHORIZATION)? else {
        return Ok(None);
    };
    if let Some(token) = after_scheme("bearer", text) {
        return Ok(Some((token.into(), Scheme::Bearer)));
    }
    let bound = after_scheme("dpop", text).filter(|_| accepts_dpop);
    Ok(bound.map(|token| (token.into(), Scheme::Dpop)))
}

/// Token of another header.
fn header_token<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<Cow<'a, str>>, Refusal> {
    let Some(text) = single_text(headers, name)? else {
        return Ok(None);
    };
    Ok(Some(after_scheme("bearer", text).unwrap_or(text).into()))
}

/// Cause for which a value of `Authorization` is no token.
fn near_miss(value: &[u8]) -> Option<NearMiss> {
    let value = value.trim_ascii();
    let token_bytes = value.iter().filter(|byte| is_token_byte(**byte)).count();
    if value.is_empty() {
        None
    } else if value.eq_ignore_ascii_case(b"bearer") {
        Some(NearMiss::NoToken)
    } else if token_bytes == value.len() && value.contains(&b'.') {
        Some(NearMiss::NoScheme)
    } else {
        Some(NearMiss::OtherScheme)
    }
}

/// Text after a scheme; `None` for another scheme.
fn after_scheme<'a>(name: &str, text: &'a str) -> Option<&'a str> {
    let (scheme, rest) = text.split_at_checked(name.len())?;
    // RFC 9110 section 11.1: scheme names are case-insensitive.
    if !scheme.eq_ignore_ascii_case(name) {
        return None;
    }
    match rest.strip_prefix(' ') {
        Some(token) => Some(token),
        None => rest.is_empty().then_some(rest),
    }
}

/// Text of a field; `None` if it is absent. Refuses a repeated field.
fn single_text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let value = single_value(headers, name).map_err(|Repeated| Refusal::TokenRepeated)?;
    let text = value.map(HeaderValue::to_str).transpose();
    text.map_err(|_| Refusal::TokenMalformed(TokenFault::NotAscii))
}

/// `tchar` (RFC 9110 section 5.6.2).
fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl FoundToken<'_> {
    pub(super) fn token(&self) -> BearerToken<'_> {
        BearerToken(&self.text)
    }

    /// Credential for an exchange.
    pub(super) fn credential(&self, form: &CredentialForm) -> Credential {
        let credential = Credential::new(form.clone(), &self.text);
        if self.ends_with_browser {
            credential.without_refresh()
        } else {
            credential
        }
    }
}

impl<'a> BearerToken<'a> {
    /// Checks the form of a token without its scheme, and its length.
    pub fn new(token: &'a str, max_bytes: usize) -> Result<Self, Refusal> {
        if is_session_token(token) {
            return Err(Refusal::TokenOpaque);
        }
        // `all` stops at the first invalid byte; without that branch, the loop can be vectorized.
        let is_plain = token
            .bytes()
            .fold(true, |valid, byte| valid & is_token_byte(byte));
        if token.len() > max_bytes {
            return Err(Refusal::TokenMalformed(TokenFault::TooLong(max_bytes)));
        }
        if !is_plain {
            return Err(Refusal::TokenMalformed(TokenFault::of(token)));
        }
        Ok(Self(token))
    }

    /// Length in bytes.
    pub(super) fn length(self) -> usize {
        self.0.len()
    }

    /// Text of the token, for verification only.
    pub(super) fn expose(self) -> &'a str {
        self.0
    }
}

/// Returns whether a text is an opaque access token and no JWT: the characters of RFC 6750 section 2.1, without a dot.
pub fn is_opaque(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_~+/=".contains(&byte);
    text.len() >= MIN_OPAQUE_BYTES && text.bytes().all(is_plain)
}

/// Bytes of a compact JWS: base64url and dots (RFC 7515 section 7.1).
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
