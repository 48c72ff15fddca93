//! Permits: the proof that forwarding needs.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::clock::UnixTime;

use super::caller_kind::CallerKind;
use super::request_target::RequestTarget;
use super::routes::Route;
use super::subject::Subject;
use super::token::TokenSource;

/// Proof that the gate accepted a request, with its caller. Only the gate creates one, and forwarding consumes it.
///
/// ```compile_fail,E0624
/// # use std::sync::Arc;
/// use claimgate::gate::permit::{Caller, Permit};
/// use claimgate::gate::request_target::RequestTarget;
/// # fn forge(route: Arc<claimgate::gate::routes::Route>, target: RequestTarget) {
/// let forged = Permit::new(Caller::Anonymous, route, None, target);
/// # }
/// ```
#[derive(Debug)]
pub struct Permit {
    caller: Caller,
    route: Arc<Route>,
    source: Option<usize>,
    target: RequestTarget,
}

/// Caller of a permitted request.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Unauthenticated caller of a public route.
    Anonymous,
    /// Subject of a verified token.
    Known(Arc<KnownCaller>),
}

/// Caller identified by a verified token.
#[derive(Debug, Clone)]
pub struct KnownCaller {
    pub kind: CallerKind,
    pub subject: Subject,
    /// Name of the issuer in the configuration.
    pub issuer: Arc<str>,
    /// Time at which the token expires, leeway included.
    pub expires: UnixTime,
    /// Identity headers for the upstream.
    pub headers: Arc<[(HeaderName, HeaderValue)]>,
}

impl Permit {
    pub(super) fn new(
        caller: Caller,
        route: Arc<Route>,
        source: Option<usize>,
        target: RequestTarget,
    ) -> Self {
        Self {
            caller,
            route,
            source,
            target,
        }
    }

    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Source of the token; `None` on a public route.
    pub fn source(&self) -> Option<&TokenSource> {
        self.route.access.tokens.sources.get(self.source?)
    }

    /// Judged target.
    pub fn target(&self) -> &RequestTarget {
        &self.target
    }

    /// Matched route.
    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }
}

#[cfg(test)]
mod tests {
    use http::Uri;

    use crate::gate::path::CanonicalPath;

    use super::*;

    impl Permit {
        /// Permit without a gate, for tests of forwarding.
        pub(crate) fn forged(caller: Caller, route: Route, target: &str) -> Self {
            let uri: Uri = target.parse().unwrap();
            let path = CanonicalPath::parse(uri.path()).unwrap();
            Self {
                caller,
                route: Arc::new(route),
                source: None,
                target: RequestTarget::read(&uri, path).unwrap(),
            }
        }
    }
}
