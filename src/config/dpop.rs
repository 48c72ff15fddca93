//! `dpop` of issuers and routes: tokens that are bound to a key (RFC 9449).

use serde::{Deserialize, Serialize};

/// Handling of `DPoP` tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum DpopMode {
    /// Rejects the scheme `DPoP`, and tokens that are bound to a key.
    Off,
    /// Accepts bound tokens with their proof, and bearer tokens.
    #[default]
    Accepted,
    /// Rejects tokens that are not bound to a key.
    Required,
}
