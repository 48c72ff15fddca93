//! A token in a cookie, in one piece or in several (RFC 6265 section 4.2.1).

use std::borrow::Cow;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

use crate::gate::refusal::Refusal;

use super::is_name_byte;

/// What a browser lets only a secure page set (draft-ietf-httpbis-rfc6265bis section 4.1.3).
const PREFIXES: [&str; 2] = ["__Secure-", "__Host-"];

/// The name of a cookie that carries a token: as configured, and with a prefix before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieName {
    spellings: Vec<String>,
}

/// Which part of a token a cookie has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// All of it.
    Whole,
    /// One of several pieces, counted from 0: what does not fit into one cookie is split into `name.0`, `name.1`, ….
    Piece(usize),
}

impl CookieName {
    /// Takes a name that a cookie can have.
    pub fn new(name: &str) -> Option<Self> {
        if name.is_empty() || !name.bytes().all(is_name_byte) {
            return None;
        }
        let mut spellings = vec![name.to_owned()];
        if !PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            spellings.extend(PREFIXES.map(|prefix| format!("{prefix}{name}")));
        }
        Some(Self { spellings })
    }

    /// The name as configured.
    pub fn as_str(&self) -> &str {
        self.spellings.first().map_or("", String::as_str)
    }

    /// Whether one cookie could be of both names.
    pub fn overlaps(&self, other: &Self) -> bool {
        let has = |one: &Self, other: &Self| {
            let mut names = other.spellings.iter();
            names.any(|name| one.part(name.as_bytes()).is_some())
        };
        has(self, other) || has(other, self)
    }

    /// The token, if there is one.
    pub(super) fn take<'a>(&self, headers: &'a HeaderMap) -> Result<Option<Cow<'a, str>>, Refusal> {
        let values = headers.get_all(COOKIE).iter();
        let pairs = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
        let mut parts: Vec<(Part, usize, &[u8])> = pairs
            .filter_map(|pair| {
                let (name, value) = split(pair);
                let (spelling, part) = self.part(name)?;
                Some((part, spelling, value))
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

    /// Takes the token's cookies out, and leaves every other as it came.
    pub(super) fn strip(&self, headers: &mut HeaderMap) {
        let came: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
        headers.remove(COOKIE);
        for value in came {
            if let Some(rest) = self.without(value) {
                headers.append(COOKIE, rest);
            }
        }
    }

    fn without(&self, value: HeaderValue) -> Option<HeaderValue> {
        let is_other = |pair: &&[u8]| self.part(split(pair).0).is_none();
        let pairs = value.as_bytes().split(|byte| *byte == b';');
        if pairs.clone().all(|pair| is_other(&pair)) {
            return Some(value);
        }
        let others: Vec<&[u8]> = pairs.filter(is_other).collect();
        let rest = others.join(&b';');
        let rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return None;
        }
        HeaderValue::from_bytes(rest).ok()
    }

    /// In which spelling this is the name, and of which part.
    fn part(&self, name: &[u8]) -> Option<(usize, Part)> {
        let mut spellings = self.spellings.iter().enumerate();
        spellings.find_map(|(spelling, accepted)| {
            let part = match name.strip_prefix(accepted.as_bytes())? {
                [] => Part::Whole,
                [b'.', digits @ ..] => Part::Piece(number(digits)?),
                _ => return None,
            };
            Some((spelling, part))
        })
    }
}

/// `0` to `99`, in one way: nobody splits a token that is looked at into more.
fn number(digits: &[u8]) -> Option<usize> {
    let digit = |byte: u8| usize::from(byte - b'0');
    match *digits {
        [one @ b'0'..=b'9'] => Some(digit(one)),
        [ten @ b'1'..=b'9', one @ b'0'..=b'9'] => Some(10 * digit(ten) + digit(one)),
        _ => None,
    }
}

/// Name and value of a cookie.
fn split(pair: &[u8]) -> (&[u8], &[u8]) {
    let mut halves = pair.splitn(2, |byte| *byte == b'=');
    let mut half = || halves.next().unwrap_or_default().trim_ascii();
    (half(), half())
}

fn text(value: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(value).map_err(|_| Refusal::TokenMalformed)
}

/// Joins the pieces of one token, which are in the order of their numbers.
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
    for (place, (part, _, value)) in parts.iter().enumerate() {
        if *part != Part::Piece(place) {
            return Err(Refusal::TokenMalformed);
        }
        joined.push_str(text(value)?);
    }
    Ok(joined.into())
}
