//! Token among the subprotocols of a WebSocket handshake: a page can set no other header there.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderMap, HeaderValue};

use crate::gate::inbound::Inbound;
use crate::gate::refusal::Refusal;
use crate::gate::token_fault::TokenFault;

use super::is_tchar;

/// Start of a subprotocol that contains the token itself in base64url without padding, as clients of Kubernetes send it
/// (`k8s.io/apiserver/pkg/authentication/request/websocket`).
const ENCODED: &[u8] = b"base64url.bearer.authorization.k8s.io.";

/// Subprotocol that precedes the token, as in `Sec-WebSocket-Protocol: bearer, TOKEN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subprotocol {
    name: String,
    value: HeaderValue,
    reads_encoded: bool,
}

impl Subprotocol {
    /// Checks a subprotocol name (RFC 6455 section 4.1).
    pub fn new(name: &str) -> Option<Self> {
        if name.is_empty() || !name.bytes().all(is_tchar) {
            return None;
        }
        let value = HeaderValue::from_str(name).ok()?;
        let name = name.to_owned();
        Some(Self {
            name,
            value,
            reads_encoded: true,
        })
    }

    /// Reads no subprotocol that contains the token itself. Only one source of a route reads it.
    pub fn ignore_encoded(&mut self) {
        self.reads_encoded = false;
    }

    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Subprotocol of the handshake response if the upstream selects none; `None` if the client did not offer it. A
    /// browser closes a WebSocket if it offered subprotocols and the response selects none.
    pub fn offered_in(&self, headers: &HeaderMap) -> Option<&HeaderValue> {
        let is_offered = offered(headers).any(|name| name == self.name.as_bytes());
        is_offered.then_some(&self.value)
    }

    /// Token of the request, if there is one.
    pub(super) fn find<'a>(&self, inbound: &'a Inbound) -> Result<Option<Cow<'a, str>>, Refusal> {
        if !inbound.opens_websocket {
            return Ok(None);
        }
        let offered: Vec<&[u8]> = offered(&inbound.head.headers).collect();
        let names = |name: &&[u8]| *name == self.name.as_bytes();
        let mut encoded = offered
            .iter()
            .filter_map(|name| name.strip_prefix(ENCODED))
            .filter(|_| self.reads_encoded);
        let first = encoded.next();
        let markers = offered.iter().filter(|name| names(name)).count();
        if markers + usize::from(first.is_some()) + encoded.count() > 1 {
            return Err(Refusal::TokenRepeated);
        }
        if let Some(encoded) = first {
            return decode(encoded).map(Some);
        }
        let mut rest = offered.into_iter().skip_while(|name| !names(name)).skip(1);
        let Some(token) = rest.next() else {
            return Ok(None);
        };
        let token = std::str::from_utf8(token);
        let token = token.map_err(|_| Refusal::TokenMalformed(TokenFault::NotAscii))?;
        Ok(Some(token.into()))
    }

    /// Removes this subprotocol and its token, in both forms, and keeps the others in order.
    fn strip(&self, offered: &mut Vec<&[u8]>) {
        let mut is_token = false;
        offered.retain(|name| {
            let follows = std::mem::take(&mut is_token);
            is_token = !follows && *name == self.name.as_bytes();
            !(follows || is_token || name.starts_with(ENCODED))
        });
    }
}

/// Subprotocols of a head without those that carry a token, joined; `None` if none does.
pub(super) fn without_tokens<'a>(
    names: impl Iterator<Item = &'a Subprotocol>,
    headers: &HeaderMap,
    websocket: bool,
) -> Option<Vec<u8>> {
    let mut names = names.peekable();
    names.peek()?;
    let mut others: Vec<&[u8]> = offered(headers).collect();
    let count = others.len();
    for name in names {
        name.strip(&mut others);
    }
    if others.len() == count {
        return None;
    }
    // Outside a handshake no source has been checked, and subprotocols have no meaning.
    Some(if websocket {
        others.join(&b", "[..])
    } else {
        Vec::new()
    })
}

fn decode<'a>(encoded: &[u8]) -> Result<Cow<'a, str>, Refusal> {
    let token = URL_SAFE_NO_PAD.decode(encoded).ok();
    let token = token.and_then(|token| String::from_utf8(token).ok());
    let malformed = Refusal::TokenMalformed(TokenFault::SubprotocolEncoding);
    token.map(Cow::Owned).ok_or(malformed)
}

/// Subprotocols of all fields, in order.
fn offered(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let names = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    names
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty())
}
