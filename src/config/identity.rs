//! `[identity]`: what the upstream learns about the caller.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `[identity]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// Header = claim, or a part of one as `a.b` or `/a/b`; the word `subject` stands for the subject. `X-User-Id` is always written.
    pub headers: BTreeMap<String, String>,
    /// What becomes of a token that the gate has verified.
    pub credential: Credential,
}

/// Whether the upstream sees the token that the gate has verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Credential {
    /// The upstream does not see it.
    #[default]
    Strip,
    /// The upstream sees it.
    Forward,
}
