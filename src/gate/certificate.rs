//! The certificate that a client has shown and proven to be its own, and the tokens that are good with it alone.

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

/// Client certificate (RFC 5280) whose key and chain the TLS handshake verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The subject, as text (RFC 4514); empty if it has none.
    pub subject: String,
    /// The DNS names among the subject alternative names.
    pub dns_names: Vec<String>,
    /// The URIs among the subject alternative names, as a SPIFFE ID.
    pub uris: Vec<String>,
    /// The SHA-256 of the whole certificate, as `x5t#S256` has it (RFC 8705 section 3.1).
    pub thumbprint: String,
}

impl ClientCertificate {
    /// Reads a certificate; nothing if that fails, and then nothing may be believed about its owner.
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

    /// All that a field says.
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

/// Whether text can be a thumbprint: 32 bytes in base64url, in the one way to write them.
pub fn is_thumbprint(text: &str) -> bool {
    let bytes = URL_SAFE_NO_PAD.decode(text);
    bytes.is_ok_and(|bytes| bytes.len() == SHA256.output_len())
}

/// The member of `cnf` that is a thumbprint (RFC 8705 section 3.1).
const THUMBPRINT: &str = "x5t#S256";

/// The certificate that a token is bound to, by its thumbprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    thumbprint: Arc<str>,
    /// Whether a client that shows no certificate is refused.
    must_be_shown: bool,
}

impl Binding {
    /// What the claim `cnf` says, if it is a thumbprint and nothing else.
    pub fn of(cnf: &Value) -> Option<Self> {
        let members = cnf.as_object().filter(|members| members.len() == 1)?;
        let thumbprint = members.get(THUMBPRINT)?.as_str()?;
        is_thumbprint(thumbprint).then(|| Self {
            thumbprint: thumbprint.into(),
            must_be_shown: true,
        })
    }

    /// What of `cnf` can be checked where a token may be bound to anything: if a certificate is shown, it must be that
    /// of the thumbprint, whatever else there is.
    pub fn if_shown(cnf: &Value) -> Option<Self> {
        let thumbprint = cnf.as_object()?.get(THUMBPRINT)?.as_str();
        // What is no thumbprint is that of no certificate.
        let thumbprint = thumbprint.filter(|text| is_thumbprint(text));
        Some(Self {
            thumbprint: thumbprint.unwrap_or_default().into(),
            must_be_shown: false,
        })
    }

    /// Whether this is the certificate. It belongs to the connection and not to the token: every request asks anew.
    pub(super) fn check(&self, shown: Option<&ClientCertificate>) -> Result<(), Refusal> {
        let is_good = match shown {
            Some(shown) => *shown.thumbprint == *self.thumbprint,
            None => !self.must_be_shown,
        };
        if is_good {
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
    fn a_subject_reads_in_one_way() {
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
            // The name of somebody else inside of a name.
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
    fn the_names_and_the_thumbprint_are_found() {
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
    fn what_is_no_certificate_is_none() {
        let key = KeyPair::generate().unwrap();
        let good = CertificateParams::default().self_signed(&key).unwrap();
        let good = good.der().to_vec();
        assert!(ClientCertificate::parse(&good).is_some());
        for length in 0..good.len() {
            assert_eq!(ClientCertificate::parse(&good[..length]), None, "{length}");
        }
        assert_eq!(ClientCertificate::parse(&[good, vec![0]].concat()), None);
    }

    #[test]
    fn a_token_is_bound_by_one_whole_thumbprint_and_nothing_else() {
        let shown = certificate(&[], Vec::new());
        let good = shown.thumbprint.clone();
        let binding = Binding::of(&json!({ "x5t#S256": good })).unwrap();
        assert_eq!(binding.check(Some(&shown)), Ok(()));
        let refused = Err(Refusal::TokenConfirmation);
        assert_eq!(binding.check(None), refused);
        assert_eq!(binding.check(Some(&certificate(&[], Vec::new()))), refused);
        for cnf in [
            json!(null),
            json!({}),
            json!(good),
            json!([good]),
            json!({ "x5t": good }),
            json!({ "x5t#S256": [good] }),
            json!({ "x5t#S256": "" }),
            json!({ "x5t#S256": format!("{good}=") }),
            json!({ "x5t#S256": good[1..] }),
            json!({ "x5t#S256": good, "jkt": good }),
            json!({ "jkt": good }),
        ] {
            assert_eq!(Binding::of(&cnf), None, "{cnf}");
        }
    }

    #[test]
    fn what_may_be_bound_to_anything_is_still_bound_to_the_certificate_that_is_shown() {
        let shown = certificate(&[], Vec::new());
        let good = shown.thumbprint.clone();
        for (cnf, is_good) in [
            (json!({ "x5t#S256": good }), true),
            (json!({ "x5t#S256": good, "jkt": "x" }), true),
            (json!({ "x5t#S256": [good] }), false),
            (json!({ "x5t#S256": "" }), false),
            (json!({ "x5t#S256": null, "jkt": "x" }), false),
        ] {
            let binding = Binding::if_shown(&cnf).unwrap();
            assert_eq!(binding.check(Some(&shown)).is_ok(), is_good, "{cnf}");
            assert_eq!(binding.check(None), Ok(()), "{cnf}");
            let other = certificate(&[], Vec::new());
            let refused = Err(Refusal::TokenConfirmation);
            assert_eq!(binding.check(Some(&other)), refused, "{cnf}");
        }
        for cnf in [json!(null), json!({}), json!(good), json!({ "jkt": good })] {
            assert_eq!(Binding::if_shown(&cnf), None, "{cnf}");
        }
    }
}
