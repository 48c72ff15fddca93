//! `[issuers.NAME]`: trusted token issuers.

use std::path::PathBuf;
use std::time::Duration;

use super::better_auth::BetterAuth;
use super::dpop::DpopMode;
use super::introspection::Introspection;
#[cfg(test)]
use super::schema;
use super::units::{self, OneOrMany};

/// Refresh interval of a remote key set, if neither the configuration nor the response sets one.
pub const DEFAULT_REFRESH: Duration = Duration::from_mins(5);

/// Default of `max_stale`.
pub const DEFAULT_MAX_STALE: Duration = Duration::from_hours(24);

#[derive(Debug, Clone, PartialEq, serde::Deserialize, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// Key source. Required unless `better_auth` is set.
    #[serde(default)]
    pub keys: Option<Keys>,
    /// Better Auth server, from which key set URL, issuer and audience are derived.
    #[serde(default)]
    pub better_auth: Option<BetterAuth>,
    /// Token introspection, for opaque tokens and as a check that a JWT has not been revoked.
    #[serde(default)]
    pub introspection: Option<Introspection>,
    /// Accepted signature algorithms. Default: all algorithms that the keys support.
    #[serde(default)]
    pub algorithms: Option<Vec<String>>,
    /// Accepted values of `iss`. Default: any, or derived from the key source.
    #[serde(default)]
    pub issuer: Option<OneOrMany>,
    /// Accepted values of `aud`. Default: any, or derived from the key source.
    #[serde(default)]
    pub audience: Option<OneOrMany>,
    /// Accepts tokens for any audience without a warning. Not with `audience`.
    #[serde(default)]
    pub allow_any_audience: bool,
    /// Claims that hold the subject, in order of preference.
    #[serde(default = "subject_claims")]
    pub subject: Vec<String>,
    /// Prefix of the subject, so that it differs from the subjects of other issuers. Default: none.
    #[serde(default)]
    pub subject_prefix: Option<String>,
    /// Longest accepted token, in bytes. Default: 8 KiB.
    #[serde(default, with = "units::optional_size")]
    #[cfg_attr(test, schemars(with = "Option<schema::Size>"))]
    pub max_token_bytes: Option<u64>,
    /// Accepted clock skew between issuer and gate, at most five minutes.
    #[serde(default = "thirty_seconds", with = "units::duration")]
    #[cfg_attr(test, schemars(with = "schema::Duration"))]
    pub leeway: Duration,
    /// Longest accepted time between `iat` and `exp`.
    #[serde(default, with = "units::optional_duration")]
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub max_lifetime: Option<Duration>,
    /// Accepted values of the `typ` header. A token without `typ` counts as `JWT`.
    #[serde(default = "jwt_only")]
    pub types: Vec<String>,
    /// Further kinds of tokens of this issuer, each with its own types and audience.
    #[serde(default)]
    pub accept: Vec<Accept>,
    /// Accepted values of `azp`. Default: any.
    #[serde(default)]
    pub authorized_party: Option<OneOrMany>,
    /// Tokens that are bound to a key, which the client proves for each request (`DPoP`, RFC 9449).
    #[serde(default)]
    pub dpop: DpopMode,
    /// Requires a nonce of the gate in each proof, and is its lifetime. Default: no nonce.
    #[serde(default, with = "units::optional_duration")]
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub dpop_nonce: Option<Duration>,
    /// Accepts sender-constrained tokens (`cnf`, RFC 7800) without proof of possession. A client
    /// certificate that is presented must still match.
    #[serde(default)]
    pub allow_bound: bool,
    /// Accepts tokens of machines (client credentials grant). Machines own no path.
    #[serde(default)]
    pub machines: bool,
}

/// Element of `accept = [{ … }]`: a kind of token. A token must have one of its types and one of its audiences.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Accept {
    /// Accepted values of the `typ` header.
    pub types: Vec<String>,
    /// Accepted values of `aud`.
    pub audience: OneOrMany,
    /// Claims that hold the subject, in order of preference. Default: those of the issuer.
    #[serde(default)]
    pub subject: Option<Vec<String>>,
}

fn jwt_only() -> Vec<String> {
    vec!["JWT".to_owned()]
}

fn subject_claims() -> Vec<String> {
    vec!["sub".to_owned(), "user_id".to_owned()]
}

fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

/// `keys = { … }`. Exactly one source must be set.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// Environment variable with a shared secret.
    pub secret_env: Option<String>,
    /// File with a shared secret. An optional second line holds the previous secret.
    pub secret_file: Option<PathBuf>,
    /// Encoding of the secret. Only with `secret_env` or `secret_file`.
    pub encoding: Option<Encoding>,
    /// File of PEM public keys.
    pub pem_file: Option<PathBuf>,
    /// File with a JSON Web Key Set (RFC 7517).
    pub jwks_file: Option<PathBuf>,
    /// URL of a JSON Web Key Set.
    pub jwks_url: Option<String>,
    /// URL of the provider metadata (OpenID Connect Discovery), which contains the key set URL.
    pub discovery: Option<String>,
    /// Required `issuer` of the provider metadata, if it differs from the URL. Only with `discovery`.
    pub discovery_issuer: Option<String>,
    /// PEM file of CA certificates for the issuer's server, instead of the system's. Only with a URL.
    pub ca_file: Option<PathBuf>,
    /// File with a bearer token for the issuer's server. Only with a URL.
    pub token_file: Option<PathBuf>,
    /// Refresh interval. Default: `max-age` of the response, else five minutes. Only with a URL.
    #[serde(with = "units::optional_duration")]
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub refresh: Option<Duration>,
    /// Lifetime of keys after the last successful fetch. Default: 24 hours. Only with a URL.
    #[serde(with = "units::optional_duration")]
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub max_stale: Option<Duration>,
    /// `Host` header of the requests to the issuer, if it differs from the URL. Only with a URL.
    pub host: Option<String>,
    /// Allows plaintext HTTP to another machine. Only with a URL.
    pub allow_http: bool,
}

/// Encoding of a secret.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// The text itself.
    #[default]
    Utf8,
    /// RFC 4648 section 4, padding optional.
    Base64,
    /// RFC 4648 section 5, padding optional.
    Base64url,
    /// Two digits per byte.
    Hex,
}
