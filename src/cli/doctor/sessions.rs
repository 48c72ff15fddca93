//! Test of the exchange of sessions with a Better Auth server, by a session that does not exist.

use std::time::Duration;

use http::uri::Authority;
use http::{HeaderValue, StatusCode, Uri};

use crate::cli::exchanges::request;
use crate::client::CallError;
use crate::config::{BetterAuth, SessionEndpoint, Sessions};
use crate::keys::credential::{Credential, CredentialForm};
use crate::keys::exchange::{ExchangeSettings, ProbeResponse};
use crate::keys::fetch::FetchError;
use crate::observe::log::printable;

use super::fetch_fixes;
use super::finding::Finding;

/// Session cookie of the right form, which no server has signed.
const UNKNOWN_SESSION: &str =
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// Setting of a server that shall not limit the gate.
const NO_RATE_LIMIT: &str = "`rateLimit: { customRules: { \"/token\": false, \"/jwks\": false } }`";

/// Fix of a URL that belongs to another server.
const PATH_FIX: &str = "the URL belongs to something else, such as a page of the web application: open it with curl, and compare the base \
                        path in `url` with the `basePath` of the server";

/// Exchange of sessions of one issuer.
#[derive(Debug, Clone, Copy)]
pub(super) struct SessionExchange<'a> {
    /// Name of the issuer.
    pub(super) name: &'a str,
    pub(super) server: &'a BetterAuth,
    pub(super) sessions: &'a Sessions,
    pub(super) settings: &'a ExchangeSettings,
}

impl SessionExchange<'_> {
    /// Tests endpoint, `Host` and rate limit, and explains cookie and URLs.
    pub(super) async fn check(self) -> Vec<Finding> {
        let mut findings = self.endpoint().await;
        findings.push(self.cookie());
        if self.sessions.via == SessionEndpoint::Token {
            findings.push(self.public_url());
        }
        findings
    }

    async fn endpoint(self) -> Vec<Finding> {
        let (subject, request) = (self.subject("sessions"), request(self.settings));
        let response = match probe(self.settings).await {
            Ok(response) => response,
            Err(error) => {
                let text = format!("{request}: {}", printable(&error.to_string()));
                return vec![Finding::failed(&subject, text, fix_of(&error))];
            }
        };
        if self.is_rejected(&response) {
            let max_age = Duration::from_secs(self.settings.max_age.unsigned_abs());
            let text = format!(
                "{request} rejects an unknown session; a sign-out takes effect within {}",
                humantime::format_duration(max_age)
            );
            let host = format!("the server accepts `{}`", self.host());
            return vec![
                Finding::passed(&subject, text),
                Finding::passed(&self.subject("`Host`"), host),
                self.rate_limit(),
            ];
        }
        let text = format!("{request}: status: {}", response.status);
        vec![match response.status {
            StatusCode::TOO_MANY_REQUESTS => {
                let delay = response.retry_after.map(|delay| {
                    let delay = humantime::format_duration(delay);
                    format!(", retry after {delay}")
                });
                let text = format!("{text}{}", delay.unwrap_or_default());
                let fix = format!(
                    "set {NO_RATE_LIMIT} in the server, or let it read the client address that the gate sends as `X-Forwarded-For`"
                );
                Finding::warning(&self.subject("rate limit"), text, fix)
            }
            StatusCode::INTERNAL_SERVER_ERROR => self.host_fault(&text).await,
            status => {
                let fix = self.fix_of_status(status);
                Finding::failed(&subject, text, Some(fix.to_owned()))
            }
        }]
    }

    /// Returns whether the endpoint has looked for the session, and found none.
    fn is_rejected(self, response: &ProbeResponse) -> bool {
        match (self.sessions.via, response.status) {
            (_, StatusCode::UNAUTHORIZED) => true,
            (SessionEndpoint::GetSession, StatusCode::OK) => response.body.trim_ascii() == b"null",
            _ => false,
        }
    }

    fn fix_of_status(self, status: StatusCode) -> &'static str {
        match (self.sessions.via, status) {
            (SessionEndpoint::Token, StatusCode::NOT_FOUND) => {
                "the server has no `jwt` plugin, or another base path: add the plugin, set `sessions = { via = \"get-session\" }`, or \
                 compare `url` with the `basePath` of the server"
            }
            (_, StatusCode::FORBIDDEN) => {
                "a proxy or firewall in front of the server rejects the gate: write the address of the server itself in `url`"
            }
            (_, status) if status.is_server_error() => {
                "the server or a proxy in front of it fails: look at its log"
            }
            _ => PATH_FIX,
        }
    }

    /// Finding about a server that fails: with `allowedHosts`, Better Auth fails for every other `Host`.
    async fn host_fault(self, text: &str) -> Finding {
        let subject = self.subject("`Host`");
        let public = uri(self.public());
        let public = public.as_ref().and_then(Uri::authority);
        let other = public.filter(|public| self.server.host.is_none() && *public != self.host());
        if let Some(host) = other
            && let Ok(value) = HeaderValue::try_from(host.as_str())
        {
            let mut settings = self.settings.clone();
            settings.fetcher.host = Some(value);
            let response = probe(&settings).await;
            if response.is_ok_and(|response| self.is_rejected(&response)) {
                let fix = format!("write `host = \"{host}\"` in `better_auth`");
                let mut finding = Finding::failed(
                    &subject,
                    format!("{text}: the server accepts the hosts of its `allowedHosts` alone"),
                    Some(fix),
                );
                finding
                    .suggestions
                    .push(format!("tried: the server accepts the host `{host}`"));
                return finding;
            }
        }
        let fix = format!(
            "look at the log of the server: with `allowedHosts`, it rejects the host `{}`; set `host` in `better_auth` to one of \
             those hosts",
            self.host()
        );
        Finding::failed(&subject, text, Some(fix))
    }

    fn rate_limit(self) -> Finding {
        let mut finding = Finding::passed(
            &self.subject("rate limit"),
            "not reached; in production, Better Auth allows 100 requests in 10 s for each client address, which the gate \
             sends as `X-Forwarded-For`",
        );
        finding.more.push(format!(
            "if many clients share one address, set {NO_RATE_LIMIT} in the server"
        ));
        finding
    }

    fn cookie(self) -> Finding {
        let plain = format!("{}.session_token", self.sessions.cookie_prefix);
        let url = uri(self.public());
        let scheme = url.as_ref().and_then(Uri::scheme_str).unwrap_or("http");
        let name = if scheme == "https" {
            format!("__Secure-{plain}")
        } else {
            plain
        };
        let text = format!("`{name}`, because the public URL of the server has `{scheme}`");
        let mut finding = Finding::passed(&self.subject("session cookie"), text);
        if let Some(host) = url.as_ref().and_then(Uri::host) {
            finding.more.push(format!(
                "browsers send it to the host `{host}` alone, with any port, unless the server has `crossSubDomainCookies`"
            ));
        }
        finding
    }

    fn public_url(self) -> Finding {
        let public = self.public();
        let text = if self.server.public.is_some() {
            let url = &self.server.url;
            format!("tokens must name the origin of {public}; the gate reaches the server at {url}")
        } else {
            format!(
                "tokens must name the origin of {public}; if the `baseURL` of the server differs, set `public`"
            )
        };
        Finding::passed(&self.subject("public URL"), text)
    }

    /// URL of the server as browsers reach it.
    fn public(&self) -> &str {
        self.server.public.as_ref().unwrap_or(&self.server.url)
    }

    /// `Host` of the requests.
    fn host(&self) -> &str {
        let own = self.settings.url.authority().map(Authority::as_str);
        self.server.host.as_deref().or(own).unwrap_or_default()
    }

    fn subject(self, part: &str) -> String {
        format!("{part} of issuer `{}`", self.name)
    }
}

fn uri(text: &str) -> Option<Uri> {
    text.parse().ok()
}

async fn probe(settings: &ExchangeSettings) -> Result<ProbeResponse, FetchError> {
    let form = CredentialForm::SessionCookie("better-auth.session_token".into());
    settings
        .probe(&Credential::new(form, UNKNOWN_SESSION))
        .await
}

fn fix_of(error: &FetchError) -> Option<String> {
    let ends_without_response = matches!(
        error,
        FetchError::Call(CallError::Http(_) | CallError::Truncated)
    );
    let fix = if ends_without_response {
        Some(
            "look at the log of the server: with `allowedHosts`, it can end at a request with another host; set `host` in \
             `better_auth` to one of those hosts",
        )
    } else {
        fetch_fixes::fix(error)
    };
    fix.map(str::to_owned)
}
