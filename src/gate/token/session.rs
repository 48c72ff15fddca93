//! Session cookies of Better Auth.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::COOKIE;

use crate::gate::issuer_id::IssuerId;
use crate::gate::refusal::Refusal;
use crate::keys::credential::{Credential, CredentialForm};

use super::cookie::{CookieName, split};
use super::is_tchar;

/// Prefix of the cookies of a server with an https URL.
const SECURE: &str = "__Secure-";

/// Sessions of one issuer, as requests carry them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSource {
    pub issuer: IssuerId,
    /// Names of the cookie with the session token: `__Secure-…` first, which only a secure page can set.
    names: [Arc<str>; 2],
    /// Name of the cookie that marks a session as ending with the browser, without `__Secure-`.
    dont_remember: Arc<str>,
    /// Cookie cache. Removed together with the session token.
    cache: CookieName,
    /// True if the session cookie is a token source.
    pub reads_cookie: bool,
    /// True if the cookie cache is a JWT and a token source.
    pub reads_cache: bool,
}

/// Session cookie of a request.
pub(super) struct SessionCookie<'a> {
    pub(super) name: &'a Arc<str>,
    pub(super) value: &'a str,
    /// True if the session ends with the browser.
    pub(super) ends_with_browser: bool,
}

impl SessionSource {
    /// Sessions with the cookie names of `prefix`; `None` if it cannot start a cookie name.
    pub fn new(issuer: IssuerId, prefix: &str) -> Option<Self> {
        if prefix.is_empty() || !prefix.bytes().all(is_tchar) {
            return None;
        }
        let plain = format!("{prefix}.session_token");
        Some(Self {
            issuer,
            names: [format!("{SECURE}{plain}").into(), plain.into()],
            dont_remember: format!("{prefix}.dont_remember").into(),
            cache: CookieName::new(&format!("{prefix}.session_data"))?,
            reads_cookie: true,
            reads_cache: false,
        })
    }

    /// Session cookie of a request. Refuses a repeated one. With both names present, the secure one counts: a page
    /// without TLS can set the other.
    pub(super) fn find<'a>(
        &'a self,
        headers: &'a HeaderMap,
    ) -> Result<Option<SessionCookie<'a>>, Refusal> {
        for name in &self.names {
            let values = headers.get_all(COOKIE).iter();
            let pairs = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
            let mut values = pairs.filter_map(|pair| {
                let (found, value) = split(pair);
                (found == name.as_bytes() && !value.is_empty()).then_some(value)
            });
            match (values.next(), values.next()) {
                (None, _) => {}
                (Some(value), None) => {
                    // Another form is no session of Better Auth, and is not sent there.
                    let value = std::str::from_utf8(value).ok().filter(|it| is_signed(it));
                    let value = value.ok_or(Refusal::SessionInvalid)?;
                    return Ok(Some(SessionCookie {
                        name,
                        value,
                        ends_with_browser: self.ends_with_browser(headers),
                    }));
                }
                (Some(_), Some(_)) => return Err(Refusal::TokenRepeated),
            }
        }
        Ok(None)
    }

    /// Credential in the session cookie of a request. Refuses a repeated one.
    pub fn credential(&self, headers: &HeaderMap) -> Result<Option<Credential>, Refusal> {
        let found = self.find(headers)?;
        Ok(found.map(|cookie| Credential::new(cookie.form(), cookie.value)))
    }

    fn ends_with_browser(&self, headers: &HeaderMap) -> bool {
        let values = headers.get_all(COOKIE).iter();
        let mut pairs = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
        pairs.any(|pair| {
            let (name, _) = split(pair);
            let name = name.strip_prefix(SECURE.as_bytes()).unwrap_or(name);
            name == self.dont_remember.as_bytes()
        })
    }

    /// JWT of the cookie cache, if it is a token source.
    pub(super) fn find_cache<'a>(
        &self,
        headers: &'a HeaderMap,
    ) -> Result<Option<Cow<'a, str>>, Refusal> {
        if !self.reads_cache {
            return Ok(None);
        }
        self.cache.find(headers)
    }

    /// Value of a `Cookie` field without the cookies of a session; `None` if there are no others.
    pub(super) fn without_session<'a>(&self, value: Cow<'a, [u8]>) -> Option<Cow<'a, [u8]>> {
        let is_session = |name: &[u8]| self.names.iter().any(|own| own.as_bytes() == name);
        self.cache.without(value, |name| !is_session(name))
    }

    /// Name of the session cookie, without `__Secure-`.
    pub fn cookie(&self) -> &str {
        let [_, plain] = &self.names;
        plain
    }
}

impl SessionCookie<'_> {
    pub(super) fn form(&self) -> CredentialForm {
        CredentialForm::SessionCookie(Arc::clone(self.name))
    }
}

impl fmt::Display for SessionSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the session cookie `{}`", self.cookie())
    }
}

/// Returns whether a text is a session token of Better Auth: 32 letters and digits, alone or with a dot and an
/// HMAC-SHA256 in base64, possibly percent-encoded.
pub fn is_session_token(token: &str) -> bool {
    match token.as_bytes().split_at_checked(32) {
        Some((name, [] | [b'.'])) => name.iter().all(u8::is_ascii_alphanumeric),
        Some(_) => is_signed(token),
        None => false,
    }
}

/// Returns whether a text is a session token with its signature, as cookies carry it.
fn is_signed(token: &str) -> bool {
    match token.as_bytes().split_at_checked(32) {
        Some((name, [b'.', signature @ ..])) => {
            name.iter().all(u8::is_ascii_alphanumeric) && is_signature(signature)
        }
        Some(_) | None => false,
    }
}

/// Returns whether a text is 32 bytes in padded base64, possibly percent-encoded.
fn is_signature(text: &[u8]) -> bool {
    let decoded: Vec<u8> = percent_encoding::percent_decode(text).collect();
    STANDARD
        .decode(decoded)
        .is_ok_and(|bytes| bytes.len() == 32)
}
