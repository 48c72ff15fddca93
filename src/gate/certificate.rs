//! Client certificates (mTLS) and certificate-bound tokens (RFC 8705).

use std::fmt;
use std::slice;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::config::CertificateField;

use super::refusal::Refusal;

/// Attributes of a verified client certificate (RFC 5280). The TLS handshake has proven that the client holds the
/// private key and that a trusted authority signed the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Subject as text (RFC 4514); empty without a subject.
    pub subject: String,
    /// DNS names of the subject alternative name extension.
    pub dns_names: Vec<String>,
    /// URIs of the subject alternative name extension, such as a SPIFFE ID.
    pub uris: Vec<String>,
    /// SHA-256 of the certificate in base64url, as in `x5t#S256` (RFC 8705 section 3.1).
    pub thumbprint: String,
}

impl ClientCertificate {
    /// Parses a certificate in DER. On failure no attribute of the client is known.
    pub fn parse(der: &[u8]) -> Option<Self> {
        let certificate = Certificate::from_der(der).ok()?;
        let certificate = certificate.tbs_certificate;
        let names = certificate.get::<SubjectAltName>().ok()?;
        let names = names.map_or_else(Vec::new, |(_, names)| names.0);
        let (mut dns_names, mut uris) = (Vec::new(), Vec::new());
        for name in &names {
            if let GeneralName::DnsName(name) = name {
                dns_names.push(name.as_str().to_owned());
            } else if let GeneralName::UniformResourceIdentifier(uri) = name {
                uris.push(uri.as_str().to_owned());
            }
        }
        Some(Self {
            subject: certificate.subject.to_string(),
            dns_names,
            uris,
            thumbprint: URL_SAFE_NO_PAD.encode(digest(&SHA256, der)),
        })
    }

    /// Values of a certificate field.
    pub(super) fn values(&self, field: CertificateField) -> &[String] {
        match field {
            CertificateField::Subject if self.subject.is_empty() => &[],
            CertificateField::Subject => slice::from_ref(&self.subject),
            CertificateField::Dns => &self.dns_names,
            CertificateField::Uri => &self.uris,
            CertificateField::Thumbprint => slice::from_ref(&self.thumbprint),
        }
    }
}

/// Returns whether a text is a thumbprint: 32 bytes in canonical base64url.
pub fn is_thumbprint(text: &str) -> bool {
    let bytes = URL_SAFE_NO_PAD.decode(text);
    bytes.is_ok_and(|bytes| bytes.len() == SHA256.output_len())
}

/// Member of `cnf` with the thumbprint (RFC 8705 section 3.1).
const THUMBPRINT: &str = "x5t#S256";

/// Certificate that a token is bound to, identified by its thumbprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    thumbprint: Arc<str>,
    /// True if clients without a certificate are rejected.
    is_required: bool,
}

impl Binding {
    /// Binding of a `cnf` claim that consists of a thumbprint alone; none for any other claim.
    pub fn of(cnf: &Value) -> Option<Self> {
        let members = cnf.as_object().filter(|members| members.len() == 1)?;
        let thumbprint = members.get(THUMBPRINT)?.as_str()?;
        is_thumbprint(thumbprint).then(|| Self {
            thumbprint: thumbprint.into(),
            is_required: true,
        })
    }

    /// Binding with `allow_bound`, which permits any `cnf`: a client may present no certificate, but not one that
    /// differs from the thumbprint.
    pub fn if_presented(cnf: &Value) -> Option<Self> {
        let thumbprint = cnf.as_object()?.get(THUMBPRINT)?.as_str();
        // An invalid thumbprint matches no certificate.
        let thumbprint = thumbprint.filter(|text| is_thumbprint(text));
        Some(Self {
            thumbprint: thumbprint.unwrap_or_default().into(),
            is_required: false,
        })
    }

    /// Compares the client certificate with the binding. Every request checks again, because the certificate belongs to
    /// the connection and not to the token.
    pub(super) fn check(&self, presented: Option<&ClientCertificate>) -> Result<(), Refusal> {
        let matches = match presented {
            Some(presented) => *presented.thumbprint == *self.thumbprint,
            None => !self.is_required,
        };
        if matches {
            Ok(())
        } else {
            Err(Refusal::TokenConfirmation)
        }
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.thumbprint)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};
    use serde_json::json;

    use super::*;

    fn certificate(subject: &[(DnType, &str)], names: Vec<SanType>) -> ClientCertificate {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (name, value) in subject {
            params.distinguished_name.push(name.clone(), *value);
        }
        params.subject_alt_names = names;
        let key = KeyPair::generate().unwrap();
        ClientCertificate::parse(params.self_signed(&key).unwrap().der()).unwrap()
    }

    #[test]
    fn formats_the_subject_unambiguously() {
        for (subject, expected) in [
            (&[][..], ""),
            (&[(DnType::CommonName, "alice")], "CN=alice"),
            (
                &[
                    (DnType::CountryName, "DE"),
                    (DnType::OrganizationName, "Ops, Inc."),
                    (DnType::CommonName, "Zoë"),
                ],
                "CN=Zoë,O=Ops\\, Inc.,C=DE",
            ),
            // Another name inside a name.
            (
                &[(DnType::CommonName, "alice,O=admins+OU=\"root\"")],
                "CN=alice\\,O=admins\\+OU=\\\"root\\\"",
            ),
            (&[(DnType::CommonName, " #a\n ")], "CN=\\ #a\\0a\\ "),
            (&[(DnType::CommonName, "#a")], "CN=\\#a"),
        ] {
            assert_eq!(certificate(subject, Vec::new()).subject, expected);
        }
    }

    #[test]
    fn reads_the_names_and_the_thumbprint() {
        let uri = "spiffe://cluster.local/ns/app/sa/web";
        let names = vec![
            SanType::DnsName("web.example".try_into().unwrap()),
            SanType::Rfc822Name("web@example.com".try_into().unwrap()),
            SanType::URI(uri.try_into().unwrap()),
            SanType::DnsName("www.example".try_into().unwrap()),
        ];
        let found = certificate(&[], names);
        assert_eq!(
            found.values(CertificateField::Dns),
            ["web.example", "www.example"]
        );
        assert_eq!(found.values(CertificateField::Uri), [uri]);
        assert_eq!(found.values(CertificateField::Thumbprint).len(), 1);
        assert!(is_thumbprint(&found.thumbprint));
        assert!(found.values(CertificateField::Subject).is_empty());
    }

    #[test]
    fn rejects_an_invalid_certificate() {
        let key = KeyPair::generate().unwrap();
        let valid = CertificateParams::default().self_signed(&key).unwrap();
        let valid = valid.der().to_vec();
        assert!(ClientCertificate::parse(&valid).is_some());
        for length in 0..valid.len() {
            assert_eq!(ClientCertificate::parse(&valid[..length]), None, "{length}");
        }
        assert_eq!(ClientCertificate::parse(&[valid, vec![0]].concat()), None);
    }

    #[test]
    fn binds_a_token_to_one_complete_thumbprint_only() {
        let presented = certificate(&[], Vec::new());
        let thumbprint = presented.thumbprint.clone();
        let binding = Binding::of(&json!({ "x5t#S256": thumbprint })).unwrap();
        assert_eq!(binding.check(Some(&presented)), Ok(()));
        let refused = Err(Refusal::TokenConfirmation);
        assert_eq!(binding.check(None), refused);
        assert_eq!(binding.check(Some(&certificate(&[], Vec::new()))), refused);
        for cnf in [
            json!(null),
            json!({}),
            json!(thumbprint),
            json!([thumbprint]),
            json!({ "x5t": thumbprint }),
            json!({ "x5t#S256": [thumbprint] }),
            json!({ "x5t#S256": "" }),
            json!({ "x5t#S256": format!("{thumbprint}=") }),
            json!({ "x5t#S256": thumbprint[1..] }),
            json!({ "x5t#S256": thumbprint, "jkt": thumbprint }),
            json!({ "jkt": thumbprint }),
        ] {
            assert_eq!(Binding::of(&cnf), None, "{cnf}");
        }
    }

    #[test]
    fn allow_bound_still_binds_to_a_presented_certificate() {
        let presented = certificate(&[], Vec::new());
        let thumbprint = presented.thumbprint.clone();
        for (cnf, matches) in [
            (json!({ "x5t#S256": thumbprint }), true),
            (json!({ "x5t#S256": thumbprint, "jkt": "x" }), true),
            (json!({ "x5t#S256": [thumbprint] }), false),
            (json!({ "x5t#S256": "" }), false),
            (json!({ "x5t#S256": null, "jkt": "x" }), false),
        ] {
            let binding = Binding::if_presented(&cnf).unwrap();
            assert_eq!(binding.check(Some(&presented)).is_ok(), matches, "{cnf}");
            assert_eq!(binding.check(None), Ok(()), "{cnf}");
            let other = certificate(&[], Vec::new());
            let refused = Err(Refusal::TokenConfirmation);
            assert_eq!(binding.check(Some(&other)), refused, "{cnf}");
        }
        for cnf in [
            json!(null),
            json!({}),
            json!(thumbprint),
            json!({ "jkt": thumbprint }),
        ] {
            assert_eq!(Binding::if_presented(&cnf), None, "{cnf}");
        }
    }
}
