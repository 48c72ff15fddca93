//! Exchange of one credential with its issuer, for a command.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::runtime::Builder;

use crate::app::App;
use crate::clock::UnixTime;
use crate::gate::stop::NeedsExchange;
use crate::keys::credential::{CredentialForm, Exchanged, Outcome};
use crate::keys::exchange::ExchangeSettings;
use crate::observe::log::printable;

use super::Failure;
use super::key_sets::KeySetFetch;
use super::spinner::Spinner;

/// Exchange that a decision depends on. Displays as one line, without the credential.
#[derive(Debug)]
pub(super) struct CommandExchange {
    issuer: Arc<str>,
    form: CredentialForm,
    /// Method and URL.
    request: String,
    /// Response of the issuer; `None` if it was not asked.
    exchanged: Option<Exchanged>,
}

impl KeySetFetch {
    /// Asks the issuer of a credential, as a gate does without a result of an earlier request. Returns `None` if the
    /// issuer has no exchange.
    pub(super) fn exchange(
        &self,
        app: &App,
        needs: &NeedsExchange,
        client: Option<IpAddr>,
        now: UnixTime,
    ) -> Result<Option<CommandExchange>, Failure> {
        let Some(exchanger) = app.policy.exchanger(needs) else {
            return Ok(None);
        };
        let settings = exchanger.settings();
        let mut exchange = CommandExchange {
            issuer: Arc::clone(&settings.issuer),
            form: needs.credential.form().clone(),
            request: request(settings),
            exchanged: None,
        };
        if !self.is_offline() {
            let _spinner = Spinner::start(format_args!("asking {}", settings.url));
            let runtime = Builder::new_current_thread().enable_all().build();
            let asked = settings.ask(&needs.credential, client, now);
            exchange.exchanged = Some(runtime.map_err(Failure::other)?.block_on(asked));
        }
        Ok(Some(exchange))
    }
}

/// Method and URL of an exchange, without its query.
pub(super) fn request(settings: &ExchangeSettings) -> String {
    format!("{} {}", settings.endpoint.method(), settings.url)
}

impl CommandExchange {
    pub(super) fn exchanged(&self) -> Option<&Exchanged> {
        self.exchanged.as_ref()
    }

    /// JWT of the response. Never printed.
    pub(super) fn jwt(&self) -> Option<&str> {
        match &self.exchanged.as_ref()?.outcome {
            Outcome::Jwt(jwt) => Some(jwt),
            Outcome::Claims(_) | Outcome::Rejected | Outcome::Unavailable { .. } => None,
        }
    }

    /// The credential in words.
    pub(super) fn credential(&self) -> &CredentialForm {
        &self.form
    }

    /// The exchange for programs.
    pub(super) fn to_json(&self) -> Value {
        let outcome = self.exchanged.as_ref().map(|exchanged| &exchanged.outcome);
        let (name, cause) = match outcome {
            None => ("not_asked", None),
            Some(Outcome::Jwt(_)) => ("jwt", None),
            Some(Outcome::Claims(_)) => ("claims", None),
            Some(Outcome::Rejected) => ("rejected", None),
            Some(Outcome::Unavailable { cause, .. }) => ("unavailable", Some(printable(cause))),
        };
        json!({
            "issuer": &*self.issuer,
            "credential": self.form.to_string(),
            "request": self.request,
            "outcome": name,
            "cause": cause,
        })
    }
}

impl fmt::Display for CommandExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            issuer,
            form,
            request,
            exchanged,
        } = self;
        let is_session = *form != CredentialForm::AccessToken;
        let Some(exchanged) = exchanged else {
            return write!(
                f,
                "issuer `{issuer}` was not asked, because of `--offline`; a gate sends {form} to it: {request}"
            );
        };
        write!(f, "issuer `{issuer}`, asked about {form} ({request}), ")?;
        match &exchanged.outcome {
            Outcome::Jwt(_) => f.write_str("returned a JWT"),
            Outcome::Claims(_) if is_session => f.write_str("returned the user and the session"),
            Outcome::Claims(_) => f.write_str("reports it as active"),
            Outcome::Rejected if is_session => f.write_str("knows no such session"),
            Outcome::Rejected => f.write_str("reports it as not active"),
            Outcome::Unavailable { cause, .. } => {
                write!(f, "gave no usable response: {}", printable(cause))
            }
        }
    }
}
