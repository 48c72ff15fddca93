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
        let parameters = uri.query().unwrap_or_default().split('&');
        let mut named = parameters.filter(|parameter| self.names(parameter));
        let Some(parameter) = named.next() else {
            return Ok(None);
        };
        if named.next().is_some() {
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

    /// Returns whether a parameter has this name, in any percent-encoding: an upstream would decode it.
    fn names(&self, parameter: &str) -> bool {
        let name = parameter
            .split_once('=')
            .map_or(parameter, |(name, _)| name);
        percent_decode_str(name).eq(self.0.bytes())
    }
}
