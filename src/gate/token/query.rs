//! Token in a query parameter (RFC 6750 section 2.3).

use std::borrow::Cow;

use http::Uri;
use percent_encoding::percent_decode_str;

use crate::gate::refusal::Refusal;
use crate::gate::request_target::RequestTarget;
use crate::gate::token_fault::TokenFault;

/// Name of a query parameter that carries a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterName(String);

impl ParameterName {
    /// Checks a name: it must need no percent-encoding (RFC 3986 section 2.3).
    pub fn new(name: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        (!name.is_empty() && name.bytes().all(plain)).then(|| Self(name.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Token of the request, if there is one.
    pub(super) fn find<'a>(&self, uri: &'a Uri) -> Result<Option<Cow<'a, str>>, Refusal> {
        let query = uri.query().unwrap_or_default();
        let mut parameters = query.split('&');
        let Some(parameter) = parameters.find(|parameter| self.names(parameter)) else {
            return Ok(None);
        };
        if query
            .split(['&', ';'])
            .filter(|one| self.names(one))
            .count()
            > 1
        {
            return Err(Refusal::TokenRepeated);
        }
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if name != self.0 {
            return Err(Refusal::TokenMalformed(TokenFault::ParameterName));
        }
        Ok(Some(value.into()))
    }

    /// Same target without the parameter; the rest is unchanged.
    pub(super) fn strip(&self, target: &RequestTarget) -> RequestTarget {
        target.without_parameters(|parameter| self.names(parameter))
    }

    /// Returns whether an upstream may read this parameter, or one after a `;` in it, as the one with this name.
    fn names(&self, parameter: &str) -> bool {
        parameter.split(';').any(|parameter| {
            let name = parameter.split('=').next().unwrap_or_default();
            folded(name).eq(folded(&self.0))
        })
    }
}

/// Name as servers compare it: percent-decoded; without case, as in ASP.NET; up to `[` and with `_` for a space or dot, as
/// in PHP.
fn folded(name: &str) -> impl Iterator<Item = u8> {
    let decoded = percent_decode_str(name).map(|byte| if byte == b'+' { b' ' } else { byte });
    let name = decoded
        .skip_while(|byte| *byte == b' ')
        .take_while(|byte| !matches!(byte, b'[' | 0));
    name.map(|byte| match byte {
        b' ' | b'.' => b'_',
        other => other.to_ascii_lowercase(),
    })
}
