//! Credentials that only their issuer can verify, and the responses of the issuer about them.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};

use crate::clock::UnixTime;

/// SHA-256 of a credential and its form.
pub type CredentialDigest = [u8; 32];

/// Credential that only its issuer can verify. Never printed.
pub struct Credential {
    form: CredentialForm,
    text: Box<str>,
    digest: CredentialDigest,
    may_refresh: bool,
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

impl fmt::Display for CredentialForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SessionCookie(name) => write!(f, "the session cookie `{name}`"),
            Self::SessionToken => f.write_str("the session token"),
            Self::AccessToken => f.write_str("the access token"),
        }
    }
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
            may_refresh: true,
        }
    }

    /// Returns the credential of a session that must not be extended: it ends with the browser.
    #[must_use]
    pub fn without_refresh(self) -> Self {
        Self {
            may_refresh: false,
            ..self
        }
    }

    /// Returns whether the issuer may extend the session.
    pub(super) fn may_refresh(&self) -> bool {
        self.may_refresh
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

/// Response of an issuer about one credential.
#[derive(Debug, Clone)]
pub struct Exchanged {
    /// Name of the issuer in the configuration.
    pub issuer: Arc<str>,
    /// Credential that it is about.
    pub credential: CredentialDigest,
    pub outcome: Outcome,
    /// Start of the exchange.
    pub at: UnixTime,
    /// First second at which the response is too old to use.
    pub fresh_until: UnixTime,
}

/// Content of a response. Never printed.
#[derive(Clone)]
pub enum Outcome {
    /// JWT of a session.
    Jwt(Arc<str>),
    /// JSON object with the claims of an active token, or with user and session.
    Claims(Arc<[u8]>),
    /// The credential is not valid.
    Rejected,
    /// The issuer gave no usable response.
    Unavailable {
        /// Seconds until another attempt is useful.
        retry_after: u64,
        /// Cause, for the log.
        cause: Arc<str>,
    },
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Jwt(_) => f.write_str("Jwt(..)"),
            Self::Claims(_) => f.write_str("Claims(..)"),
            Self::Rejected => f.write_str("Rejected"),
            Self::Unavailable { cause, .. } => write!(f, "Unavailable({cause})"),
        }
    }
}
