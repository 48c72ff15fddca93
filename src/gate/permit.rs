//! Proof that the gate let a request through.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::clock::UnixTime;

use super::routes::Route;
use super::subject::Subject;
use super::token::TokenSource;

/// Proof that the gate let a request through, and as whose. Only the gate can make one; the act of
/// forwarding uses it up.
///
/// ```compile_fail,E0624
/// # use std::sync::Arc;
/// use claimgate::gate::permit::{Caller, Permit};
/// # fn forge(route: Arc<claimgate::gate::routes::Route>) {
/// let forged = Permit::new(Caller::Anonymous, route, None);
/// # }
/// ```
#[derive(Debug)]
pub struct Permit {
    caller: Caller,
    route: Arc<Route>,
    source: Option<usize>,
}

/// Who asked.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Nobody had to say: the route is public.
    Anonymous,
    /// The subject of a verified token.
    Known(Arc<KnownCaller>),
}

/// What a verified token says about the caller.
#[derive(Debug, Clone)]
pub struct KnownCaller {
    /// The subject.
    pub subject: Subject,
    /// The name of the issuer, as the configuration has it.
    pub issuer: Arc<str>,
    /// From when on the token is not good any more, the leeway included.
    pub expires: UnixTime,
    /// The identity headers for the upstream.
    pub headers: Arc<[(HeaderName, HeaderValue)]>,
}

impl Permit {
    pub(super) fn new(caller: Caller, route: Arc<Route>, source: Option<usize>) -> Self {
        Self {
            caller,
            route,
            source,
        }
    }

    /// Who asked.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Where the token was, if one was looked for.
    pub fn source(&self) -> Option<&TokenSource> {
        self.route.access.tokens.sources.get(self.source?)
    }

    /// The route that lets the request through.
    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Permit {
        /// A permit that no gate gave, for tests of what is done with one.
        pub(crate) fn forged(caller: Caller, route: Route) -> Self {
            Self {
                caller,
                route: Arc::new(route),
                source: None,
            }
        }
    }
}
