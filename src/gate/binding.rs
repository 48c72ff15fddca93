//! Sender-constrained tokens (RFC 7800): bound to a client certificate (RFC 8705) or to a key (`DPoP`, RFC 9449).

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::certificate::{ClientCertificate, is_thumbprint};
use super::refusal::Refusal;

/// Member of `cnf` with the thumbprint of a certificate (RFC 8705 section 3.1).
const CERTIFICATE: &str = "x5t#S256";

/// Member of `cnf` with the thumbprint of a key (RFC 9449 section 6.1).
const KEY: &str = "jkt";

/// Evidence of a request beside its token.
#[derive(Debug, Clone, Copy, Default)]
pub struct Possession<'a> {
    /// Client certificate of the connection.
    pub certificate: Option<&'a ClientCertificate>,
    /// True if the token came in the scheme `DPoP`, so that its proof is checked after the token.
    pub has_proof: bool,
}

impl<'a> From<Option<&'a ClientCertificate>> for Possession<'a> {
    fn from(certificate: Option<&'a ClientCertificate>) -> Self {
        Self {
            certificate,
            has_proof: false,
        }
    }
}

/// Certificate or key that a token is bound to, identified by its thumbprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    kind: BindingKind,
    thumbprint: Arc<str>,
    /// True if a client without the certificate or the key is rejected.
    is_required: bool,
}

/// Kind of the thumbprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindingKind {
    Certificate,
    /// Key of a `DPoP` proof.
    Key,
}

impl Binding {
    /// Binding of a `cnf` claim that consists of one thumbprint alone; none for any other claim.
    pub fn of(cnf: &Value) -> Option<Self> {
        let members = cnf.as_object().filter(|members| members.len() == 1)?;
        let (kind, thumbprint) = match (members.get(CERTIFICATE), members.get(KEY)) {
            (Some(thumbprint), None) => (BindingKind::Certificate, thumbprint.as_str()?),
            (None, Some(thumbprint)) => (BindingKind::Key, thumbprint.as_str()?),
            (Some(_), Some(_)) | (None, None) => return None,
        };
        is_thumbprint(thumbprint).then(|| Self {
            kind,
            thumbprint: thumbprint.into(),
            is_required: true,
        })
    }

    /// Binding with `allow_bound`, which permits any `cnf`: a client may present no certificate and no proof, but none that
    /// differs from the thumbprint.
    pub fn if_presented(cnf: &Value) -> Option<Self> {
        let members = cnf.as_object()?;
        let certificate = members
            .get(CERTIFICATE)
            .map(|value| (BindingKind::Certificate, value));
        let key = members.get(KEY).map(|value| (BindingKind::Key, value));
        let (kind, thumbprint) = certificate.or(key)?;
        // An invalid thumbprint matches nothing.
        let thumbprint = thumbprint.as_str().filter(|text| is_thumbprint(text));
        Some(Self {
            kind,
            thumbprint: thumbprint.unwrap_or_default().into(),
            is_required: false,
        })
    }

    pub fn kind(&self) -> BindingKind {
        self.kind
    }

    /// Thumbprint of the key, for a token that is bound to one.
    pub(super) fn key(&self) -> Option<&str> {
        (self.kind == BindingKind::Key).then_some(&*self.thumbprint)
    }

    pub(super) fn is_required(&self) -> bool {
        self.is_required
    }

    /// Compares the evidence of a request with the binding. Every request checks again, because it belongs to the request and
    /// not to the token. The proof of a key is verified after this.
    pub(super) fn check(&self, shown: Possession<'_>) -> Result<(), Refusal> {
        let matches = match (self.kind, shown.certificate) {
            (BindingKind::Key, _) => shown.has_proof || !self.is_required,
            (BindingKind::Certificate, Some(presented)) => {
                *presented.thumbprint == *self.thumbprint
            }
            (BindingKind::Certificate, None) => !self.is_required,
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
    use rcgen::{CertificateParams, KeyPair};
    use serde_json::json;

    use super::*;

    fn certificate() -> ClientCertificate {
        let key = KeyPair::generate().unwrap();
        let signed = CertificateParams::default().self_signed(&key).unwrap();
        ClientCertificate::parse(signed.der()).unwrap()
    }

    #[test]
    fn binds_a_token_to_one_complete_thumbprint_only() {
        let presented = certificate();
        let thumbprint = presented.thumbprint.clone();
        let binding = Binding::of(&json!({ "x5t#S256": thumbprint })).unwrap();
        assert_eq!(binding.check(Some(&presented).into()), Ok(()));
        let refused = Err(Refusal::TokenConfirmation);
        assert_eq!(binding.check(None.into()), refused);
        assert_eq!(binding.check(Some(&certificate()).into()), refused);
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
            json!({ "jkt": "" }),
            json!({ "jkt": [thumbprint] }),
            json!({ "jkt": format!("{thumbprint}=") }),
            json!({ "jkt": thumbprint, "kid": "a" }),
        ] {
            assert_eq!(Binding::of(&cnf), None, "{cnf}");
        }
        let bound = Binding::of(&json!({ "jkt": thumbprint })).unwrap();
        assert_eq!(bound.key(), Some(&*thumbprint));
        assert_eq!(bound.check(Some(&presented).into()), refused);
        let with_proof = Possession {
            has_proof: true,
            ..Possession::default()
        };
        assert_eq!(bound.check(with_proof), Ok(()));
    }

    #[test]
    fn allow_bound_still_binds_to_a_presented_certificate() {
        let presented = certificate();
        let thumbprint = presented.thumbprint.clone();
        for (cnf, matches) in [
            (json!({ "x5t#S256": thumbprint }), true),
            (json!({ "x5t#S256": thumbprint, "jkt": "x" }), true),
            (json!({ "x5t#S256": [thumbprint] }), false),
            (json!({ "x5t#S256": "" }), false),
            (json!({ "x5t#S256": null, "jkt": "x" }), false),
        ] {
            let binding = Binding::if_presented(&cnf).unwrap();
            assert_eq!(
                binding.check(Some(&presented).into()).is_ok(),
                matches,
                "{cnf}"
            );
            assert_eq!(binding.check(None.into()), Ok(()), "{cnf}");
            let other = certificate();
            let refused = Err(Refusal::TokenConfirmation);
            assert_eq!(binding.check(Some(&other).into()), refused, "{cnf}");
        }
        for cnf in [
            json!(null),
            json!({}),
            json!(thumbprint),
            json!({ "kid": "a" }),
        ] {
            assert_eq!(Binding::if_presented(&cnf), None, "{cnf}");
        }
    }
}
