//! Early ends of a decision: everything but a permit.

use std::sync::Arc;

use http::HeaderMap;

use crate::keys::credential::Credential;

use super::issuer_id::IssuerId;
use super::permit::KnownCaller;
use super::refusal::Refusal;
use super::resource::MetadataResponse;
use super::routes::Route;

/// Reason why a stage of the decision does not lead to the next.
#[derive(Debug)]
pub enum Stop {
    /// The gate responds with a refusal.
    Refuse(Refused),
    /// The gate responds to a CORS preflight.
    Preflight(Box<Preflight>),
    /// The gate responds with the metadata of the protected resource.
    Metadata(Box<MetadataResponse>),
    /// The decision depends on keys that are not available yet.
    NeedsKeys(Box<NeedsKeys>),
    /// The decision depends on the issuer's response about a credential.
    NeedsExchange(Box<NeedsExchange>),
}

/// A refusal, with the facts established before it.
#[derive(Debug)]
pub struct Refused {
    /// Reason, status and text of the response.
    pub refusal: Refusal,
    /// Matched route.
    pub route: Option<Arc<Route>>,
    /// Caller of a verified token.
    pub caller: Option<Arc<KnownCaller>>,
}

/// A CORS preflight that the gate allows.
#[derive(Debug)]
pub struct Preflight {
    /// Route of the preflighted request; `None` if the path has none with this method.
    pub route: Option<Arc<Route>>,
    /// `Access-Control-*` and `Vary` fields of the response.
    pub headers: HeaderMap,
}

/// A decision that waits for a fetch of the issuer's key set.
#[derive(Debug)]
pub struct NeedsKeys {
    /// Issuer of the token.
    pub issuer: IssuerId,
    /// Unknown key ID; `None` if the issuer has no usable keys at all, or may have replaced a key.
    pub kid: Option<String>,
    /// Refusal to respond with when no newer keys arrive.
    pub otherwise: Refused,
}

/// A decision that waits for an exchange.
#[derive(Debug)]
pub struct NeedsExchange {
    /// Issuer of the credential.
    pub issuer: IssuerId,
    pub credential: Arc<Credential>,
    /// Refusal to respond with if no exchange is possible.
    pub otherwise: Refused,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            route: None,
            caller: None,
        }
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal.into())
    }
}

impl Stop {
    /// Refusal of this stop, as it stands without newer keys; `None` for a preflight and metadata.
    pub fn refused(&self) -> Option<&Refused> {
        match self {
            Self::Refuse(refused) => Some(refused),
            Self::NeedsKeys(needs) => Some(&needs.otherwise),
            Self::NeedsExchange(needs) => Some(&needs.otherwise),
            Self::Preflight(_) | Self::Metadata(_) => None,
        }
    }
}
