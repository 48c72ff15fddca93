//! Token among the subprotocols of a WebSocket handshake: a page can set no other header there.

use std::borrow::Cow;

use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderMap, HeaderValue};

use crate::gate::inbound::Inbound;
use crate::gate::refusal::Refusal;
use crate::gate::token_fault::TokenFault;

use super::is_tchar;

/// Subprotocol that precedes the token, as in `Sec-WebSocket-Protocol: bearer, TOKEN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subprotocol {
    name: String,
    value: HeaderValue,
}

impl Subprotocol {
    /// Checks a subprotocol name (RFC 6455 section 4.1).
    pub fn new(name: &str) -> Option<Self> {
        if name.is_empty() || !name.bytes().all(is_tchar) {
            return None;
        }
        let value = HeaderValue::from_str(name).ok()?;
        let name = name.to_owned();
        Some(Self { name, value })
    }

    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Subprotocol of the handshake response if the upstream selects none. A browser closes a WebSocket if it offered
    /// subprotocols and the response selects none.
    pub fn header_value(&self) -> &HeaderValue {
        &self.value
    }

    /// Token of the request, if there is one.
    pub(super) fn find<'a>(&self, inbound: &'a Inbound) -> Result<Option<Cow<'a, str>>, Refusal> {
        if !inbound.opens_websocket {
            return Ok(None);
        }
        let offered: Vec<&[u8]> = offered(&inbound.head.headers).collect();
        let names = |name: &&[u8]| *name == self.name.as_bytes();
        if offered.iter().filter(|name| names(name)).count() > 1 {
            return Err(Refusal::TokenRepeated);
        }
        let mut rest = offered.into_iter().skip_while(|name| !names(name)).skip(1);
        let Some(token) = rest.next() else {
            return Ok(None);
        };
        let token = std::str::from_utf8(token);
        let token = token.map_err(|_| Refusal::TokenMalformed(TokenFault::NotAscii))?;
        Ok(Some(token.into()))
    }

    /// Removes this subprotocol and its token, and keeps the others in order.
    pub(super) fn strip(&self, headers: &mut HeaderMap, websocket: bool) {
        let mut others: Vec<&[u8]> = Vec::new();
        let (mut is_token, mut found) = (false, false);
        for name in offered(headers) {
            if is_token {
                is_token = false;
            } else if name == self.name.as_bytes() {
                (is_token, found) = (true, true);
            } else {
                others.push(name);
            }
        }
        if !found {
            return;
        }
        // Outside a handshake no source has been checked, and subprotocols have no meaning.
        let rest = if websocket {
            others.join(&b", "[..])
        } else {
            Vec::new()
        };
        headers.remove(SEC_WEBSOCKET_PROTOCOL);
        if let (Ok(rest), false) = (HeaderValue::from_bytes(&rest), rest.is_empty()) {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, rest);
        }
    }
}

/// Subprotocols of all fields, in order.
fn offered(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let names = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    names
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty())
}
