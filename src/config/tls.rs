//! `[listen.tls]`: certificates of a listener, and mutual TLS.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

#[cfg(test)]
use super::schema;
use super::units;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the certificate chain, leaf first.
    pub certificate: PathBuf,
    /// PEM file of the private key.
    pub key: PathBuf,
    /// Additional certificates, selected by server name (SNI). `certificate` is the default.
    #[serde(default)]
    pub more: Vec<CertificateFiles>,
    /// Lowest accepted TLS version.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// PEM file of CA certificates for client certificates (mTLS).
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// PEM file of certificate revocation lists. Only with `client_ca`.
    #[serde(default)]
    pub client_crl: Option<PathBuf>,
    /// Client certificate requirement. Only with `client_ca`.
    #[serde(default)]
    pub client_certificate: Option<ClientAuth>,
    /// HSTS `max-age`. Default: no header.
    #[serde(default, with = "units::hsts")]
    #[cfg_attr(test, schemars(with = "Option<schema::Duration>"))]
    pub hsts: Option<Duration>,
}

/// Certificate chain and private key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// PEM file of the certificate chain, leaf first.
    pub certificate: PathBuf,
    /// PEM file of the private key.
    pub key: PathBuf,
}

/// TLS version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    Tls13,
}

/// Client certificate requirement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// Rejects connections without a client certificate.
    #[default]
    Required,
    /// Accepts connections without a client certificate.
    Optional,
}
