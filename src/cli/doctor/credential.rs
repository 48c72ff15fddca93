//! Exchange of the credentials on the command line.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use serde_json::Value;

use crate::app::App;
use crate::clock::UnixTime;
use crate::config::{ConfigDocument, Sessions};
use crate::gate::Gate;
use crate::gate::issuer_id::IssuerId;
use crate::gate::refusal::Refusal;
use crate::gate::token::{SessionSource, is_opaque, is_session_token};
use crate::keys::credential::{Credential, CredentialForm, Outcome};
use crate::keys::exchange::ExchangeSettings;
use crate::observe::log::printable;

use super::finding::Finding;
use super::verify;

/// Credentials of one command, and the gate that verifies the JWT of an exchange.
#[derive(Debug, Clone, Copy)]
pub(super) struct CredentialTest<'a> {
    pub(super) document: &'a ConfigDocument,
    pub(super) app: &'a App,
    pub(super) gate: &'a Gate,
    pub(super) now: UnixTime,
}

impl CredentialTest<'_> {
    /// Exchanges the session cookie among these cookies with its issuer.
    pub(super) async fn cookies(self, cookies: &str) -> Finding {
        let subject = "cookie";
        let Ok(value) = HeaderValue::from_str(cookies) else {
            let text = "has characters that are invalid in a header";
            return Finding::failed(subject, text, None);
        };
        let headers = HeaderMap::from_iter([(COOKIE, value)]);
        let mut expected = Vec::new();
        for (index, issuer) in self.gate.issuers().iter().enumerate() {
            let (Some(sessions), Some(settings)) =
                (self.sessions(&issuer.name), self.session_exchange(index))
            else {
                continue;
            };
            let Some(source) = SessionSource::new(IssuerId(index), &sessions.cookie_prefix) else {
                continue;
            };
            match source.credential(&headers) {
                Ok(Some(credential)) => return self.exchange(subject, settings, &credential).await,
                Ok(None) => expected.push(source.cookie().to_owned()),
                Err(refusal) => {
                    let text = format!("{}: {}", refusal.reason(), refusal.detail());
                    let fix = "copy its whole value, as the browser sends it".to_owned();
                    return Finding::failed(subject, text, Some(fix));
                }
            }
        }
        if expected.is_empty() {
            let fix = "set `sessions = true` in `better_auth` of an issuer".to_owned();
            return Finding::failed(subject, "no issuer has sessions", Some(fix));
        }
        let names = expected.join("` or `");
        let text = format!("none of its names is `{names}`, with or without `__Secure-`");
        let fix = other_prefix(cookies).map_or_else(
            || "copy the session cookie from the developer tools of the browser".to_owned(),
            |prefix| format!("write `sessions = {{ cookie_prefix = \"{prefix}\" }}`"),
        );
        Finding::failed(subject, text, Some(fix))
    }

    /// Verifies a token. Asks the issuers about an opaque one, and about a JWT of an issuer that introspects.
    pub(super) async fn token(self, token: &str) -> Vec<Finding> {
        let subject = "token";
        let mut findings = Vec::new();
        if !is_opaque(token) && !is_session_token(token) {
            let (finding, issuer) = verify(self.document, self.gate, subject, token, self.now);
            findings.push(finding);
            let settings = issuer.and_then(|issuer| self.introspection(issuer.0));
            if let Some(settings) = settings {
                let credential = Credential::new(CredentialForm::AccessToken, token);
                findings.push(self.exchange(subject, settings, &credential).await);
            }
            return findings;
        }
        for index in 0..self.gate.issuers().len() {
            if let Some(settings) = self.introspection(index)
                && is_opaque(token)
            {
                let credential = Credential::new(CredentialForm::AccessToken, token);
                findings.push(self.exchange(subject, settings, &credential).await);
            }
            if let Some(settings) = self.session_exchange(index)
                && is_session_token(token)
            {
                let credential = Credential::new(CredentialForm::SessionToken, token);
                findings.push(self.exchange(subject, settings, &credential).await);
            }
        }
        // A token has one issuer: that the others do not know it is no failure.
        if findings.iter().any(|finding| !finding.is_failure()) {
            findings.retain(|finding| !finding.is_failure());
        }
        if findings.is_empty() {
            let (finding, _) = verify(self.document, self.gate, subject, token, self.now);
            findings.push(finding);
        }
        findings
    }

    /// Asks the issuer about a credential, and verifies the JWT that it returns.
    async fn exchange(
        self,
        subject: &str,
        settings: &ExchangeSettings,
        credential: &Credential,
    ) -> Finding {
        let (name, form) = (&settings.issuer, credential.form());
        let refusal = match form {
            CredentialForm::SessionCookie(_) | CredentialForm::SessionToken => {
                Refusal::SessionInvalid
            }
            CredentialForm::AccessToken => Refusal::TokenInactive,
        };
        let exchanged = settings.ask(credential, None, self.now).await;
        match &exchanged.outcome {
            Outcome::Jwt(jwt) => {
                let (mut finding, _) = verify(self.document, self.gate, subject, jwt, self.now);
                finding.more.insert(
                    0,
                    format!("{form}, exchanged for a JWT at {}", settings.url),
                );
                finding
            }
            Outcome::Claims(json) => {
                let user = subject_of(json);
                let text = format!("accepted: issuer `{name}`, subject `{}`", printable(&user));
                let mut finding = Finding::passed(subject, text);
                finding
                    .more
                    .push(format!("{form}, asked about at {}", settings.url));
                finding
            }
            Outcome::Rejected => {
                let text = format!("rejected by issuer `{name}` ({})", refusal.reason());
                Finding::failed(subject, text, Some(refusal.row().hint.to_owned()))
            }
            Outcome::Unavailable { cause, .. } => {
                let text = format!(
                    "issuer `{name}`, asked about {form} at {}, gave no usable response: {}",
                    settings.url,
                    printable(cause)
                );
                Finding::failed(subject, text, None)
            }
        }
    }

    fn sessions(&self, name: &str) -> Option<&Sessions> {
        let server = self
            .document
            .config
            .issuers
            .get(name)?
            .better_auth
            .as_ref()?;
        server.sessions.0.as_ref()
    }

    fn session_exchange(&self, issuer: usize) -> Option<&ExchangeSettings> {
        let exchangers = self.app.policy.exchangers.get(issuer)?;
        Some(exchangers.sessions.as_ref()?.settings())
    }

    fn introspection(&self, issuer: usize) -> Option<&ExchangeSettings> {
        let exchangers = self.app.policy.exchangers.get(issuer)?;
        Some(exchangers.introspection.as_ref()?.settings())
    }
}

/// `sub` of claims; empty without one.
fn subject_of(json: &[u8]) -> String {
    let claims: Value = serde_json::from_slice(json).unwrap_or_default();
    let subject = claims.get("sub").and_then(Value::as_str);
    subject.unwrap_or_default().to_owned()
}

/// Prefix of another session cookie of Better Auth.
fn other_prefix(cookies: &str) -> Option<&str> {
    let mut names = cookies.split(';').filter_map(|pair| {
        let (name, _) = pair.trim().split_once('=')?;
        name.strip_suffix(".session_token")
    });
    let prefix = names.next()?;
    Some(prefix.strip_prefix("__Secure-").unwrap_or(prefix))
}
