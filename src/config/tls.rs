//! `[listen.tls]`: the certificate of a listener, and those of its clients.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::units;

/// `[listen.tls]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// A file of PEM certificates: the listener's own, and those that lead to a trusted authority.
    pub certificate: PathBuf,
    /// A file with its key in PEM.
    pub key: PathBuf,
    /// More certificates, for clients that ask for a name that is in them; the first is for everybody else.
    #[serde(default)]
    pub more: Vec<CertificateFiles>,
    /// The oldest version of TLS that is spoken.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// A file of PEM certificates: the authorities whose clients may come in.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// A file of PEM revocation lists: the certificates that these authorities have taken back; only with `client_ca`.
    #[serde(default)]
    pub client_crl: Option<PathBuf>,
    /// Whether a client must have a certificate; only with `client_ca`.
    #[serde(default)]
    pub client_certificate: Option<ClientAuth>,
    /// How long browsers shall come back with TLS alone; left out, they are not told.
    #[serde(default, deserialize_with = "units::optional_duration")]
    pub hsts: Option<Duration>,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// A file of PEM certificates.
    pub certificate: PathBuf,
    /// A file with its key in PEM.
    pub key: PathBuf,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    Tls13,
}

/// Whether clients have certificates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// No connection without one.
    #[default]
    Required,
    /// Those that have one show it, and the others are nobody.
    Optional,
}
