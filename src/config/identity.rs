//! `[identity]`: identity headers and the forwarding of tokens.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// Header name to claim path (`a.b` or `/a/b`), `subject`, or `certificate:FIELD`. `X-User-Id` is always set to
    /// the subject.
    pub headers: BTreeMap<String, String>,
    /// Treatment of a verified token in the forwarded request.
    pub credential: Credential,
}

/// Treatment of a verified token in the forwarded request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Credential {
    /// Removes the token.
    #[default]
    Strip,
    /// Forwards the token unchanged.
    Forward,
}
