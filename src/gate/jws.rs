//! Compact JWS (RFC 7515 section 7.1), taken apart and not yet verified.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::claims::Claims;
use super::token_fault::{Part, PartFault, TokenFault};

/// A compact JWS with a JSON payload.
pub(super) struct CompactJws<'a> {
    /// JOSE header.
    pub(super) header: Claims,
    pub(super) claims: Claims,
    pub(super) signing_input: &'a str,
    /// Signature in canonical base64url.
    pub(super) signature: &'a str,
}

/// Fault of a text that is not a compact JWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JwsFault {
    /// Number of parts, if it is not three.
    Parts(usize),
    /// Fault of one part.
    Part(Part, PartFault),
}

impl From<JwsFault> for TokenFault {
    fn from(fault: JwsFault) -> Self {
        match fault {
            JwsFault::Parts(parts) => Self::Parts(parts),
            JwsFault::Part(part, fault) => Self::Part(part, fault),
        }
    }
}

impl<'a> CompactJws<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, JwsFault> {
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JwsFault::Parts(text.split('.').count()));
        };
        let (signing_input, _) = text.rsplit_once('.').unwrap_or_default();
        let decode = |part, text: &str| {
            let bytes = URL_SAFE_NO_PAD.decode(text);
            bytes.map_err(|_| JwsFault::Part(part, PartFault::Encoding))
        };
        let (header, payload) = (
            decode(Part::Header, header)?,
            decode(Part::Claims, payload)?,
        );
        // An unsecured token (RFC 7515 appendix A.5) has an empty signature, which no key made.
        decode(Part::Signature, signature)?;
        let object = |part, json: &[u8]| {
            let object = Claims::parse(json);
            object.map_err(|fault| JwsFault::Part(part, fault))
        };
        // A malformed payload is reported before any fault of the header.
        let claims = object(Part::Claims, &payload)?;
        Ok(Self {
            header: object(Part::Header, &header)?,
            claims,
            signing_input,
            signature,
        })
    }

    /// Header member that changes the meaning of the JWS (RFC 7515 section 4.1.11, RFC 7797 section 3, RFC 7516
    /// section 4.1.3). The gate supports no extension that `crit` could name.
    pub(super) fn extension(&self) -> Option<&'static str> {
        let mut extensions = ["crit", "b64", "zip"].into_iter();
        extensions.find(|name| self.header.get(name).is_some())
    }
}

/// Compares two types as media types (RFC 7515 section 4.1.9).
pub(super) fn is_same_type(one: &str, other: &str) -> bool {
    media_type(one).eq_ignore_ascii_case(media_type(other))
}

/// Returns a type without the `application/` prefix (RFC 7515 section 4.1.9).
fn media_type(typ: &str) -> &str {
    let prefix = "application/";
    match typ.split_at_checked(prefix.len()) {
        Some((start, name)) if start.eq_ignore_ascii_case(prefix) && !name.contains('/') => name,
        Some(_) | None => typ,
    }
}

impl fmt::Debug for CompactJws<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CompactJws(..)")
    }
}
