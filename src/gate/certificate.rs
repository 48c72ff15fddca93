//! Client certificates (mTLS).

use std::slice;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::config::CertificateField;

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

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

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
}
