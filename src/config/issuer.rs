//! `[issuers.NAME]`: whose tokens are good.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::units::{self, OneOrMany};

/// `[issuers.NAME]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// Where the keys come from; unless `better_auth` says.
    #[serde(default)]
    pub keys: Option<Keys>,
    /// The URL of a Better Auth server: key set, issuer and audience follow from it.
    #[serde(default)]
    pub better_auth: Option<String>,
    /// The algorithms its keys may verify; left out, the keys decide.
    #[serde(default)]
    pub algorithms: Option<Vec<String>>,
    /// The accepted values of `iss`; left out, `iss` is not looked at.
    #[serde(default)]
    pub issuer: Option<OneOrMany>,
    /// The accepted values of `aud`; left out, `aud` is not looked at.
    #[serde(default)]
    pub audience: Option<OneOrMany>,
    /// The claims that name the subject; the first that is present counts.
    #[serde(default = "subject_claims")]
    pub subject: Vec<String>,
    /// How far the clocks of issuer and gate may differ; at most five minutes.
    #[serde(default = "half_a_minute", deserialize_with = "units::duration")]
    pub leeway: Duration,
    /// The longest accepted time from `iat` to `exp`.
    #[serde(default, deserialize_with = "units::optional_duration")]
    pub max_lifetime: Option<Duration>,
    /// The accepted values of `typ`; a token without one counts as a `JWT`.
    #[serde(default = "jwt_only")]
    pub types: Vec<String>,
    /// The accepted values of `azp`; left out, `azp` is not looked at.
    #[serde(default)]
    pub authorized_party: Option<OneOrMany>,
    /// Whether a token that is bound to a key is accepted, although the gate does not check that the caller has the key.
    #[serde(default)]
    pub allow_bound: bool,
}

fn jwt_only() -> Vec<String> {
    vec!["JWT".to_owned()]
}

fn subject_claims() -> Vec<String> {
    vec!["sub".to_owned(), "user_id".to_owned()]
}

fn half_a_minute() -> Duration {
    Duration::from_secs(30)
}

/// `keys = { … }`: exactly one source.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// The environment variable that holds a shared secret.
    pub secret_env: Option<String>,
    /// The file that holds a shared secret, and in a second line perhaps the one before it.
    pub secret_file: Option<PathBuf>,
    /// How the secret is written; only with `secret_env` or `secret_file`.
    pub encoding: Option<Encoding>,
    /// A file of PEM public keys.
    pub pem_file: Option<PathBuf>,
    /// A file with a JSON Web Key Set (RFC 7517).
    pub jwks_file: Option<PathBuf>,
    /// The URL of a JSON Web Key Set.
    pub jwks_url: Option<String>,
    /// The URL of an issuer's description (OpenID Connect Discovery), which says where its key set is.
    pub discovery: Option<String>,
    /// A file of PEM certificates that prove who the issuer's server is, instead of the system's; only for a fetch.
    pub ca_file: Option<PathBuf>,
    /// A file with a bearer token for the issuer's server; only for a fetch.
    pub token_file: Option<PathBuf>,
    /// How often the set is fetched again; only for a fetch.
    #[serde(deserialize_with = "units::optional_duration")]
    pub refresh: Option<Duration>,
    /// How long keys are used after the last successful fetch; only for a fetch.
    #[serde(deserialize_with = "units::optional_duration")]
    pub max_stale: Option<Duration>,
    /// Whether the set may be fetched without TLS from another machine; only for a fetch.
    pub allow_http: bool,
}

/// How a secret is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// The bytes are the secret.
    #[default]
    Utf8,
    /// RFC 4648 section 4, padded or not.
    Base64,
    /// RFC 4648 section 5, padded or not.
    Base64url,
    /// Two digits a byte.
    Hex,
}
