//! Credentials that only their issuer can verify.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};

/// SHA-256 of a credential and its form.
pub type CredentialDigest = [u8; 32];

/// Credential that only its issuer can verify. Never printed.
pub struct Credential {
    form: CredentialForm,
    text: Box<str>,
    digest: CredentialDigest,
}

/// Form of a credential, which decides how it is sent to the issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialForm {
    /// Value of a session cookie, as it came, and the name of the cookie.
    SessionCookie(Arc<str>),
    /// Session token in `Authorization: Bearer`.
    SessionToken,
    /// OAuth access token: opaque, or a JWT that is verified already.
    AccessToken,
}

impl Credential {
    pub fn new(form: CredentialForm, text: &str) -> Self {
        let kind: &[u8] = match &form {
            CredentialForm::SessionCookie(_) => b"session cookie\0",
            CredentialForm::SessionToken => b"session token\0",
            CredentialForm::AccessToken => b"access token\0",
        };
        let mut context = Context::new(&SHA256);
        context.update(kind);
        if let CredentialForm::SessionCookie(name) = &form {
            context.update(name.as_bytes());
            context.update(b"\0");
        }
        context.update(text.as_bytes());
        let mut digest = CredentialDigest::default();
        for (to, from) in digest.iter_mut().zip(context.finish().as_ref()) {
            *to = *from;
        }
        Self {
            form,
            text: text.into(),
            digest,
        }
    }

    pub fn form(&self) -> &CredentialForm {
        &self.form
    }

    pub fn digest(&self) -> &CredentialDigest {
        &self.digest
    }

    /// Text of the credential, for its issuer only.
    pub(super) fn expose(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Credential {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Credential {}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(..)")
    }
}
