//! Token in a cookie, whole or in pieces (RFC 6265 section 4.2.1).

use std::borrow::Cow;

use http::HeaderMap;
use http::header::COOKIE;

use crate::gate::refusal::Refusal;
use crate::gate::token_fault::TokenFault;

use super::is_tchar;

/// Prefixes of cookies that only a secure page can set (draft-ietf-httpbis-rfc6265bis section 4.1.3).
const PREFIXES: [&str; 2] = ["__Secure-", "__Host-"];

/// Name of a cookie that carries a token, with or without a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieName {
    /// Configured name, then its prefixed forms.
    spellings: Vec<String>,
}

/// Part of a token in one cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Whole,
    /// Piece of a token that does not fit into one cookie, split into `name.0`, `name.1`, ….
    Piece(usize),
}

impl CookieName {
    /// Checks a cookie name.
    pub fn new(name: &str) -> Option<Self> {
        if name.is_empty() || !name.bytes().all(is_tchar) {
            return None;
        }
        let mut spellings = vec![name.to_owned()];
        if !PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            spellings.extend(PREFIXES.map(|prefix| format!("{prefix}{name}")));
        }
        Some(Self { spellings })
    }

    /// Configured name.
    pub fn as_str(&self) -> &str {
        self.spellings.first().map_or("", String::as_str)
    }

    /// Returns whether one cookie could match both names.
    pub fn overlaps(&self, other: &Self) -> bool {
        let has = |one: &Self, other: &Self| {
            let mut names = other.spellings.iter();
            names.any(|name| one.part(name.as_bytes()).is_some())
        };
        has(self, other) || has(other, self)
    }

    /// Token of the request, if there is one.
    pub(super) fn find<'a>(&self, headers: &'a HeaderMap) -> Result<Option<Cow<'a, str>>, Refusal> {
        let values = headers.get_all(COOKIE).iter();
        let pairs = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
        let mut parts: Vec<(Part, usize, &[u8])> = pairs
            .filter_map(|pair| {
                let (name, value) = split(pair);
                let (spelling, part) = self.part(name)?;
                Some((part, spelling, unquoted(value)))
            })
            .collect();
        match parts.as_slice() {
            [] => Ok(None),
            [(Part::Whole, _, value)] => Ok(Some(text(value)?.into())),
            _ => {
                parts.sort_unstable_by_key(|(part, ..)| *part);
                join(&parts).map(Some)
            }
        }
    }

    /// Value of a `Cookie` field without the token's cookies; the others are unchanged. `None` if there are no others.
    pub(super) fn without_token<'a>(&self, value: Cow<'a, [u8]>) -> Option<Cow<'a, [u8]>> {
        self.without(value, |_| true)
    }

    /// Like [`CookieName::without_token`], and without the cookies whose names `is_kept` rejects.
    pub(super) fn without<'a>(
        &self,
        value: Cow<'a, [u8]>,
        is_kept: impl Fn(&[u8]) -> bool,
    ) -> Option<Cow<'a, [u8]>> {
        let is_other = |pair: &&[u8]| {
            let (name, _) = split(pair);
            is_kept(name) && self.part(name).is_none()
        };
        let pairs = value.split(|byte| *byte == b';');
        if pairs.clone().all(|pair| is_other(&pair)) {
            return Some(value);
        }
        let others: Vec<&[u8]> = pairs.filter(is_other).collect();
        let rest = others.join(&b';').trim_ascii_start().to_vec();
        (!rest.is_empty()).then_some(rest.into())
    }

    /// Spelling and part that a cookie name matches.
    fn part(&self, name: &[u8]) -> Option<(usize, Part)> {
        let mut spellings = self.spellings.iter().enumerate();
        spellings.find_map(|(spelling, accepted)| {
            let part = match name.strip_prefix(accepted.as_bytes())? {
                [] => Part::Whole,
                [b'.', digits @ ..] => Part::Piece(piece_number(digits)?),
                _ => return None,
            };
            Some((spelling, part))
        })
    }
}

/// Parses a piece number: 0 to 99, without a leading zero. No accepted token needs more pieces.
fn piece_number(digits: &[u8]) -> Option<usize> {
    let digit = |byte: u8| usize::from(byte - b'0');
    match *digits {
        [one @ b'0'..=b'9'] => Some(digit(one)),
        [ten @ b'1'..=b'9', one @ b'0'..=b'9'] => Some(10 * digit(ten) + digit(one)),
        _ => None,
    }
}

/// Splits a cookie into name and value.
pub(super) fn split(pair: &[u8]) -> (&[u8], &[u8]) {
    let mut halves = pair.splitn(2, |byte| *byte == b'=');
    let mut half = || halves.next().unwrap_or_default().trim_ascii();
    (half(), half())
}

/// Value without its double quotes (RFC 6265 section 4.1.1).
fn unquoted(value: &[u8]) -> &[u8] {
    let inner = value.strip_prefix(b"\"");
    inner
        .and_then(|inner| inner.strip_suffix(b"\""))
        .unwrap_or(value)
}

fn text(value: &[u8]) -> Result<&str, Refusal> {
    let text = std::str::from_utf8(value);
    text.map_err(|_| Refusal::TokenMalformed(TokenFault::NotAscii))
}

/// Joins the pieces of one token, sorted by number.
fn join<'a>(parts: &[(Part, usize, &[u8])]) -> Result<Cow<'a, str>, Refusal> {
    for pair in parts.windows(2) {
        let [(part, spelling, _), (next, next_spelling, _)] = pair else {
            continue;
        };
        if *part == Part::Whole || part == next || spelling != next_spelling {
            return Err(Refusal::TokenRepeated);
        }
    }
    let mut joined = String::new();
    for (number, (part, _, value)) in parts.iter().enumerate() {
        if *part != Part::Piece(number) {
            return Err(Refusal::TokenMalformed(TokenFault::CookiePiece));
        }
        joined.push_str(text(value)?);
    }
    Ok(joined.into())
}
